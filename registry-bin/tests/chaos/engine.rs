//! docker and podman, which push and pull images of their own meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::skopeo::until_unbroken;
use crate::docker_daemon::DockerDaemon;
use crate::support::content::Content;
use crate::support::repository::Repository;
use crate::tools::{Tool, podman};

/// How many images take turns. Each has a layer that the others do not have.
const IMAGES: u64 = 32;
/// The length of the only file of an image: its layer has several parts.
const FILE_BYTES: u64 = 6 << 20;

/// A program that keeps images, and has the same commands as the other one.
pub(crate) struct Engine {
    name: &'static str,
    tool: Tool,
    /// What makes it speak to a registry without TLS.
    plain: &'static [&'static str],
    folder: PathBuf,
    address: SocketAddr,
    /// What was pushed.
    digests: BTreeSet<String>,
    pub(crate) copies: u64,
    _daemon: Option<DockerDaemon>,
}

impl Engine {
    /// Starts those that are installed.
    pub(crate) fn all(folder: &Path, address: SocketAddr) -> Vec<Self> {
        let own = |name: &str| {
            let folder = folder.join(name);
            std::fs::create_dir(&folder).expect("a folder can be made");
            folder
        };
        let engine = |name, tool, folder: PathBuf, plain, daemon| Self {
            name,
            tool,
            plain,
            folder,
            address,
            digests: BTreeSet::new(),
            copies: 0,
            _daemon: daemon,
        };
        let (of_docker, of_podman) = (own("docker"), own("podman"));
        let docker = DockerDaemon::start(&of_docker)
            .map(|daemon| engine("docker", daemon.docker.clone(), of_docker, &[][..], Some(daemon)));
        let podman =
            podman(&of_podman).map(|tool| engine("podman", tool, of_podman, &["--tls-verify=false"], None));
        docker.into_iter().chain(podman).collect()
    }

    /// Pushes and pulls until it is told to stop.
    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        let image = format!("{}/chaos/{}:latest", self.address, self.name);
        let file = self.folder.join("file");
        for number in (0..IMAGES).cycle() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let archive = self.write_archive(&file, number);
            self.tool.run(["import", path(&archive), &image]);
            let pushed = self.inspect("{{.Id}}", &image);
            self.over_network("push", &image);
            self.tool.run(["rmi", "--force", &image]);
            self.over_network("pull", &image);
            assert_eq!(
                self.inspect("{{.Id}}", &image),
                pushed,
                "another image was pulled"
            );
            let digest = self.inspect("{{index .RepoDigests 0}}", &image);
            let digest = digest.trim().split_once('@').expect("a name and a digest").1;
            self.digests.insert(digest.to_owned());
            self.tool.run(["rmi", "--force", &image]);
            self.copies += 1;
        }
    }

    /// Writes the only layer of an image.
    fn write_archive(&self, file: &Path, number: u64) -> PathBuf {
        let content = Content::new(2000 + number, FILE_BYTES);
        let mut opened = std::fs::File::create(file).expect("a file can be made");
        io::copy(&mut { content }, &mut opened).expect("a file can be written");
        let archive = self.folder.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--mtime=@0", "--file", path(&archive), "file"]);
        assert!(
            tar.current_dir(&self.folder)
                .status()
                .expect("tar runs")
                .success()
        );
        archive
    }

    fn inspect(&self, format: &str, image: &str) -> String {
        self.tool.run(["image", "inspect", "--format", format, image])
    }

    fn over_network(&self, command: &str, image: &str) {
        let arguments = [&[command][..], self.plain, &[image]].concat();
        until_unbroken(&format!("{} {command}", self.name), || {
            self.tool.try_run(&arguments)
        });
    }

    pub(crate) fn delete_all(&self) {
        let repository = Repository::new(self.address, format!("chaos/{}", self.name));
        for digest in &self.digests {
            let response = repository.delete(&format!("manifests/{digest}"));
            assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.copies)
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
