//! The image of `deploy/`, run by a real Docker daemon: pushed to, pulled from, stopped and started again.
//!
//! `REGISTRY_STATIC_PROGRAM` names the program to put into it: what `bash deploy/build-static` printed.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::docker_daemon::DockerDaemon;
use crate::samples::{FILES, expect_file, write_files};
use crate::support::address::free_address;
use crate::support::client::Request;
use crate::tools::Tool;

const MOUNTED: &str = "\
version: 0.1
storage: {inmemory: {}}
http: {headers: {X-From: [what is mounted]}}
";

const RECIPE: &str = "FROM scratch\nCOPY empty /\nCOPY byte /\nCOPY large /\nCMD [\"/byte\"]\n";

#[test]
fn the_image_serves_as_nobody_keeps_its_volume_and_stops_in_order() {
    let Some(program) = std::env::var_os("REGISTRY_STATIC_PROGRAM") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "REGISTRY_STATIC_PROGRAM is missing"
        );
        eprintln!("skipped: REGISTRY_STATIC_PROGRAM names no program");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(daemon) = DockerDaemon::start(folder.path()) else {
        return;
    };
    let docker = &daemon.docker;
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/build-image");
    let bash = Tool::find("bash", folder.path()).expect("a shell");
    let bash = bash.set("DOCKER_HOST", &daemon.host);
    bash.run([
        build.as_os_str(),
        "--program".as_ref(),
        &program,
        "registry-bin:test".as_ref(),
    ]);

    let port = free_address().port();
    let address = format!("REGISTRY_HTTP_ADDR=127.0.0.1:{port}");
    // The daemon of the test has no network of its own for containers.
    docker.run([
        "run",
        "--detach",
        "--name",
        "registry",
        "--network",
        "host",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--health-interval",
        "1s",
        "--volume",
        "images:/var/lib/registry",
        "--env",
        &address,
        "registry-bin:test",
    ]);
    let logs = || bash.run(["-c", "docker logs registry 2>&1"]);
    wait_until_ready(docker, port, &logs);

    wait_until_healthy(docker, "registry", &logs);
    // Program and data are found without a flag, by the name that registry:2's image has for them.
    let checked = docker.run(["exec", "registry", "registry", "check"]);
    assert!(checked.contains("nothing is broken"), "{checked}");
    docker.run([
        "exec",
        "registry",
        "registry",
        "garbage-collect",
        "/etc/docker/registry/config.yml",
    ]);
    starts_by_the_command_lines_of_registry_2(docker, &bash);
    reads_what_is_mounted_for_registry_3(docker, &bash, folder.path());

    let context = folder.path().join("context");
    write_files(&context);
    std::fs::write(context.join("Dockerfile"), RECIPE).expect("a file can be written");
    let reference = format!("127.0.0.1:{port}/docker/test:v1");
    docker.run(["build", "-t", &reference, context.to_str().expect("a plain path")]);
    docker.run(["push", &reference]);

    docker.run(["stop", "--time", "60", "registry"]);
    let code = docker.run(["inspect", "--format", "{{.State.ExitCode}}", "registry"]);
    assert_eq!(code.trim(), "0", "{}", logs());
    docker.run(["start", "registry"]);
    wait_until_ready(docker, port, &logs);

    docker.run(["rmi", &reference]);
    docker.run(["pull", &reference]);
    docker.run(["create", "--name", "probe", &reference, "/byte"]);
    for (name, _) in FILES {
        let out = folder.path().join(name);
        docker.run([
            "cp",
            &format!("probe:/{name}"),
            out.to_str().expect("a plain path"),
        ]);
        expect_file(&out, name);
    }
    docker.run(["rm", "--force", "--volumes", "probe", "registry"]);
}

/// Charts and compose files name program and command in many ways, some with an entry point of their own.
fn starts_by_the_command_lines_of_registry_2(docker: &Tool, bash: &Tool) {
    const FILE: &str = "/etc/docker/registry/config.yml";
    for (entry, command) in [
        (None, &[FILE][..]),
        (None, &["serve", FILE]),
        (None, &["registry", "serve", FILE]),
        (None, &["/bin/registry", "serve", FILE]),
        (None, &["/entrypoint.sh", FILE]),
        (Some("/bin/registry"), &["serve", FILE]),
        (Some("/registry-bin"), &["serve", FILE]),
    ] {
        let options: Vec<&str> = entry.iter().flat_map(|entry| ["--entrypoint", entry]).collect();
        run_other(docker, bash, &options, command);
        docker.run(["rm", "--force", "--volumes", "other"]);
    }
}

/// registry:3's image has its file at another path than registry:2's. An `auth` in it must not be passed over.
fn reads_what_is_mounted_for_registry_3(docker: &Tool, bash: &Tool, folder: &Path) {
    const THREE: &str = "/etc/distribution/config.yml";
    let mounted = folder.join("mounted");
    std::fs::create_dir(&mounted).expect("a folder can be made");
    std::fs::set_permissions(&mounted, Permissions::from_mode(0o755)).expect("it is ours");
    std::fs::write(mounted.join("config.yml"), MOUNTED).expect("a file can be written");
    let mounted = mounted.to_str().expect("a plain path");
    let volume = |at: &str, inside: &str| format!("{mounted}{at}:{inside}:ro");
    for (volume, command) in [
        (volume("/config.yml", THREE), &[][..]),
        (volume("/config.yml", THREE), &["serve", THREE]),
        (volume("/config.yml", "/etc/docker/registry/config.yml"), &[THREE]),
        (volume("", "/etc/distribution"), &[]),
    ] {
        let address = run_other(docker, bash, &["--volume", &volume], command);
        let answer = Request::new(address, "GET", "/").send();
        answer.expect_header("X-From", "what is mounted");
        docker.run(["rm", "--force", "--volumes", "other"]);
    }
}

/// Runs the image as `other`, and returns where it serves once it is healthy.
fn run_other(docker: &Tool, bash: &Tool, options: &[&str], command: &[&str]) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], free_address().port()));
    let variable = format!("REGISTRY_HTTP_ADDR={address}");
    let mut arguments = vec![
        "run",
        "--detach",
        "--name",
        "other",
        "--network",
        "host",
        "--health-interval",
        "1s",
        "--env",
        &variable,
    ];
    arguments.extend(options);
    arguments.push("registry-bin:test");
    arguments.extend(command);
    docker.run(&arguments);
    let logs = || bash.run(["-c", "docker logs other 2>&1"]);
    wait_until_healthy(docker, "other", &logs);
    address
}

/// Waits until the health check of the image says so.
fn wait_until_healthy(docker: &Tool, name: &str, logs: &dyn Fn() -> String) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let health = docker.run([
            "inspect",
            "--format",
            "{{.State.Running}} {{.State.Health.Status}}",
            name,
        ]);
        match health.trim() {
            "true healthy" => return,
            other => assert!(
                other == "true starting" && std::time::Instant::now() < deadline,
                "{other}: {}",
                logs()
            ),
        }
        crate::support::server::pause();
    }
}

fn wait_until_ready(docker: &Tool, port: u16, logs: &dyn Fn() -> String) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let running = docker.run(["inspect", "--format", "{{.State.Running}}", "registry"]);
        assert!(
            running.trim() == "true" && std::time::Instant::now() < deadline,
            "the container does not serve: {}",
            logs()
        );
        crate::support::server::pause();
    }
}
