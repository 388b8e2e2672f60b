//! People and machines that log in: to an htpasswd file, to our token server, and to one of somebody else's, each without
//! encryption, by a private authority, and by the certificate that the server makes.

use std::path::Path;

use crate::docker_daemon::DockerDaemon;
use crate::login_places::{Place, places};
use crate::samples::push_image;
use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::support::users::PASSWORD;
use crate::tools::Tool;

#[test]
fn docker_logs_in_pushes_and_pulls() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(daemon) = DockerDaemon::start(folder.path()) else {
        return;
    };
    let context = folder.path().join("context");
    std::fs::create_dir(&context).expect("a folder can be made");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /\nCMD [\"/x\"]\n",
    )
    .expect("a file can be written");
    let Some(buildkit) = daemon.buildkit(folder.path()) else {
        return;
    };
    for place in places() {
        let Some(_trusted) = place.trusted_by_docker() else {
            continue;
        };
        docker_at(&daemon.docker, &place, context.to_str().expect("a plain path"));
        // It takes registries on loopback for ones without encryption.
        if !place.is_encrypted() {
            buildkit_at(&buildkit, &daemon.docker, &place, folder.path());
        }
    }
}

/// `BuildKit` asks for its tokens itself, with what Docker keeps of a login.
fn buildkit_at(buildkit: &Tool, docker: &Tool, place: &Place, folder: &Path) {
    let (host, name) = (&place.host, &place.name);
    let context = folder.join(host);
    std::fs::create_dir(&context).expect("a folder can be made");
    let file = format!("FROM {host}/team/app:v1\nCOPY Dockerfile /again\n");
    std::fs::write(context.join("Dockerfile"), file).expect("a file can be written");
    let build = || {
        buildkit.try_run([
            "build",
            "--no-cache",
            "--pull",
            context.to_str().expect("a plain path"),
        ])
    };
    let refused = build().expect_err("nobody is logged in");
    if refused.contains("buildx component is missing") {
        return;
    }
    docker.run(["login", "--username", "bob", "--password", PASSWORD, host]);
    build().unwrap_or_else(|error| panic!("{name}: {error}"));
    docker.run(["logout", host]);
    docker.run(["system", "prune", "--all", "--force"]);
}

fn docker_at(docker: &Tool, place: &Place, context: &str) {
    let (host, name) = (&place.host, &place.name);
    let image = format!("{host}/team/app:v1");
    docker.run(["build", "-t", &image, context]);
    let refused = docker.try_run(["push", &image]).expect_err("nobody is logged in");
    assert!(
        refused.contains("denied") || refused.contains("unauthorized") || refused.contains("no basic auth"),
        "{name}: {refused}"
    );
    let login = |user: &str, password: &str| {
        docker.try_run(["login", "--username", user, "--password", password, host])
    };
    let wrong = login("alice", "wrong").expect_err("the password is wrong");
    assert!(
        wrong.contains("401") || wrong.contains("unauthorized"),
        "{name}: {wrong}"
    );
    login("alice", PASSWORD).unwrap_or_else(|error| panic!("{name}: {error}"));
    docker.run(["push", &image]);
    let public = format!("{host}/public/app:v1");
    docker.run(["tag", &image, &public]);
    docker.run(["push", &public]);
    docker.run(["system", "prune", "--all", "--force"]);
    docker.run(["pull", &image]);
    login("bob", PASSWORD).unwrap_or_else(|error| panic!("{name}: {error}"));
    docker.run(["pull", &image]);
    docker.run(["tag", &image, &format!("{host}/team/app:v2")]);
    let refused = docker
        .try_run(["push", &format!("{host}/team/app:v2")])
        .expect_err("bob may not push");
    assert!(
        refused.contains("bob may not push to team/app") || refused.contains("denied"),
        "{name}: {refused}"
    );
    docker.run(["logout", host]);
    docker.run(["system", "prune", "--all", "--force"]);
    docker.try_run(["pull", &image]).expect_err("nobody is logged in");
    if place.is_open_to_docker {
        docker.run(["pull", &public]);
    }
    docker.run(["system", "prune", "--all", "--force"]);
}

