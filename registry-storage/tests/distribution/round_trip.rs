//! Any tree, broken or not: what is adopted of it, exported and adopted again is the same.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use registry_core::Digest;
use registry_core::storage::ListStorage as _;
use registry_storage::distribution::{ExportOptions, survey};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::{Maintenance as _, Store};

use crate::fixture::{
    LARGE, Old, SMALL, all, content, get, image, index, name, read, repositories, sha256, tags,
};

#[derive(Clone, Debug)]
enum Step {
    Blob {
        repository: usize,
        blob: usize,
    },
    Image {
        repository: usize,
        blobs: Vec<usize>,
        tag: Option<usize>,
    },
    Index {
        repository: usize,
        images: Vec<Vec<usize>>,
        tag: Option<usize>,
    },
    Retag {
        repository: usize,
        tag: usize,
        blobs: Vec<usize>,
    },
    LoseData {
        blob: usize,
    },
    CutData {
        blob: usize,
    },
    LoseLink {
        repository: usize,
        blob: usize,
    },
    EmptyLink {
        repository: usize,
        blob: usize,
    },
}

const REPOSITORIES: [&str; 4] = ["a", "a/b", "a-b", "library/x/y"];
const TAGS: [&str; 3] = ["latest", "v1.0", "_x"];

fn blob(number: usize) -> Vec<u8> {
    content(
        number,
        if number.is_multiple_of(2) {
            SMALL + number
        } else {
            LARGE + number
        },
    )
}

fn picture(blobs: &[usize]) -> Vec<u8> {
    let layers: Vec<_> = blobs.iter().map(|&number| blob(number)).collect();
    image(&blob(0), &layers, "")
}

fn step() -> impl Strategy<Value = Step> {
    let repository = 0..REPOSITORIES.len();
    let blobs = || proptest::collection::vec(0..6usize, 0..3);
    let tag = || proptest::option::of(0..TAGS.len());
    prop_oneof![
        4 => (repository.clone(), 0..6usize).prop_map(|(repository, blob)| Step::Blob { repository, blob }),
        6 => (repository.clone(), blobs(), tag())
            .prop_map(|(repository, blobs, tag)| Step::Image { repository, blobs, tag }),
        2 => (repository.clone(), proptest::collection::vec(blobs(), 0..3), tag())
            .prop_map(|(repository, images, tag)| Step::Index { repository, images, tag }),
        1 => (repository.clone(), 0..TAGS.len(), blobs())
            .prop_map(|(repository, tag, blobs)| Step::Retag { repository, tag, blobs }),
        1 => (0..6usize).prop_map(|blob| Step::LoseData { blob }),
        1 => (0..6usize).prop_map(|blob| Step::CutData { blob }),
        1 => (repository.clone(), 0..6usize).prop_map(|(repository, blob)| Step::LoseLink { repository, blob }),
        1 => (repository, 0..6usize).prop_map(|(repository, blob)| Step::EmptyLink { repository, blob }),
    ]
}

impl Step {
    fn apply(&self, old: &Old) {
        match self {
            Self::Blob {
                repository,
                blob: number,
            } => {
                old.push_blob(REPOSITORIES[*repository], &blob(*number));
            }
            Self::Image {
                repository,
                blobs,
                tag,
            } => {
                let tags: Vec<_> = tag.iter().map(|&tag| TAGS[tag]).collect();
                for &number in blobs.iter().chain([&0]) {
                    old.push_blob(REPOSITORIES[*repository], &blob(number));
                }
                old.push_manifest(REPOSITORIES[*repository], &tags, &picture(blobs));
            }
            Self::Index {
                repository,
                images,
                tag,
            } => {
                let tags: Vec<_> = tag.iter().map(|&tag| TAGS[tag]).collect();
                let images: Vec<_> = images.iter().map(|blobs| picture(blobs)).collect();
                old.push_manifest(REPOSITORIES[*repository], &tags, &index(&images, ""));
            }
            // It may name what is not there.
            Self::Retag {
                repository,
                tag,
                blobs,
            } => {
                let path = old.tag(REPOSITORIES[*repository], TAGS[*tag]);
                if path.exists() {
                    fs::write(path, sha256(&picture(blobs)).as_str()).unwrap();
                }
            }
            Self::LoseData { blob: number } => drop(fs::remove_file(old.data(&sha256(&blob(*number))))),
            Self::CutData { blob: number } => {
                let path = old.data(&sha256(&blob(*number)));
                if path.exists() {
                    fs::write(path, &blob(*number)[..100]).unwrap();
                }
            }
            Self::LoseLink {
                repository,
                blob: number,
            } => {
                drop(fs::remove_file(
                    old.layer(REPOSITORIES[*repository], &sha256(&blob(*number))),
                ));
            }
            Self::EmptyLink {
                repository,
                blob: number,
            } => {
                let path = old.layer(REPOSITORIES[*repository], &sha256(&blob(*number)));
                if path.exists() {
                    fs::write(path, "").unwrap();
                }
            }
        }
    }
}

