//! A Docker daemon of its own: build, push, remove, pull by tag and by digest, compare.

use crate::samples::{FILES, expect_file, write_files};
use crate::support::repository::Repository;
use crate::tools::{Daemon, Tool, find, server_and_folder};

#[test]
fn an_image_is_built_pushed_and_pulled_by_tag_and_digest() {
    let (server, folder) = server_and_folder();
    let (Some(program), Some(docker)) = (find("dockerd"), Tool::find("docker", folder.path())) else {
        return;
    };
    let path = |name: &str| {
        folder
            .path()
            .join(name)
            .to_str()
            .expect("a plain path")
            .to_owned()
    };
    let (data, exec, pid, host) = (
        path("data"),
        path("exec"),
        path("pid"),
        format!("unix://{}", path("socket")),
    );
    let mut daemon = Daemon::start(
        &program,
        folder.path(),
        &[
            "--data-root",
            &data,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "--host",
            &host,
            "--insecure-registry",
            "127.0.0.0/8",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver",
            "vfs",
        ],
    );
    let docker = docker
        .with(["--host", &host])
        .set("DOCKER_BUILDKIT", "0")
        .set("DOCKER_CONFIG", &path("config"));
    daemon.wait_until(folder.path(), || docker.try_run(["version"]).is_ok());

    let context = folder.path().join("context");
    write_files(&context);
    let recipe = "FROM scratch\nCOPY empty /\nCOPY byte /\nCOPY large /\nCMD [\"/byte\"]\n";
    std::fs::write(context.join("Dockerfile"), recipe).expect("a file can be written");
    let tagged = format!("{}/docker/test:v1", server.address());
    docker.run(["build", "-t", &tagged, context.to_str().expect("a plain path")]);
    docker.run(["push", &tagged]);
    // A second name: its layers are mounted or found.
    let other = format!("{}/docker/other:v1", server.address());
    docker.run(["tag", &tagged, &other]);
    docker.run(["push", &other]);

    let repository = Repository::new(server.address(), "docker/test");
    let digest = repository
        .head("manifests/v1")
        .header("Docker-Content-Digest")
        .expect("a digest")
        .to_owned();
    let by_digest = format!("{}/docker/test@{digest}", server.address());
    for (number, reference) in [&tagged, &other, &by_digest].into_iter().enumerate() {
        docker.run(["system", "prune", "--all", "--force"]);
        docker.run(["pull", reference]);
        let probe = format!("probe{number}");
        docker.run(["create", "--name", &probe, reference, "/byte"]);
        for (name, _) in FILES {
            let out = folder.path().join(format!("{name}{number}"));
            docker.run([
                "cp",
                &format!("{probe}:/{name}"),
                out.to_str().expect("a plain path"),
            ]);
            expect_file(&out, name);
        }
        docker.run(["rm", "--force", &probe]);
    }
}
