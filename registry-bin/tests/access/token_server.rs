//! Our own token server: the requests of each client, what their tokens are good for, and what is refused.

use std::path::Path;

use serde_json::Value;

use crate::support::client::Response;
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::support::users::{GuardedServer, basic, set_password};

const CONFIGURATION: &str = "\
version: 0.1
storage: {inmemory: {}, delete: {enabled: true}}
auth: {token: {service: registry, builtin: {users: USERS}}}
access:
  rules:
    - {repositories: ['public/**'], identities: [anonymous], actions: [pull, list]}
    - {repositories: ['team/**'], identities: [alice], actions: [pull, push, list]}
    - {repositories: ['**'], identities: [root], actions: ['*']}
";

/// Asks for a token by GET, as a user or as nobody.
fn get(server: &Server, user: &str, query: &str) -> Response {
    let mut request = server.request("GET", &format!("/auth/token?{query}"));
    if !user.is_empty() {
        request = request.header("Authorization", basic(user));
    }
    request.send()
}

/// Asks for a token by POST.
fn post(server: &Server, form: &str) -> Response {
    let request = server.request("POST", "/auth/token");
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    request.body(form.as_bytes()).send()
}

#[track_caller]
fn text(answer: &Response, key: &str) -> String {
    answer.expect_status(200);
    let value = answer.json()[key].clone();
    value
        .as_str()
        .unwrap_or_else(|| panic!("no {key}: {}", answer.summary()))
        .to_owned()
}

/// Returns a repository as the holder of a token sees it.
fn bearer(server: &Server, name: &str, token: &str) -> Repository {
    Repository::new(server.address(), name).with_authorization(&format!("Bearer {token}"))
}

#[test]
fn each_client_gets_a_token_in_its_way() {
    let server = GuardedServer::start(CONFIGURATION).server;
    let scope = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    let login = get(
        &server,
        "alice",
        "account=alice&client_id=docker&offline_token=true&service=registry",
    );
    let refresh = text(&login, "refresh_token");
    for (client, answer) in [
        (
            "podman",
            get(
                &server,
                "alice",
                &format!("account=alice&{scope}&service=registry"),
            ),
        ),
        (
            "helm, oras",
            get(&server, "alice", &format!("{scope}&service=registry")),
        ),
        (
            "BuildKit",
            get(
                &server,
                "alice",
                &format!("client_id=buildkit&{scope}&service=registry&offline_token=true"),
            ),
        ),
        (
            "containerd",
            post(
                &server,
                &format!(
                    "client_id=containerd-client&grant_type=password&password=secret&{scope}&service=registry&username=alice"
                ),
            ),
        ),
        (
            "docker after a login",
            post(
                &server,
                &format!(
                    "client_id=docker&grant_type=refresh_token&refresh_token={refresh}&{scope}&service=registry"
                ),
            ),
        ),
        (
            "BuildKit and oras after a login",
            post(
                &server,
                &format!(
                    "access_type=offline&client_id=x&grant_type=refresh_token&refresh_token={refresh}&{scope}&service=registry"
                ),
            ),
        ),
        (
            "a scope each for a mount",
            get(
                &server,
                "alice",
                &format!("scope=repository:public/a:pull&{scope}&service=registry"),
            ),
        ),
        (
            "scopes with a space",
            get(
                &server,
                "alice",
                &format!("{scope}+repository:public/a:pull&service=registry"),
            ),
        ),
    ] {
        let token = text(&answer, "token");
        assert_eq!(token, text(&answer, "access_token"), "{client}");
        let json = answer.json();
        assert_eq!(json["expires_in"], 300, "{client}");
        let issued = text(&answer, "issued_at");
        assert!(
            issued.ends_with('Z') && issued.contains('T'),
            "{client}: {issued}"
        );
        answer.expect_header("Cache-Control", "no-store");
        assert_eq!(
            json["refresh_token"].is_string(),
            client.contains("BuildKit") || client.contains("docker"),
            "{client}: {json}"
        );
        let tag = client.replace([' ', ','], "_");
        bearer(&server, "team/app", &token).push_image(&tag, client);
    }
    let wrong = post(
        &server,
        "grant_type=password&username=alice&password=wrong&service=registry",
    );
    wrong.expect_error(&[401], &["UNAUTHORIZED"]);
    // Containerd goes on with GET only after 400, 401, 404 and 405.
    post(&server, "grant_type=authorization_code").expect_status(400);
    post(&server, "grant_type=password&username=alice").expect_status(400);
}

