//! buildah: build, push, remove, pull.

use crate::samples::{FILES, expect_file, write_files};
use crate::tools::{Tool, server_and_folder};

#[test]
fn an_image_is_built_pushed_and_pulled() {
    let (server, folder) = server_and_folder();
    let (root, run) = (folder.path().join("root"), folder.path().join("run"));
    let Some(buildah) = Tool::find("buildah", folder.path()) else {
        return;
    };
    let buildah = buildah
        .with([
            "--root",
            root.to_str().expect("a plain path"),
            "--runroot",
            run.to_str().expect("a plain path"),
        ])
        .with(["--storage-driver", "vfs"]);
    let context = folder.path().join("context");
    write_files(&context);
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY empty byte /\nCOPY large /\n",
    )
    .expect("a file can be written");
    let reference = format!("{}/built/by-buildah:v1", server.address());
    let context = context.to_str().expect("a plain path");
    buildah.run([
        "build",
        "--isolation",
        "chroot",
        "--layers",
        "-t",
        &reference,
        context,
    ]);
    buildah.run(["push", "--tls-verify=false", &reference]);
    buildah.run(["rmi", "--all", "--force"]);
    buildah.run(["pull", "--tls-verify=false", &reference]);
    let container = buildah.run(["from", "--pull-never", &reference]);
    let mounted = buildah.run(["mount", container.trim()]);
    for (name, _) in FILES {
        expect_file(&std::path::Path::new(mounted.trim()).join(name), name);
    }
    buildah.run(["umount", "--all"]);
}
