//! People and machines that log in: to an htpasswd file, to our token server, and to one of somebody else's.

use crate::docker_daemon::DockerDaemon;
use crate::samples::push_image;
use crate::support::issuer::Issuer;
use crate::support::repository::Repository;
use crate::support::users::{GuardedServer, PASSWORD};
use crate::tools::Tool;

const ACCESS: &str = "
access:
  rules:
    - {repositories: ['public/**'], identities: [anonymous], actions: [pull]}
    - {repositories: ['team/**', 'public/**'], identities: [alice], actions: ['*']}
    - {repositories: ['team/**'], identities: [bob], actions: [pull]}
";

/// A way to log in: its configuration.
fn ways() -> Vec<(&'static str, String, Option<Issuer>)> {
    let base = "version: 0.1\nstorage: {inmemory: {}}\n";
    let issuer = Issuer::start();
    let external = format!(
        "auth: {{token: {{realm: '{}', service: registry, issuer: issuer, jwks: '{}'}}}}",
        issuer.url(),
        issuer.key_set().display()
    );
    vec![
        (
            "htpasswd",
            format!("{base}auth: {{htpasswd: {{realm: Registry, path: USERS}}}}{ACCESS}"),
            None,
        ),
        (
            "built-in",
            format!("{base}auth: {{token: {{service: registry, builtin: {{users: USERS}}}}}}{ACCESS}"),
            None,
        ),
        ("external", format!("{base}{external}{ACCESS}"), Some(issuer)),
    ]
}

#[test]
fn docker_logs_in_pushes_and_pulls() {
    for (way, configuration, _issuer) in ways() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = GuardedServer::start(&configuration);
        let Some(daemon) = DockerDaemon::start(folder.path()) else {
            return;
        };
        let docker = &daemon.docker;
        let host = server.server.address().to_string();
        let context = folder.path().join("context");
        std::fs::create_dir(&context).expect("a folder can be made");
        std::fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nCOPY Dockerfile /\nCMD [\"/x\"]\n",
        )
        .expect("a file can be written");
        let image = format!("{host}/team/app:v1");
        docker.run(["build", "-t", &image, context.to_str().expect("a plain path")]);
        let refused = docker.try_run(["push", &image]).expect_err("nobody is logged in");
        assert!(
            refused.contains("denied")
                || refused.contains("unauthorized")
                || refused.contains("no basic auth"),
            "{way}: {refused}"
        );
        let login = |user: &str, password: &str| {
            docker.try_run(["login", "--username", user, "--password", password, &host])
        };
        let wrong = login("alice", "wrong").expect_err("the password is wrong");
        assert!(
            wrong.contains("401") || wrong.contains("unauthorized"),
            "{way}: {wrong}"
        );
        login("alice", PASSWORD).unwrap_or_else(|error| panic!("{way}: {error}"));
        docker.run(["push", &image]);
        let public = format!("{host}/public/app:v1");
        docker.run(["tag", &image, &public]);
        docker.run(["push", &public]);
        docker.run(["system", "prune", "--all", "--force"]);
        docker.run(["pull", &image]);
        login("bob", PASSWORD).unwrap_or_else(|error| panic!("{way}: {error}"));
        docker.run(["pull", &image]);
        docker.run(["tag", &image, &format!("{host}/team/app:v2")]);
        let refused = docker
            .try_run(["push", &format!("{host}/team/app:v2")])
            .expect_err("bob may not push");
        assert!(
            refused.contains("bob may not push to team/app") || refused.contains("denied"),
            "{way}: {refused}"
        );
        docker.run(["logout", &host]);
        docker.run(["system", "prune", "--all", "--force"]);
        docker.try_run(["pull", &image]).expect_err("nobody is logged in");
        // Docker asks for Basic credentials or gives up: anonymous pulls need a token server.
        if way != "htpasswd" {
            docker.run(["pull", &public]);
        }
    }
}

#[test]
fn skopeo_and_podman_log_in() {
    for (way, configuration, _issuer) in ways() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = GuardedServer::start(&configuration);
        let (Some(skopeo), Some(podman)) = (
            Tool::find("skopeo", folder.path()),
            crate::podman::tool(folder.path()),
        ) else {
            return;
        };
        let open = crate::support::server::Server::memory();
        push_image(&Repository::new(open.address(), "source"), "v1");
        let host = server.server.address().to_string();
        let source = format!("docker://{}/source:v1", open.address());
        let copy = |credentials: &[&str], target: &str| {
            let mut arguments = vec!["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
            arguments.extend(credentials);
            arguments.extend([source.as_str(), target]);
            skopeo.try_run(arguments)
        };
        let (team, public) = (
            format!("docker://{host}/team/app:v1"),
            format!("docker://{host}/public/app:v1"),
        );
        copy(&[], &team).expect_err("nobody is logged in");
        copy(&["--dest-creds", "alice:wrong"], &team).expect_err("the password is wrong");
        copy(&["--dest-creds", "bob:secret"], &team).expect_err("bob may not push");
        for target in [&team, &public] {
            copy(&["--dest-creds", "alice:secret"], target).unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        let inspect = |credentials: &[&str], target: &str| {
            let mut arguments = vec!["inspect", "--tls-verify=false", "--no-tags"];
            arguments.extend(credentials);
            arguments.push(target);
            skopeo.try_run(arguments)
        };
        inspect(&["--creds", "bob:secret"], &team).unwrap_or_else(|error| panic!("{way}: {error}"));
        inspect(&[], &team).expect_err("nobody is logged in");
        inspect(&[], &public).unwrap_or_else(|error| panic!("{way}: {error}"));
        let authfile = folder.path().join("auth.json");
        let authfile = authfile.to_str().expect("a plain path");
        let reference = format!("{host}/team/app:v1");
        podman.run([
            "login",
            "--tls-verify=false",
            "--authfile",
            authfile,
            "--username",
            "bob",
            "--password",
            PASSWORD,
            &host,
        ]);
        podman.run(["pull", "--tls-verify=false", "--authfile", authfile, &reference]);
        podman
            .try_run(["push", "--tls-verify=false", "--authfile", authfile, &reference])
            .map(drop)
            .unwrap_or_default();
    }
}

#[test]
fn ctr_gives_a_user() {
    for (way, configuration, _issuer) in ways() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let server = GuardedServer::start(&configuration);
        let Some(containerd) = crate::containerd::start(folder.path()) else {
            return;
        };
        let ctr = &containerd.ctr;
        let open = crate::support::server::Server::memory();
        push_image(&Repository::new(open.address(), "source"), "v1");
        let source = format!("{}/source:v1", open.address());
        let target = format!("{}/team/app:v1", server.server.address());
        ctr.run([
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            &source,
        ]);
        ctr.run(["images", "tag", &source, &target]);
        let push = |user: &str| ctr.try_run(["images", "push", "--plain-http", "--user", user, &target]);
        push("alice:wrong").expect_err("the password is wrong");
        push("bob:secret").expect_err("bob may not push");
        push("alice:secret").unwrap_or_else(|error| panic!("{way}: {error}"));
        ctr.run(["images", "remove", "--sync", &source, &target]);
        let pull = [
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            "--user",
            "bob:secret",
            &target,
        ];
        ctr.try_run(pull).unwrap_or_else(|error| panic!("{way}: {error}"));
    }
}
