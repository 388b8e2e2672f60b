//! URLs of objects that clients read without the registry.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use registry_core::Error;
use registry_core::printable::with_causes;
use registry_core::storage::SignedUrl;

use super::ObjectStoreBackend;
use super::error::convert;

/// How long a URL can be used, as in the distribution registry. A transfer that has begun may take longer.
const LIFETIME: Duration = Duration::from_mins(20);

/// How long a client waits for a URL before it gets the content itself. Most signers need no request, and none waits for the
/// second URL.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long no URL is tried after one that could not be signed.
const PAUSE: Duration = Duration::from_mins(1);

/// Signs URLs with the key of a store.
pub(super) struct UrlSigner {
    signer: Arc<dyn Signer>,
    options: SignedUrlOptions,
    /// When no URL could be signed last.
    failed: Mutex<Option<Instant>>,
}

impl ObjectStoreBackend {
    /// Lets clients read content by URLs of `signer` with `options`, in place of one that the backend may have of its own: for a
    /// store that was given to [`new`](Self::new).
    ///
    /// The backends of S3, and those of Google and Azure with a key that signs, need no other signer.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn Signer>, options: SignedUrlOptions) -> Self {
        self.signer = Some(Arc::new(UrlSigner {
            signer,
            options,
            failed: Mutex::default(),
        }));
        self
    }

    /// Signs a URL, to find out whether that is possible, and returns its scheme, host and port, which all URLs share. `None` if
    /// the store has no signer: the key of Google or Azure does not sign.
    ///
    /// # Errors
    /// Those of the store's keys, which some signers have to ask for. Without them, content has to come from the registry.
    pub async fn signed_origin(&self) -> Result<Option<String>, Error> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let path = self.path("bytes/any")?;
        let signed = signer.sign(&path).await?;
        Ok(Some(signed.origin().to_owned()))
    }

    /// Returns a URL of an object; `None` if there is no signer, or it failed a moment ago.
    pub(super) async fn signed_url(&self, path: &Path) -> Option<SignedUrl> {
        let signer = self.signer.as_ref()?;
        if signer.is_paused() {
            return None;
        }
        match signer.sign(path).await {
            Ok(signed) => Some(signed),
            Err(error) => {
                signer.pause();
                tracing::warn!(
                    error = %with_causes(error.to_string(), std::error::Error::source(&error)),
                    "no URL can be signed, so content comes from this server for a minute"
                );
                None
            }
        }
    }
}

impl UrlSigner {
    async fn sign(&self, path: &Path) -> Result<SignedUrl, Error> {
        let signing = self
            .signer
            .signed_url_opts(Method::GET, path, LIFETIME, &self.options);
        let url = tokio::time::timeout(SIGNING_TIMEOUT, signing).await;
        let url = url
            .unwrap_or_else(|elapsed| Err(super::timed_out(elapsed)))
            .map_err(convert)?;
        SignedUrl::new(url.as_str(), LIFETIME).ok_or_else(|| Error::internal(Unusable))
    }

    fn is_paused(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| failed.elapsed() < PAUSE)
    }

    fn pause(&self) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl fmt::Debug for UrlSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSigner").finish_non_exhaustive()
    }
}

/// Returns the options of a signer that can have the store name the type of what it sends. A blob may be a web page, and must
/// not act as one of the store's host.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(super) fn as_octets() -> SignedUrlOptions {
    let content_type = registry_core::MediaType::OCTET_STREAM;
    SignedUrlOptions::new().with_query([("response-content-type", content_type)])
}

/// A URL that a client could not follow.
#[derive(Debug, thiserror::Error)]
#[error("the signed URL is too long, or none of HTTP")]
struct Unusable;
