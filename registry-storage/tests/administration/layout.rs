//! OCI image layouts: what is exported comes back byte for byte, and what is broken is refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use registry_core::storage::PageRequest;
use registry_core::storage::{BlobStorage as _, ManifestStorage as _};
use registry_core::{Digest, Reference, RepositoryName, Storage};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::layout::{LayoutError, LayoutReport, export, import};
use registry_storage::testing::Observed;
use registry_storage::{Maintenance as _, MaintenanceObserver, Step};
use registry_storage::{ObjectStoreBackend, Store};

use crate::support::images::{Image, digest, name, push_image, push_index, push_referrer, tag};

const LARGE: usize = 600_000;

fn memory() -> Store<ObjectStoreBackend> {
    Store::new(ObjectStoreBackend::memory())
}

struct Sample {
    first: Image,
    second: Image,
    index: Digest,
    signature: Image,
    attestation: Image,
}

/// An index of two images, without tags of their own; what refers to one of them, and what refers to that.
async fn sample(storage: &dyn Storage, repository: &str) -> Sample {
    let first = push_image(storage, repository, None, 1, LARGE).await;
    let second = push_image(storage, repository, None, 2, 100).await;
    let index = push_index(storage, repository, "all", &[&first, &second]).await;
    let signature = push_referrer(storage, repository, &first, 3).await;
    let attestation = push_referrer(storage, repository, &signature, 4).await;
    push_image(storage, repository, Some("v2"), 2, 100).await;
    push_image(storage, repository, Some("same"), 2, 100).await;
    Sample {
        first,
        second,
        index,
        signature,
        attestation,
    }
}

async fn assert_sample(storage: &dyn Storage, repository: &str, sample: &Sample) {
    let repository = name(repository);
    let by_tag = async |tag_name: &str| {
        let reference = Reference::Tag(tag(tag_name));
        storage
            .get_manifest(&repository, &reference)
            .await
            .unwrap()
            .digest
    };
    assert_eq!(by_tag("all").await, sample.index);
    assert_eq!(by_tag("v2").await, sample.second.digest);
    assert_eq!(by_tag("same").await, sample.second.digest);
    for image in [
        &sample.first,
        &sample.second,
        &sample.signature,
        &sample.attestation,
    ] {
        let reference = Reference::Digest(image.digest.clone());
        assert_eq!(
            storage.get_manifest(&repository, &reference).await.unwrap().bytes,
            image.bytes
        );
        for content in [&image.config, &image.layer] {
            let blob = storage.open_blob(&repository, &digest(content)).await.unwrap();
            let mut read = BytesMut::new();
            let mut chunks = blob.content.read(0..blob.size);
            while let Some(chunk) = chunks.next().await {
                read.extend_from_slice(&chunk.unwrap());
            }
            assert!(read == *content);
        }
    }
    for (subject, referrer) in [
        (&sample.first, &sample.signature),
        (&sample.signature, &sample.attestation),
    ] {
        let page = PageRequest {
            last: None,
            limit: 10,
        };
        let listed = storage
            .list_referrers(&repository, &subject.digest, page.into())
            .await
            .unwrap()
            .items;
        let listed: Vec<_> = listed.into_iter().map(|descriptor| descriptor.digest).collect();
        assert_eq!(listed, std::slice::from_ref(&referrer.digest));
    }
}

/// The bytes of blobs are what takes the time, and most of them were known of from the first one on.
fn assert_counted_bytes(observed: &Observed, least: u64) {
    let steps = observed.steps();
    let last = steps.last().copied().unwrap();
    let (step, done, total) = last;
    assert!(
        step == Step::Copying && done >= least && total == Some(done),
        "{last:?}"
    );
    let (_, begun, known) = steps.iter().find(|(_, done, _)| *done > 0).unwrap();
    assert!(*known > Some(*begun), "{steps:?}");
}

async fn written(storage: &dyn Storage, repositories: &[RepositoryName], target: &Path) -> LayoutReport {
    export(storage, repositories, target, &()).await.unwrap()
}

/// Imports what is broken, and returns what is said of it.
async fn left_out(storage: &dyn Storage, source: &Path, repository: &str) -> (LayoutReport, String) {
    let listener = Observed::default();
    let report = import(storage, source, &[name(repository)], &listener)
        .await
        .unwrap();
    let lines = listener.lines();
    assert_eq!(report.left_out, lines.len() as u64);
    (report, lines.join("\n"))
}