#[test]
fn a_scope_is_reduced_to_what_the_rules_allow() {
    let server = GuardedServer::start(CONFIGURATION).server;
    for (user, asked, granted) in [
        (
            "alice",
            "repository:team/app:pull,push",
            "repository:team/app:pull,push",
        ),
        ("alice", "repository:team/app:*", "repository:team/app:pull,push"),
        (
            "alice",
            "repository:team/app:delete,pull",
            "repository:team/app:pull",
        ),
        ("alice", "repository:other/app:pull,push", ""),
        (
            "alice",
            "repository:public/app:pull,push",
            "repository:public/app:pull",
        ),
        (
            "alice",
            "repository(plugin):team/app:pull",
            "repository(plugin):team/app:pull",
        ),
        ("alice", "repository:localhost:5000/team/app:pull", ""),
        ("alice", "repository:Team/App:pull", ""),
        ("alice", "registry:other:*", ""),
        ("alice", "plugin:team/app:pull", ""),
        ("alice", "registry:catalog:*", "registry:catalog:*"),
        (
            "root",
            "repository:any/thing:*",
            "repository:any/thing:delete,pull,push",
        ),
        (
            "",
            "repository:public/app:pull,push",
            "repository:public/app:pull",
        ),
    ] {
        let answer = get(&server, user, &format!("service=registry&scope={asked}"));
        assert_eq!(text(&answer, "scope"), granted, "{user} {asked}");
    }
    for asked in ["", "&scope=repository:team/app:pull"] {
        let refused = get(&server, "", &format!("service=registry{asked}"));
        refused.expect_error(&[401], &["UNAUTHORIZED"]);
        assert!(
            refused
                .header("WWW-Authenticate")
                .is_some_and(|value| value.starts_with("Basic "))
        );
    }
}

#[test]
fn a_token_is_good_for_its_scope_and_nothing_else() {
    let server = GuardedServer::start(CONFIGURATION).server;
    let root = |scope: &str| text(&get(&server, "root", &format!("scope={scope}")), "token");
    let push = root("repository:team/app:pull,push");
    let image = bearer(&server, "team/app", &push).push_image("latest", "image");
    bearer(&server, "team/other", &root("repository:team/other:*")).push_image("latest", "other");
    let manifest = format!("manifests/{}", image.digest);
    let blob = format!("blobs/{}", image.layer);
    // Who has the right but not in the token is told to get another one.
    let refuse = |token: &str, repository: &str, method: &str, rest: &str, scope: &str| {
        let refused = bearer(&server, repository, token).request(method, rest).send();
        refused.expect_error(&[401], &["UNAUTHORIZED"]);
        let challenge = refused.header("WWW-Authenticate").unwrap_or_default().to_owned();
        assert!(
            challenge.contains(&format!("scope=\"{scope}\",error=\"insufficient_scope\"")),
            "{method} {repository} {rest}: {challenge}"
        );
    };
    refuse(
        &push,
        "team/other",
        "GET",
        "manifests/latest",
        "repository:team/other:pull",
    );
    refuse(
        &push,
        "team/other",
        "POST",
        "blobs/uploads/",
        "repository:team/other:pull,push",
    );
    refuse(
        &push,
        "team/app",
        "DELETE",
        &manifest,
        "repository:team/app:delete",
    );
    let pull = root("repository:team/app:pull");
    bearer(&server, "team/app", &pull).get(&blob).expect_status(200);
    bearer(&server, "team/app", &pull)
        .get("tags/list")
        .expect_status(200);
    refuse(
        &pull,
        "team/app",
        "POST",
        "blobs/uploads/",
        "repository:team/app:pull,push",
    );
    refuse(
        &pull,
        "team/app",
        "PUT",
        "manifests/latest",
        "repository:team/app:pull,push",
    );
    refuse(
        &pull,
        "team/app",
        "DELETE",
        "manifests/latest",
        "repository:team/app:delete",
    );
    let catalog = |token: &str| {
        let request = server.request("GET", "/v2/_catalog");
        request.header("Authorization", &format!("Bearer {token}")).send()
    };
    for token in [&pull, &push, &root("repository:catalog:*")] {
        catalog(token).expect_error(&[401], &["UNAUTHORIZED"]);
    }
    let listed = catalog(&root("registry:catalog:*"));
    assert_eq!(
        listed.json()["repositories"].to_string(),
        r#"["team/app","team/other"]"#
    );
    // The right to list gives none to read.
    refuse(
        &root("registry:catalog:*"),
        "team/app",
        "GET",
        &manifest,
        "repository:team/app:pull",
    );
    // A mount from a repository that the token does not name is an upload.
    let other = root("repository:team/other:pull,push");
    let mount = format!("blobs/uploads/?mount={}&from=team/app", image.layer);
    bearer(&server, "team/other", &other)
        .request("POST", &mount)
        .send()
        .expect_status(202);
    let both = root("repository:team/other:pull,push+repository:team/app:pull");
    bearer(&server, "team/other", &both)
        .request("POST", &mount)
        .send()
        .expect_status(201);
}

