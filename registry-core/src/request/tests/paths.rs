use super::*;

#[test]
fn every_method_of_every_path_is_an_endpoint_or_refused_with_allow() {
    let digest = sha256();
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "",
    ];
    // The path, and what GET, HEAD, POST, PUT, PATCH and DELETE of it are.
    let table: [(String, [&str; 6]); 12] = [
        ("/v2/".into(), ["Version", "Version", "", "", "", ""]),
        ("/v2".into(), ["Version", "Version", "", "", "", ""]),
        (
            "/v2/_catalog".into(),
            ["ListRepositories", "ListRepositories", "", "", "", ""],
        ),
        (
            "/v2/a/b/_registry/repository".into(),
            ["", "", "", "", "", "DeleteRepository"],
        ),
        (
            "/v2/a/b/_registry/tags/history".into(),
            ["ListTagHistory", "ListTagHistory", "", "", "", ""],
        ),
        (
            "/v2/a/b/_registry/tags/restore?tag=v1".into(),
            ["", "", "RestoreTag", "", "", ""],
        ),
        (
            "/v2/a/b/tags/list".into(),
            ["ListTags", "ListTags", "", "", "", ""],
        ),
        (
            format!("/v2/a/b/referrers/{digest}"),
            ["ListReferrers", "ListReferrers", "", "", "", ""],
        ),
        (
            format!("/v2/a/b/blobs/{digest}"),
            ["GetBlob", "HeadBlob", "", "", "", "DeleteBlob"],
        ),
        (
            "/v2/a/b/manifests/v1".into(),
            [
                "GetManifest",
                "HeadManifest",
                "",
                "PutManifest",
                "",
                "DeleteManifest",
            ],
        ),
        (
            "/v2/a/b/blobs/uploads/".into(),
            ["", "", "StartUpload", "", "", ""],
        ),
        (
            format!("/v2/a/b/blobs/uploads/{UPLOAD}?digest={digest}"),
            [
                "UploadStatus",
                "UploadStatus",
                "",
                "FinishUpload",
                "AppendUpload",
                "CancelUpload",
            ],
        ),
    ];
    for (target, kinds) in &table {
        let allowed: Vec<&str> = methods
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| !kind.is_empty())
            .map(|(method, _)| *method)
            .collect();
        for (at, method) in methods.iter().enumerate() {
            match kinds.get(at).filter(|kind| !kind.is_empty()) {
                Some(expected) => assert_eq!(&kind(&accepted(method, target)), expected, "{method} {target}"),
                None => {
                    let error = parse(method, target, &[]).unwrap_err();
                    assert_eq!(error.code(), ErrorCode::MethodNotAllowed, "{method} {target}");
                    let mut listed: Vec<&str> = error.fields()[0].1.split(", ").collect();
                    let mut allowed = [allowed.as_slice(), &["OPTIONS"]].concat();
                    listed.sort_unstable();
                    allowed.sort_unstable();
                    assert_eq!((error.fields()[0].0, listed), ("Allow", allowed), "{target}");
                }
            }
        }
    }
}

#[test]
fn options_has_the_methods_of_each_path_and_of_no_other() {
    for (target, methods) in [
        ("/v2/", Some("GET, HEAD, OPTIONS")),
        ("/v2/a/b/manifests/v1?x", Some("GET, HEAD, PUT, DELETE, OPTIONS")),
        ("/v2/a/blobs/uploads/", Some("POST, OPTIONS")),
        ("/", None),
        ("/v1/", None),
        ("/v2/a/%zz", None),
    ] {
        assert_eq!(allowed_methods(target), methods, "{target}");
    }
    assert_eq!(refused("OPTIONS", "/v2/"), ErrorCode::MethodNotAllowed);
}

