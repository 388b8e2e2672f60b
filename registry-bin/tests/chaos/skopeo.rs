//! skopeo, which copies an image there and back meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::content::{Content, sha256};
use crate::support::repository::{CONFIG, LAYER, Repository, descriptor, image};

/// Images that take turns, so that each push moves the tag.
const IMAGES: u64 = 3;
/// A layer in several parts, and one in one.
const LAYERS: [u64; 2] = [6 << 20, 70_000];

/// How often one copy is tried.
const MOST_CALLS: u32 = 20;
/// What these programs say if a connection broke off, or the registry asks for patience.
const BROKEN: [&str; 9] = [
    "EOF",
    // A connection that was kept for the next request, whose server was killed.
    "server closed idle connection",
    "transport connection broken",
    "connection refused",
    "connection reset",
    "broken pipe",
    "use of closed network connection",
    "503",
    "UNAVAILABLE",
];

pub(crate) struct Skopeo {
    folder: PathBuf,
    address: SocketAddr,
    copies: AtomicU64,
}

impl Skopeo {
    /// Finds the program, and writes images for it as folders; `None` if it is not installed.
    ///
    /// # Panics
    /// If it is missing where `CI` is set.
    #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
    pub(crate) fn find(folder: &Path, address: SocketAddr) -> Option<Self> {
        if Command::new("skopeo").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "skopeo is missing");
            eprintln!("skopeo is not on this machine, so only the test's own clients work");
            return None;
        }
        for number in 0..IMAGES {
            let folder = folder.join(format!("image{number}"));
            std::fs::create_dir(&folder).expect("a folder can be made");
            let write = |name: &str, content: &[u8]| {
                std::fs::write(folder.join(name), content).expect("a file can be written");
            };
            let config =
                serde_json::json!({"architecture": "amd64", "os": "linux", "number": number}).to_string();
            let mut contents = vec![(CONFIG, config.into_bytes())];
            contents.extend(LAYERS.map(|length| (LAYER, Content::new(1000 + number, length).bytes())));
            let descriptors: Vec<_> = contents
                .iter()
                .map(|(media_type, content)| descriptor(media_type, content))
                .collect();
            for (_, content) in &contents {
                write(sha256(content).trim_start_matches("sha256:"), content);
            }
            let manifest = image(&descriptors[0], &descriptors[1..]);
            write("manifest.json", manifest.to_string().as_bytes());
            write("version", b"Directory Transport Version: 1.1\n");
        }
        Some(Self {
            folder: folder.to_owned(),
            address,
            copies: AtomicU64::new(0),
        })
    }

    pub(crate) fn copies(&self) -> u64 {
        self.copies.load(Ordering::SeqCst)
    }

    /// Pushes and pulls until it is told to stop.
    pub(crate) fn work(&self, stop: &AtomicBool) {
        let remote = format!("docker://{}/chaos/skopeo:latest", self.address);
        for number in (0..IMAGES).cycle() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let source = self.folder.join(format!("image{number}"));
            let target = self.folder.join("pulled");
            self.copy(&format!("dir:{}", source.display()), &remote);
            self.copy(&remote, &format!("dir:{}", target.display()));
            let manifest =
                |folder: &Path| std::fs::read(folder.join("manifest.json")).expect("skopeo wrote it");
            assert!(manifest(&source) == manifest(&target), "another image was pulled");
            std::fs::remove_dir_all(&target).expect("the folder can be removed");
            self.copies.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn copy(&self, from: &str, to: &str) {
        until_unbroken(&format!("skopeo from {from} to {to}"), || {
            let mut command = Command::new("skopeo");
            command.args([
                "--insecure-policy",
                "copy",
                "--retry-times",
                "5",
                "--preserve-digests",
            ]);
            command.args(["--src-tls-verify=false", "--dest-tls-verify=false", from, to]);
            let output = command.env("HOME", &self.folder).output().expect("skopeo runs");
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    }

    pub(crate) fn delete_all(&self) {
        let repository = Repository::new(self.address, "chaos/skopeo");
        for number in 0..IMAGES {
            let file = self.folder.join(format!("image{number}/manifest.json"));
            let digest = sha256(&std::fs::read(file).expect("it was written"));
            let response = repository.delete(&format!("manifests/{digest}"));
            assert!(matches!(response.status, 202 | 404), "{}", response.summary());
        }
    }
}

/// Calls a program, and again as a person would if a connection broke off in a place that it does not repeat, such as the middle
/// of a small blob.
pub(crate) fn until_unbroken<T>(what: &str, call: impl Fn() -> Result<T, String>) {
    let mut complaints = Vec::new();
    for _ in 0..MOST_CALLS {
        let Err(complaint) = call() else { return };
        let is_broken = BROKEN.iter().any(|broken| complaint.contains(broken));
        assert!(is_broken, "{what}: {complaint}");
        complaints.push(complaint);
    }
    panic!("{what}: {complaints:?}");
}
