//! Pushing.

use registry_http::testing::TestRegistry;

use crate::client::{Client, push_blob, start_upload};
use crate::{digest, noise};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image of one layer and returns its manifest.
async fn push_image(client: &mut Client, tag: &str) -> Vec<u8> {
    let layer = noise(100_000);
    let config = push_blob(client, "library/app", b"{}").await;
    let layer_digest = push_blob(client, "library/app", &layer).await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}",
"config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2}},
"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":100000}}]}}"#
    )
    .into_bytes();
    let target = format!("/v2/library/app/manifests/{tag}");
    let answer = client
        .call_chunked("PUT", &target, &[("Content-Type", IMAGE)], &manifest)
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.field("Docker-Content-Digest"), digest(&manifest));
    manifest
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let manifest = push_image(client, "v1").await;

    let answer = client.get("/v2/library/app/manifests/v1").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("Content-Type"), IMAGE);
    assert_eq!(answer.body, manifest);
    let answer = client
        .get(&format!("/v2/library/app/blobs/{}", digest(&noise(100_000))))
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == noise(100_000));
    assert_eq!(answer.field("Content-Length"), "100000");
    let answer = client.get("/v2/library/app/tags/list").await;
    assert_eq!(answer.body, r#"{"name":"library/app","tags":["v1"]}"#);
}

#[tokio::test]
async fn a_blob_is_pushed_in_one_request_in_chunks_and_with_a_last_chunk() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let blob = noise(3_000_000);
    let digest = digest(&blob);

    let target = format!("/v2/one/blobs/uploads/?digest={digest}");
    let answer = client.call("POST", &target, &[], &blob).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let location = start_upload(client, "two").await;
    let answer = client
        .call_chunked("PATCH", &location, &[], &blob[..1_000_000])
        .await;
    assert_eq!((answer.status.as_u16(), answer.field("Range")), (202, "0-999999"));
    let range = [("Content-Range", "1000000-1999999")];
    let answer = client
        .call("PATCH", &location, &range, &blob[1_000_000..2_000_000])
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.field("Range")),
        (202, "0-1999999")
    );
    let target = format!("{location}?digest={digest}");
    let answer = client.call("PUT", &target, &[], &blob[2_000_000..]).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    for repository in ["one", "two"] {
        let answer = client.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert!(answer.body == blob);
    }
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused_and_the_connection_goes_on_where_that_is_cheap() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let limit = registry.registry().options().manifest_size_limit;
    let target = "/v2/a/manifests/v1";
    let answer = client
        .call("PUT", target, &[("Content-Type", IMAGE)], &vec![b' '; limit + 1])
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (413, "SIZE_INVALID")
    );
    // All of it would have had to be read.
    assert_eq!(answer.field("Connection"), "close");

    // The length is not known before, so nearly all has been read when it is too much.
    let client = &mut Client::connect(registry.address()).await;
    let answer = client
        .call_chunked(
            "PUT",
            target,
            &[("Content-Type", IMAGE)],
            &vec![b' '; limit + 2000],
        )
        .await;
    assert_eq!(answer.status, 413);
    assert!(!answer.header.contains_key("Connection"), "{answer:?}");
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_refused_body_is_read_to_its_end_when_it_is_short() {
    let registry = TestRegistry::start().await;
    let client = &mut Client::connect(registry.address()).await;
    let answer = client.call("PUT", "/v2/a/nonsense", &[], &noise(200_000)).await;
    assert_eq!(answer.status, 404);
    assert!(!answer.header.contains_key("Connection"), "{answer:?}");
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_much_for_nothing_reads_the_answer() {
    let registry = TestRegistry::start().await;
    let client = Client::connect(registry.address()).await;
    let (read, mut write) = client.stream.into_split();
    // Sends all of it before it looks for the answer, as simple clients do.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let body = noise(16 * 1024 * 1024);
    let head = format!(
        "PUT /v2/nonsense HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await.unwrap();
    write.write_all(&body).await.unwrap();
    write.shutdown().await.unwrap();
    let mut read = read;
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 404 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_made_to_send_what_is_refused() {
    let registry = TestRegistry::start().await;
    let mut client = Client::connect(registry.address()).await;
    let expect = [("Expect", "100-continue"), ("Content-Length", "100")];
    client.head("PUT", "/v2/nonsense", &expect).await;
    let rest = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(rest.starts_with("HTTP/1.1 404 "), "{rest}");

    let mut client = Client::connect(registry.address()).await;
    let location = start_upload(&mut client, "a").await;
    client.head("PATCH", &location, &expect).await;
    let mut told = [0; 25];
    use tokio::io::AsyncReadExt as _;
    client.stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(noise(100)).await;
    let answer = client.answer("PATCH").await;
    assert_eq!((answer.status.as_u16(), answer.field("Range")), (202, "0-99"));
}
