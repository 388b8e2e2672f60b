use super::*;

#[test]
fn a_chunk_is_appended_where_it_says() {
    let target = format!("/v2/a/blobs/uploads/{}", id());
    let unknown = format!("/v2/a/blobs/uploads/{}", UploadId::from_random(8));
    // Range, length, body; the status, and the session's content afterwards.
    for (fields, body, status, after) in [
        (vec![], &[b"lo".as_slice()][..], 202, "hello"),
        (
            vec![("content-range", "3-4")],
            &[b"l".as_slice(), b"o"],
            202,
            "hello",
        ),
        (
            vec![("content-range", "3-4"), ("content-length", "2")],
            &[b"lo"],
            202,
            "hello",
        ),
        (vec![("content-length", "0")], &[], 202, "hel"),
        (vec![("content-range", "0-1")], &[b"lo"], 416, "hel"),
        (vec![("content-range", "4-5")], &[b"lo"], 416, "hel"),
        (
            vec![("content-range", "3-4"), ("content-length", "3")],
            &[b"lo!"],
            400,
            "hel",
        ),
        (vec![("content-range", "3-4")], &[b"l", b"o!"], 400, "hell"),
        (vec![("content-range", "3-6")], &[b"lo"], 400, "hello"),
        (vec![("content-range", "3-4")], &[], 400, "hel"),
    ] {
        let registry = registry(Tiny {
            upload: b"hel".to_vec().into(),
            ..Tiny::default()
        });
        let (response, rest) = send(&registry, "PATCH", &target, &fields, body);
        assert_eq!(response.status, status, "{fields:?} {body:?}");
        assert_eq!(&*registry.storage.upload.lock().unwrap(), after.as_bytes());
        if status == 416 {
            assert_eq!(rest, body.len(), "the body was read");
        }
        if status == 202 {
            assert_eq!(response.field("range").unwrap(), format!("0-{}", after.len() - 1));
        }
        let length = after.len() - 1;
        assert_eq!(
            get(&registry, &target).field("range").unwrap(),
            format!("0-{length}")
        );
        assert_eq!(
            code(&get(&registry, &unknown)),
            Some(ErrorCode::BlobUploadUnknown)
        );
    }
}

#[test]
fn the_last_chunk_rides_on_the_closing_put() {
    let target = format!("/v2/a/blobs/uploads/{}?digest={}", id(), hello());
    for (before, fields, body, status, log) in [
        ("hello", vec![("content-length", "0")], &[][..], 201, "commit;"),
        ("hello", vec![], &[], 201, "commit;"),
        ("hello", vec![], &[b"".as_slice()], 201, "commit;"),
        ("hel", vec![], &[b"", b"l", b"o"], 201, "append;commit;"),
        (
            "hel",
            vec![("content-length", "2")],
            &[b"lo"],
            201,
            "append;commit;",
        ),
        (
            "hel",
            vec![("content-range", "3-4")],
            &[b"lo"],
            201,
            "append;commit;",
        ),
        ("hel", vec![("content-range", "2-3")], &[b"lo"], 416, "append;"),
        (
            "hel",
            vec![("content-range", "3-4"), ("content-length", "0")],
            &[],
            400,
            "commit;",
        ),
        (
            "hello",
            vec![("content-range", "0-4"), ("content-length", "0")],
            &[],
            201,
            "commit;",
        ),
        ("hello", vec![("content-range", "0-4")], &[], 201, "commit;"),
        // The range of the whole blob.
        (
            "hel",
            vec![("content-range", "0-4"), ("content-length", "2")],
            &[b"lo"],
            201,
            "append;commit;",
        ),
        (
            "hel",
            vec![("content-range", "2-3"), ("content-length", "2")],
            &[b"lo"],
            416,
            "append;",
        ),
        ("hel", vec![("content-range", "3-5")], &[b"lo"], 400, "append;"),
        ("hel", vec![], &[b"p"], 400, "append;commit;"),
    ] {
        let registry = registry(Tiny {
            upload: before.as_bytes().to_vec().into(),
            ..Tiny::default()
        });
        let (response, _) = send(&registry, "PUT", &target, &fields, body);
        assert_eq!(
            (response.status, registry.storage.log().as_str()),
            (status, log),
            "{fields:?} {body:?}"
        );
    }
    let registry = registry(Tiny::default());
    let unknown = format!("/v2/a/blobs/uploads/{}?digest=md5:0", id());
    assert_eq!(
        code(&send(&registry, "PUT", &unknown, &[], &[b"x"]).0),
        Some(ErrorCode::DigestInvalid)
    );
    assert_eq!(registry.storage.log(), "");
}

