//! Pulling.

use registry_http::testing::TestRegistry;

use crate::client::{Client, push_blob};
use crate::{digest, noise};

#[tokio::test]
async fn ranges_are_served_as_asked() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let blob = noise(1_000_000);
    let target = format!("/v2/a/blobs/{}", push_blob(client, "a", &blob).await);
    for (range, content, bytes) in [
        ("bytes=10-19", "bytes 10-19/1000000", &blob[10..20]),
        ("bytes=999990-", "bytes 999990-999999/1000000", &blob[999_990..]),
        ("bytes=-5", "bytes 999995-999999/1000000", &blob[999_995..]),
        (
            "bytes=999000-2000000",
            "bytes 999000-999999/1000000",
            &blob[999_000..],
        ),
    ] {
        let answer = client.call("GET", &target, &[("Range", range)], b"").await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.field("Content-Range"), content);
        assert_eq!(answer.field("Content-Length"), bytes.len().to_string());
        assert!(answer.body == bytes, "{range}");
    }
    let answer = client
        .call("GET", &target, &[("Range", "bytes=1000000-")], b"")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.field("Content-Range")),
        (416, "bytes */1000000")
    );
}

#[tokio::test]
async fn several_ranges_come_as_parts_of_the_length_announced() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let blob = noise(500_000);
    let digest = push_blob(client, "a", &blob).await;
    let target = format!("/v2/a/blobs/{digest}");
    let answer = client
        .call("GET", &target, &[("Range", "bytes=0-1,400000-499999")], b"")
        .await;
    assert_eq!(answer.status, 206);
    let boundary = answer
        .field("Content-Type")
        .split_once("boundary=")
        .unwrap()
        .1
        .trim_matches('"');
    let head = "Content-Type: application/octet-stream\r\nContent-Range: bytes";
    let mut expected = format!("--{boundary}\r\n{head} 0-1/500000\r\n\r\n").into_bytes();
    expected.extend(&blob[..2]);
    expected.extend(format!("\r\n--{boundary}\r\n{head} 400000-499999/500000\r\n\r\n").as_bytes());
    expected.extend(&blob[400_000..]);
    expected.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(answer.body == expected);
    assert_eq!(answer.field("Content-Length"), expected.len().to_string());
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let digest = push_blob(client, "a", b"hello").await;
    let target = format!("/v2/a/blobs/{digest}");
    let tag = client.get(&target).await.field("ETag").to_owned();
    for method in ["GET", "HEAD"] {
        let answer = client
            .call(method, &target, &[("If-None-Match", &tag)], b"")
            .await;
        assert_eq!((answer.status.as_u16(), answer.field("ETag")), (304, &*tag));
        assert!(!answer.header.contains_key("Content-Length"), "{answer:?}");
    }
    let other = format!("\"{}\"", crate::digest(b"other"));
    let answer = client
        .call("GET", &target, &[("If-None-Match", &other)], b"")
        .await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"hello"[..]));

    let range = ("Range", "bytes=1-");
    let answer = client
        .call("GET", &target, &[range, ("If-Range", &tag)], b"")
        .await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (206, &b"ello"[..]));
    let answer = client
        .call("GET", &target, &[range, ("If-Range", &other)], b"")
        .await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"hello"[..]));
}

#[tokio::test]
async fn head_has_the_header_of_get_and_no_body() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    for blob in [&b""[..], b"hello", &noise(70_000)] {
        let target = format!("/v2/a/blobs/{}", push_blob(client, "a", blob).await);
        let head = client.call("HEAD", &target, &[], b"").await;
        let get = client.get(&target).await;
        assert_eq!(head.field("Content-Length"), blob.len().to_string());
        assert_eq!(get.field("Content-Length"), blob.len().to_string());
        assert_eq!(head.field("Docker-Content-Digest"), digest(blob));
        assert_eq!(head.status, 200);
        assert!(get.body == blob);
    }
    // The header of an error too; a list whose length nobody knows has none.
    let target = format!("/v2/a/blobs/{}", digest(b"missing"));
    let head = client.call("HEAD", &target, &[], b"").await;
    let get = client.get(&target).await;
    assert_eq!(head.status, 404);
    assert_eq!(head.field("Content-Length"), get.body.len().to_string());
    for target in ["/v2/", "/v2/_catalog"] {
        let head = client.call("HEAD", target, &[], b"").await;
        let get = client.get(target).await;
        assert_eq!((head.status.as_u16(), get.status.as_u16()), (200, 200));
        assert_eq!(
            head.header.get("Content-Length"),
            get.header.get("Content-Length")
        );
    }
}
