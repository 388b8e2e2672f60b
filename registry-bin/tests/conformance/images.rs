//! Whole sets of content, as clients push them: blobs, then manifests from the leaves up, then a tag; listed, pulled
//! and deleted again.

use serde_json::{Value, json};

use crate::backend::behaviours;
use crate::support::content::sha256;
use crate::support::repository::{
    CONFIG, DOCKER_IMAGE, DOCKER_LIST, EMPTY, IMAGE, INDEX, LAYER, Repository, descriptor, image, index,
};

behaviours![
    an_image,
    an_image_without_layers,
    a_docker_image_and_list,
    an_index_of_two_platforms,
    a_nested_index,
    an_artifact,
    an_artifact_index,
    an_index_of_blobs,
    a_helm_chart_with_a_plus_in_its_version,
    a_signature_in_a_fallback_tag,
];

/// What is pushed: blobs, and manifests with their types, the last of which gets the tag.
#[derive(Default)]
struct Set {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(&'static str, Vec<u8>)>,
}

impl Set {
    fn blob(&mut self, media_type: &str, content: &[u8]) -> Value {
        self.blobs.push(content.to_vec());
        descriptor(media_type, content)
    }

    fn manifest(&mut self, media_type: &'static str, manifest: &Value) -> Value {
        let content = manifest.to_string().into_bytes();
        let described = descriptor(media_type, &content);
        self.manifests.push((media_type, content));
        described
    }

    fn image(&mut self, architecture: &str) -> Value {
        let config = json!({"architecture": architecture, "os": "linux"}).to_string();
        let config = self.blob(CONFIG, config.as_bytes());
        let layers = ["base", architecture].map(|layer| self.blob(LAYER, layer.as_bytes()));
        let mut described = self.manifest(IMAGE, &image(&config, &layers));
        described["platform"] = json!({"architecture": architecture, "os": "linux"});
        described
    }

    /// Pushes all, looks at all, deletes all, and requires that all is gone.
    fn go_round(&self, repository: &Repository, tag: &str) {
        for blob in &self.blobs {
            repository.push_blob(blob);
        }
        for (media_type, content) in &self.manifests {
            repository.push_manifest(&sha256(content), media_type, content);
        }
        let (media_type, top) = self.manifests.last().expect("a set has a manifest");
        repository.push_manifest(tag, media_type, top);
        assert_eq!(repository.tags(), [tag]);
        assert_eq!(repository.get(&format!("manifests/{tag}")).body, *top);
        for (media_type, content) in &self.manifests {
            let pulled = repository.get(&format!("manifests/{}", sha256(content)));
            pulled.expect_header("Content-Type", media_type);
            assert_eq!(pulled.body, *content);
        }
        for blob in &self.blobs {
            assert_eq!(repository.get(&format!("blobs/{}", sha256(blob))).body, *blob);
        }
        repository.delete(&format!("manifests/{tag}")).expect_status(202);
        for (_, content) in self.manifests.iter().rev() {
            let path = format!("manifests/{}", sha256(content));
            repository.delete(&path).expect_status(202);
            repository.head(&path).expect_status(404);
        }
        let mut digests: Vec<_> = self.blobs.iter().map(|blob| sha256(blob)).collect();
        digests.sort_unstable();
        digests.dedup();
        for digest in digests {
            repository.delete(&format!("blobs/{digest}")).expect_status(202);
            repository.head(&format!("blobs/{digest}")).expect_status(404);
        }
        assert_eq!(repository.tags(), [""; 0]);
    }
}

fn an_image(repository: &Repository) {
    let mut set = Set::default();
    set.image("amd64");
    set.go_round(repository, "latest");
}

fn an_image_without_layers(repository: &Repository) {
    let mut set = Set::default();
    let config = set.blob(CONFIG, b"{}");
    set.manifest(IMAGE, &image(&config, &[]));
    set.go_round(repository, "latest");
}

fn a_docker_image_and_list(repository: &Repository) {
    let mut set = Set::default();
    let config = set.blob(
        "application/vnd.docker.container.image.v1+json",
        b"{\"os\":\"linux\"}",
    );
    let layer = set.blob(
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        b"not really a layer",
    );
    let mut manifest = image(&config, &[layer]);
    manifest["mediaType"] = DOCKER_IMAGE.into();
    let described = set.manifest(DOCKER_IMAGE, &manifest);
    let mut list = index(&[described]);
    list["mediaType"] = DOCKER_LIST.into();
    set.manifest(DOCKER_LIST, &list);
    set.go_round(repository, "latest");
}

fn an_index_of_two_platforms(repository: &Repository) {
    let mut set = Set::default();
    let platforms = ["amd64", "arm64"].map(|architecture| set.image(architecture));
    set.manifest(INDEX, &index(&platforms));
    set.go_round(repository, "multi");
}

fn a_nested_index(repository: &Repository) {
    let mut set = Set::default();
    let mut described = set.image("amd64");
    for _ in 0..5 {
        described = set.manifest(INDEX, &index(&[described]));
    }
    set.go_round(repository, "nested");
}

fn an_artifact(repository: &Repository) {
    let mut set = Set::default();
    let empty = set.blob(EMPTY, b"{}");
    let mut manifest = image(&empty, std::slice::from_ref(&empty));
    manifest["artifactType"] = "application/vnd.example.thing".into();
    set.manifest(IMAGE, &manifest);
    set.go_round(repository, "thing");
}

fn an_artifact_index(repository: &Repository) {
    let mut set = Set::default();
    let image = set.image("amd64");
    let mut list = index(&[image]);
    list["artifactType"] = "application/vnd.example.things".into();
    list["annotations"] = json!({"a": "b"});
    set.manifest(INDEX, &list);
    set.go_round(repository, "things");
}

/// BuildKit's older cache exports are such an index.
fn an_index_of_blobs(repository: &Repository) {
    let mut set = Set::default();
    let layer = set.blob("application/vnd.oci.image.layer.v1.tar+gzip", b"cached layer");
    let config = set.blob("application/vnd.buildkit.cacheconfig.v0", b"{\"layers\":[]}");
    set.manifest(INDEX, &index(&[layer, config]));
    set.go_round(repository, "cache");
}

fn a_helm_chart_with_a_plus_in_its_version(repository: &Repository) {
    let mut set = Set::default();
    let config = set.blob(
        "application/vnd.cncf.helm.config.v1+json",
        b"{\"version\":\"1.0.0+build\"}",
    );
    let chart = set.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart");
    set.manifest(IMAGE, &image(&config, &[chart]));
    set.go_round(repository, "1.0.0_build");
}

fn a_signature_in_a_fallback_tag(repository: &Repository) {
    let mut set = Set::default();
    let config = set.blob(CONFIG, b"{}");
    let layer = set.blob(
        "application/vnd.dev.cosign.simplesigning.v1+json",
        b"{\"critical\":{}}",
    );
    set.manifest(IMAGE, &image(&config, &[layer]));
    set.go_round(
        repository,
        &format!("{}.sig", sha256(b"signed").replace(':', "-")),
    );
}
