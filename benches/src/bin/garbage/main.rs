//! The collector beside distribution's `garbage-collect`, on copies of one tree, of which some images were deleted; and once
//! more after others were, as each night, while our server serves.
//!
//! ```text
//! cargo run --release -p registry-benches --bin garbage -- --images 5000
//! ```
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../../../registry-bin/tests/support/content.rs"]
mod content;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use clap::Parser;

use self::content::sha256;

/// Times both, each on its own copy.
#[derive(Debug, Parser)]
struct Options {
    /// The images in the tree.
    #[arg(long, default_value_t = 2000)]
    images: u64,
    /// The blobs of each image, its configuration included; no image shares one.
    #[arg(long, default_value_t = 10)]
    blobs: u64,
    /// The repositories that have them.
    #[arg(long, default_value_t = 100)]
    repositories: u64,
    /// How many images of a hundred were deleted, and how many more are before the second run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=50))]
    deleted: u64,
    /// distribution's program.
    #[arg(long, default_value = "/usr/bin/docker-registry")]
    peer: PathBuf,
    /// This server's program; built where it is not given.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Where the trees are made, and removed at the end.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

fn main() -> Result<(), String> {
    let options = Options::parse();
    let ours = match &options.ours {
        Some(path) => path.clone(),
        None => registry_benches::build_server()?,
    };
    let folder = options
        .folder
        .join(format!("registry-garbage-{}", std::process::id()));
    let result = compare(&options, &ours, &folder);
    fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    result
}

fn compare(options: &Options, ours: &Path, folder: &Path) -> Result<(), String> {
    let [theirs, adopted] = ["theirs", "ours"].map(|name| folder.join(name));
    let mut images = Vec::new();
    for root in [&theirs, &adopted] {
        let tree = Tree(root.join("docker/registry/v2"));
        images = tree
            .fill(options)
            .map_err(|error| format!("{}: {error}", root.display()))?;
    }
    let before = count(&theirs)?;
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n",
        theirs.display()
    );
    fs::write(&config, text).map_err(|error| error.to_string())?;
    let collect_theirs = || timed(Command::new(&options.peer).arg("garbage-collect").arg(&config));
    let peer = collect_theirs()?;
    let left = count(&theirs)?;

    let storage = |command: &str| {
        let mut run = Command::new(ours);
        run.args([command, "--storage"]).arg(&adopted);
        run
    };
    let adoption = timed(&mut storage("adopt"))?;
    let collected = timed(storage("collect").arg("--now"))?;

    let server = Server::start(ours, &adopted)?;
    let second = options.deleted..options.deleted * 2;
    for image in images
        .iter()
        .filter(|image| second.contains(&(image.number % 100)))
    {
        image
            .delete_link(&theirs)
            .map_err(|error| format!("{}: {error}", image.digest))?;
        server.delete(image)?;
    }
    let peer_again = collect_theirs()?;
    let collected_again = timed(storage("collect").arg("--now"))?;
    drop(server);
    let left_again = count(&theirs)?;
    println!("{before} blobs, of which {} go", before - left);
    println!("| what | s | times as fast |");
    println!("|---|---|---|");
    println!("| distribution's garbage-collect | {peer:.2} | 1 |");
    println!("| collect --now | {collected:.2} | {:.1} |", peer / collected);
    println!("| adopt, once before | {adoption:.2} | |");
    println!("The second time {} go", left - left_again);
    println!("| what | s | times as fast |");
    println!("|---|---|---|");
    println!("| distribution's garbage-collect | {peer_again:.2} | 1 |");
    println!(
        "| collect --now, while serving | {collected_again:.2} | {:.1} |",
        peer_again / collected_again
    );
    Ok(())
}

/// Runs a command and returns how many seconds that took.
fn timed(command: &mut Command) -> Result<f64, String> {
    let begun = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status();
    let status = status.map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(begun.elapsed().as_secs_f64())
    } else {
        Err(format!("{command:?} failed"))
    }
}

/// Counts the blobs of a tree.
fn count(root: &Path) -> Result<u64, String> {
    fn files(folder: &Path) -> io::Result<u64> {
        let mut count = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            count += if entry.file_type()?.is_dir() {
                files(&entry.path())?
            } else {
                1
            };
        }
        Ok(count)
    }
    files(&root.join("docker/registry/v2/blobs")).map_err(|error| error.to_string())
}

/// An image of the tree.
struct Image {
    number: u64,
    repository: String,
    digest: String,
}

