//! Reading the links of a tree in a bucket.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::{Algorithm, Digest, Error, RepositoryName, Tag};

use super::links::{self, Listed};
use super::source::{BucketTree, PARALLEL_READS};
use crate::distribution::defect::{BrokenLink, Defect};
use crate::distribution::named::Named;
use crate::distribution::seen::Wanted;
use crate::distribution::tree::{
    LINK_BYTES, Link, RepositoryLinks, TagLink, add_manifests_among_layers, is_same_content, parse_link,
};
use crate::object_store::tree::TreeObject;

impl BucketTree<'_> {
    /// Reads the links of a repository.
    pub(super) async fn links(&self, name: &RepositoryName) -> Result<RepositoryLinks, Error> {
        let folder = links::folder(name);
        let whole = self.backend.whole_key(&folder);
        let prefix = format!("{folder}/_");
        let mut listed = Listed::default();
        let mut pages = pin!(self.backend.tree_pages(prefix));
        while let Some(page) = pages.try_next().await? {
            for object in &page {
                match object.key.get(folder.len() + 1..) {
                    Some(rest) if self.is_new(object) => listed.add(&whole, rest, object),
                    Some(rest) => listed.add_old(rest, object),
                    None => {}
                }
            }
        }
        let mut defects = listed.defects;
        let mut layers = self.read_links(listed.layers, &mut defects).await?;
        layers.extend(self.old_links(listed.old_layers).await?);
        let mut revisions = self.read_links(listed.revisions, &mut defects).await?;
        revisions.extend(self.old_links(listed.old_revisions).await?);
        let mut missing: BTreeSet<Tag> = listed.named_tags.difference(&listed.old_tags).cloned().collect();
        let mut tags = Vec::new();
        let mut reading = pin!(
            stream::iter(listed.tags)
                .map(|(tag, object)| async move {
                    let read = self.read_link(&object).await?;
                    Ok::<_, Error>((tag, object, read))
                })
                .buffered(PARALLEL_READS)
        );
        while let Some((tag, object, read)) = reading.try_next().await? {
            missing.remove(&tag);
            match read {
                Ok(target) => tags.push(TagLink {
                    tag,
                    target,
                    written: object.written,
                }),
                Err(reason) => defects.push(self.broken(&object.key, reason)),
            }
        }
        for tag in missing {
            let key = format!("{folder}/_manifests/tags/{tag}/current/link");
            defects.push(self.broken(&key, BrokenLink::Missing));
        }
        add_manifests_among_layers(&layers, &mut revisions, &tags);
        Ok(RepositoryLinks {
            name: name.clone(),
            is_listed: listed.is_listed,
            layers,
            revisions,
            tags,
            uploads: listed.uploads.len() as u64,
            defects,
        })
    }

    async fn read_links(
        &self,
        listed: Vec<(Digest, TreeObject)>,
        defects: &mut Vec<Defect>,
    ) -> Result<Vec<Link>, Error> {
        let mut links = Vec::with_capacity(listed.len());
        let mut reading = pin!(
            stream::iter(listed)
                .map(|(digest, object)| async move {
                    let read = self.read_link(&object).await?;
                    Ok::<_, Error>((digest, object, read))
                })
                .buffered(PARALLEL_READS)
        );
        while let Some((digest, object, read)) = reading.try_next().await? {
            match read {
                Ok(target) if is_same_content(&digest, &target) => links.push(Link {
                    digest,
                    target,
                    written: object.written,
                }),
                Ok(_) => defects.push(self.broken(&object.key, BrokenLink::OtherDigest)),
                // It was deleted since it was listed.
                Err(BrokenLink::Missing) => {}
                Err(reason) => defects.push(self.broken(&object.key, reason)),
            }
        }
        Ok(links)
    }

    /// Takes links that were there before for what their keys say, and reads only those that may name something else. If they are
    /// broken, that was said then.
    async fn old_links(&self, listed: Vec<(Digest, TreeObject)>) -> Result<Vec<Link>, Error> {
        let (plain, others): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(digest, object)| {
            digest.algorithm() == Some(Algorithm::Sha256) && object.size == digest.as_str().len() as u64
        });
        let mut links = self.read_links(others, &mut Vec::new()).await?;
        links.extend(plain.into_iter().map(|(digest, object)| Link {
            target: digest.clone(),
            digest,
            written: object.written,
        }));
        Ok(links)
    }

    async fn read_link(&self, object: &TreeObject) -> Result<Result<Digest, BrokenLink>, Error> {
        if object.size == 0 {
            return Ok(Err(BrokenLink::Empty));
        }
        if object.size > LINK_BYTES {
            return Ok(Err(BrokenLink::NotADigest));
        }
        let text = self.backend.read_object(&object.key).await?;
        Ok(text.map_or(Err(BrokenLink::Missing), |text| parse_link(&text)))
    }

    fn broken(&self, key: &str, reason: BrokenLink) -> Defect {
        Defect::BrokenLink {
            path: PathBuf::from(self.backend.whole_key(key)),
            reason,
        }
    }

    /// Leaves out what is not wanted, unless something that is names it.
    pub(super) async fn leave_unwanted(
        &self,
        links: &mut RepositoryLinks,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let mut named = Named::of(links, wanted);
        loop {
            let waiting = named.take_waiting();
            if waiting.is_empty() {
                break;
            }
            let reading = stream::iter(waiting).map(|link| self.manifest(&links.name, link));
            let read: Vec<_> = reading.buffered(PARALLEL_READS).try_collect().await?;
            for manifest in read.into_iter().filter_map(|(_, read)| read.ok()) {
                named.add(links, &manifest);
            }
        }
        named.keep(links, wanted);
        Ok(())
    }
}
