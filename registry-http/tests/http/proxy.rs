//! A registry below a path, behind a proxy and by another URL.

use std::net::SocketAddr;
use std::sync::Arc;

use registry_http::{
    Limits, Locations, Proxied, ProxyField, ProxyFields, ProxyOptions, Server, TrustedProxies,
};

use crate::Records;
use crate::client::{Answer, Client, push_blob};
use crate::listeners::service;

async fn start(options: ProxyOptions) -> (Server, SocketAddr, Records) {
    let records = Records::default();
    let service = service().with_observer(Arc::new(records.clone()));
    let service = Proxied::new(service, options);
    let server = Server::bind("127.0.0.1:0", service, Limits::default())
        .await
        .unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    (server, address, records)
}

/// Begins an upload and returns the answer.
async fn post(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Answer {
    let answer = Client::connect(address)
        .await
        .call("POST", target, fields, b"")
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer
}

/// Options for proxies that write [`FORWARDED`].
fn behind_a_proxy() -> ProxyOptions {
    let mut options = ProxyOptions::default();
    options.proxy_fields = ProxyFields::new([ProxyField::Forwarded]);
    options
}

const FORWARDED: [(&str, &str); 1] = [("Forwarded", "for=192.0.2.1;host=registry.example;proto=https")];

#[tokio::test]
async fn a_location_is_a_path_unless_it_is_to_be_a_url() {
    let (_server, address, _) = start(ProxyOptions::default()).await;
    let answer = post(address, "/v2/a/blobs/uploads/", &FORWARDED).await;
    assert!(answer.field("Location").starts_with("/v2/a/blobs/uploads/"));

    let mut options = behind_a_proxy();
    options.locations = Locations::Urls;
    let (_server, address, _) = start(options.clone()).await;
    let location = |answer: Answer| answer.field("Location").to_owned();
    let found = location(post(address, "/v2/a/blobs/uploads/", &[]).await);
    assert!(
        found.starts_with("http://registry/v2/a/blobs/uploads/"),
        "{found}"
    );
    let found = location(post(address, "/v2/a/blobs/uploads/", &FORWARDED).await);
    assert!(found.starts_with("https://registry.example/v2/a/"), "{found}");
    let (mut sender, connection) = crate::client_http2::connect(address).await;
    let pieces = crate::client_http2::Pieces::empty();
    let request = crate::client_http2::request("POST", "/v2/a/blobs/uploads/", pieces);
    let answer = sender.send_request(request).await.unwrap();
    let found = answer.headers()["Location"].to_str().unwrap();
    assert!(found.starts_with("http://registry/v2/a/"), "{found}");
    connection.abort();

    options.url = Some("https://fixed.example:8443/below".parse().unwrap());
    let (_server, address, _) = start(options).await;
    let found = location(post(address, "/v2/a/blobs/uploads/", &FORWARDED).await);
    assert!(
        found.starts_with("https://fixed.example:8443/below/v2/a/"),
        "{found}"
    );
}

/// ollama and the tools of scripts take the path for a URL without a host, and give up. Container clients survive a TLS
/// proxy that reports nothing because of the path.
#[tokio::test]
async fn a_client_that_takes_no_path_gets_a_url() {
    const OLLAMA: (&str, &str) = ("User-Agent", "ollama/0.17.4 (amd64 linux) Go/go1.24.1");
    const NGINX: [(&str, &str); 2] = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "registry.example"),
    ];
    let location = async |options: &ProxyOptions, fields: &[(&str, &str)]| {
        let (_server, address, _) = start(options.clone()).await;
        let answer = post(address, "/v2/a/blobs/uploads/", fields).await;
        answer.field("Location").to_owned()
    };
    let by_client = ProxyOptions::default();
    let found = location(&by_client, &[OLLAMA]).await;
    assert!(
        found.starts_with("http://registry/v2/a/blobs/uploads/"),
        "{found}"
    );
    let found = location(&by_client, &[OLLAMA, NGINX[0], NGINX[1]]).await;
    assert!(found.starts_with("https://registry.example/v2/a/"), "{found}");
    for agent in [
        "curl/8.5.0",
        "Wget/1.21.4",
        "python-requests/2.31.0",
        "python-httpx/0.27.0",
        "Python-urllib/3.12",
        "Python/3.12 aiohttp/3.9.1",
        "HTTPie/3.2.2",
        "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1",
        "Mozilla/5.0 (Linux; Debian GNU/Linux 12; en-US) PowerShell/7.4.0",
    ] {
        let found = location(&by_client, &[("User-Agent", agent)]).await;
        assert!(
            found.starts_with("http://registry/v2/a/blobs/uploads/"),
            "{agent}: {found}"
        );
    }
    for agent in [
        "docker/27.0.3 go/go1.21.11",
        "docker/27.0.3 go/go1.21.11 UpstreamClient(curl/8.5.0)",
        "docker/27.0.3 UpstreamClient(Python/3.12 aiohttp/3.9.1)",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "not-ollama/1",
        "ollama",
    ] {
        for fields in [&NGINX[..], &[]] {
            let fields = [&[("User-Agent", agent)], fields].concat();
            let found = location(&by_client, &fields).await;
            assert!(found.starts_with("/v2/a/blobs/uploads/"), "{agent}: {found}");
        }
    }
    let mut paths = ProxyOptions::default();
    paths.locations = Locations::Paths;
    let found = location(&paths, &[OLLAMA]).await;
    assert!(found.starts_with("/v2/a/blobs/uploads/"), "{found}");

    // What it reads it finds by a path, also behind a proxy for TLS that tells nothing.
    let (_server, address, _) = start(by_client).await;
    let mut client = Client::connect(address).await;
    let digest = push_blob(&mut client, "a", b"part of a model").await;
    let target = format!("/v2/a/blobs/{digest}");
    for method in ["GET", "HEAD"] {
        let answer = client.call(method, &target, &[OLLAMA], b"").await;
        assert_eq!(answer.field("Location"), target, "{method}");
    }

    // A script that asks how far its upload is sends the rest to the `Location` of that answer.
    let upload = post(address, "/v2/a/blobs/uploads/", &[]).await;
    let upload = upload.field("Location").to_owned();
    for (agent, base) in [("curl/8.5.0", "http://registry"), ("docker/27.0.3", "")] {
        let answer = client.call("GET", &upload, &[("User-Agent", agent)], b"").await;
        assert_eq!(answer.status, 204);
        let found = answer.field("Location");
        assert!(
            found.starts_with(&format!("{base}/v2/a/blobs/")),
            "{agent}: {found}"
        );
    }
}