async fn refusal(source: &Path, repositories: &[RepositoryName]) -> String {
    let error = import(&memory(), source, repositories, &()).await.unwrap_err();
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

async fn repositories(storage: &dyn Storage) -> Vec<RepositoryName> {
    let page = PageRequest {
        last: None,
        limit: 100,
    };
    storage.list_repositories(page).await.unwrap().items
}

async fn digest_of(storage: &dyn Storage, repository: &str, tag_name: &str) -> Option<Digest> {
    let reference = Reference::Tag(tag(tag_name));
    let manifest = storage.get_manifest(&name(repository), &reference).await;
    manifest.ok().map(|manifest| manifest.digest)
}

#[tokio::test]
async fn a_repository_comes_back_from_a_folder_and_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let sample = sample(&storage, "team/app").await;
    push_image(&storage, "other", Some("v1"), 9, 10).await;
    for target in ["layout", "layout.tar"] {
        let target = folder.path().join(target);
        let listener = Observed::default();
        let report = export(&storage, &[name("team/app")], &target, &listener)
            .await
            .unwrap();
        assert_counted_bytes(&listener, report.size);
        assert_eq!(
            (
                report.repositories,
                report.tags,
                report.manifests,
                report.left_out
            ),
            (1, 3, 5, 0)
        );
        let other = memory();
        let listener = Observed::default();
        let report = import(&other, &target, &[name("moved")], &listener)
            .await
            .unwrap();
        assert_counted_bytes(&listener, report.size);
        assert_eq!((report.repositories, report.tags, report.manifests), (1, 3, 5));
        assert!(report.size > LARGE as u64, "{report:?}");
        assert_sample(&other, "moved", &sample).await;
        assert_eq!(repositories(&other).await, [name("moved")]);
        // Once more stores nothing more.
        let again = import(&other, &target, &[name("moved")], &()).await.unwrap();
        assert_eq!((again.blobs, again.size), (0, 0));
        assert_sample(&other, "moved", &sample).await;
        assert!(
            refusal(&target, &[])
                .await
                .contains("name the one to import it to")
        );
        assert!(
            refusal(&target, &[name("a"), name("b")])
                .await
                .contains("nothing in it is of a")
        );
    }
    // A folder keeps what it has.
    let target = folder.path().join("layout");
    let held = File::open(&target).unwrap();
    held.lock().unwrap();
    let error = export(&storage, &[name("team/app")], &target, &())
        .await
        .unwrap_err();
    assert!(matches!(error, LayoutError::Disk { .. }), "{error}");
    drop(held);
    let again = written(&storage, &[name("team/app")], &target).await;
    assert_eq!((again.blobs, again.size), (0, 0));
}

#[tokio::test]
async fn several_repositories_share_a_layout_and_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let names = ["app", "app/blobs", "example.com/app", "team/app/index.json"];
    let mut samples = Vec::new();
    for name in names {
        samples.push(sample(&storage, name).await);
    }
    for target in ["all", "all.tar"] {
        let target = folder.path().join(target);
        let report = written(&storage, &[], &target).await;
        assert_eq!((report.repositories, report.tags, report.manifests), (4, 12, 20));
        assert_eq!(report.blobs, 8, "what they share is written once");
        let other = memory();
        import(&other, &target, &[], &()).await.unwrap();
        for (name, sample) in names.iter().zip(&samples) {
            assert_sample(&other, name, sample).await;
        }
        assert_eq!(repositories(&other).await.len(), 4);
        let chosen = memory();
        let report = import(&chosen, &target, &[name("app/blobs")], &()).await.unwrap();
        assert_eq!(report.repositories, 1);
        assert_sample(&chosen, "app/blobs", &samples[1]).await;
        assert_eq!(repositories(&chosen).await, [name("app/blobs")]);
        let error = refusal(&target, &[name("nowhere")]).await;
        assert!(
            error.contains("nothing in it is of nowhere; it has 4 repositories: app, app/blobs"),
            "{error}"
        );
    }
    assert!(fs::metadata(folder.path().join("all.tar")).unwrap().len() < 2 * LARGE as u64);
    // Two of them, each named once.
    let target = folder.path().join("two");
    let report = written(&storage, &[name("app/blobs"), name("app"), name("app")], &target).await;
    assert_eq!(report.repositories, 2);
}

