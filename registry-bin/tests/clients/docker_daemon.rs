//! A Docker daemon of the test's own: its data, its socket and its client's configuration are in the test's folder.

use std::path::Path;

use crate::tools::{Daemon, Tool, find};

/// A daemon that runs, and a client of it.
pub(crate) struct DockerDaemon {
    pub(crate) docker: Tool,
    /// Where it listens, as `DOCKER_HOST` takes it.
    pub(crate) host: String,
    _daemon: Daemon,
}

impl DockerDaemon {
    /// Starts a daemon and waits until it answers; nothing where there is none on this machine. Registries on loopback
    /// may speak plain HTTP.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let (program, docker) = (find("dockerd")?, Tool::find("docker", folder)?);
        let path = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
        let host = format!("unix://{}", path("socket"));
        let arguments = [
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("pid"),
            "--host",
            &host,
            "--insecure-registry",
            "127.0.0.0/8",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver",
            "vfs",
        ];
        let mut daemon = Daemon::start(&program, folder, &arguments);
        let docker = docker
            .with(["--host", &host])
            .set("DOCKER_BUILDKIT", "0")
            .set("DOCKER_CONFIG", &path("config"));
        daemon.wait_until(folder, || docker.try_run(["version"]).is_ok());
        Some(Self {
            docker,
            host,
            _daemon: daemon,
        })
    }

    /// Returns a client that has the daemon build by `BuildKit`, with the same logins.
    pub(crate) fn buildkit(&self, folder: &Path) -> Option<Tool> {
        let config = folder.join("config");
        let docker = Tool::find("docker", folder)?.with(["--host", &self.host]);
        let docker = docker.set("DOCKER_CONFIG", config.to_str().expect("a plain path"));
        Some(docker.set("DOCKER_BUILDKIT", "1"))
    }
}