#[test]
fn what_is_taken_away_is_gone_before_the_token_ends() {
    let server = GuardedServer::start(CONFIGURATION);
    let answer = get(
        &server.server,
        "alice",
        "offline_token=true&scope=repository:team/app:pull,push",
    );
    let (token, refresh) = (text(&answer, "token"), text(&answer, "refresh_token"));
    let alice = bearer(&server.server, "team/app", &token);
    alice.push_image("latest", "image");
    server.write(&CONFIGURATION.replace("[pull, push, list]", "[pull]"));
    until(|| alice.request("POST", "blobs/uploads/").send().status == 403);
    alice.get("manifests/latest").expect_status(200);
    let again =
        format!("grant_type=refresh_token&refresh_token={refresh}&scope=repository:team/app:pull,push");
    assert_eq!(
        text(&post(&server.server, &again), "scope"),
        "repository:team/app:pull"
    );
    let users = std::fs::read_to_string(server.users()).expect("there are users");
    let left: Vec<_> = users.lines().filter(|line| !line.starts_with("alice")).collect();
    std::fs::write(server.users(), left.join("\n")).expect("a file can be written");
    until(|| post(&server.server, &again).status == 401);
    let refused = alice.get("manifests/latest");
    refused.expect_error(&[401], &["UNAUTHORIZED"]);
    let challenge = refused.header("WWW-Authenticate").unwrap_or_default();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

/// Returns the claims of a token.
fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).expect("a token has three parts");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload);
    serde_json::from_slice(&payload.expect("base64")).expect("JSON")
}

#[test]
fn a_token_gives_others_that_grant_no_more_and_end_no_later() {
    let server = GuardedServer::start(CONFIGURATION);
    let with_token = |token: &str, query: &str| {
        let request = server.server.request("GET", &format!("/auth/token?{query}"));
        request.header("Authorization", &format!("Bearer {token}")).send()
    };
    let scope = "scope=repository:team/app:pull,push";
    let first = text(&get(&server.server, "root", scope), "token");
    let answer = with_token(&first, &format!("{scope}&offline_token=true"));
    let second = text(&answer, "access_token");
    assert_eq!(answer.json()["refresh_token"], Value::Null);
    bearer(&server.server, "team/app", &second).push_image("latest", "image");
    let (first_claims, second_claims) = (claims_of(&first), claims_of(&second));
    for key in ["exp", "sub", "access", "credential", "aud", "iss"] {
        assert_eq!(second_claims[key], first_claims[key], "{key}");
    }
    assert!(answer.json()["expires_in"].as_u64() <= Some(300));
    // Nothing is added: not by the rules, which allow root everything, and not step by step.
    for (asked, granted) in [
        ("repository:team/app:*", "repository:team/app:pull,push"),
        ("repository:team/app:delete", ""),
        ("repository:team/app:pull,delete", "repository:team/app:pull"),
        ("repository:team/other:pull", ""),
        // Open to everybody.
        ("repository:public/app:pull,push", "repository:public/app:pull"),
        ("repository(plugin):team/app:pull", ""),
        ("registry:catalog:*", ""),
    ] {
        let answer = with_token(&second, &format!("scope={asked}"));
        assert_eq!(text(&answer, "scope"), granted, "{asked}");
    }
    let narrow = text(&with_token(&second, "scope=repository:team/app:pull"), "token");
    assert_eq!(
        text(&with_token(&narrow, scope), "scope"),
        "repository:team/app:pull"
    );
    // Nobody's token is nobody's.
    let nobody = text(
        &get(&server.server, "", "scope=repository:public/app:pull"),
        "token",
    );
    let again = with_token(&nobody, "scope=repository:public/app:pull,push");
    assert_eq!(text(&again, "scope"), "repository:public/app:pull");
    with_token(&nobody, "scope=repository:team/app:pull").expect_error(&[401], &["UNAUTHORIZED"]);
    // A refresh token is none for this, and neither is what nobody signed, or what is no token.
    let refresh = text(
        &get(&server.server, "root", "offline_token=true"),
        "refresh_token",
    );
    let unsigned = first.rsplit_once('.').expect("three parts").0;
    for wrong in [&*refresh, &format!("{unsigned}.AAAA"), unsigned, "secret", ""] {
        let refused = with_token(wrong, scope);
        refused.expect_error(&[401], &["UNAUTHORIZED"]);
        assert!(
            refused
                .header("WWW-Authenticate")
                .is_some_and(|field| field.starts_with("Basic "))
        );
    }
    // With another password it ends as the token would.
    set_password(&server.users(), "root", "another");
    until(|| with_token(&first, scope).status == 401);
}

