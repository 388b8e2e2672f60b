//! Storing what image layouts have.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use registry_core::manifest::ManifestView;
use registry_core::storage::{ChildKind, Manifest, NewManifest, TagCondition, UploadKey};
use registry_core::{Algorithm, Digest, RepositoryName, Storage, Tag};
use serde::de::DeserializeOwned;

use super::export::storage_error;
use super::index::{Entry, INDEX_FILE, Index, LAYOUT_FILE, LayoutVersion};
use super::source::Source;
use super::{INDEX_LIMIT, LayoutError, LayoutReport, MANIFEST_LIMIT, blob_path, prefix_of};
use crate::progress::{Progress, Step};

/// Stores a folder or archive that is a layout, or has one in each of its folders.
///
/// A layout becomes the one repository that is named. Of several, those that are named are stored, or all where none is.
/// Every digest is compared, and a manifest is stored when all that it names is there. A tag that is there is moved.
/// Repeatable: what is there is not stored again. Cancel safe: what was stored stays.
///
/// # Errors
/// [`LayoutError`]; what was stored before it stays.
pub async fn import(
    storage: &dyn Storage,
    source: &Path,
    repositories: &[RepositoryName],
    progress: &dyn Progress,
) -> Result<LayoutReport, LayoutError> {
    let source = Source::open(source).await?;
    let mut import = Import {
        storage,
        progress,
        source,
        report: LayoutReport::default(),
    };
    for (repository, prefix) in import.plan(repositories).await? {
        import.repository(&repository, &prefix).await?;
    }
    Ok(import.report)
}

struct Import<'a> {
    storage: &'a dyn Storage,
    progress: &'a dyn Progress,
    source: Source,
    report: LayoutReport,
}

