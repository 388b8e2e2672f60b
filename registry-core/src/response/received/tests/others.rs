//! What each response of another registry, or of a proxy in front of it, means.

use super::*;

#[test]
fn a_session_has_any_url() {
    // registry:2, by default and with relative URLs; AWS and others have hosts and paths of their own.
    for location in [
        "https://registry.example/v2/a/blobs/uploads/6b3c?_state=aGVsbG8%3D%3D",
        "/v2/a/blobs/uploads/6b3c?_state=aGVsbG8%3D%3D",
        "https://bucket.example/upload/1?X-Signature=a%2Fb",
        "6b3c",
    ] {
        let fields = [
            ("Location", location),
            ("Range", "0-0"),
            ("OCI-Chunk-Min-Length", "5242880"),
        ];
        let started = Wire::new(202, &fields, "").received().upload_started().unwrap();
        assert_eq!((started.offset, started.minimum_chunk), (0, Some(5_242_880)));
        assert_eq!(started.append(None).target, location);
        let finish = started.finish(&known(), Some(0));
        let separator = if location.contains('?') { '&' } else { '?' };
        assert_eq!(finish.target, format!("{location}{separator}digest={}", known()));
        assert_eq!(finish.fields[1..], [("Content-Length", "0".into())]);
        let chunk = started.append(Some(10));
        assert_eq!(chunk.fields[1], ("Content-Range", "0-9".into()));
    }
    for fields in [&[][..], &[("Location", "")], &[("Location", "/a b")]] {
        let started = Wire::new(202, fields, "").received().upload_started();
        assert_eq!(started, Err(Malformed::Field("Location").into()));
    }
}

#[test]
fn an_offset_is_what_the_range_says() {
    let before = session("/upload", 0);
    for (range, sent, offset) in [
        (Some("0-99"), 100, Some(100)),
        (Some("bytes=0-99"), 100, Some(100)),
        (Some("0-49"), 100, Some(50)),
        (Some("0-0"), 0, Some(0)),
        (Some("0-0"), 1, Some(1)),
        (Some("0-0"), 100, Some(0)),
        (Some("0--1"), 0, Some(0)),
        (Some("0-100"), 100, None),
        (Some("0-18446744073709551615"), 100, Some(100)),
        (Some("1-5"), 100, Some(100)),
        (Some("x"), 100, Some(100)),
        (None, 100, Some(100)),
    ] {
        let fields: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
        let accepted = Wire::new(202, &fields, "")
            .received()
            .chunk_accepted(&before, sent);
        let found = accepted.map(|session| (session.offset, session.location));
        let expected = offset.map(|offset| (offset, before.location.clone()));
        assert_eq!(found.ok(), expected, "{range:?} {sent}");
    }
    // Without a range, a status says nothing.
    let status = Wire::new(204, &[("Location", "/upload")], "")
        .received()
        .upload_status(&before, 1);
    assert_eq!(status, Err(Malformed::Field("Range").into()));
}

#[test]
fn content_needs_no_digest_and_no_size() {
    let digest = known();
    let blob = Wire::new(200, &[], "").received().blob(&digest).unwrap();
    assert_eq!((blob.size, blob.part), (None, BlobPart::Whole));
    let tag = Reference::Tag("v1".parse().unwrap());
    let manifest = Wire::new(200, &[], "").received().manifest(&tag).unwrap();
    assert_eq!(
        (
            manifest.digest.as_ref(),
            manifest.media_type.as_ref(),
            manifest.size
        ),
        (None, None, None)
    );
    assert_eq!(manifest.verify(b"content"), Ok(digest.clone()));
    // A proxy compresses.
    let fields = [("Content-Length", "9"), ("Content-Encoding", "gzip")];
    assert_eq!(
        Wire::new(200, &fields, "").received().blob(&digest).unwrap().size,
        None
    );
    // The media type is there with a parameter.
    let fields = [(
        "Content-Type",
        "application/vnd.oci.image.index.v1+json; charset=utf-8",
    )];
    let manifest = Wire::new(200, &fields, "").received().manifest(&tag).unwrap();
    assert_eq!(manifest.media_type.unwrap().as_str(), MediaType::OCI_INDEX);
}

#[test]
fn another_digest_of_the_same_algorithm_is_other_content() {
    let (digest, other) = (known(), Digest::of(Algorithm::Sha256, b"other"));
    let stronger = Digest::of(Algorithm::Sha512, b"content");
    let is_refused = |stated: &Digest| {
        let wire = Wire::new(200, &[("Docker-Content-Digest", stated.as_str())], "");
        let results = [
            wire.received().blob(&digest).err(),
            wire.received().manifest(&Reference::Digest(digest.clone())).err(),
            wire.received().blob_created(&digest).err(),
            wire.received().manifest_created(&digest).err(),
        ];
        let refused = results
            .iter()
            .filter(|result| **result == Some(Malformed::OtherDigest(stated.clone()).into()));
        refused.count()
    };
    assert_eq!(
        (is_refused(&digest), is_refused(&stronger), is_refused(&other)),
        (0, 0, 4)
    );
}

