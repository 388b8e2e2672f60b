//! What must not be told.

use crate::support::server::until;
use crate::support::users::{GuardedServer, set_password};

/// Stands in every secret of the test.
const CANARY: &str = "canary-7f3a";

const CONFIGURATION: &str = "\
version: 0.1
log: {level: debug}
storage: {filesystem: {rootdirectory: FOLDER/data}}
http: {secret: canary-7f3a-http}
redis: {password: canary-7f3a-redis}
auth: {token: {service: registry, builtin: {users: USERS}}}
";

#[test]
fn cve_2025_48374_no_secret_is_in_a_log_or_an_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    set_password(&folder.path().join("users"), "carol", "canary-7f3a-pw");
    let server = GuardedServer::start_in(folder, CONFIGURATION);
    let get = |target: &str, authorization: &str| {
        server
            .server
            .request("GET", target)
            .header("Authorization", authorization)
            .send()
    };
    // carol:canary-7f3a-pw, and carol with another password.
    let right = "Basic Y2Fyb2w6Y2FuYXJ5LTdmM2EtcHc=";
    let wrong = "Basic Y2Fyb2w6Y2FuYXJ5LTdmM2Etd3Jvbmc=";
    let answer = get(
        "/auth/token?service=registry&offline_token=true&scope=repository:a:pull,push",
        right,
    );
    answer.expect_status(200);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    let refresh = answer.json()["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let mut answers = vec![
        get("/auth/token?scope=repository:a:pull", wrong),
        get("/v2/a/manifests/x", &format!("Bearer {token}")),
        get("/v2/b/manifests/x", &format!("Bearer {token}")),
        get("/v2/a/manifests/x", &format!("Bearer {token}x")),
        get("/v2/a/manifests/x", &format!("Bearer {CANARY}")),
        get("/v2/", right),
        get("/v2/a/manifests/x?password=canary-7f3a-query", right),
    ];
    for form in [
        format!("grant_type=password&username=carol&password={CANARY}"),
        format!("grant_type=refresh_token&refresh_token={CANARY}"),
        format!("grant_type={CANARY}-x"),
    ] {
        answers.push(
            server
                .server
                .request("POST", "/auth/token")
                .body(form.as_bytes())
                .send(),
        );
    }
    for answer in &answers {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(
            !body.contains(CANARY) && !format!("{:?}", answer.headers).contains(CANARY),
            "{body}"
        );
    }
    let used = server.server.request("POST", "/auth/token");
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&scope=repository:a:pull");
    used.body(form.as_bytes()).send().expect_status(200);
    until(|| server.server.output().contains("/v2/b/manifests/x"));
    let output = server.server.output();
    for secret in [CANARY, token.as_str(), refresh.as_str(), "Y2Fyb2w6"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
    // A token for others is none for the registry, and the other way about.
    get("/v2/a/manifests/x", &format!("Bearer {refresh}")).expect_status(401);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    server
        .server
        .request("POST", "/auth/token")
        .body(form.as_bytes())
        .send()
        .expect_status(401);
    // With another password the refresh token is worth nothing.
    set_password(&server.users(), "carol", "another");
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    until(|| {
        server
            .server
            .request("POST", "/auth/token")
            .body(form.as_bytes())
            .send()
            .status
            == 401
    });
}
