//! A Docker daemon of its own: build, push, remove, pull by tag and by digest, compare.

use crate::docker_daemon::DockerDaemon;
use crate::samples::{FILES, expect_file, write_files};
use crate::support::repository::Repository;
use crate::tools::server_and_folder;

#[test]
fn an_image_is_built_pushed_and_pulled_by_tag_and_digest() {
    let (server, folder) = server_and_folder();
    let Some(daemon) = DockerDaemon::start(folder.path()) else {
        return;
    };
    let docker = &daemon.docker;

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