#[test]
fn skopeo_and_podman_log_in() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (Some(skopeo), Some(podman)) = (
        crate::skopeo::tool(folder.path()),
        crate::tools::podman(folder.path()),
    ) else {
        return;
    };
    let open = Server::memory();
    push_image(&Repository::new(open.address(), "source"), "v1");
    let source = format!("docker://{}/source:v1", open.address());
    for place in places() {
        skopeo_at(&skopeo, &place, &source);
        let authfile = folder.path().join("auth.json");
        podman_at(&podman, &place, authfile.to_str().expect("a plain path"));
    }
}

fn skopeo_at(skopeo: &Tool, place: &Place, source: &str) {
    let (host, name) = (&place.host, &place.name);
    let call = |command: &[&str], options: Vec<String>, credentials: &[&str], references: &[&str]| {
        let mut arguments: Vec<String> = command.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.extend(options);
        arguments.extend(
            credentials
                .iter()
                .chain(references)
                .map(|argument| (*argument).to_owned()),
        );
        skopeo.try_run(arguments)
    };
    let copy = |credentials: &[&str], target: &str| {
        let command = ["copy", "--src-tls-verify=false"];
        call(&command, place.option("dest-"), credentials, &[source, target])
    };
    let team = format!("docker://{host}/team/app:v1");
    let public = format!("docker://{host}/public/app:v1");
    copy(&[], &team).expect_err("nobody is logged in");
    copy(&["--dest-creds", "alice:wrong"], &team).expect_err("the password is wrong");
    copy(&["--dest-creds", "bob:secret"], &team).expect_err("bob may not push");
    for target in [&team, &public] {
        copy(&["--dest-creds", "alice:secret"], target).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let inspect = |credentials: &[&str], target: &str| {
        call(
            &["inspect", "--no-tags"],
            place.option(""),
            credentials,
            &[target],
        )
    };
    inspect(&["--creds", "bob:secret"], &team).unwrap_or_else(|error| panic!("{name}: {error}"));
    inspect(&[], &team).expect_err("nobody is logged in");
    inspect(&[], &public).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn podman_at(podman: &Tool, place: &Place, authfile: &str) {
    let (host, name) = (&place.host, &place.name);
    let call = |command: &str, more: &[&str]| {
        let mut arguments = vec![command.to_owned(), "--authfile".to_owned(), authfile.to_owned()];
        arguments.extend(place.option(""));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        podman.try_run(arguments)
    };
    let login =
        |user: &str, password: &str| call("login", &["--username", user, "--password", password, host]);
    login("bob", "wrong").expect_err("the password is wrong");
    login("bob", PASSWORD).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (image, other) = (format!("{host}/team/app:v1"), format!("{host}/team/other:v1"));
    call("pull", &[&image]).unwrap_or_else(|error| panic!("{name}: {error}"));
    call("push", &[&image, &other]).expect_err("bob may not push");
    login("alice", PASSWORD).unwrap_or_else(|error| panic!("{name}: {error}"));
    call("push", &[&image, &other]).unwrap_or_else(|error| panic!("{name}: {error}"));
    podman.run(["logout", "--authfile", authfile, host]);
    podman.run(["rmi", "--all", "--force"]);
    call("pull", &[&image]).expect_err("nobody is logged in");
}

#[test]
fn ctr_gives_a_user() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(containerd) = crate::containerd::start(folder.path()) else {
        return;
    };
    let ctr = &containerd.ctr;
    let open = Server::memory();
    push_image(&Repository::new(open.address(), "source"), "v1");
    let source = format!("{}/source:v1", open.address());
    for place in places() {
        ctr.run([
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            &source,
        ]);
        let target = format!("{}/team/app:v1", place.host);
        ctr.run(["images", "tag", &source, &target]);
        let call = |command: &[&str], user: &str| {
            let mut arguments = vec!["images".to_owned()];
            arguments.extend(command.iter().map(|argument| (*argument).to_owned()));
            arguments.extend(place.ctr_option());
            arguments.extend(["--user".to_owned(), user.to_owned(), target.clone()]);
            ctr.try_run(arguments)
        };
        let name = &place.name;
        call(&["push"], "alice:wrong").expect_err("the password is wrong");
        call(&["push"], "bob:secret").expect_err("bob may not push");
        call(&["push"], "alice:secret").unwrap_or_else(|error| panic!("{name}: {error}"));
        ctr.run(["images", "remove", "--sync", &source, &target]);
        let pull = ["pull", "--snapshotter", "native"];
        call(&pull, "bob:secret").unwrap_or_else(|error| panic!("{name}: {error}"));
        ctr.run(["images", "remove", "--sync", &target]);
    }
}