#[tokio::test]
async fn what_is_broken_is_left_out_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let good = push_image(&storage, "a", Some("good"), 1, 100).await;
    let image = push_image(&storage, "a", Some("bad"), 2, LARGE).await;
    push_index(&storage, "a", "index", &[&good, &image]).await;
    let target = folder.path().join("layout");
    written(&storage, &[name("a")], &target).await;
    let blob = |digest: &Digest| target.join("blobs/sha256").join(digest.encoded());
    let layer = blob(&digest(&image.layer));
    let kept = fs::read(&layer).unwrap();
    let only_good = async |expected: &str| {
        let other = memory();
        let (report, said) = left_out(&other, &target, "a").await;
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("a: bad was left out"), "{said}");
        assert!(said.contains("a: index was left out"), "{said}");
        assert_eq!((report.tags, report.manifests), (1, 1));
        assert_eq!(digest_of(&other, "a", "good").await, Some(good.digest.clone()));
        assert_eq!(digest_of(&other, "a", "bad").await, None);
        let by_digest = Reference::Digest(image.digest.clone());
        assert!(other.get_manifest(&name("a"), &by_digest).await.is_err());
        other
    };
    let mut damaged = kept.clone();
    damaged[5] ^= 1;
    fs::write(&layer, damaged).unwrap();
    let other = only_good("digest").await;
    fs::write(&layer, &kept[..1000]).unwrap();
    only_good("digest").await;
    fs::remove_file(&layer).unwrap();
    only_good("is not there").await;
    // What is no file is not waited for.
    fs::create_dir(&layer).unwrap();
    only_good("it is not a file").await;
    fs::remove_dir(&layer).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&layer).status();
    assert!(made.unwrap().success());
    only_good("it is not a file").await;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, &kept).unwrap();
    let text = fs::read(blob(&image.digest)).unwrap();
    fs::write(blob(&image.digest), [&text[..], b" "].concat()).unwrap();
    only_good("has the digest").await;
    fs::write(blob(&image.digest), text).unwrap();
    // Repaired, it is stored as a whole.
    let (report, said) = left_out(&other, &target, "a").await;
    assert_eq!((report.tags, said.as_str()), (3, ""));
    assert_eq!(digest_of(&other, "a", "bad").await, Some(image.digest.clone()));
}