#[test]
fn what_is_sent_again_is_told_where_the_session_stands() {
    for (method, query) in [("PATCH", String::new()), ("PUT", format!("&digest={}", hello()))] {
        let registry = registry(Tiny {
            upload: b"hel".to_vec().into(),
            ..Tiny::default()
        });
        let path = format!("/v2/a/blobs/uploads/{}?_state=", id());
        let (response, _) = send(&registry, method, &format!("{path}0{query}"), &[], &[b"lo"]);
        assert_eq!(response.status, 416, "{method}");
        assert_eq!(response.field("location"), Some(&*format!("{path}3")));
        assert_eq!(response.field("range"), Some("0-2"));
        // What the client says about the chunk itself takes precedence over the URL.
        let range = [("content-range", "3-4")];
        let (response, _) = send(&registry, method, &format!("{path}0{query}"), &range, &[b"lo"]);
        assert!(
            matches!(response.status, 201 | 202),
            "{method} {}",
            response.status
        );
    }
}

#[test]
fn a_blob_in_one_request_leaves_no_session_when_it_fails() {
    let target = format!("/v2/a/blobs/uploads/?digest={}", hello());
    for (body, status, log) in [
        (
            &[b"hel".as_slice(), b"lo"][..],
            201,
            "create alice sha256;append;commit;",
        ),
        (&[b"hell"], 400, "create alice sha256;append;commit;cancel;"),
        // ollama asks for a session in this way.
        (&[], 202, "create alice sha256;"),
        (&[b""], 202, "create alice sha256;"),
    ] {
        let registry = registry(Tiny::default());
        let (response, _) = send(&registry, "POST", &target, &[], body);
        assert_eq!((response.status, registry.storage.log().as_str()), (status, log));
    }
}

#[test]
fn a_mount_that_is_not_possible_is_a_session() {
    let is_secret = |operation: &Operation<'_>| {
        operation.action == Action::Pull && operation.repository.is_some_and(|name| name.as_str() == "secret")
    };
    for (sources, from, status, log) in [
        (vec!["b"], "&from=b", 201, "mount b a;"),
        (vec![], "&from=b", 202, "mount b a;create alice sha512;"),
        (vec!["secret"], "&from=secret", 202, "create alice sha512;"),
        (vec!["secret", "b"], "", 201, "mount b a;"),
        (vec!["secret"], "", 202, "create alice sha512;"),
        (vec![], "", 202, "create alice sha512;"),
    ] {
        let registry = registry(Tiny {
            sources,
            ..Tiny::default()
        })
        .with_authorizer(Arc::new(Refuse(is_secret)));
        let digest = Digest::of(Algorithm::Sha512, b"hello");
        let (response, _) = send(
            &registry,
            "POST",
            &format!("/v2/a/blobs/uploads/?mount={digest}{from}"),
            &[],
            &[],
        );
        assert_eq!(
            (response.status, registry.storage.log().as_str()),
            (status, log),
            "{from}"
        );
        let location = response.field("location").unwrap();
        let expected = if status == 201 {
            format!("/v2/a/blobs/{digest}")
        } else {
            format!("/v2/a/blobs/uploads/{}?_state=0", id())
        };
        assert_eq!(location, expected);
    }
}

#[test]
fn a_session_is_of_the_algorithm_that_was_announced() {
    let registry = registry(Tiny::default());
    for (query, log) in [
        ("", "create alice sha256;"),
        ("?digest-algorithm=sha512", "create alice sha512;"),
    ] {
        let (response, _) = send(
            &registry,
            "POST",
            &format!("/v2/a/blobs/uploads/{query}"),
            &[],
            &[],
        );
        assert_eq!(
            (
                response.status,
                response.field("range"),
                registry.storage.log().as_str()
            ),
            (202, Some("0-0"), log)
        );
    }
    let cancelled = send(
        &registry,
        "DELETE",
        &format!("/v2/a/blobs/uploads/{}", id()),
        &[],
        &[],
    )
    .0;
    assert_eq!(
        (cancelled.status, registry.storage.log().as_str()),
        (204, "cancel;")
    );
}
