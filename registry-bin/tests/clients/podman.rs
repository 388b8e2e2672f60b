//! podman: pull, push under another name, remove, pull by digest.

use crate::samples::{FILES, expect_file, push_image};
use crate::support::repository::Repository;
use crate::tools::{podman, server_and_folder};

#[test]
fn an_image_is_pulled_pushed_and_pulled_by_digest() {
    let (server, folder) = server_and_folder();
    let Some(podman) = podman(folder.path()) else {
        return;
    };
    push_image(&Repository::new(server.address(), "pod/test"), "v1");
    let first = format!("{}/pod/test:v1", server.address());
    let second = format!("{}/pod/copy:v2", server.address());
    podman.run(["pull", "--tls-verify=false", &first]);
    podman.run(["tag", &first, &second]);
    podman.run(["push", "--tls-verify=false", &second]);
    podman.run(["rmi", "--all", "--force"]);
    let copy = Repository::new(server.address(), "pod/copy");
    let pushed = copy
        .head("manifests/v2")
        .header("Docker-Content-Digest")
        .expect("a digest")
        .to_owned();
    let by_digest = format!("{}/pod/copy@{pushed}", server.address());
    podman.run(["pull", "--tls-verify=false", &by_digest]);
    podman.run(["create", "--name", "probe", &by_digest, "/byte"]);
    for (name, _) in FILES {
        let out = folder.path().join(name);
        podman.run([
            "cp",
            &format!("probe:/{name}"),
            out.to_str().expect("a plain path"),
        ]);
        expect_file(&out, name);
    }
    podman.run(["rm", "--force", "probe"]);
}
