//! Behind proxies: who counts as a request's client, and the URLs that clients are told.

use std::fs;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::client::{Request, Response};
use crate::support::server::{Server, until};
use crate::support::sink::Sink;
use crate::support::users::{GuardedServer, basic};
use crate::write;

/// Requests of one address that are answered at once.
const BURST: usize = 30;

/// What a client writes itself, and what the proxies of these tests pass on.
const FORGED: [(&str, &str); 4] = [
    ("Forwarded", "for=198.51.100.7"),
    ("X-Real-IP", "198.51.100.7"),
    ("X-Client-IP", "198.51.100.7"),
    ("True-Client-IP", "198.51.100.7"),
];

/// Asks as a client whose address a proxy tells by `X-Forwarded-For`, and which claims to be another by all other fields.
fn ask(server: &Server, client: &str) -> Response {
    let request = server.request("GET", "/v2/");
    let request = FORGED
        .iter()
        .fold(request, |request, (name, value)| request.header(name, value));
    request.header("X-Forwarded-For", client).send()
}

#[test]
fn the_client_is_the_same_for_limits_logs_and_events_whatever_it_writes_itself() {
    // Whom the file trusts, and whether that is the proxy.
    for (trusted, is_believed) in [
        ("", true),
        ("trustedproxies: [127.0.0.1], ", true),
        ("trustedproxies: [10.0.0.0/8], ", false),
        ("trustedproxies: [], ", false),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let sink = Sink::start();
        let configuration = format!(
            "version: 0.1\nstorage: {{inmemory: {{}}}}\n\
             log: {{accesslog: {{format: json}}, audit: {{path: FOLDER/audit}}}}\n\
             http: {{{trusted}ratelimit: {{address: {{requests: 1, per: 1h, burst: {BURST}}}}}}}\n\
             notifications: {{endpoints: [{{name: sink, url: '{}'}}]}}\n",
            sink.url()
        );
        let server = Server::configured(&write(folder.path(), &configuration));
        let expected = |client: &str| {
            let (end, told) = (client.starts_with("127.0.0.1:"), client == "192.0.2.1");
            assert!(
                if is_believed { told } else { end },
                "{trusted}{client} is the client"
            );
        };
        let digest: String = Sha256::digest(b"content")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let target = format!("/v2/a/blobs/uploads/?digest=sha256:{digest}");
        let push = server.request("POST", &target).body(b"content");
        let push = FORGED
            .iter()
            .fold(push, |push, (name, value)| push.header(name, value));
        push.header("X-Forwarded-For", "192.0.2.1")
            .send()
            .expect_status(201);

        let event = sink.wait(1).remove(0).json();
        expected(event["events"][0]["request"]["addr"].as_str().expect("a text"));
        let line = |text: &str| {
            let line = text.lines().find(|line| line.contains("\"POST\""))?;
            serde_json::from_str::<Value>(line).ok()
        };
        let audit = || fs::read_to_string(folder.path().join("audit")).unwrap_or_default();
        until(|| line(&audit()).is_some() && line(&server.output()).is_some());
        for text in [audit(), server.output()] {
            let line = line(&text).expect("it was there");
            expected(line["client"].as_str().expect("a text"));
        }

        let refused = (0..2 * BURST).any(|_| ask(&server, "192.0.2.1").status == 429);
        assert!(refused, "{trusted}: too many requests");
        let status = ask(&server, "192.0.2.2").status;
        assert_eq!(status, if is_believed { 200 } else { 429 }, "{trusted}");
        // What the client wrote itself stands before what the proxy added.
        let status = ask(&server, "192.0.2.9, 192.0.2.1").status;
        assert_eq!(status, 429, "{trusted}");
    }
}

