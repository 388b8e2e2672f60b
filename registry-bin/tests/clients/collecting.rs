//! The collector against the `garbage-collect` of the distribution registry, on one tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::distribution::{CONFIGURATION, Old, ROOT};
use crate::moving::{difference, files, push_from_layout, run_ours, synchronise, walk};
use crate::support::repository::{CONFIG, EMPTY, IMAGE, LAYER, Repository, descriptor, image};
use crate::tools::find;

/// Returns the digests of the blobs in a tree.
fn blobs(root: &Path) -> BTreeSet<String> {
    let all = files(&root.join("docker/registry/v2/blobs"));
    let data = all.keys().filter(|path| path.ends_with("data"));
    let digest = |path: &std::path::PathBuf| path.parent()?.file_name()?.to_str().map(str::to_owned);
    data.filter_map(digest).collect()
}

/// Pushes what a collector may take for something else, and deletes some of it.
fn push_and_delete(folder: &Path, old: &Old, skopeo: &crate::tools::Tool) {
    push_from_layout(skopeo, folder, old.address);
    synchronise(skopeo, folder, old.address);
    for name in [
        "first/image3:v1",
        "first/image2:latest",
        "second/image4:v1",
        "fourth/image11:v1",
    ] {
        let name = format!("docker://{}/{name}", old.address);
        skopeo.run(["delete", "--tls-verify=false", &name]);
    }
    let repository = Repository::new(old.address, "deleted/all");
    let only = repository.push_image("v1", "only");
    repository
        .delete(&format!("manifests/{}", only.digest))
        .expect_status(202);
    // An image whose tag moved on stays, by its digest.
    let repository = Repository::new(old.address, "moved");
    repository.push_image("v1", "before");
    repository.push_image("v1", "after");
    // A signature, and one of an image that was deleted.
    let signed = repository.push_image("signed", "signed");
    let gone = repository.push_image("gone", "gone");
    for subject in [&signed, &gone] {
        let layer = format!("a signature of {}", subject.digest);
        repository.push_blob(b"{}");
        repository.push_blob(layer.as_bytes());
        let mut signature = image(&descriptor(EMPTY, b"{}"), &[descriptor(LAYER, layer.as_bytes())]);
        signature["artifactType"] = "application/vnd.example.signature".into();
        signature["subject"] =
            json!({"mediaType": IMAGE, "digest": subject.digest, "size": subject.content.len()});
        let signature = signature.to_string();
        let digest = crate::support::content::sha256(signature.as_bytes());
        repository.push_manifest(&digest, IMAGE, signature.as_bytes());
    }
    repository
        .delete(&format!("manifests/{}", gone.digest))
        .expect_status(202);
    // Blobs that no manifest names, in a repository with images and in one without.
    repository.push_blob(&[7; 50_000]);
    Repository::new(old.address, "blobs/alone").push_blob(&[8; 50_000]);
    // A layer of a deleted image that an image of another repository has.
    let repository = Repository::new(old.address, "shares");
    repository.push_blob(b"config of shares");
    repository.push_blob(&[9; 30_000]);
    let manifest = image(
        &descriptor(CONFIG, b"config of shares"),
        &[descriptor(LAYER, &[9; 30_000])],
    );
    let manifest = manifest.to_string();
    let digest = repository.push_manifest("v1", IMAGE, manifest.as_bytes());
    let other = Repository::new(old.address, "shares/too");
    other.push_blob(b"config of shares");
    other.push_blob(&[9; 30_000]);
    other.push_manifest("v1", IMAGE, manifest.as_bytes());
    repository
        .delete(&format!("manifests/{digest}"))
        .expect_status(202);
}

#[test]
fn what_the_distribution_registry_frees_is_freed_and_what_it_keeps_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (Some(program), Some(skopeo)) = (find("docker-registry"), crate::skopeo::tool(folder.path())) else {
        return;
    };
    let [theirs, ours, back] = ["theirs", "ours", "back"].map(|name| folder.path().join(name));
    let configuration = folder.path().join("config.yml");
    fs::write(&configuration, CONFIGURATION).expect("a file can be written");
    let configured = configuration.to_str().expect("a plain path");
    push_and_delete(
        folder.path(),
        &Old::start(&program, &configuration, &theirs),
        &skopeo,
    );
    let foreign = theirs.join("docker/registry/v2/blobs/lost+found");
    fs::create_dir(&foreign).expect("a folder can be made");
    fs::write(foreign.join("note"), "of nobody").expect("a file can be written");
    let copied = Command::new("cp").arg("-a").args([&theirs, &ours]).status();
    assert!(copied.expect("cp runs").success());
    let before = blobs(&theirs);

    let collected = Command::new(&program)
        .args(["garbage-collect", configured])
        .env(ROOT, &theirs)
        .output()
        .expect("it runs");
    assert!(
        collected.status.success(),
        "{}",
        String::from_utf8_lossy(&collected.stderr)
    );
    let kept = blobs(&theirs);
    assert!(
        kept.len() + 8 <= before.len(),
        "{} of {} stay",
        kept.len(),
        before.len()
    );

    run_ours(&["adopt", configured], &ours);
    let said = run_ours(&["collect", "--now", "--config", configured], &ours);
    assert!(said.contains("Removed"), "{said}");
    let target = back.to_str().expect("a plain path");
    run_ours(
        &[
            "export",
            "--layout",
            "distribution",
            target,
            "--config",
            configured,
        ],
        &ours,
    );
    assert_eq!(blobs(&back), kept);

    let served = walk(Old::start(&program, &configuration, &theirs).address);
    let exported = walk(Old::start(&program, &configuration, &back).address);
    assert!(exported == served, "{:?}", difference(&served, &exported));
}