#[tokio::test]
async fn what_is_no_layout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = async |file: &str| refusal(&path(file), &[name("a")]).await;
    assert!(refused("nothing").await.contains("No such file"));
    fs::create_dir(path("layout")).unwrap();
    assert!(refused("layout").await.contains("it has no file oci-layout"));
    fs::write(path("layout/manifest.json"), "[]").unwrap();
    assert!(refused("layout").await.contains("docker-archive"));
    fs::write(path("layout/oci-layout"), "{\"imageLayoutVersion\":\"2.0.0\"}").unwrap();
    assert!(refused("layout").await.contains("version 2.0.0"));
    fs::write(path("layout/oci-layout"), "{\"imageLayoutVersion\":\"1.1.0\"}").unwrap();
    assert!(refused("layout").await.contains("no file index.json"));
    fs::write(path("layout/index.json"), "{").unwrap();
    assert!(refused("layout").await.contains("index.json: EOF"));
    let huge = File::create(path("layout/index.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(refused("layout").await.contains("are read at most"));
    fs::write(path("x.tar"), vec![7; 5000]).unwrap();
    refused("x.tar").await;
    fs::write(path("x.tar"), [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(refused("x.tar").await.contains("gunzip first"));
    fs::write(path("x.tar"), "").unwrap();
    assert!(refused("x.tar").await.contains("it has no file oci-layout"));
    // Neither is a folder with something else written to.
    fs::create_dir(path("home")).unwrap();
    fs::write(path("home/letter"), "").unwrap();
    let storage = memory();
    push_image(&storage, "a", Some("v1"), 1, 100).await;
    let error = export(&storage, &[name("a")], &path("home"), &())
        .await
        .unwrap_err();
    assert!(matches!(error, LayoutError::Disk { .. }), "{error}");
    let error = export(&storage, &[name("b")], &path("b"), &()).await.unwrap_err();
    assert!(error.to_string().starts_with("b: listing its tags"), "{error}");
}

/// Packs files and more into an archive.
fn pack(path: &Path, files: &BTreeMap<String, Vec<u8>>, more: impl FnOnce(&mut tar::Builder<File>)) {
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    more(&mut builder);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.finish().unwrap();
}

fn files_of(layout: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ["oci-layout", "index.json"] {
        files.insert(name.to_owned(), fs::read(layout.join(name)).unwrap());
    }
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(layout).unwrap().to_str().unwrap().to_owned();
        files.insert(name, fs::read(path).unwrap());
    }
    files
}

#[tokio::test]
async fn hostile_archives_write_nowhere_and_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let image = push_image(&storage, "a", Some("v1"), 1, LARGE).await;
    let layout = folder.path().join("layout");
    written(&storage, &[name("a")], &layout).await;
    let files = files_of(&layout);
    let archive = folder.path().join("x.tar");

    // Names that lead elsewhere, links to everywhere and devices, among what is good.
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    let mut device = tar::Header::new_gnu();
    device.set_entry_type(tar::EntryType::Char);
    device.set_size(0);
    let mut escape = tar::Header::new_gnu();
    escape.set_size(3);
    escape.as_mut_bytes()[..11].copy_from_slice(b"../escaped\0");
    escape.set_cksum();
    pack(&archive, &files, |builder| {
        builder
            .append_link(&mut link.clone(), "index.json", "/etc/passwd")
            .unwrap();
        builder.append_link(&mut link.clone(), "blobs", "/").unwrap();
        builder
            .append_data(&mut device.clone(), "oci-layout", &b""[..])
            .unwrap();
        builder.append(&escape, &b"abc"[..]).unwrap();
        link.set_entry_type(tar::EntryType::Link);
        builder
            .append_link(&mut link.clone(), "blobs/sha256/x", "../../etc/passwd")
            .unwrap();
    });
    let other = memory();
    import(&other, &archive, &[name("a")], &()).await.unwrap();
    assert_eq!(digest_of(&other, "a", "v1").await, Some(image.digest.clone()));
    assert!(
        !folder.path().join("escaped").exists() && !folder.path().parent().unwrap().join("escaped").exists()
    );

    // Content that says it is longer than the archive.
    let layer = digest(&image.layer);
    let mut others = files.clone();
    others
        .remove(&format!("blobs/sha256/{}", layer.encoded()))
        .unwrap();
    pack(&archive, &others, |_| {});
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 50);
    header
        .set_path(format!("blobs/sha256/{}", layer.encoded()))
        .unwrap();
    header.set_cksum();
    let mut bytes = fs::read(&archive).unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(header.as_bytes());
    fs::write(&archive, bytes).unwrap();
    let (report, said) = left_out(&memory(), &archive, "a").await;
    assert_eq!(report.tags, 0);
    assert!(said.contains("the content cannot be read"), "{said}");

    // A name of gigabytes (the file is sparse), and one in the other format.
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("././@LongLink").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let mut file = File::create(&archive).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(1 << 41).unwrap();
        let said = refusal(&archive, &[name("a")]).await;
        assert!(said.contains("a header of the archive has more than"), "{said}");
    }

    // Long names that are allowed.
    let mut long = files.clone();
    long.insert("x/".repeat(500), b"x".to_vec());
    pack(&archive, &long, |_| {});
    import(&memory(), &archive, &[name("a")], &()).await.unwrap();
}

#[tokio::test]
async fn images_are_named_as_other_programs_do() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    let first = push_image(&storage, "a", Some("v1"), 1, 100).await;
    let second = push_image(&storage, "a", Some("v2"), 2, 100).await;
    let layout = folder.path().join("layout");
    written(&storage, &[name("a")], &layout).await;
    let index = |entries: &[(&Image, &str, &str)]| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(image, annotation, value)| {
                serde_json::json!({
                    "mediaType": crate::support::images::IMAGE,
                    "digest": image.digest.to_string(),
                    "size": image.bytes.len(),
                    "annotations": { *annotation: value },
                })
            })
            .collect();
        let text = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
        fs::write(layout.join("index.json"), text).unwrap();
    };
    let (short, full) = ("org.opencontainers.image.ref.name", "io.containerd.image.name");

    index(&[
        (&first, full, "docker.io/library/one:v1"),
        (&second, full, "localhost:5000/two:v2"),
    ]);
    let other = memory();
    import(&other, &layout, &[], &()).await.unwrap();
    assert_eq!(repositories(&other).await, [name("library/one"), name("two")]);
    assert_eq!(digest_of(&other, "two", "v2").await, Some(second.digest.clone()));
    let error = refusal(&layout, &[name("three")]).await;
    assert!(
        error.contains("it has 2 repositories: library/one, two"),
        "{error}"
    );

    index(&[(&first, full, "docker.io/library/one:v1")]);
    let other = memory();
    import(&other, &layout, &[name("three")], &()).await.unwrap();
    assert_eq!(digest_of(&other, "three", "v1").await, Some(first.digest.clone()));

    index(&[(&first, short, "v1"), (&second, short, "v1")]);
    let other = memory();
    let (_, said) = left_out(&other, &layout, "a").await;
    assert!(said.contains("another image in it has this tag"), "{said}");
    assert_eq!(digest_of(&other, "a", "v1").await, Some(first.digest.clone()));

    index(&[
        (&first, full, "localhost:5000/one:v1"),
        (&second, full, "localhost:5000/two:v1"),
        (&second, "a", "b"),
    ]);
    let listener = Observed::default();
    let report = import(&memory(), &layout, &[], &listener).await.unwrap();
    assert_eq!((report.repositories, report.tags), (2, 2));
    assert!(listener.lines()[0].contains("it does not say of which repository this is"));
}