/// Everything that can be read.
async fn semantics(store: &Store<FilesystemBackend>, images: &[Digest]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for repository in REPOSITORIES {
        for number in 0..6 {
            if let Ok(content) = read(store, repository, &sha256(&blob(number))).await {
                found.insert(format!("{repository} blob {number}"), content);
            }
        }
    }
    for repository in repositories(store).await {
        found.insert(repository.clone(), Vec::new());
        let listed = tags(store, &repository).await;
        for reference in listed.into_iter().chain(images.iter().map(ToString::to_string)) {
            if let Ok(manifest) = get(store, &repository, &reference).await {
                found.insert(
                    format!("{repository} {reference} {}", manifest.media_type),
                    manifest.bytes.to_vec(),
                );
            }
        }
    }
    found
}

/// What that registry would serve, by looking at the files.
fn expected(old: &Old, images: &[Digest]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for repository in REPOSITORIES {
        for number in 0..6 {
            let digest = sha256(&blob(number));
            let link = fs::read_to_string(old.layer(repository, &digest)).unwrap_or_default();
            let content = fs::read(old.data(&digest)).unwrap_or_default();
            if link == digest.as_str() && content == blob(number) {
                found.insert(format!("{repository} blob {number}"), content);
            }
        }
        if !old.repository(repository).join("_manifests").exists() {
            continue;
        }
        found.insert(repository.to_owned(), Vec::new());
        for reference in TAGS
            .iter()
            .map(ToString::to_string)
            .chain(images.iter().map(ToString::to_string))
        {
            let digest = match reference.parse::<Digest>() {
                Ok(digest) => digest,
                Err(_) => match fs::read_to_string(old.tag(repository, &reference)) {
                    Ok(text) => text.parse().unwrap(),
                    Err(_) => continue,
                },
            };
            if old.revision(repository, &digest).exists() {
                let bytes = fs::read(old.data(&digest)).unwrap();
                let kind = if bytes.windows(11).any(|part| part == b"\"manifests\"") {
                    crate::fixture::INDEX
                } else {
                    crate::fixture::IMAGE
                };
                found.insert(format!("{repository} {reference} {kind}"), bytes);
            }
        }
    }
    found
}

async fn round_trip(steps: Vec<Step>) {
    let old = Old::new();
    let mut images = Vec::new();
    for step in &steps {
        step.apply(&old);
        match step {
            Step::Image { blobs, .. } => images.push(sha256(&picture(blobs))),
            Step::Index { images: list, .. } => {
                let list: Vec<_> = list.iter().map(|blobs| picture(blobs)).collect();
                images.push(sha256(&index(&list, "")));
            }
            _ => {}
        }
    }
    let before = old.snapshot();
    let looked = survey(
        &old.found(),
        old.root.path(),
        &registry_storage::distribution::AdoptOptions::new(),
        &(),
    )
    .await
    .unwrap();
    let store = old.open().await;
    let (report, _) = old.adopt(&store).await;
    assert_eq!(report, looked.report, "{steps:?}");
    let served = semantics(&store, &images).await;
    assert_eq!(served, expected(&old, &images), "{steps:?}");
    let target = Old {
        root: tempfile::tempdir().unwrap(),
    };
    let options = ExportOptions::new();
    store
        .export_distribution(target.root.path(), &options, &())
        .await
        .unwrap();
    assert!(old.snapshot() == before, "{steps:?}");
    let again = target.open().await;
    target.adopt(&again).await;
    // A repository that was never pushed a manifest is not exported.
    let listed = store.list_repositories(all()).await.unwrap().items;
    let is_listed = |entry: &str| listed.contains(&name(entry.split(' ').next().unwrap()));
    let kept: BTreeMap<_, _> = served.into_iter().filter(|(entry, _)| is_listed(entry)).collect();
    assert_eq!(semantics(&again, &images).await, kept, "{steps:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_tree_is_adopted_and_exported(steps in proptest::collection::vec(step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(round_trip(steps));
    }
}