#[tokio::test]
async fn everything_is_below_the_prefix() {
    let mut options = ProxyOptions::default();
    options.prefix = "/some/registry/".parse().unwrap();
    let (_server, address, records) = start(options).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/some/registry/v2/").await.status, 200);
    for outside in ["/v2/", "/some/v2/", "/some/registryv2/"] {
        let answer = client.get(outside).await;
        assert_eq!(answer.status, 404, "{outside}");
        assert!(!answer.code().is_empty());
    }
    for (target, clean) in [
        ("/some/registry//", "/some/registry/"),
        (
            "/some/registry/v2/x/../_catalog?n=1",
            "/some/registry/v2/_catalog?n=1",
        ),
    ] {
        let answer = client.get(target).await;
        assert_eq!(answer.status, 301, "{target}");
        assert_eq!(answer.field("Location"), clean);
    }
    assert_eq!(client.get("/some/registry//evil.example").await.status, 404);
    assert_eq!(client.call("OPTIONS", "*", &[], b"").await.status, 200);
    let answer = post(address, "/some/registry/v2/a/blobs/uploads/", &[]).await;
    let location = answer.field("Location").to_owned();
    assert!(location.starts_with("/some/registry/v2/a/"), "{location}");
    for name in ["one", "two"] {
        let digest = crate::digest(b"{}");
        let target = format!("{location}?digest={digest}");
        if name == "one" {
            assert_eq!(client.call("PUT", &target, &[], b"{}").await.status, 201);
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","size":2,"digest":"{digest}"}},"layers":[]}}"#
        );
        let target = format!("/some/registry/v2/a/manifests/{name}");
        let media_type = ("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        let answer = client
            .call("PUT", &target, &[media_type], manifest.as_bytes())
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(
            answer
                .field("Location")
                .starts_with("/some/registry/v2/a/manifests/")
        );
    }
    let page = client.get("/some/registry/v2/a/tags/list?n=1").await;
    assert!(
        page.field("Link").starts_with("</some/registry/v2/a/tags/list?"),
        "{page:?}"
    );
    let record = records.wait(|record| record.path.contains("tags")).await;
    assert_eq!(record.path, "/some/registry/v2/a/tags/list");
    let record = records.wait(|record| record.status == Some(404)).await;
    assert_eq!(record.path, "/v2/");
}

#[tokio::test]
async fn records_have_the_client_that_a_trusted_proxy_tells() {
    for (trusted, expected) in [
        (TrustedProxies::default(), "192.0.2.1"),
        (TrustedProxies::none(), "127.0.0.1"),
        (
            TrustedProxies::new(["192.0.2.0/24".parse().unwrap()]),
            "127.0.0.1",
        ),
    ] {
        let mut options = behind_a_proxy();
        options.trusted_proxies = trusted;
        let (_server, address, records) = start(options).await;
        post(address, "/v2/a/blobs/uploads/", &FORWARDED).await;
        let record = records.wait(|_| true).await;
        assert_eq!(record.client().unwrap().to_string(), expected);
        assert_eq!(record.peer.unwrap().ip().unwrap().to_string(), "127.0.0.1");
    }
}