#[test]
fn who_guesses_passwords_behind_a_proxy_locks_out_nobody_else() {
    let configuration =
        "version: 0.1\nstorage: {inmemory: {}}\nauth: {htpasswd: {realm: Registry, path: USERS}}\n";
    let server = GuardedServer::start(configuration);
    let ask = |client: &str, authorization: &str| {
        let request = server.server.request("GET", "/v2/");
        let request = request.header("X-Forwarded-For", client);
        request.header("Authorization", authorization).send().status
    };
    // `alice:` and a letter.
    let guesses = [
        "YQ==", "Yg==", "Yw==", "ZA==", "ZQ==", "Zg==", "Zw==", "aA==", "aQ==", "ag==",
    ];
    let guesses = guesses.map(|letter| format!("Basic YWxpY2U6{letter}"));
    let refused = guesses
        .iter()
        .chain([&"Basic YWxpY2U6eA==".to_owned(), &"Basic YWxpY2U6eQ==".to_owned()])
        .any(|guess| ask("192.0.2.1", guess) == 429);
    assert!(refused, "too many guesses");
    assert_eq!(ask("192.0.2.2", basic("alice")), 200);
}

#[test]
fn tokens_are_where_clients_are_sent_for_them() {
    const FORWARDED: &[(&str, &str)] = &[("Forwarded", "for=192.0.2.1;proto=https;host=proxy.example")];
    const LISTS: &[(&str, &str)] = &[
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "proxy.example"),
    ];
    const SCHEME: &[(&str, &str)] = &[("X-Forwarded-Proto", "https")];
    for (http, header, expected) in [
        ("", &[][..], "http://OWN/auth/token"),
        (
            "host: 'https://registry.example', ",
            &[],
            "https://registry.example/auth/token",
        ),
        ("prefix: /some/, ", &[], "http://OWN/some/auth/token"),
        (
            "host: 'https://registry.example:8443/', prefix: /some/, ",
            LISTS,
            "https://registry.example:8443/some/auth/token",
        ),
        (
            "proxyfields: [forwarded], ",
            FORWARDED,
            "https://proxy.example/auth/token",
        ),
        ("", FORWARDED, "http://OWN/auth/token"),
        ("proxyfields: [Forwarded], ", LISTS, "http://OWN/auth/token"),
        (
            "proxyfields: [X-Forwarded-For, X-Forwarded-Proto], ",
            LISTS,
            "https://OWN/auth/token",
        ),
        ("", LISTS, "https://proxy.example/auth/token"),
        ("", SCHEME, "https://OWN/auth/token"),
        (
            "proxyfields: [forwarded], prefix: /some, ",
            FORWARDED,
            "https://proxy.example/some/auth/token",
        ),
        ("trustedproxies: [10.0.0.0/8], ", LISTS, "http://OWN/auth/token"),
        (
            "proxyfields: [forwarded], trustedproxies: [], ",
            FORWARDED,
            "http://OWN/auth/token",
        ),
    ] {
        let configuration = format!(
            "version: 0.1\nstorage: {{inmemory: {{}}}}\nhttp: {{{http}draintimeout: 1s}}\n\
             auth: {{token: {{service: registry, builtin: {{users: USERS}}}}}}\n\
             access: {{rules: [{{repositories: ['**'], identities: [alice], actions: ['*']}}]}}\n"
        );
        let server = GuardedServer::start(&configuration);
        let address = server.server.address();
        let below = if http.contains("prefix") { "/some" } else { "" };
        let base = format!("{below}/v2/");
        let fields = |request: Request<'static>| {
            let add = |request: Request<'static>, (name, value): &(&str, &str)| request.header(name, value);
            header.iter().fold(request, add)
        };
        let challenged = fields(server.server.request("GET", &base)).send();
        challenged.expect_status(401);
        let challenge = challenged.header("WWW-Authenticate").expect("a challenge");
        let expected = expected.replace("OWN", &address.to_string());
        assert!(
            challenge.contains(&format!("realm=\"{expected}\"")),
            "{http}{header:?}: {challenge}"
        );
        // A proxy brings the client from there to the same path here.
        let (_, place) = expected.split_once("://").expect("a URL");
        let path = place.find('/').map(|at| &place[at..]).expect("a path");
        let target = format!("{path}?service=registry&scope=repository:a:pull,push");
        let answer = fields(server.server.request("GET", &target))
            .header("Authorization", basic("alice"))
            .send();
        answer.expect_status(200);
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        let upload = format!("{below}/v2/a/blobs/uploads/");
        let opened = fields(server.server.request("POST", &upload))
            .header("Authorization", &format!("Bearer {token}"))
            .send();
        opened.expect_status(202);
        assert!(opened.location().contains(&upload), "{}", opened.location());
    }
}