/// Runs `htpasswd remove`.
fn remove(users: &Path, user: &str) {
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["htpasswd", "remove"])
        .arg(users)
        .arg(user)
        .status();
    assert!(command.expect("the program starts").success());
}

#[test]
fn who_is_added_again_under_an_old_name_has_no_use_of_the_tokens_of_before() {
    let server = GuardedServer::start(CONFIGURATION);
    let ask = "offline_token=true&scope=repository:team/app:pull,push";
    for is_removed in [true, false] {
        let answer = get(&server.server, "alice", ask);
        let (token, refresh) = (text(&answer, "token"), text(&answer, "refresh_token"));
        let alice = bearer(&server.server, "team/app", &token);
        alice.push_image("latest", "image");
        let root = text(&get(&server.server, "root", ask), "token");
        if is_removed {
            remove(&server.users(), "alice");
        }
        // Even the same password makes somebody else of it.
        set_password(&server.users(), "alice", "secret");
        until(|| alice.get("manifests/latest").status == 401);
        let again = format!("grant_type=refresh_token&refresh_token={refresh}");
        post(&server.server, &again).expect_error(&[401], &["UNAUTHORIZED"]);
        let token = text(&get(&server.server, "alice", ask), "token");
        let alice = bearer(&server.server, "team/app", &token);
        alice.get("manifests/latest").expect_status(200);
        // Nobody else has to come again.
        let root = bearer(&server.server, "team/app", &root);
        root.get("manifests/latest").expect_status(200);
        server.server.output_with("a token was refused");
    }
}

#[test]
fn a_token_for_another_service_is_not_given() {
    let server = GuardedServer::start(CONFIGURATION).server;
    let scope = "scope=repository:team/app:pull";
    for services in ["service=other", "service=", "service=registry&service=other"] {
        let refused = get(&server, "alice", &format!("{services}&{scope}"));
        refused.expect_error(&[400], &["UNSUPPORTED"]);
        let form = format!("grant_type=password&username=alice&password=secret&{services}&{scope}");
        post(&server, &form).expect_error(&[400], &["UNSUPPORTED"]);
    }
    // A person with curl leaves it out.
    get(&server, "alice", scope).expect_status(200);
}

#[test]
fn a_user_whose_name_means_others_in_a_rule_is_refused_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    for (name, stands_for) in [
        ("alice", "alice"),
        ("bob", "anonymous"),
        ("root", "authenticated"),
    ] {
        set_password(&users, name, "secret");
        let written = std::fs::read_to_string(&users).expect("there are users");
        let changed = written.replace(&format!("{name}:"), &format!("{stands_for}:"));
        std::fs::write(&users, changed).expect("a file can be written");
    }
    let server = GuardedServer::start_in(folder, CONFIGURATION).server;
    get(&server, "alice", "scope=repository:team/app:pull").expect_status(200);
    for credentials in ["YW5vbnltb3VzOnNlY3JldA==", "YXV0aGVudGljYXRlZDpzZWNyZXQ="] {
        let request = server.request("GET", "/auth/token?scope=repository:team/app:pull");
        let answer = request.header("Authorization", &format!("Basic {credentials}"));
        answer.send().expect_error(&[401], &["UNAUTHORIZED"]);
    }
    let output = server.output_with("give the user another");
    for part in [
        "line 2",
        "anonymous",
        "line 3",
        "authenticated",
        "give the user another",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
}