#[tokio::test]
async fn what_is_gone_or_damaged_in_the_registry_is_left_out_of_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let storage = Store::new(FilesystemBackend::open(&root).await.unwrap());
    let gone = push_image(&storage, "a", Some("gone"), 1, 100).await;
    push_image(&storage, "a", Some("damaged"), 2, LARGE).await;
    let whole = push_image(&storage, "a", Some("whole"), 3, 100).await;
    storage
        .delete_blob(&name("a"), &digest(&gone.layer), None)
        .await
        .unwrap();
    for day in fs::read_dir(root.join("bytes")).unwrap() {
        for file in fs::read_dir(day.unwrap().path()).unwrap() {
            fs::write(file.unwrap().path(), vec![0; LARGE]).unwrap();
        }
    }
    for target in ["layout", "layout.tar"] {
        let target = folder.path().join(target);
        let listener = Observed::default();
        let report = export(&storage, &[name("a")], &target, &listener).await.unwrap();
        assert_eq!((report.manifests, report.left_out), (3, 2));
        let said = listener.lines().join("\n");
        assert!(
            said.contains("is not there") && said.contains("has the digest"),
            "{said}"
        );
        let other = memory();
        let (report, _) = left_out(&other, &target, "a").await;
        assert_eq!(report.tags, 1);
        assert_eq!(digest_of(&other, "a", "whole").await, Some(whole.digest.clone()));
    }
    storage.close().await.unwrap();
}

/// Says that something was written.
#[derive(Debug, Default)]
struct Begun(tokio::sync::Notify);

impl MaintenanceObserver for Begun {
    fn step(&self, _: Step, _: u64, _: Option<u64>) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn an_archive_is_written_by_one_and_removed_if_it_is_not_finished() {
    let folder = tempfile::tempdir().unwrap();
    let storage = memory();
    for number in 0..20 {
        push_image(&storage, "a", Some(&format!("v{number}")), number, 100).await;
    }
    let target = folder.path().join("x.tar");
    let (repositories, begun) = ([name("a")], Begun::default());
    {
        let mut first = std::pin::pin!(export(&storage, &repositories, &target, &begun));
        tokio::select! {
            biased;
            () = begun.0.notified() => {}
            ended = &mut first => panic!("{ended:?}"),
        }
        assert!(folder.path().join("x.tar.unfinished").exists());
        let second = export(&storage, &repositories, &target, &()).await.unwrap_err();
        let LayoutError::Disk { cause, .. } = second else {
            panic!("{second}");
        };
        assert_eq!(cause.kind(), std::io::ErrorKind::ResourceBusy);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    written(&storage, &repositories, &target).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A small archive, whose bytes a test changes.
fn small_archive() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x.tar");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let storage = memory();
        push_image(&storage, "a", Some("v1"), 1, 100).await;
        written(&storage, &[name("a")], &target).await;
    });
    fs::read(target).unwrap()
}

proptest::proptest! {
    #[test]
    fn a_changed_archive_is_refused_or_stored_right(
        changes in proptest::collection::vec((0..10_000_usize, proptest::prelude::any::<u8>()), 1..8),
        length in 0..10_000_usize,
    ) {
        static ARCHIVE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(small_archive);
        let mut archive = ARCHIVE.clone();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
        }
        if length < archive.len() {
            archive.truncate(length);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        fs::write(&path, archive).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = memory();
            let stored = import(&storage, &path, &[name("a")], &()).await;
            if stored.is_ok_and(|report| report.tags > 0 && report.left_out == 0) {
                let report = export(&storage, &[name("a")], &folder.path().join("again"), &()).await.unwrap();
                assert_eq!(report.left_out, 0);
            }
        });
    }
}
