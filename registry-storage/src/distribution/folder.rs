//! A tree in a folder: its files are read, and get second names.

use std::collections::BTreeMap;
use std::io;

use registry_core::{Digest, Error, RepositoryName};
use tokio::task::spawn_blocking;

use super::amount::Amount;
use super::blobs::{self, BlobContent};
use super::error::AdoptError;
use super::linkable::LinkRules;
use super::manifest::{self, StoredManifest};
use super::record;
use super::scanned::Scanned;
use super::seen::Wanted;
use super::source::{Candidate, Examined, Found, Repositories, Source};
use super::tree::{Link, Tree};
use crate::filesystem::FilesystemBackend;
use crate::store::Store;
use crate::store::adopt::{Adopted, AdoptedBlob, AdoptedManifest, Source as BlobSource};

impl Source for Tree {
    type Backend = FilesystemBackend;

    async fn repositories(&self) -> Result<Repositories, Error> {
        let tree = self.clone();
        let list = move || {
            let mut defects = Vec::new();
            let names = tree.repositories(&mut defects);
            let counted = count(&tree, names);
            Repositories { counted, defects }
        };
        spawn_blocking(list).await.map_err(Error::internal)
    }

    async fn count_links(&self, names: Vec<RepositoryName>) -> Result<Vec<(RepositoryName, u64)>, Error> {
        let tree = self.clone();
        spawn_blocking(move || count(&tree, names))
            .await
            .map_err(Error::internal)
    }

    async fn scan(&self, name: RepositoryName, counted: u64, wanted: Wanted) -> Result<Scanned, Error> {
        let tree = self.clone();
        let scan = move || Scanned::read(&tree, &name, counted, &wanted);
        spawn_blocking(scan).await.map_err(Error::internal)
    }

    async fn manifests(
        &self,
        name: &RepositoryName,
        links: &[Link],
    ) -> Result<Vec<(Link, StoredManifest)>, Error> {
        let (tree, name, links) = (self.clone(), name.clone(), links.to_vec());
        let read = move || {
            let read = |link: Link| manifest::read(&tree, &name, &link).ok().map(|read| (link, read));
            links.into_iter().filter_map(read).collect()
        };
        spawn_blocking(read).await.map_err(Error::internal)
    }

    async fn examine(&self, examined: Examined) -> Result<Found, Error> {
        let tree = self.clone();
        spawn_blocking(move || examine(&tree, examined))
            .await
            .map_err(Error::internal)
    }

    async fn sync(&self) -> io::Result<()> {
        let tree = self.clone();
        spawn_blocking(move || tree.sync())
            .await
            .map_err(io::Error::other)?
    }

    /// Names the bytes, gives the files these names, and makes them blobs.
    async fn adopt_blobs(
        &self,
        store: &Store<FilesystemBackend>,
        candidates: BTreeMap<Digest, Candidate>,
    ) -> Result<Adopted, AdoptError> {
        let mut sizes = Vec::new();
        let mut files = Vec::new();
        for candidate in candidates.values() {
            if let Some(BlobContent::File(path, size)) = &candidate.content {
                files.push(path.clone());
                sizes.push(*size);
            }
        }
        let first = candidates.values().find_map(|candidate| candidate.grants.first());
        let Some(repository) = first else {
            return Ok(Adopted::default());
        };
        let sessions = if sizes.is_empty() {
            Vec::new()
        } else {
            store.name_bytes(repository, &sizes).await?
        };
        let names = sessions.iter().map(|session| session.bytes().clone());
        let links: Vec<_> = names.zip(files).collect();
        if !links.is_empty() {
            store.backend().link_bytes(links).await?;
        }
        let mut sessions = sessions.into_iter();
        let mut blobs = Vec::new();
        for (digest, candidate) in candidates {
            let source = match candidate.content {
                None => BlobSource::Stored,
                Some(BlobContent::Inline(content)) => BlobSource::Inline(content),
                Some(_) => match sessions.next() {
                    Some(session) => BlobSource::Session(Box::new(session)),
                    None => continue,
                },
            };
            blobs.push(AdoptedBlob {
                digest,
                source,
                grants: candidate.grants,
            });
        }
        Ok(store.adopt_blobs(blobs).await?)
    }

    async fn adopt_manifests(
        &self,
        store: &Store<FilesystemBackend>,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> Result<Adopted, Error> {
        store.adopt_manifests(repositories, manifests).await
    }

    async fn write_seen(&self, store: &Store<FilesystemBackend>, window: &[Scanned]) -> Result<(), Error> {
        let seen = window.iter().map(|scanned| (&scanned.links.name, &scanned.seen));
        record::write_seen(store, seen).await
    }

    async fn amount(&self, store: Option<&Store<FilesystemBackend>>) -> Result<Amount, Error> {
        Amount::of(self.folder(), store).await
    }
}

/// Counts the links of repositories. Blocks.
fn count(tree: &Tree, names: Vec<RepositoryName>) -> Vec<(RepositoryName, u64)> {
    let counted = names.into_iter().map(|name| {
        let links = tree.count_links(&name);
        (name, links)
    });
    counted.collect()
}

/// Examines the content of links. Blocks.
fn examine(tree: &Tree, examined: Examined) -> Found {
    let mut found = Found::default();
    for (repository, link, declared_size) in examined.links {
        if !found.join(&repository, &link.digest) {
            continue;
        }
        let content = if examined.stored.contains(&link.digest) {
            Ok(None)
        } else {
            let reading = (examined.verify, &*examined.read);
            blobs::check(tree, &repository, &link, declared_size, reading).map(Some)
        };
        found.add(repository, link.digest, content);
    }
    found.refused = examined
        .rules
        .and_then(|rules| refused(&rules, &found.candidates));
    found
}

/// Finds a file that could not get a second name. Blocks.
fn refused(rules: &LinkRules, candidates: &BTreeMap<Digest, Candidate>) -> Option<AdoptError> {
    let contents = candidates
        .values()
        .filter_map(|candidate| candidate.content.as_ref());
    let mut files = contents.filter_map(|content| match content {
        BlobContent::File(path, _) => Some(path),
        _ => None,
    });
    files.find_map(|path| rules.refusal(path))
}
