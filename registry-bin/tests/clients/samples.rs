//! Images to push and pull: some that can be unpacked, some whose layers have a given length, as OCI layouts on disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::content::{Content, sha256};
use crate::support::repository::{CONFIG, IMAGE, INDEX, LAYER, Repository, image, index};

/// Files of a sample image and their lengths: none, one byte, and more than a part of a multipart upload.
pub(crate) const FILES: [(&str, u64); 3] = [("empty", 0), ("byte", 1), ("large", (5 << 20) + 1)];

/// Writes the files of a sample image into `folder`.
pub(crate) fn write_files(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder can be made");
    for (name, length) in FILES {
        let mut file = File::create(folder.join(name)).expect("a file can be made");
        io::copy(&mut content(length), &mut file).expect("a file can be written");
    }
}

/// Requires that `path` is the sample file of this name.
#[track_caller]
pub(crate) fn expect_file(path: &Path, name: &str) {
    let length = FILES
        .iter()
        .find(|(file, _)| *file == name)
        .expect("a sample file")
        .1;
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        bytes == content(length).bytes(),
        "{} is not what was pushed",
        path.display()
    );
}

const fn content(length: u64) -> Content {
    Content::new(length, length)
}

/// Pushes an image that can be unpacked, one layer for each sample file, and returns its digest.
pub(crate) fn push_image(repository: &Repository, tag: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write_files(folder.path());
    let layers = FILES.map(|(name, _)| {
        let mut tar = Command::new("tar");
        tar.args([
            "--create",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "--file=-",
            name,
        ])
        .current_dir(folder.path());
        let layer = tar.output().expect("tar runs").stdout;
        repository.push_blob(&layer);
        layer
    });
    let digests: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/byte"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let config = config.to_string().into_bytes();
    repository.push_blob(&config);
    let described = layers.map(|layer| crate::support::repository::descriptor(LAYER, &layer));
    let manifest = image(
        &crate::support::repository::descriptor(CONFIG, &config),
        &described,
    );
    repository.push_manifest(tag, IMAGE, manifest.to_string().as_bytes())
}

/// An OCI layout that is written to disk.
#[derive(Debug)]
pub(crate) struct Layout<'p> {
    folder: &'p Path,
}

impl<'p> Layout<'p> {
    /// Begins a layout in `folder`.
    pub(crate) fn create(folder: &'p Path) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("a folder can be made");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("a file can be written");
        Self { folder }
    }

    /// Adds a blob and returns its descriptor.
    pub(crate) fn add(&self, media_type: &str, mut content: Content) -> Value {
        let (length, digest) = (content.remaining(), content.clone().digest());
        let path = self.folder.join("blobs").join(digest.replace(':', "/"));
        io::copy(&mut content, &mut File::create(path).expect("a file can be made"))
            .expect("a file can be written");
        json!({"mediaType": media_type, "digest": digest, "size": length})
    }

    /// Adds JSON and returns its descriptor.
    pub(crate) fn add_json(&self, media_type: &str, value: &Value) -> Value {
        let bytes = value.to_string();
        let digest = sha256(bytes.as_bytes());
        let path = self.folder.join("blobs").join(digest.replace(':', "/"));
        fs::write(path, &bytes).expect("a file can be written");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds an image with layers of these lengths and returns its descriptor.
    pub(crate) fn add_image(&self, architecture: &str, lengths: &[u64]) -> Value {
        let layers: Vec<_> = lengths
            .iter()
            .map(|length| self.add(LAYER, content(*length)))
            .collect();
        let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = self.add_json(CONFIG, &config);
        let mut described = self.add_json(IMAGE, &image(&config, &layers));
        described["platform"] = json!({"architecture": architecture, "os": "linux"});
        described
    }

    /// Adds an index of images for two platforms and returns its descriptor.
    pub(crate) fn add_index(&self) -> Value {
        let images = [("amd64", 1000), ("arm64", 2000)].map(|(name, length)| self.add_image(name, &[length]));
        self.add_json(INDEX, &index(&images))
    }

    /// Names what the layout is about; each descriptor gets its tag.
    pub(crate) fn finish(self, tags: &[(&str, &Value)]) {
        let tagged: Vec<_> = tags
            .iter()
            .map(|(tag, descriptor)| {
                let mut descriptor = (*descriptor).clone();
                descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
                descriptor
            })
            .collect();
        fs::write(self.folder.join("index.json"), index(&tagged).to_string()).expect("a file can be written");
    }
}

/// Returns the names of the blobs in a layout, in order.
pub(crate) fn blobs_of(layout: &Path) -> Vec<String> {
    let entries = fs::read_dir(layout.join("blobs/sha256")).expect("a layout has blobs");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("a folder can be read")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort_unstable();
    names
}

/// Requires that each blob of a layout has the content that its name promises.
pub(crate) fn expect_sound(layout: &Path) {
    for name in blobs_of(layout) {
        let mut hashed = crate::support::content::Hashed::new();
        let mut file = File::open(layout.join("blobs/sha256").join(&name)).expect("a blob can be read");
        io::copy(&mut file, &mut hashed).expect("a blob can be read");
        assert_eq!(hashed.finish().0, format!("sha256:{name}"));
    }
}
