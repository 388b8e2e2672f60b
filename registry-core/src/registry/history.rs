//! What tags named before, and bringing it back.

use alloc::borrow::ToOwned as _;
use alloc::vec;
use alloc::vec::Vec;

use super::Registry;
use crate::digest::Digest;
use crate::error::Error;
use crate::event::{EventAction, EventIntents, EventTarget};
use crate::name::RepositoryName;
use crate::operation::{Action, Operation, Principal, Target};
use crate::page::PageQuery;
use crate::reference::Reference;
use crate::request::Request;
use crate::response::Response;
use crate::storage::{PageRequest, RestoreTag, RestoredTag, Storage, TagRestored};
use crate::tag::Tag;

impl<S: ?Sized + Storage> Registry<S> {
    /// Lists what tags named before. A repository of which nothing is kept has no history.
    pub(super) async fn list_tag_history(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        query: &PageQuery,
    ) -> Result<Response, Error> {
        let most = PageQuery::MAXIMUM_ITEMS;
        let limit = query.page_size(most).unwrap_or(most);
        if limit == 0 {
            return Response::tag_history(repository, &[]);
        }
        let page = PageRequest {
            last: query.last.clone(),
            limit,
        };
        let page = self.storage.list_tag_history(repository, tag, page).await?;
        let next = page.next.map(|last| Request::ListTagHistory {
            repository: repository.clone(),
            tag: tag.cloned(),
            page: query.after(last),
        });
        Ok(Response::tag_history(repository, &page.items)?.with_next_page(next.as_ref()))
    }

    /// Points a tag at what it named before. The right to push is checked before; whether the tag would move is known only
    /// when it is written, so without the right to move it, it never moves.
    pub(super) async fn restore_tag(
        &self,
        principal: &Principal,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Option<&Digest>,
        intents: Option<&dyn EventIntents>,
    ) -> Result<Response, Error> {
        let overwrite = Operation::within(repository, Action::Overwrite, Target::Tag(tag));
        let mut restore = RestoreTag {
            digest: digest.cloned(),
            is_immutable: self.authorizer.authorize(principal, &overwrite).is_err(),
            allow_missing: self.options.allow_missing_children,
            allow_sparse_indexes: self.options.allow_sparse_indexes,
            principal: principal.name().to_owned(),
            ..RestoreTag::new(tag.clone())
        };
        let manifest = self.storage.find_restorable(repository, &restore).await?;
        // What is announced is what is restored.
        restore.digest = Some(manifest.digest.clone());
        let event = self
            .announce(intents, EventAction::Push, repository, || EventTarget::Manifest {
                manifest,
                tags: vec![tag.clone()],
            })
            .await;
        let restored = self.storage.restore_tag(repository, restore).await?;
        if let Some(intents) = intents.filter(|_| self.has_events) {
            self.report_restored(intents, repository, &restored).await;
        }
        let restored = TagRestored::new(tag.clone(), &restored);
        Ok(Response::tag_restored(repository, &restored)?.with_event(event))
    }

    /// Reports the manifests that came back with the one that the tag names.
    async fn report_restored(
        &self,
        intents: &dyn EventIntents,
        repository: &RepositoryName,
        restored: &RestoredTag,
    ) {
        let others = restored.digests.iter();
        for digest in others.filter(|digest| **digest != restored.manifest.digest) {
            let by_digest = Reference::Digest(digest.clone());
            // One that is deleted again by now is that delete's.
            let Ok(manifest) = self.storage.get_manifest(repository, &by_digest).await else {
                continue;
            };
            let target = || EventTarget::Manifest {
                manifest,
                tags: Vec::new(),
            };
            if let Some(event) = self.event(EventAction::Push, repository, target) {
                intents.happened(&event).await;
            }
        }
    }
}