#[test]
fn a_part_says_which_it_is() {
    let digest = known();
    let part = |name: &str, value: &str| {
        let received = Wire::new(206, &[(name, value)], "");
        received
            .received()
            .blob(&digest)
            .map(|blob| (blob.part, blob.size))
    };
    assert_eq!(
        part("Content-Range", "bytes 5-9/10"),
        Ok((BlobPart::Range(5..10), Some(10)))
    );
    assert_eq!(
        part("Content-Range", "bytes 5-9/*"),
        Ok((BlobPart::Range(5..10), None))
    );
    for boundary in ["THIS", "\"THIS\""] {
        let value = format!("Multipart/ByteRanges; charset=x; Boundary={boundary}");
        let multipart = BlobPart::Multipart {
            boundary: "THIS".into(),
        };
        assert_eq!(part("Content-Type", &value), Ok((multipart, None)));
    }
    for (name, value) in [
        ("Content-Range", "bytes 9-5/10"),
        ("Content-Range", "bytes 5-10/10"),
        ("Content-Range", "bytes */10"),
        ("Content-Range", "bytes 0-18446744073709551615/*"),
        ("Content-Type", "application/octet-stream"),
        ("Content-Type", "multipart/byteranges; boundary="),
    ] {
        assert_eq!(
            part(name, value),
            Err(Malformed::Field("Content-Range").into()),
            "{value}"
        );
    }
    let wire = Wire::new(416, &[("Content-Range", "bytes */10")], "");
    assert_eq!(refused(wire.received().blob(&digest)).size, Some(10));
}

#[test]
fn an_error_has_any_body() {
    let refusal = |status, body: &str| refused(Wire::new(status, &[], body).received().manifest_deleted());
    // quay has a detail that is an object, and Go writes `null` for none.
    let quay = refusal(
        401,
        r#"{"errors":[{"code":"UNAUTHORIZED","detail":{"a":1},"message":"access"},{"code":"NEW","detail":null}]}"#,
    );
    assert_eq!(quay.errors[0].detail.as_deref(), Some(r#"{"a":1}"#));
    assert_eq!((quay.errors[1].code, &*quay.errors[1].code_text), (None, "NEW"));
    assert_eq!(
        quay.to_string(),
        "the registry answered 401: UNAUTHORIZED: access"
    );
    // The code decides rather than the status, and its status if several have its text.
    for (status, text, code) in [
        (400, "MANIFEST_UNKNOWN", ErrorCode::ManifestUnknown),
        (416, "BLOB_UPLOAD_INVALID", ErrorCode::RangeInvalid),
        (404, "BLOB_UPLOAD_INVALID", ErrorCode::BlobUploadInvalid),
        (405, "UNSUPPORTED", ErrorCode::MethodNotAllowed),
    ] {
        let body = format!(r#"{{"errors":[{{"code":"{text}"}}]}}"#);
        assert_eq!(refusal(status, &body).code(), Some(code), "{status} {text}");
    }
    for body in [
        "",
        "<html><h1>504 Gateway Time-out</h1>",
        "null",
        r#"{"errors":null}"#,
        r#"{"errors":{}}"#,
        r#"{"message":"x"}"#,
        &"[".repeat(10_000),
    ] {
        let refusal = refusal(504, body);
        assert_eq!(
            (refusal.errors.len(), refusal.code()),
            (0, Some(ErrorCode::Unavailable)),
            "{body}"
        );
        assert!(refusal.is_temporary());
    }
    for entry in ["1", "null", "[]", "{}", r#"{"code":7}"#] {
        let refusal = refusal(404, &format!(r#"{{"errors":[{entry}]}}"#));
        assert_eq!(
            (refusal.errors.len(), refusal.code()),
            (1, Some(ErrorCode::ManifestUnknown)),
            "{entry}"
        );
    }
    let line = refusal(400, r#"{"errors":[{"code":"A\nB","message":"\u001b[31m"}]}"#).to_string();
    assert_eq!(line, "the registry answered 400: A\\nB: \\u{1b}[31m");
}

#[test]
fn a_missing_resource_is_the_one_that_was_requested() {
    for status in [404, 410] {
        let wire = Wire::new(status, &[], "");
        let received = wire.received();
        for (refusal, code) in [
            (refused(received.version()), ErrorCode::PathUnknown),
            (refused(received.tags()), ErrorCode::NameUnknown),
            (refused(received.blob(&known())), ErrorCode::BlobUnknown),
            (refused(received.blob_deleted()), ErrorCode::BlobUnknown),
            (refused(received.manifest_deleted()), ErrorCode::ManifestUnknown),
            (refused(received.upload_cancelled()), ErrorCode::BlobUploadUnknown),
        ] {
            assert_eq!(refusal.code(), Some(code));
        }
    }
}

#[test]
fn a_client_waits_as_long_as_it_is_asked_to() {
    let now = Timestamp(784_111_777_000);
    let wait = |value: &str| {
        let wire = Wire::new(429, &[("Retry-After", value)], "");
        Some(
            refused(wire.received().version())
                .retry_after?
                .delay(now)
                .as_secs(),
        )
    };
    assert_eq!(wait("60"), Some(60));
    assert_eq!(wait("99999999999999999999"), Some(u64::from(u32::MAX)));
    assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
    for text in [
        "",
        "-1",
        "1.5",
        "soon",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
    ] {
        assert_eq!(wait(text), None, "{text}");
    }
}

#[test]
fn a_status_that_answers_nothing_is_malformed() {
    for status in [0, 100, 206, 299, 300, 305, 600, 999] {
        let received = Wire::new(status, &[("Location", "/x")], "").received().version();
        assert_eq!(received, Err(Malformed::Status(status).into()));
    }
    let received = Wire::new(307, &[], "").received().version();
    assert_eq!(received, Err(Malformed::Field("Location").into()));
}
