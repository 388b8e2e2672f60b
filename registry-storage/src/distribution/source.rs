//! What an adoption asks of a tree, in a folder or in a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use registry_core::{Digest, Error, RepositoryName};

use super::amount::Amount;
use super::blobs::BlobContent;
use super::defect::Defect;
use super::error::AdoptError;
use super::linkable::LinkRules;
use super::manifest::StoredManifest;
use super::scanned::Scanned;
use super::seen::Wanted;
use super::tree::Link;
use crate::backend::Backend;
use crate::store::Store;
use crate::store::adopt::{Adopted, AdoptedManifest};

/// A tree, and how a store in the same place takes its content over. Only reading and naming bytes differ: what is adopted, in
/// which order, and what is broken, is the same for all.
pub(super) trait Source: Sync {
    /// The backend of a store in the same place.
    type Backend: Backend;

    /// Lists the repositories, and how many links of blobs and manifests each has.
    fn repositories(&self) -> impl Future<Output = Result<Repositories, Error>> + Send;

    /// Counts the links of some of the repositories.
    fn count_links(
        &self,
        names: Vec<RepositoryName>,
    ) -> impl Future<Output = Result<Vec<(RepositoryName, u64)>, Error>> + Send;

    /// Reads the links of a repository that are wanted, and its manifests for what they say of other content.
    fn scan(
        &self,
        name: RepositoryName,
        counted: u64,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Scanned, Error>> + Send;

    /// Reads the manifests of a repository that are whole.
    fn manifests(
        &self,
        name: &RepositoryName,
        links: &[Link],
    ) -> impl Future<Output = Result<Vec<(Link, StoredManifest)>, Error>> + Send;

    /// Examines the content of links, once for each digest.
    fn examine(&self, examined: Examined) -> impl Future<Output = Result<Found, Error>> + Send;

    /// Makes many files durable at once, if there are files.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Makes content blobs, and lets repositories read them.
    fn adopt_blobs(
        &self,
        store: &Store<Self::Backend>,
        candidates: BTreeMap<Digest, Candidate>,
    ) -> impl Future<Output = Result<Adopted, AdoptError>> + Send;

    /// Stores repositories, and manifests with their tags.
    fn adopt_manifests(
        &self,
        store: &Store<Self::Backend>,
        repositories: Vec<RepositoryName>,
        manifests: Vec<AdoptedManifest>,
    ) -> impl Future<Output = Result<Adopted, Error>> + Send;

    /// Notes which links of repositories are done, if that is what tells later ones from them.
    fn write_seen(
        &self,
        store: &Store<Self::Backend>,
        window: &[Scanned],
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns `false` if this only takes what came later, and another process finished that: what is deleted from then on must not
    /// come back.
    fn goes_on(&self, _: &Store<Self::Backend>) -> impl Future<Output = Result<bool, Error>> + Send {
        std::future::ready(Ok(true))
    }

    /// Counts how much content there is, and how much of it is in a store.
    fn amount(
        &self,
        store: Option<&Store<Self::Backend>>,
    ) -> impl Future<Output = Result<Amount, Error>> + Send;
}

/// The repositories of a tree, with the number of their links.
#[derive(Debug, Default)]
pub(super) struct Repositories {
    pub(super) counted: Vec<(RepositoryName, u64)>,
    pub(super) defects: Vec<Defect>,
}

/// Content to examine.
pub(super) struct Examined {
    /// The links of repositories, with the size that a manifest gives.
    pub(super) links: Vec<(RepositoryName, Link, Option<u64>)>,
    /// What need not be examined.
    pub(super) stored: BTreeSet<Digest>,
    /// All content is compared with its digest.
    pub(super) verify: bool,
    /// How many bytes were compared.
    pub(super) read: Arc<AtomicU64>,
    /// If files would get second names, whether they can.
    pub(super) rules: Option<LinkRules>,
}

/// What was found of content.
#[derive(Default)]
pub(super) struct Found {
    pub(super) candidates: BTreeMap<Digest, Candidate>,
    pub(super) defects: Vec<Defect>,
    /// A file that cannot get a second name.
    pub(super) refused: Option<AdoptError>,
}

/// A blob on its way.
pub(super) struct Candidate {
    /// `None` if the store has it.
    pub(super) content: Option<BlobContent>,
    pub(super) grants: Vec<RepositoryName>,
}

impl Found {
    /// Adds a link of content that may have been examined for another link. Returns whether it has to be examined.
    pub(super) fn join(&mut self, repository: &RepositoryName, digest: &Digest) -> bool {
        let Some(candidate) = self.candidates.get_mut(digest) else {
            return true;
        };
        candidate.grants.push(repository.clone());
        false
    }

    /// Adds content that was examined for the link of a repository, or is stored.
    pub(super) fn add(
        &mut self,
        repository: RepositoryName,
        digest: Digest,
        content: Result<Option<BlobContent>, Defect>,
    ) {
        match content {
            Ok(content) => {
                let grants = vec![repository];
                self.candidates.insert(digest, Candidate { content, grants });
            }
            Err(defect) => self.defects.push(defect),
        }
    }
}
