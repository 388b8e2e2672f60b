//! Secrets are put wherever one can be, and looked for wherever an operator or a client looks.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::address::free_address;
use crate::support::client::Request;
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::support::sink::Sink;
use crate::write;

/// Stands in every secret.
const CANARY: &str = "canary";

/// The same in Base64, as it stands in `Authorization: Basic` of `user:canary`.
const ENCODED: &str = "dXNlcjpjYW5hcnk=";

fn configuration(sink: &str, debug: &str, nobody: &str, form: &str) -> String {
    let open = sink.replace("http://", "http://user:canary@");
    format!(
        "version: 0.1
log:
  level: debug
  formatter: {form}
  accesslog: {{format: {access}}}
  audit: {{path: FOLDER/audit}}
  hooks: [{{disabled: true, type: mail, options: {{smtp: {{password: canary}}}}}}]
storage: {{filesystem: {{rootdirectory: FOLDER/data}}}}
http: {{secret: canary, debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}
redis: {{password: canary}}
notifications:
  endpoints:
    - {{name: open, url: '{open}?token=canary', headers: {{X-Token: [canary]}}}}
    - {{name: closed, url: 'http://user:canary@{nobody}/?token=canary', backoff: 10ms, threshold: 1}}
health:
  http:
    - {{uri: 'http://user:canary@{nobody}/?token=canary', headers: {{X-Token: [canary]}}, interval: 10ms}}
",
        access = if form == "json" { "json" } else { "combined" },
    )
}

#[test]
fn cve_2025_48374_no_log_metric_or_debug_page_shows_a_secret() {
    for form in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let sink = Sink::start();
        let (debug, nobody) = (free_address(), free_address());
        let text = configuration(&sink.url(), &debug.to_string(), &nobody.to_string(), form);
        let path = write(folder.path(), &text);
        let path = path.to_str().expect("temporary folders have plain names");
        let environment = [
            ("REGISTRY_REDIS_PASSWORD", CANARY),
            ("REGISTRY_HTTP_SECRET", CANARY),
            ("REGISTRY_NO_SUCH_KEY", CANARY),
            ("AWS_SECRET_ACCESS_KEY", CANARY),
        ];
        let server = Server::run_with(&["serve", path, "--listen", "127.0.0.1:0"], &environment);
        Repository::new(server.address(), "a").push_image("v1", form);
        let mut shown = Vec::new();
        for (target, authorization) in [
            ("/v2/", "Bearer canary"),
            (
                "/v2/a/manifests/v1?access_token=canary",
                &*format!("Basic {ENCODED}"),
            ),
            ("/v2/a/manifests/none?x=canary", "canary"),
            ("/nonsense?canary", "Digest canary"),
        ] {
            let request = server
                .request("GET", target)
                .header("Authorization", authorization);
            let answer = request.header("Referer", "http://user:canary@x/?canary").send();
            shown.push((target.to_owned(), format!("{:?}", answer.headers)));
            shown.push((
                target.to_owned(),
                String::from_utf8_lossy(&answer.body).into_owned(),
            ));
        }
        // The secrets are used where they are for.
        let told = sink.wait(1).remove(0).header;
        assert!(told.contains("token=canary") && told.contains(ENCODED), "{told}");
        assert!(told.to_lowercase().contains("x-token: canary"), "{told}");

        let get = |path: &str| Request::new(debug, "GET", path).send();
        until(|| get("/debug/health").status == 503);
        until(|| {
            String::from_utf8_lossy(&get("/metrics").body).contains("type=\"Errors\",endpoint=\"closed\"} ")
        });
        for page in ["/metrics", "/debug/health", "/ready", "/live", "/startup"] {
            shown.push((
                page.to_owned(),
                String::from_utf8_lossy(&get(page).body).into_owned(),
            ));
        }
        for command in ["show", "check", "schema"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
            program.args(["config", command]).envs(environment);
            if command != "schema" {
                program.arg(path);
            }
            let output = program.output().expect("the program starts");
            assert!(output.status.success(), "{command}: {output:?}");
            shown.push((
                command.into(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            ));
            shown.push((
                command.into(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        until(|| server.output().contains("/nonsense"));
        server.output_with("does not take notifications");
        shown.push(("output".into(), server.output()));
        assert!(server.terminate().success());
        let audit = fs::read_to_string(folder.path().join("audit")).expect("there is an audit log");
        check_audit(&audit);
        shown.push(("audit".into(), audit));
        for (place, text) in shown {
            for secret in [CANARY, ENCODED] {
                assert!(!text.contains(secret), "{form}: {place}: {text}");
            }
        }
    }
}

/// The push of the test is there: who did what, from where.
fn check_audit(audit: &str) {
    let lines: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let push = lines
        .iter()
        .find(|line| line["tag"] == "v1")
        .expect("the push is there");
    assert_eq!(
        (&push["outcome"], &push["action"]),
        (&"done".into(), &"push".into())
    );
    assert!(
        push["client"]
            .as_str()
            .is_some_and(|client| client.starts_with("127.0.0.1:"))
    );
    assert!(
        push["digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
}