#[test]
fn keys_outlive_the_server_and_are_for_its_eyes_only() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    set_password(&users, "alice", "secret");
    let configuration = write(
        folder.path(),
        "storage: {filesystem: {rootdirectory: FOLDER/data}}\nauth: {token: {service: registry, builtin: {users: FOLDER/users}}}\n",
    );
    let first = Server::configured(&configuration);
    let answer = get(&first, "alice", "offline_token=true&scope=repository:a:pull,push");
    let (token, refresh) = (text(&answer, "token"), text(&answer, "refresh_token"));
    bearer(&first, "a", &token).push_image("latest", "image");
    let keys = folder.path().join("data/auth/token-keys.json");
    let metadata = std::fs::metadata(&keys).expect("the keys are kept");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777,
        0o600
    );
    first.kill9();
    let second = Server::configured(&configuration);
    bearer(&second, "a", &token)
        .get("manifests/latest")
        .expect_status(200);
    let again = format!("grant_type=refresh_token&refresh_token={refresh}");
    post(&second, &again).expect_status(200);
    // Without them, everybody logs in again.
    drop(second);
    std::fs::remove_file(&keys).expect("the keys are kept");
    let third = Server::configured(&configuration);
    bearer(&third, "a", &token)
        .get("manifests/latest")
        .expect_status(401);
    post(&third, &again).expect_status(401);
}

fn write(folder: &Path, sections: &str) -> std::path::PathBuf {
    let path = folder.join("config.yml");
    let folder = folder.to_str().expect("temporary folders have plain names");
    let written = format!("version: 0.1\n{sections}").replace("FOLDER", folder);
    std::fs::write(&path, written).expect("a file can be written");
    path
}

#[test]
fn requests_that_are_too_much_are_refused_and_cost_little() {
    let server = GuardedServer::start(CONFIGURATION).server;
    let before = server.peak_memory();
    let scopes = |number: usize| {
        let scopes: Vec<_> = (0..number)
            .map(|at| format!("scope=repository:team/a{at}:pull"))
            .collect();
        scopes.join("&")
    };
    text(&get(&server, "alice", &scopes(100)), "token");
    get(&server, "alice", &scopes(101)).expect_status(400);
    let long = format!("scope=repository:team/{}:pull", "a".repeat(20_000));
    get(&server, "alice", &long).expect_status(400);
    for refused in [
        // More than any connection takes, more than a form may have, and what is no form.
        get_raw(&server, &"a".repeat(400_000)),
        post(
            &server,
            &format!(
                "grant_type=password&username=alice&password={}",
                "a".repeat(70_000)
            ),
        )
        .status,
        post(&server, "%ff%fe=%zz&&&==").status,
        server.request("DELETE", "/auth/token").send().status,
        server.request("PUT", "/auth/token").body(b"x").send().status,
    ] {
        assert!((400..500).contains(&refused), "{refused}");
    }
    // Tokens that are long, deep, or not at all.
    let deep = |bytes: &str| {
        let text = format!("{{\"alg\":\"ES256\",\"x\":{}", bytes.repeat(20_000));
        base64_of(text.as_bytes())
    };
    for token in [
        "a".repeat(60_000),
        format!("{}.{}.AAAA", deep("["), deep("[")),
        format!("{}.e30.AAAA", deep("{\"a\":")),
        "..".to_owned(),
        ".".repeat(30_000),
    ] {
        let status = bearer(&server, "team/app", &token).get("manifests/latest").status;
        assert!(matches!(status, 401 | 431), "{status}");
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        let status = post(&server, &form).status;
        assert!(matches!(status, 401 | 413), "{status}");
    }
    let long_name = format!(
        "Basic {}",
        base64_of(format!("{}:secret", "a".repeat(40_000)).as_bytes())
    );
    let request = server
        .request("GET", "/auth/token")
        .header("Authorization", &long_name);
    assert!(matches!(request.send().status, 401 | 431));
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}

/// Returns the status for a query that may be cut off by the server, or 431 where it hangs up.
fn get_raw(server: &Server, query: &str) -> u16 {
    let request = server.request("GET", &format!("/auth/token?{query}"));
    request.try_send().map_or(431, |answer| answer.status)
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_token_s_claims_are_those_that_were_asked_for() {
    let server = GuardedServer::start(CONFIGURATION).server;
    let token = text(&get(&server, "alice", "scope=repository:team/app:pull"), "token");
    let mut parts = token.split('.').map(|part| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
        bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
    });
    let (Some(Some(header)), Some(Some(claims))) = (parts.next(), parts.next()) else {
        panic!("not a token: {token}");
    };
    assert_eq!(
        (&header["alg"], header["kid"].is_string()),
        (&"ES256".into(), true)
    );
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"]),
        (&"registry".into(), &"registry".into(), &"alice".into())
    );
    let number = |name: &str| claims[name].as_u64().expect("a number");
    assert_eq!(number("exp"), number("iat") + 300);
    assert_eq!(number("nbf"), number("iat"));
    assert_eq!(
        claims["access"].to_string(),
        r#"[{"actions":["pull"],"name":"team/app","type":"repository"}]"#
    );
}
