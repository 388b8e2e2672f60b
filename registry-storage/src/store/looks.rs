//! Whether the content that records name exists, as far as it was checked.

use crate::chain::{State, counted};
use registry_core::storage::{BlobStorage as _, ChildKind, ManifestChild};
use registry_core::{Digest, Error, ErrorCode, Hasher, RepositoryName};

use super::Store;
use super::edge::{Found, read_cached};
use super::hash::hash;
use crate::backend::Backend;
use crate::bytes_name::BytesName;
use crate::key::Key;
use crate::record::{BlobBytes, BlobRecord, GrantRecord, Header, ManifestRecord};

/// What is known of bytes that records name.
///
/// A transaction does not check by itself: on a disk it runs on the thread that all writes share. It ends with the
/// bytes that it has to know about, and is run again with the answer. Lost bytes stay lost, because no name is reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    seen: Vec<(BytesName, bool)>,
    trusts: bool,
}

/// Bytes that a transaction has to know about before it continues.
#[derive(Clone, Debug)]
pub(super) struct Unseen {
    name: BytesName,
    size: u64,
}

/// How a transaction that uses existing content ended.
#[derive(Debug)]
pub(super) enum Looked<T> {
    Done(T),
    /// It has to be run again. What it wrote is kept.
    LookAt(Unseen),
}

impl Looks {
    /// Trusts all bytes that were not checked: for an adoption, which runs many transactions as one step.
    #[cfg(all(feature = "filesystem", unix))]
    pub(super) const fn trusting() -> Self {
        Self {
            seen: Vec::new(),
            trusts: true,
        }
    }

    /// Returns whether bytes were found lost.
    pub(super) fn has_lost(&self) -> bool {
        self.seen.iter().any(|(_, is_whole)| !is_whole)
    }

    /// Returns the state that a blob counts as, or the bytes that have to be checked first.
    pub(super) fn counted(&self, digest: &Digest, blob: &Found<BlobRecord>) -> Result<State, Unseen> {
        let state = blob.state();
        let Some((record, content)) = blob.record.as_ref().filter(|_| state.is_visible()) else {
            return Ok(state);
        };
        let is_lost = match &record.blob {
            Some(BlobBytes {
                size,
                bytes: Some(name),
            }) => match self.seen.iter().find(|(seen, _)| seen == name) {
                Some((_, is_whole)) => !is_whole,
                None if self.trusts => false,
                None => {
                    let (name, size) = (name.clone(), *size);
                    return Err(Unseen { name, size });
                }
            },
            Some(BlobBytes { bytes: None, .. }) => digest
                .algorithm()
                .is_some_and(|algorithm| Digest::of(algorithm, content) != *digest),
            None => true,
        };
        Ok(counted(state, is_lost))
    }
}

impl<B: Backend> Store<B> {
    /// Checks bytes of a blob that a transaction has to know about, for a repository that is to have it.
    pub(super) async fn look(
        &self,
        looks: &mut Looks,
        unseen: Unseen,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Error> {
        let Unseen { name, size } = unseen;
        let found = self.backend.bytes_size(&name).await?;
        if found != Some(size) {
            tracing::error!(
                %repository,
                %digest,
                bytes = %name,
                size,
                ?found,
                "the bytes of a blob were lost; a push of the blob heals it"
            );
        }
        looks.seen.push((name, found == Some(size)));
        Ok(())
    }
}

/// How many children are looked at together.
const CHILDREN_AT_ONCE: usize = 500;

impl<B: Backend> Store<B> {
    /// Returns one of these children whose content is lost, although the repository may read it: a `HEAD` of it is 404. A
    /// client that is told that its manifest is stored does not send the layer again.
    ///
    /// It looks before the transaction, because nothing may hold up the thread of all writes, and only if that costs no
    /// request for each child.
    pub(super) async fn lost_child(
        &self,
        repository: &RepositoryName,
        children: &[ManifestChild],
    ) -> Result<Option<Digest>, Error> {
        if !self.backend.has_near_bytes() {
            return Ok(None);
        }
        for children in children.chunks(CHILDREN_AT_ONCE) {
            for child in self.suspects(repository, children).await? {
                match self.stat_blob(repository, &child.digest).await {
                    Err(error) if error.code() == ErrorCode::BlobUnknown => {}
                    looked => {
                        looked?;
                        continue;
                    }
                }
                // An index may name it as a manifest, which it is too.
                let key = Key::manifest(repository, &child.digest);
                if child.kind == ChildKind::Blob || !self.is_visible_manifest(&key).await? {
                    return Ok(Some(child.digest.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Returns the children whose content is not where their grants say.
    async fn suspects<'a>(
        &self,
        repository: &RepositoryName,
        children: &'a [ManifestChild],
    ) -> Result<Vec<&'a ManifestChild>, Error> {
        let keys: Vec<Key> = children
            .iter()
            .map(|child| Key::grant(&child.digest, repository))
            .collect();
        let (mut suspects, mut named, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (child, grant) in children.iter().zip(self.backend.get_all(&keys).await?) {
            // What has no grant, or one that cannot be read, is the transaction's to judge.
            let grant = Found::<GrantRecord>::new(grant.as_ref()).ok();
            match grant.and_then(Found::visible).and_then(|(grant, _)| grant.blob) {
                Some(BlobBytes {
                    size,
                    bytes: Some(name),
                }) => {
                    named.push(child);
                    bytes.push((name, size));
                }
                Some(BlobBytes { bytes: None, .. }) if !self.has_inline(&child.digest).await? => {
                    suspects.push(child);
                }
                _ => {}
            }
        }
        let are_whole = self.backend.are_whole(&bytes).await?;
        let lost = named.into_iter().zip(are_whole).filter(|(_, is_whole)| !is_whole);
        suspects.extend(lost.map(|(child, _)| child));
        Ok(suspects)
    }

    async fn has_inline(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.inline_content(digest).await?.is_some())
    }

    async fn is_visible_manifest(&self, key: &Key) -> Result<bool, Error> {
        let manifest = read_cached::<ManifestRecord>(&*self.backend, key).await?;
        Ok(manifest.state().is_visible())
    }
}

/// Returns whether the content of a record matches its digest. They are compared once for each time that the record
/// came from the medium. A digest of an unknown algorithm is trusted.
pub(super) async fn is_content_of<H: Header>(digest: &Digest, found: &Found<H>) -> Result<bool, Error> {
    let (Some((_, content)), Some(algorithm)) = (&found.record, digest.algorithm()) else {
        return Ok(true);
    };
    if found.checked.is_set() {
        return Ok(true);
    }
    let is_same = hash(Hasher::new(algorithm), content.clone()).await?.finish() == *digest;
    if is_same {
        found.checked.set();
    }
    Ok(is_same)
}
