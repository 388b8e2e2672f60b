//! Moving from the distribution registry and back: Debian's `docker-registry`, real clients, one configuration, one folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::distribution::{CONFIGURATION, Old, ROOT};
use crate::docker_daemon::DockerDaemon;
use crate::samples::{Layout, write_files};
use crate::support::client::Request;
use crate::support::content::sha256;
use crate::support::repository::{INDEX, Repository, index, strings};
use crate::support::server::Server;
use crate::tools::{Tool, find};

/// Everything that a registry serves, found from its catalog: manifests with their types, and digests of blobs.
pub(crate) type Served = BTreeMap<String, (String, Vec<u8>)>;

pub(crate) fn walk(address: SocketAddr) -> Served {
    let mut served = Served::new();
    let catalog = Request::new(address, "GET", "/v2/_catalog?n=1000").send();
    catalog.expect_status(200);
    for name in strings(&catalog.json()["repositories"]) {
        let repository = Repository::new(address, name);
        let tags = repository.get("tags/list");
        if tags.status == 404 {
            // That registry lists a repository that never had a manifest.
            continue;
        }
        tags.expect_status(200);
        served.insert(repository.name.clone(), (String::new(), Vec::new()));
        // That registry says null where all tags were deleted.
        let tags = Some(&tags.json()["tags"])
            .filter(|tags| !tags.is_null())
            .map(strings);
        let mut waiting: Vec<String> = tags.unwrap_or_default();
        let mut seen = BTreeSet::new();
        while let Some(reference) = waiting.pop() {
            if seen.insert(reference.clone()) {
                waiting.extend(walk_manifest(&repository, &reference, &mut served));
            }
        }
    }
    served
}

/// Reads a manifest and its blobs, and returns the digests of manifests to read.
fn walk_manifest(repository: &Repository, reference: &str, served: &mut Served) -> Vec<String> {
    let found = repository.get(&format!("manifests/{reference}"));
    found.expect_status(200);
    let digest = found
        .header("Docker-Content-Digest")
        .expect("a digest")
        .to_owned();
    assert_eq!(digest, sha256(&found.body));
    let media_type = found.header("Content-Type").expect("a type").to_owned();
    let content: Value = found.json();
    served.insert(
        format!("{}:{reference}", repository.name),
        (media_type, found.body),
    );
    let digest_of = |descriptor: &Value| descriptor["digest"].as_str().expect("a digest").to_owned();
    let layers = content["layers"].as_array().into_iter().flatten();
    for blob in layers.chain(content.get("config")) {
        let blob = digest_of(blob);
        let response = repository.get(&format!("blobs/{blob}"));
        response.expect_status(200);
        assert_eq!(sha256(&response.body), blob);
        served.insert(format!("{}@{blob}", repository.name), (String::new(), Vec::new()));
    }
    let children = content["manifests"].as_array().into_iter().flatten();
    children.map(digest_of).chain([digest]).collect()
}

/// Pushes images for one and two platforms that share layers to twelve repositories, from one layout.
pub(crate) fn push_from_layout(skopeo: &Tool, folder: &Path, address: SocketAddr) {
    let source = folder.join("source");
    let layout = Layout::create(&source);
    let mut descriptors = Vec::new();
    for number in 0..12 {
        // The first layer is that of all, and of more than one read.
        let lengths = [700_000, 1000 + number, 20_000 + number % 3];
        let image = layout.add_image("amd64", &lengths);
        let descriptor = if number % 2 == 0 {
            image
        } else {
            let other = layout.add_image("arm64", &[700_000, 3000 + number]);
            layout.add_json(INDEX, &index(&[image, other]))
        };
        descriptors.push((format!("t{number}"), descriptor));
    }
    let tagged: Vec<_> = descriptors
        .iter()
        .map(|(tag, descriptor)| (tag.as_str(), descriptor))
        .collect();
    layout.finish(&tagged);
    for (number, (tag, _)) in descriptors.iter().enumerate() {
        let from = format!("oci:{}:{tag}", source.display());
        let to = format!("docker://{address}/first/image{number}:v1");
        copy(skopeo, &from, &to);
        if number < 3 {
            copy(
                skopeo,
                &from,
                &format!("docker://{address}/first/image{number}:latest"),
            );
        }
    }
}

