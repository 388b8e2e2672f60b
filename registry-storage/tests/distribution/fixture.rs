//! A tree as that registry writes it, and a store beside it.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use registry_core::storage::{
    BlobStorage as _, ListStorage as _, Manifest, ManifestStorage as _, PageRequest,
};
use registry_core::{Algorithm, Digest, Error, Reference, RepositoryName, Tag};
use registry_storage::check::CheckOptions;
use registry_storage::distribution::{AdoptError, AdoptOptions, AdoptReport, DefectKind, Tree};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Observed;
use registry_storage::{Backend, Finding, Maintenance as _, Store};
use tempfile::TempDir;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Kept in a file.
pub(crate) const LARGE: usize = 20_000;
/// Kept in its record.
pub(crate) const SMALL: usize = 300;

/// A root with a tree.
pub(crate) struct Old {
    pub(crate) root: TempDir,
}

pub(crate) fn content(seed: usize, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) + 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from(state >> 56 & 0xff).unwrap()
        })
        .collect()
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
        sha256(content),
        content.len()
    )
}

/// Writes an image manifest. The digests of its blobs are those of their content.
pub(crate) fn image(config: &[u8], layers: &[Vec<u8>], more: &str) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{}]{more}}}"#,
        layers.join(",")
    )
    .into_bytes()
}

pub(crate) fn index(manifests: &[Vec<u8>], more: &str) -> Vec<u8> {
    let manifests: Vec<_> = manifests
        .iter()
        .map(|manifest| descriptor(IMAGE, manifest).replace('}', &format!("{more}}}")))
        .collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(",")).into_bytes()
}

impl Old {
    pub(crate) fn new() -> Self {
        let old = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(old.tree().join("repositories")).unwrap();
        old
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.root.path().join("docker/registry/v2")
    }

    pub(crate) fn data(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = digest.as_str().split_once(':').unwrap();
        self.tree()
            .join(format!("blobs/{algorithm}/{}/{hex}/data", &hex[..2]))
    }

    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.tree().join("repositories").join(name)
    }

    pub(crate) fn layer(&self, name: &str, digest: &Digest) -> PathBuf {
        let place = digest.as_str().replace(':', "/");
        self.repository(name).join("_layers").join(place).join("link")
    }

    pub(crate) fn revision(&self, name: &str, digest: &Digest) -> PathBuf {
        let place = digest.as_str().replace(':', "/");
        self.repository(name)
            .join("_manifests/revisions")
            .join(place)
            .join("link")
    }

    pub(crate) fn tag(&self, name: &str, tag: &str) -> PathBuf {
        self.repository(name)
            .join("_manifests/tags")
            .join(tag)
            .join("current/link")
    }

    pub(crate) fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        write(&self.data(&digest), content);
        write(&self.layer(name, &digest), digest.as_str().as_bytes());
        digest
    }

    pub(crate) fn push_manifest(&self, name: &str, tags: &[&str], manifest: &[u8]) -> Digest {
        let digest = sha256(manifest);
        write(&self.data(&digest), manifest);
        write(&self.revision(name, &digest), digest.as_str().as_bytes());
        fs::create_dir_all(self.repository(name).join("_manifests/tags")).unwrap();
        for tag in tags {
            write(&self.tag(name, tag), digest.as_str().as_bytes());
        }
        digest
    }

    /// Pushes an image of a large and a small layer and a configuration, all of them its own.
    pub(crate) fn push_image(&self, name: &str, tag: &str, seed: usize) -> Vec<u8> {
        let config = content(seed, SMALL);
        let layers = [
            content(seed + 10_000, LARGE + seed),
            content(seed + 20_000, SMALL),
        ];
        self.push_blob(name, &config);
        for layer in &layers {
            self.push_blob(name, layer);
        }
        let manifest = image(&config, &layers, "");
        self.push_manifest(name, &[tag], &manifest);
        manifest
    }

    /// Returns all files of the tree with their content, time and identity.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u64)> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.root.path().join("docker")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path);
                } else if !metadata.is_symlink() {
                    let content = fs::read(&path).unwrap();
                    files.insert(path, (content, metadata.modified().unwrap(), metadata.ino()));
                }
            }
        }
        files
    }

    pub(crate) fn found(&self) -> Tree {
        Tree::find(self.root.path()).unwrap().unwrap()
    }

    pub(crate) async fn open(&self) -> Store<FilesystemBackend> {
        Store::new(FilesystemBackend::open(self.root.path()).await.unwrap())
    }

    /// Waits until what was written is older than the moment that a start takes for new.
    pub(crate) fn settle(&self) {
        let last = self.last_change(self.root.path());
        let deadline = Instant::now() + Duration::from_secs(60);
        while SystemTime::now() < last + Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "the clock stands");
            std::thread::yield_now();
        }
    }

    fn last_change(&self, path: &Path) -> SystemTime {
        let metadata = fs::symlink_metadata(path).unwrap();
        let changed = Duration::new(
            metadata.ctime().try_into().unwrap(),
            metadata.ctime_nsec().try_into().unwrap(),
        );
        let entries = fs::read_dir(path).into_iter().flatten();
        let below = entries.map(|entry| self.last_change(&entry.unwrap().path()));
        below.max().unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH + changed)
    }

    /// Opens a store beside a tree to which nothing was written just now.
    pub(crate) async fn settled(&self) -> Store<FilesystemBackend> {
        self.settle();
        self.open().await
    }

    pub(crate) async fn adopt(&self, store: &Store<FilesystemBackend>) -> (AdoptReport, Defects) {
        self.adopt_with(store, AdoptOptions::new()).await.unwrap()
    }

    pub(crate) async fn adopt_with(
        &self,
        store: &Store<FilesystemBackend>,
        options: AdoptOptions,
    ) -> Result<(AdoptReport, Defects), AdoptError> {
        let observed = Observed::default();
        let report = store.adopt(&self.found(), &options, &observed).await?;
        let defects = Defects::of(observed);
        let counted: u64 = report.defects.values().sum();
        assert_eq!(counted, defects.0.len() as u64);
        Ok((report, defects))
    }

    /// Counts the files of bytes of the store.
    pub(crate) fn files_of_bytes(&self) -> usize {
        let days = fs::read_dir(self.root.path().join("bytes")).unwrap();
        days.map(|day| fs::read_dir(day.unwrap().path()).unwrap().count())
            .sum()
    }
}