impl Image {
    /// Deletes it as distribution does: its links go.
    fn delete_link(&self, root: &Path) -> io::Result<()> {
        let repositories = root.join("docker/registry/v2/repositories");
        let manifests = repositories.join(&self.repository).join("_manifests");
        fs::remove_dir_all(manifests.join("revisions").join(slashed(&self.digest)))?;
        fs::remove_dir_all(manifests.join(format!("tags/v{}", self.number)))
    }
}

/// Our server, which ends when this is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts it on any port, which it names in its log.
    fn start(program: &Path, root: &Path) -> Result<Self, String> {
        let mut process = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--storage"])
            .arg(root)
            .env("REGISTRY_STORAGE_DELETE_ENABLED", "true")
            .env("REGISTRY_LOG_FORMATTER", "json")
            .env("REGISTRY_LOG_ACCESSLOG_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let log = process.stderr.take().map(BufReader::new);
        let mut server = Self {
            process,
            address: String::new(),
        };
        let mut lines = log.into_iter().flat_map(|log| log.lines().map_while(Result::ok));
        let at = |line: &String| {
            line.find("127.0.0.1:")
                .map(|at| line.get(at..).unwrap_or_default().to_owned())
        };
        let address = lines
            .find_map(|line| at(&line))
            .ok_or("the server does not listen")?;
        let is_port = |character: char| character.is_ascii_digit() || ".:".contains(character);
        server.address = address
            .chars()
            .take_while(|character| is_port(*character))
            .collect();
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }

    /// Deletes an image by its digest.
    fn delete(&self, image: &Image) -> Result<(), String> {
        let request = format!(
            "DELETE /v2/{}/manifests/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            image.repository, image.digest, self.address
        );
        let mut answer = String::new();
        let sent = TcpStream::connect(&self.address).and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)
        });
        sent.map_err(|error| format!("{}: {error}", self.address))?;
        if answer.starts_with("HTTP/1.1 202") {
            Ok(())
        } else {
            Err(format!("{}: {answer}", image.digest))
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A tree as distribution writes it.
struct Tree(PathBuf);

impl Tree {
    /// Writes the images, and returns them.
    fn fill(&self, options: &Options) -> io::Result<Vec<Image>> {
        let mut images = Vec::new();
        for number in 0..options.images {
            let name = format!("team/app{}", number % options.repositories);
            let repository = self.0.join("repositories").join(&name);
            let is_deleted = number % 100 < options.deleted;
            images.push(Image {
                number,
                digest: self.add_image(&repository, number, options.blobs, is_deleted)?,
                repository: name,
            });
        }
        Ok(images)
    }

    /// Adds an image; one that was deleted has no link to its manifest, nor a tag.
    fn add_image(&self, repository: &Path, number: u64, blobs: u64, is_deleted: bool) -> io::Result<String> {
        let mut descriptors = Vec::new();
        for blob in 0..blobs {
            let content = format!(r#"{{"image":{number},"blob":{blob}}}"#);
            let digest = self.add_blob(content.as_bytes())?;
            link(&repository.join("_layers").join(slashed(&digest)), &digest)?;
            let kind = if blob == 0 {
                "config.v1+json"
            } else {
                "layer.v1.tar"
            };
            descriptors.push(format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{}}}"#,
                content.len()
            ));
        }
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
            descriptors.first().map_or("null", String::as_str),
            descriptors.get(1..).unwrap_or_default().join(",")
        );
        let digest = self.add_blob(manifest.as_bytes())?;
        if is_deleted {
            return Ok(digest);
        }
        let manifests = repository.join("_manifests");
        link(&manifests.join("revisions").join(slashed(&digest)), &digest)?;
        let tag = manifests.join(format!("tags/v{number}"));
        link(&tag.join("current"), &digest)?;
        link(&tag.join("index").join(slashed(&digest)), &digest)?;
        Ok(digest)
    }

    fn add_blob(&self, content: &[u8]) -> io::Result<String> {
        let digest = sha256(content);
        let hex = digest.trim_start_matches("sha256:");
        let folder = self
            .0
            .join("blobs/sha256")
            .join(hex.get(..2).unwrap_or_default())
            .join(hex);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("data"), content)?;
        Ok(digest)
    }
}

fn slashed(digest: &str) -> String {
    digest.replacen(':', "/", 1)
}

fn link(folder: &Path, digest: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("link"), digest)
}