fn copy(skopeo: &Tool, from: &str, to: &str) {
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo.run(
        ["copy", "--all", "--preserve-digests"]
            .into_iter()
            .chain(plain)
            .chain([from, to]),
    );
}

/// Copies the twelve repositories to others of the same registry; blobs are mounted.
pub(crate) fn synchronise(skopeo: &Tool, folder: &Path, address: SocketAddr) {
    let images: String = (0..12)
        .map(|number| format!("    first/image{number}: []\n"))
        .collect();
    let list = format!("\"{address}\":\n  tls-verify: false\n  images:\n{images}");
    let file = folder.join("images.yml");
    fs::write(&file, list).expect("a file can be written");
    for target in ["second", "third/of/many", "fourth"] {
        let plain = [
            "sync",
            "--all",
            "--dest-tls-verify=false",
            "--src",
            "yaml",
            "--dest",
            "docker",
        ];
        let places = [file.display().to_string(), format!("{address}/{target}")];
        skopeo.run(plain.map(str::to_owned).into_iter().chain(places));
    }
}

fn push_with_docker(tool: &Tool, folder: &Path, names: [String; 2]) {
    let context = folder.join("context");
    write_files(&context);
    let recipe = "FROM scratch\nCOPY large /\nCOPY byte /\nCMD [\"/byte\"]\n";
    fs::write(context.join("Dockerfile"), recipe).expect("a file can be written");
    let [first, second] = names;
    tool.run(["build", "-t", &first, context.to_str().expect("a plain path")]);
    tool.run(["push", &first]);
    tool.run(["tag", &first, &second]);
    tool.run(["push", &second]);
}

fn begin_upload(repository: &Repository) {
    let location = repository.open_upload();
    repository.patch(&location, 0, &[7; 5000]).expect_status(202);
}

/// Runs the program to its end and returns what it printed.
pub(crate) fn run_ours(arguments: &[&str], root: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(arguments)
        .env(ROOT, root)
        .output()
        .expect("the program runs");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {printed}");
    printed
}

/// Returns all files below a folder with their content.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let content = fs::read(&path).expect("a file can be read");
                found.insert(path, content);
            }
        }
    }
    found
}

