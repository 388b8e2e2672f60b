use super::*;

#[test]
fn if_range_decides_whether_the_range_counts() {
    let digest = sha256();
    let quoted = format!("\"{digest}\"");
    for (condition, is_kept) in [
        (None, true),
        (Some(quoted.clone()), true),
        (Some(format!("W/{quoted}")), false),
        (Some("\"other\"".into()), false),
        (Some(digest.clone()), false),
        (Some("Wed, 21 Oct 2015 07:28:00 GMT".into()), false),
    ] {
        let mut fields = vec![("range", "bytes=0-1")];
        fields.extend(condition.as_deref().map(|value| ("if-range", value)));
        let request = parse("GET", &format!("/v2/a/blobs/{digest}"), &fields).unwrap();
        let Request::GetBlob { range, .. } = request else {
            panic!("not a read")
        };
        assert_eq!(range.is_some(), is_kept, "{condition:?}");
    }
}

#[test]
fn conditions_name_digests() {
    let (digest, other) = (sha256(), format!("sha256:{}", "0".repeat(64)));
    let read = |value: &str, weak| EntityTags::parse(value, weak);
    let both = EntityTags::Digests(vec![digest.parse().unwrap(), other.parse().unwrap()]);
    assert_eq!(read(" * ", true), EntityTags::Any);
    assert_eq!(read(&format!("W/\"{digest}\", \"x\",\"{other}\""), true), both);
    assert_eq!(
        read(&format!("W/\"{digest}\""), false),
        EntityTags::Digests(vec![])
    );
    // Without quotes it is no entity tag, but scripts send what `Docker-Content-Digest` says, and registry:2 takes it.
    assert_eq!(read(&format!("{digest}, {other}"), true), both);
    assert_eq!(read(&format!("{digest},\"{other}\""), false), both);
    for half in [format!("\"{digest}"), format!("{digest}\"")] {
        assert_eq!(read(&half, true), EntityTags::Digests(vec![]));
    }
    // Several lines of one field are one list.
    let fields = [
        ("If-None-Match", format!("\"{digest}\"")),
        ("if-none-match", format!("\"{other}\"")),
    ];
    let request = Request::parse("HEAD", "/v2/a/manifests/v1", fields.as_slice()).unwrap();
    let Request::HeadManifest { if_none_match, .. } = request else {
        panic!("not a HEAD")
    };
    assert_eq!(if_none_match, Some(both));
}
