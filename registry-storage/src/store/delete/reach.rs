//! What a tag reaches: its manifest, the manifests of an index at any depth, their layers and configurations.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, ManifestChild, TagFilter};
use registry_core::{Digest, Error, MediaType, RepositoryName, Tag};
use tokio::task::spawn_blocking;

use crate::backend::{Backend, RecordEntry};
use crate::key::Key;
use crate::pages::Pages;
use crate::record::{GrantRecord, ManifestRecord, TagRecord, state_of_size};
use crate::store::Store;
use crate::store::edge::read_cached;

/// How many records are read at once; a bucket takes some milliseconds for each.
const PARALLEL_READS: usize = 16;
/// How many manifests are remembered at most, so that a manifest that many tags share is not read again.
const REMEMBERED_MANIFESTS: usize = 100_000;
/// Manifests larger than this many bytes are parsed as JSON on a thread that may block.
const LARGE_MANIFEST_BYTES: usize = 64 * 1024;

/// A manifest to read, and the tag that leads to it.
struct Step<T> {
    from: T,
    digest: Digest,
    /// The incarnation that the tag names; a manifest that another manifest names may have any.
    incarnation: Option<String>,
}

impl<B: Backend> Store<B> {
    /// Returns an immutable tag that reaches this content, if there is one. Reads the tags of the repository page by
    /// page, and each manifest below the immutable ones once.
    pub(super) async fn immutable_tag_reaching(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        immutable: &TagFilter,
    ) -> Result<Option<Tag>, Error> {
        let prefix = Key::tags(repository);
        let mut seen = BTreeSet::new();
        let mut pages = Pages::of(prefix.clone());
        while let Some(page) = pages.next(&*self.backend).await? {
            let tags = page.iter().filter_map(|entry| visible_tag(&prefix, entry));
            let tags: Vec<Tag> = tags.filter(|tag| immutable(tag)).collect();
            let records = stream::iter(tags).map(|tag| async move {
                let record = read_cached::<TagRecord>(&*self.backend, &Key::tag(repository, &tag)).await?;
                Ok::<_, Error>(record.visible().map(|(record, _)| (tag, record)))
            });
            let records: Vec<_> = records.buffered(PARALLEL_READS).try_collect().await?;
            let steps = records.into_iter().flatten().map(|(tag, record)| Step {
                from: tag,
                digest: record.digest,
                incarnation: Some(record.incarnation),
            });
            let mut found = None;
            self.walk(repository, steps.collect(), &mut seen, |tag, reached| {
                if reached == digest {
                    found = Some(tag.clone());
                }
                found.is_some()
            })
            .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns which of `wanted` a manifest reaches.
    pub(in crate::store) async fn reached_by(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
        wanted: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, Error> {
        let start = Step {
            from: (),
            digest: manifest.clone(),
            incarnation: None,
        };
        let mut reached = BTreeSet::new();
        let (mut seen, steps) = (BTreeSet::new(), vec![start]);
        self.walk(repository, steps, &mut seen, |(), digest| {
            if wanted.contains(digest) {
                reached.insert(digest.clone());
            }
            reached.len() == wanted.len()
        })
        .await?;
        Ok(reached)
    }

    /// Returns something that a manifest with these children needs at any depth and that does not exist. If an index
    /// was accepted without its manifests, those of an index below it may be missing too.
    pub(super) async fn missing_below(
        &self,
        repository: &RepositoryName,
        children: &[ManifestChild],
    ) -> Result<Option<Digest>, Error> {
        let is_sparse = !children.iter().any(|child| child.kind == ChildKind::Manifest);
        let mut seen = BTreeSet::new();
        let mut needed = vec![children.to_vec()];
        while let Some(children) = needed.pop() {
            let children = children
                .into_iter()
                .filter(|child| seen.insert(child.digest.clone()));
            let looks = children.collect::<Vec<_>>().into_iter().map(|child| async move {
                let found = self.needs_of(repository, &child).await?;
                Ok::<_, Error>((child, found))
            });
            let mut looks = stream::iter(looks).buffered(PARALLEL_READS);
            while let Some((child, found)) = looks.try_next().await? {
                let Some(mut needs) = found else {
                    return Ok(Some(child.digest));
                };
                needs.retain(|child| !(is_sparse && child.kind == ChildKind::Manifest));
                needed.extend(Some(needs).filter(|needs| !needs.is_empty()));
            }
        }
        Ok(None)
    }

    /// Returns what content needs to be whole; `None` if the content does not exist.
    async fn needs_of(
        &self,
        repository: &RepositoryName,
        child: &ManifestChild,
    ) -> Result<Option<Vec<ManifestChild>>, Error> {
        if child.kind == ChildKind::Manifest {
            let key = Key::manifest(repository, &child.digest);
            let manifest = read_cached::<ManifestRecord>(&*self.backend, &key).await?;
            if let Some((record, content)) = manifest.visible() {
                let view = parse_manifest(content, record.media_type).await?;
                return Ok(Some(
                    view.map(|view| view.children().to_vec()).unwrap_or_default(),
                ));
            }
        }
        let grant =
            read_cached::<GrantRecord>(&*self.backend, &Key::grant(&child.digest, repository)).await?;
        Ok(grant.visible().map(|_| Vec::new()))
    }

    /// Passes each reached content to `is_enough`, until it returns `true`: manifests that exist, and what they name.
    async fn walk<T: Clone + Send + Sync>(
        &self,
        repository: &RepositoryName,
        mut steps: Vec<Step<T>>,
        seen: &mut BTreeSet<Digest>,
        mut is_enough: impl FnMut(&T, &Digest) -> bool + Send,
    ) -> Result<(), Error> {
        while !steps.is_empty() {
            // Many tags name the same manifest.
            let mut queued = BTreeSet::new();
            steps.retain(|step| {
                !seen.contains(&step.digest) && queued.insert((step.digest.clone(), step.incarnation.clone()))
            });
            let looks = std::mem::take(&mut steps).into_iter().map(|step| async move {
                let children = self.children(repository, &step).await?;
                Ok::<_, Error>((step, children))
            });
            let mut looks = stream::iter(looks).buffered(PARALLEL_READS);
            while let Some((step, children)) = looks.try_next().await? {
                let Some(children) = children else { continue };
                if is_enough(&step.from, &step.digest) {
                    return Ok(());
                }
                if seen.len() >= REMEMBERED_MANIFESTS {
                    seen.clear();
                }
                if !seen.insert(step.digest) {
                    continue;
                }
                for child in children {
                    if is_enough(&step.from, &child.digest) {
                        return Ok(());
                    }
                    if child.kind == ChildKind::Manifest && !seen.contains(&child.digest) {
                        steps.push(Step {
                            from: step.from.clone(),
                            digest: child.digest,
                            incarnation: None,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what a manifest names; `None` if it does not exist.
    async fn children<T: Sync>(
        &self,
        repository: &RepositoryName,
        step: &Step<T>,
    ) -> Result<Option<Vec<ManifestChild>>, Error> {
        let key = Key::manifest(repository, &step.digest);
        let manifest = read_cached::<ManifestRecord>(&*self.backend, &key).await?;
        let Some((record, content)) = manifest.visible() else {
            return Ok(None);
        };
        let named = step.incarnation.as_ref();
        if named.is_some_and(|incarnation| *incarnation != record.incarnation) {
            return Ok(None);
        }
        let view = parse_manifest(content, record.media_type).await?;
        Ok(Some(view.map(|view| all_children(&view)).unwrap_or_default()))
    }
}

pub(super) fn visible_tag(prefix: &Key, entry: &RecordEntry) -> Option<Tag> {
    let is_visible = state_of_size(entry.size).is_visible();
    entry.key.after(prefix).filter(|_| is_visible)?.parse().ok()
}

/// Parses a manifest; `None` if an embedder stored something else, which names nothing.
pub(in crate::store) async fn parse_manifest(
    content: Bytes,
    media_type: MediaType,
) -> Result<Option<ManifestView>, Error> {
    let is_large = content.len() > LARGE_MANIFEST_BYTES;
    let parse = move || ManifestView::parse(&content, Some(&media_type)).ok();
    if !is_large {
        return Ok(parse());
    }
    spawn_blocking(parse).await.map_err(Error::internal)
}

pub(in crate::store) fn all_children(view: &ManifestView) -> Vec<ManifestChild> {
    let optional = view.optional_children().iter();
    view.children().iter().chain(optional).cloned().collect()
}