#[test]
fn fifty_repositories_move_from_the_distribution_registry_and_back() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (Some(program), Some(skopeo)) = (find("docker-registry"), crate::skopeo::tool(folder.path())) else {
        return;
    };
    let docker_files = tempfile::tempdir().expect("a temporary folder can be made");
    let docker = DockerDaemon::start(docker_files.path());
    let (root, configuration) = (folder.path().join("root"), folder.path().join("config.yml"));
    fs::write(&configuration, CONFIGURATION).expect("a file can be written");
    let configured = configuration.to_str().expect("a plain path").to_owned();
    let variables = [(ROOT, root.to_str().expect("a plain path"))];

    let old = Old::start(&program, &configuration, &root);
    push_from_layout(&skopeo, folder.path(), old.address);
    synchronise(&skopeo, folder.path(), old.address);
    match &docker {
        Some(daemon) => {
            let names = ["docker/test", "docker"].map(|name| format!("{}/{name}:v1", old.address));
            push_with_docker(&daemon.docker, docker_files.path(), names);
        }
        None => {
            for name in ["docker/test", "docker"] {
                Repository::new(old.address, name).push_image("v1", name);
            }
        }
    }
    for name in ["second/image3:v1", "first/image2:latest"] {
        skopeo.run([
            "delete",
            "--tls-verify=false",
            &format!("docker://{}/{name}", old.address),
        ]);
    }
    begin_upload(&Repository::new(old.address, "first/image0"));
    let before = walk(old.address);
    drop(old);
    let tree = files(&root.join("docker"));

    let looked = run_ours(&["adopt", "--dry-run", &configured], &root);
    assert!(
        looked.contains("Would adopt 50 repositories") && looked.contains("nothing was broken"),
        "{looked}"
    );
    let ours = Server::run_with(&["serve", &configured], &variables);
    ours.output_with("adopted 50 repositories");
    ours.output_with("1 upload in progress");
    let adopted = walk(ours.address());
    assert!(adopted == before, "{:?}", difference(&before, &adopted));
    assert!(files(&root.join("docker")) == tree, "the tree is as it was");

    // More is pushed: new content, other tags of old content, and a delete.
    copy(
        &skopeo,
        &format!("oci:{}:t1", folder.path().join("source").display()),
        &format!("docker://{}/new/app:v1", ours.address()),
    );
    Repository::new(ours.address(), "first/image0").push_image("v1", "pushed to ours");
    if let Some(daemon) = &docker {
        let tool = &daemon.docker;
        tool.run(["pull", &format!("{}/docker:v1", ours.address())]);
        let name = format!("{}/docker/later:v2", ours.address());
        tool.run(["tag", &format!("{}/docker:v1", ours.address()), &name]);
        tool.run(["push", &name]);
    }
    Repository::new(ours.address(), "fourth/image5")
        .delete("manifests/v1")
        .expect_status(202);
    let served = walk(ours.address());
    assert!(ours.terminate().success());
    assert!(files(&root.join("docker")) == tree, "the tree is as it was");

    // Back, in a folder of its own: exactly what ours served.
    let back = folder.path().join("back");
    let target = back.to_str().expect("a plain path");
    let printed = run_ours(
        &[
            "export",
            "--layout",
            "distribution",
            target,
            "--config",
            &configured,
        ],
        &root,
    );
    assert!(printed.contains("Exported 5"), "{printed}");
    let old = Old::start(&program, &configuration, &back);
    let exported = walk(old.address);
    assert!(exported == served, "{:?}", difference(&served, &exported));
    Repository::new(old.address, "first/image0").push_image("again", "pushed to the old one again");
    drop(old);

    // Back, over the folder that was adopted: that and what was deleted in ours.
    let target = root.to_str().expect("a plain path");
    run_ours(
        &[
            "export",
            "--layout",
            "distribution",
            target,
            "--config",
            &configured,
        ],
        &root,
    );
    let old = Old::start(&program, &configuration, &root);
    let merged = walk(old.address);
    for (name, content) in &served {
        assert!(merged.get(name) == Some(content), "{name}");
    }
    assert!(
        merged.contains_key("fourth/image5:v1"),
        "it was deleted in ours only"
    );
    Repository::new(old.address, "third/of/many/image7").push_image("newer", "pushed after the way back");
    let before = walk(old.address);
    drop(old);

    // And here once more: a start takes what was pushed there, and what was deleted here comes back on request only.
    let ours = Server::run_with(&["serve", &configured], &variables);
    let said = ours.output_with("adopted 1 repository, 1 manifest, 1 tag");
    assert!(said.contains("nothing was broken"), "{said}");
    let mut expected = before.clone();
    let is_deleted = |name: &str| name.starts_with("fourth/image5:") || name.starts_with("fourth/image5@");
    expected.retain(|name, _| !is_deleted(name));
    let updated = walk(ours.address());
    assert!(updated == expected, "{:?}", difference(&expected, &updated));
    assert!(ours.terminate().success());
    run_ours(&["adopt", "--again", &configured], &root);
    let ours = Server::run_with(&["serve", &configured], &variables);
    let again = walk(ours.address());
    assert!(again == before, "{:?}", difference(&before, &again));
    drop(docker);
}

/// Returns the names that only one has, or that differ.
pub(crate) fn difference<'s>(one: &'s Served, other: &'s Served) -> Vec<&'s str> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differs = |name: &&String| one.get(*name) != other.get(*name);
    names.into_iter().filter(differs).map(String::as_str).collect()
}
