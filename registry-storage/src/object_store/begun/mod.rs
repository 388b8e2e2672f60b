//! Uploads in parts that a bucket of S3 has and that were neither completed nor aborted: the library does not list them.

mod page;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use http::{Method, Request};
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Error as StoreError, Result};
use registry_core::Error;

use self::page::{Listed, Page};
use super::ObjectStoreBackend;
use super::answer::Answer;
use super::client::{Connector, first_bytes};
use super::error::{convert, may_have_happened, refusal};
use super::records::{BACK_OFFS, wait};
use super::tree::TREE;
use crate::backend::{BegunBytes, StagedBytes};
use crate::bytes_name::BytesName;

/// How long the URL of a request can be used. A machine's clock may be some minutes behind the store's.
const LIFETIME: Duration = Duration::from_mins(15);

/// The most uploads that S3 lists in a page.
const UPLOADS_PER_PAGE: &str = "1000";

/// The largest answer that is read. An upload takes about 1 KB of it.
const PAGE_BYTES: usize = 8 << 20;

/// Lists the uploads of a bucket by signed URLs, as deletes on condition are sent.
pub(crate) struct UploadListing {
    client: HttpClient,
    signer: Arc<dyn Signer>,
}

impl UploadListing {
    /// For a store that was built with this connector, and signs URLs.
    pub(crate) fn signed(signer: Arc<dyn Signer>, connector: &Connector) -> Option<Self> {
        connector.last().map(|client| Self { client, signer })
    }

    /// Lists the first uploads of keys that begin with `prefix` and are after `after`.
    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let mut result = self.try_once(prefix, after).await;
        for back_off in BACK_OFFS {
            if !result.as_ref().is_err_and(may_have_happened) {
                break;
            }
            wait(back_off).await;
            result = self.try_once(prefix, after).await;
        }
        result
    }

    /// The marker is a key alone, without the upload in `upload-id-marker`: versitygw refuses each page after one, and it need not be
    /// there any more. So of several uploads of one key a page may end before the last; a later sweep finds that.
    async fn try_once(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let query = [
            ("uploads", ""),
            ("prefix", prefix),
            ("max-uploads", UPLOADS_PER_PAGE),
        ];
        let marker = after.map(|after| ("key-marker", after));
        let options = SignedUrlOptions::new().with_query(query.into_iter().chain(marker));
        let url = self
            .signer
            .signed_url_opts(Method::GET, &Path::default(), LIFETIME, &options)
            .await?;
        let request = Request::builder().method(Method::GET).uri(url.as_str());
        let request = request.body(HttpRequestBody::empty()).map_err(failed)?;
        let response = self.client.execute(request).await.map_err(failed)?;
        let status = response.status();
        let text = first_bytes(response.into_body(), PAGE_BYTES)
            .await
            .map_err(failed)?;
        if status.is_success()
            && let Some(page) = Page::parse(&text)
        {
            return Ok(page);
        }
        let answer = Answer::parse(status.as_u16(), &text);
        match answer.names_absent_upload() {
            // rclone, if there never was one.
            true => Ok(Page::default()),
            false => Err(failed(answer)),
        }
    }
}

impl fmt::Debug for UploadListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadListing").finish_non_exhaustive()
    }
}

fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Generic {
        store: "a list of uploads",
        source: Box::new(cause),
    }
}

impl ObjectStoreBackend {
    /// Sets what lists the uploads that were begun.
    #[must_use]
    pub(crate) fn listing_uploads(mut self, listing: Option<UploadListing>) -> Self {
        self.begun = listing.map(Arc::new);
        self
    }

    /// Lists the uploads of bytes of this store, page by page. A store that does not list them has none here, and is asked once.
    pub(super) fn begun(&self) -> impl Stream<Item = Result<Vec<BegunBytes>, Error>> + Send {
        // Copies of an export in place are begun in the tree.
        let folders = [
            format!("{}bytes/", self.root),
            format!("{}{TREE}/blobs/", self.root),
        ];
        stream::try_unfold((0, None, folders), move |(at, after, folders)| async move {
            let (Some(listing), Some(folder)) = (&self.begun, folders.get(at)) else {
                return Ok(None);
            };
            let request = listing.page(folder, after.as_deref());
            let page = match self.run(PAGE_BYTES, request).await {
                Ok(page) => page,
                Err(error) => {
                    let Some(answer) = refusal(&error) else {
                        return Err(convert(error));
                    };
                    tracing::warn!(
                        %answer,
                        "the store does not list uploads, so what it keeps of uploads that nobody knows of any more stays; allow this \
                         key `s3:ListBucketMultipartUploads`, or give the bucket a rule that aborts incomplete uploads"
                    );
                    return Ok(None);
                }
            };
            let begun = page.uploads.into_iter().filter_map(|upload| self.own(upload));
            let begun: Vec<BegunBytes> = begun.collect();
            // A store that does not go on would be asked for ever.
            let next = page.next.filter(|next| Some(next) > after.as_ref());
            let at = if next.is_some() { at } else { at + 1 };
            Ok(Some((begun, (at, next, folders))))
        })
    }

    /// Returns an upload as bytes of this store; `None` if it is anybody else's, whatever prefix the store was asked for. Others may
    /// have the bucket too: the distribution registry keeps what its clients send elsewhere in the tree.
    fn own(&self, upload: Listed) -> Option<BegunBytes> {
        let key = upload.key.strip_prefix(&*self.root)?;
        let name = match key.strip_prefix("bytes/") {
            Some(name) => BytesName::parse(name)?,
            None => {
                let hex = key.strip_suffix("/data")?.rsplit('/').next()?;
                BytesName::in_tree(&format!("sha256:{hex}").parse().ok()?)?
            }
        };
        let is_there = self
            .bytes_path(&name)
            .is_ok_and(|path| path.as_ref() == upload.key);
        is_there.then_some(BegunBytes {
            bytes: StagedBytes {
                name,
                token: Some(upload.id),
            },
            begun: upload.begun,
        })
    }
}
