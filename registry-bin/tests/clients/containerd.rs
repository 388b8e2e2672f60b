//! containerd: `ctr` pulls, pushes under another name, and pulls that.

use std::path::Path;

use crate::samples::{FILES, expect_file, push_image};
use crate::support::repository::Repository;
use crate::tools::{Daemon, Tool, find, server_and_folder};

/// A containerd that runs, and its client.
pub(crate) struct Containerd {
    pub(crate) ctr: Tool,
    _daemon: Daemon,
}

/// Starts a containerd whose files are in `folder`; nothing where there is none on this machine.
pub(crate) fn start(folder: &Path) -> Option<Containerd> {
    let (program, ctr) = (find("containerd")?, Tool::find("ctr", folder)?);
    let path = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
    std::fs::write(
        path("config.toml"),
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
    )
    .expect("a file can be written");
    let (config, root, state, socket) = (path("config.toml"), path("root"), path("state"), path("socket"));
    let arguments = [
        "--config",
        &config,
        "--root",
        &root,
        "--state",
        &state,
        "--address",
        &socket,
    ];
    let mut daemon = Daemon::start(&program, folder, &arguments);
    let ctr = ctr.with(["--address", &socket]);
    daemon.wait_until(folder, || ctr.try_run(["version"]).is_ok());

    Some(Containerd { ctr, _daemon: daemon })
}

#[test]
fn an_image_is_pulled_pushed_and_pulled_again() {
    let (server, folder) = server_and_folder();
    let Some(containerd) = start(folder.path()) else {
        return;
    };
    let ctr = &containerd.ctr;
    let path = |name: &str| {
        folder
            .path()
            .join(name)
            .to_str()
            .expect("a plain path")
            .to_owned()
    };

    let repository = Repository::new(server.address(), "ctr/test");
    let digest = push_image(&repository, "v1");
    let first = format!("{}/ctr/test:v1", server.address());
    let second = format!("{}/ctr/copy:v2", server.address());
    let pull = |reference: &str| {
        ctr.run([
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "native",
            reference,
        ]);
    };
    pull(&first);
    ctr.run(["images", "tag", &first, &second]);
    ctr.run(["images", "push", "--plain-http", &second]);
    let copy = Repository::new(server.address(), "ctr/copy");
    copy.head("manifests/v2")
        .expect_header("Docker-Content-Digest", &digest);
    ctr.run(["images", "remove", "--sync", &first, &second]);
    pull(&second);
    let mounted = path("mounted");
    std::fs::create_dir(&mounted).expect("a folder can be made");
    ctr.run([
        "images",
        "mount",
        "--snapshotter",
        "native",
        "--plain-http",
        &second,
        &mounted,
    ]);
    for (name, _) in FILES {
        expect_file(&Path::new(&mounted).join(name), name);
    }
    ctr.run(["images", "unmount", "--snapshotter", "native", "--rm", &mounted]);
}