impl Import<'_> {
    /// Returns which layout becomes which repository.
    async fn plan(&self, wanted: &[RepositoryName]) -> Result<Vec<(RepositoryName, String)>, LayoutError> {
        if self.source.find(LAYOUT_FILE).await?.is_some() {
            return match wanted {
                [repository] => Ok(vec![(repository.clone(), String::new())]),
                _ => Err(self
                    .source
                    .malformed("this is the layout of one repository; name the repository to import it to")),
            };
        }
        let mut plan = Vec::new();
        for folder in self.source.folders_with(LAYOUT_FILE).await? {
            match folder.replace('+', "/").parse::<RepositoryName>() {
                Ok(repository) if wanted.is_empty() || wanted.contains(&repository) => {
                    let prefix = prefix_of(&repository);
                    plan.push((repository, prefix));
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(self.source.malformed(format!(
                        "the folder {folder} is not named as a repository, with + for each /"
                    )));
                }
            }
        }
        for repository in wanted {
            if !plan.iter().any(|(planned, _)| planned == repository) {
                return Err(self
                    .source
                    .malformed(format!("there is no layout of {repository} in it")));
            }
        }
        if plan.is_empty() {
            return Err(self
                .source
                .malformed("there is no image layout in it, as it has no file oci-layout"));
        }
        Ok(plan)
    }

    async fn repository(&mut self, repository: &RepositoryName, prefix: &str) -> Result<(), LayoutError> {
        let version: LayoutVersion = self.json(&format!("{prefix}{LAYOUT_FILE}")).await?;
        if !version.is_known() {
            let version = version.image_layout_version;
            let reason = format!("its layout has the version {version}, and this program knows 1.0.0");
            return Err(self.source.malformed(reason));
        }
        let index: Index = self.json(&format!("{prefix}{INDEX_FILE}")).await?;
        let mut done = BTreeSet::new();
        for entry in index.manifests {
            self.tree(repository, prefix, &entry, &mut done).await?;
        }
        self.report.repositories += 1;
        Ok(())
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, LayoutError> {
        let text = self.source.read(path, INDEX_LIMIT).await?;
        let text = text.ok_or_else(|| self.source.malformed(format!("{path} is missing")))?;
        serde_json::from_slice(&text).map_err(|cause| self.source.malformed(format!("{path}: {cause}")))
    }

    /// Stores a manifest of the index after all that it names, then its tag.
    async fn tree(
        &mut self,
        repository: &RepositoryName,
        prefix: &str,
        entry: &Entry,
        done: &mut BTreeSet<Digest>,
    ) -> Result<(), LayoutError> {
        let mut waiting = vec![(entry.digest.clone(), false)];
        while let Some((digest, has_children)) = waiting.pop() {
            if done.contains(&digest) {
                continue;
            }
            let content = self.manifest(prefix, &digest).await?;
            let parsed = content.map(|content| (ManifestView::parse(&content, None), content));
            let Some((Ok(view), content)) = parsed else {
                if digest == entry.digest {
                    let reason = format!("{digest}, which its index names, is no manifest or not there");
                    return Err(self.source.malformed(reason));
                }
                // An entry of an index may be a blob: the caches of BuildKit have such.
                self.blob(repository, prefix, &digest).await?;
                done.insert(digest);
                continue;
            };
            if !has_children {
                waiting.push((digest.clone(), true));
                for child in view.children() {
                    match child.kind {
                        ChildKind::Manifest => waiting.push((child.digest.clone(), false)),
                        ChildKind::Blob => self.blob(repository, prefix, &child.digest).await?,
                    }
                }
                for child in view.optional_children() {
                    if self
                        .source
                        .find(&blob_path(prefix, &child.digest))
                        .await?
                        .is_some()
                    {
                        self.blob(repository, prefix, &child.digest).await?;
                    }
                }
                continue;
            }
            self.put(repository, &digest, &view, content, None).await?;
            self.report.manifests += 1;
            self.progress.step(Step::Manifests, self.report.manifests, None);
            done.insert(digest);
        }
        if let Some(tag) = entry.tag()
            && let Some(content) = self.manifest(prefix, &entry.digest).await?
        {
            let view = ManifestView::parse(&content, None)?;
            self.put(repository, &entry.digest, &view, content, Some(tag))
                .await?;
            self.report.tags += 1;
        }
        Ok(())
    }

    /// Reads what may be a manifest and compares its digest; nothing where it is not there or too large for one.
    async fn manifest(&self, prefix: &str, digest: &Digest) -> Result<Option<Bytes>, LayoutError> {
        let path = blob_path(prefix, digest);
        match self.source.find(&path).await? {
            Some(input) if input.size <= MANIFEST_LIMIT => {}
            _ => return Ok(None),
        }
        let Some(content) = self.source.read(&path, MANIFEST_LIMIT).await? else {
            return Ok(None);
        };
        let found = Digest::of(digest.supported_algorithm()?, &content);
        if found == *digest {
            Ok(Some(content))
        } else {
            let digest = digest.clone();
            Err(LayoutError::OtherContent { digest, found })
        }
    }

    async fn put(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        view: &ManifestView,
        content: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), LayoutError> {
        let subject = view.subject().cloned();
        let descriptor = view.referrer_descriptor(digest, content.len() as u64);
        let new = NewManifest {
            manifest: Manifest {
                digest: digest.clone(),
                media_type: view.media_type().clone(),
                bytes: content,
            },
            children: view.children().to_vec(),
            allow_missing: false,
            optional_children: view.optional_children().to_vec(),
            subject: subject.map(|subject| (subject, descriptor)),
            tags: tag.into_iter().collect(),
            condition: TagCondition::Any,
            immutable_tags: Vec::new(),
            principal: String::new(),
        };
        let stored = self.storage.put_manifest(repository, new).await;
        stored.map_err(storage_error(
            repository,
            format!("storing the manifest {digest}"),
        ))
    }

    /// Uploads a blob, unless the repository has it.
    async fn blob(
        &mut self,
        repository: &RepositoryName,
        prefix: &str,
        digest: &Digest,
    ) -> Result<(), LayoutError> {
        if self.storage.stat_blob(repository, digest).await.is_ok() {
            return Ok(());
        }
        let Some(input) = self.source.find(&blob_path(prefix, digest)).await? else {
            let reason = format!("{digest}, which a manifest names, is neither in it nor in {repository}");
            return Err(self.source.malformed(reason));
        };
        let size = input.size;
        let failed = || storage_error(repository, format!("storing the blob {digest}"));
        let algorithm = digest.algorithm().unwrap_or(Algorithm::Sha256);
        let id = self
            .storage
            .create_upload(repository, "", algorithm)
            .await
            .map_err(failed())?;
        let upload = UploadKey {
            repository: repository.clone(),
            id,
            principal: String::new(),
        };
        let stored = async {
            let mut body = pin!(input.stream());
            self.storage.append_upload(&upload, None, body.as_mut()).await?;
            self.storage.commit_upload(&upload, digest).await
        };
        if let Err(error) = stored.await {
            // Nobody goes on with it, so it need not wait for the sweeper.
            drop(self.storage.cancel_upload(&upload).await);
            return Err(failed()(error));
        }
        self.report.blobs += 1;
        self.report.size += size;
        Ok(())
    }
}
