//! Reading manifests.

use std::marker::PhantomData;

use bytes::Bytes;
use registry_core::chain::State;
use registry_core::storage::Manifest;
use registry_core::{Digest, Error, ErrorCode, Reference, RepositoryName};

use super::Store;
use super::edge::{Rescue, peek};
use crate::backend::{Backend, Durability};
use crate::key::Key;
use crate::record::{ManifestRecord, TagRecord};

impl<B: Backend> Store<B> {
    pub(super) async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.read_manifest(repository, reference, false).await
    }

    pub(super) async fn stat_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, Error> {
        self.read_manifest(repository, reference, true).await
    }

    async fn read_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        keep: bool,
    ) -> Result<Manifest, Error> {
        let found = match reference {
            Reference::Digest(digest) => self.find_manifest(repository, digest, None, keep).await?,
            Reference::Tag(tag) => {
                let tag = peek::<TagRecord>(&*self.backend, &Key::tag(repository, tag)).await?;
                match tag.visible() {
                    None => None,
                    Some((tag, _)) => {
                        self.find_manifest(repository, &tag.digest, Some(&tag.incarnation), keep)
                            .await?
                    }
                }
            }
        };
        match found {
            Some(manifest) => Ok(manifest),
            None => Err(self.unknown_manifest(repository).await?),
        }
    }

    /// Reads a manifest; one of another incarnation than that of the tag is not the tag's.
    async fn find_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        incarnation: Option<&str>,
        keep: bool,
    ) -> Result<Option<Manifest>, Error> {
        let key = Key::manifest(repository, digest);
        let manifest = peek::<ManifestRecord>(&*self.backend, &key).await?;
        let manifest = if keep && manifest.state() == State::Condemned {
            let rescue = Rescue {
                key,
                now: self.clock.now(),
                header: PhantomData,
            };
            self.backend.transact(Durability::Synced, rescue).await?
        } else {
            manifest.visible()
        };
        let manifest = manifest.filter(|(manifest, _): &(ManifestRecord, Bytes)| {
            incarnation.is_none_or(|incarnation| manifest.incarnation == incarnation)
        });
        Ok(manifest.map(|(manifest, bytes)| Manifest {
            digest: digest.clone(),
            media_type: manifest.media_type,
            bytes,
        }))
    }

    /// Returns the error that says whether the repository or only the manifest is unknown.
    pub(super) async fn unknown_manifest(&self, repository: &RepositoryName) -> Result<Error, Error> {
        let known = self.is_known(repository).await?;
        Ok(if known {
            ErrorCode::ManifestUnknown
        } else {
            ErrorCode::NameUnknown
        }
        .into())
    }

    /// Tells whether a manifest was ever pushed to the repository.
    pub(super) async fn is_known(&self, repository: &RepositoryName) -> Result<bool, Error> {
        Ok(self.backend.get(&Key::repository(repository)).await?.is_some())
    }
}