/// Sets when all files and folders below a folder were last written.
pub(crate) fn set_all_times(folder: &Path, millis: u64) {
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
        File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

/// Sets when a file was last written.
pub(crate) fn set_time(path: &Path, millis: u64) {
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// What was broken, as text.
#[derive(Default)]
pub(crate) struct Defects(pub(crate) Vec<(DefectKind, String)>);

impl Defects {
    pub(crate) fn of(observed: Observed) -> Self {
        let findings = observed.into_findings().into_iter();
        let defects = findings.map(|finding| match finding {
            Finding::NotAdopted(defect) => (defect.kind(), defect.to_string()),
            finding => panic!("{finding}"),
        });
        Self(defects.collect())
    }

    pub(crate) fn kinds(&self) -> Vec<DefectKind> {
        let mut kinds: Vec<_> = self.0.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds
    }
}

/// Requires that a check of the store, which reads all content, finds nothing wrong.
pub(crate) async fn expect_sound(store: &Store<impl Backend>) {
    let options = CheckOptions::new().verify_content(true).settle(Duration::ZERO);
    let observed = Observed::default();
    let report = store.check(&options, &observed).await.unwrap();
    assert!(report.records > 0);
    assert_eq!(observed.lines(), [""; 0]);
}

pub(crate) async fn read(
    store: &Store<impl Backend>,
    repository: &str,
    digest: &Digest,
) -> Result<Vec<u8>, Error> {
    let blob = store.open_blob(&name(repository), digest).await?;
    let mut content = Vec::new();
    let mut stream = blob.content.read(0..blob.size);
    while let Some(chunk) = stream.next().await {
        content.extend_from_slice(&chunk?);
    }
    assert_eq!(content.len() as u64, blob.size);
    Ok(content)
}

pub(crate) async fn get(
    store: &Store<impl Backend>,
    repository: &str,
    reference: &str,
) -> Result<Manifest, Error> {
    let reference = match reference.parse::<Digest>() {
        Ok(digest) => Reference::Digest(digest),
        Err(_) => Reference::Tag(tag(reference)),
    };
    store.get_manifest(&name(repository), &reference).await
}

pub(crate) const fn all() -> PageRequest {
    PageRequest {
        last: None,
        limit: 1000,
    }
}

pub(crate) async fn tags(store: &Store<impl Backend>, repository: &str) -> Vec<String> {
    let page = store.list_tags(&name(repository), all()).await.unwrap();
    page.items.iter().map(ToString::to_string).collect()
}

pub(crate) async fn repositories(store: &Store<impl Backend>) -> Vec<String> {
    let page = store.list_repositories(all()).await.unwrap();
    page.items.iter().map(ToString::to_string).collect()
}