#[test]
fn an_unclean_path_leads_to_the_clean_one_of_an_endpoint() {
    for (target, clean) in [
        ("//v2/", Some("/v2/")),
        ("/v2//", Some("/v2/")),
        ("//v2", Some("/v2/")),
        ("/v2/_catalog/?n=1", Some("/v2/_catalog?n=1")),
        ("/v2/a//b/tags/list/", Some("/v2/a/b/tags/list")),
        ("/v2/a/manifests/v1/", Some("/v2/a/manifests/v1")),
        ("/v2/./_catalog?n=1", Some("/v2/_catalog?n=1")),
        ("/v2/../v2/", Some("/v2/")),
        ("/v2/a/../../../v2/b/./tags/list", Some("/v2/b/tags/list")),
        ("/v2/a/./tags/list", Some("/v2/a/tags/list")),
        ("/v2/%2e/_catalog", Some("/v2/_catalog")),
        ("/v2/a%2F%2Fb/tags/list", Some("/v2/a/b/tags/list")),
        ("//v2/a/tags/list%3Fx?y", None),
        (
            "//v2/a/manifests/x%3F%20%0D?y=%20",
            Some("/v2/a/manifests/x%3F%20%0D?y=%20"),
        ),
        ("//", Some("/")),
        ("//?a=b", Some("/?a=b")),
        ("/..", Some("/")),
        ("/v2/../", Some("/")),
        // Never another host.
        ("//evil.example", None),
        ("//evil.example/v2/", None),
        ("/.//evil.example/", None),
        ("/v2/..//evil.example/v2/", None),
        ("//evil.example/../v2/", Some("/v2/")),
        ("//evil.example/..", Some("/")),
        ("/%5Cevil.example/../v2/", Some("/v2/")),
        ("/", None),
        ("*", None),
        ("", None),
        ("/v2/", None),
        ("/v2/_catalog", None),
        ("/v2/a/blobs/uploads/", None),
        ("/v2/a/blobs/uploads", None),
        ("/v2/a/manifests/.v1", None),
        ("/v2/a%2fb/tags/list", None),
        ("/v3//", None),
        ("/v3/./", None),
        ("//v2/%zz", None),
    ] {
        assert_eq!(clean_target(target).as_deref(), clean, "{target}");
    }
}

#[test]
fn names_may_hold_the_words_of_the_endpoints() {
    let digest = sha256();
    for (method, target, kind_of, repository) in [
        (
            "GET",
            "/v2/a/manifests/tags/list".into(),
            "ListTags",
            "a/manifests",
        ),
        ("GET", "/v2/a/tags/manifests/list".into(), "GetManifest", "a/tags"),
        (
            "GET",
            "/v2/tags/list/manifests/blobs".into(),
            "GetManifest",
            "tags/list",
        ),
        (
            "POST",
            "/v2/a/manifests/blobs/uploads".into(),
            "StartUpload",
            "a/manifests",
        ),
        (
            "POST",
            "/v2/blobs/uploads/blobs/uploads/".into(),
            "StartUpload",
            "blobs/uploads",
        ),
        (
            "GET",
            "/v2/a/blobs/uploads/tags/list".into(),
            "ListTags",
            "a/blobs/uploads",
        ),
        (
            "GET",
            "/v2/a/blobs/uploads/manifests/uploads".into(),
            "GetManifest",
            "a/blobs/uploads",
        ),
        (
            "PUT",
            "/v2/a/blobs/manifests/uploads".into(),
            "PutManifest",
            "a/blobs",
        ),
        ("GET", format!("/v2/blobs/blobs/{digest}"), "GetBlob", "blobs"),
        (
            "GET",
            format!("/v2/a/blobs/uploads/blobs/uploads/{UPLOAD}/"),
            "UploadStatus",
            "a/blobs/uploads",
        ),
        (
            "GET",
            format!("/v2/referrers/referrers/{digest}"),
            "ListReferrers",
            "referrers",
        ),
        (
            "GET",
            format!("/v2/a%2Fb/blobs/{}", digest.replace(':', "%3A")),
            "GetBlob",
            "a/b",
        ),
    ] {
        let request = accepted(method, &target);
        assert_eq!(
            (kind(&request).as_str(), repository_of(&request).as_str()),
            (kind_of, repository),
            "{target}"
        );
    }
}
