//! Deletes on condition, by requests of our own: the library has none.
//!
//! Rejected: a header that the client adds to the library's own delete. If the library began to send its deletes from a task of its
//! own, the condition would be lost without a word, and each purge would delete whatever is there.

use std::fmt;
#[cfg(any(feature = "s3", feature = "azure"))]
use std::sync::Arc;
#[cfg(any(feature = "s3", feature = "azure"))]
use std::time::Duration;

use async_trait::async_trait;
use http::request::Builder;
use http::{Method, Request};
use object_store::client::{HttpClient, HttpRequestBody};
#[cfg(feature = "gcs")]
use object_store::gcp::GcpCredentialProvider;
use object_store::path::Path;
#[cfg(any(feature = "s3", feature = "azure"))]
use object_store::signer::Signer;
use object_store::{Error as StoreError, Result};

use super::answer::Answer;
use super::client::{Connector, beginning};
use super::error::may_have_happened;
use super::records::{BACK_OFFS, DeleteIf, names_of, wait};
use crate::backend::Version;

/// How long the URL of a delete can be used. A machine's clock may be some minutes behind the store's.
#[cfg(any(feature = "s3", feature = "azure"))]
const LIFETIME: Duration = Duration::from_mins(15);

/// The shortest wait in milliseconds before a request is repeated.
const SHORTEST_BACK_OFF: u64 = 10;

/// Deletes objects of a bucket on condition.
pub(crate) struct ConditionalDeletes {
    client: HttpClient,
    dialect: Dialect,
}

enum Dialect {
    /// A signed URL, and `If-Match` with the entity tag: S3, and Azure with a key that signs.
    #[cfg(any(feature = "s3", feature = "azure"))]
    Signed(Arc<dyn Signer>),
    /// A token of Google, and the generation.
    #[cfg(feature = "gcs")]
    Google {
        credentials: GcpCredentialProvider,
        /// The address of the bucket, without a slash at the end.
        bucket: String,
    },
}

impl ConditionalDeletes {
    /// For a store that was built with this connector, and signs URLs.
    #[cfg(any(feature = "s3", feature = "azure"))]
    pub(crate) fn signed(signer: Arc<dyn Signer>, connector: &Connector) -> Option<Self> {
        let dialect = Dialect::Signed(signer);
        connector.last().map(|client| Self { client, dialect })
    }

    /// For a bucket of Google at this service, that was built with this connector.
    #[cfg(feature = "gcs")]
    pub(crate) fn google(
        credentials: GcpCredentialProvider,
        service: &str,
        bucket: &str,
        connector: &Connector,
    ) -> Option<Self> {
        let dialect = Dialect::Google {
            credentials,
            bucket: format!("{}/{bucket}", service.trim_end_matches('/')),
        };
        connector.last().map(|client| Self { client, dialect })
    }

    /// Returns the request without its method; `None` if the version has not what the store compares.
    async fn request(&self, location: &Path, version: &Version) -> Result<Option<Builder>> {
        match &self.dialect {
            #[cfg(any(feature = "s3", feature = "azure"))]
            Dialect::Signed(signer) => {
                let url = signer.signed_url(Method::DELETE, location, LIFETIME).await?;
                let (tag, _) = names_of(version);
                let request = Request::builder().uri(url.as_str());
                Ok(Some(request.header(http::header::IF_MATCH, tag)))
            }
            #[cfg(feature = "gcs")]
            Dialect::Google { credentials, bucket } => {
                let (_, Some(generation)) = names_of(version) else {
                    return Ok(None);
                };
                let credential = credentials.get_credential().await?;
                let request = Request::builder()
                    .uri(format!("{bucket}/{}", escaped(location.as_ref())))
                    .header("x-goog-if-generation-match", generation);
                Ok(Some(match credential.bearer.as_str() {
                    "" => request,
                    bearer => request.header(http::header::AUTHORIZATION, format!("Bearer {bearer}")),
                }))
            }
        }
    }

    async fn try_once(&self, location: &Path, version: &Version) -> Result<bool> {
        let Some(request) = self.request(location, version).await? else {
            return Ok(false);
        };
        let request = request.method(Method::DELETE).body(HttpRequestBody::empty());
        let response = self.client.execute(request.map_err(failed)?).await;
        let response = response.map_err(failed)?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(true);
        }
        let body = beginning(response.into_body()).await.map_err(failed)?;
        let answer = Answer::parse(status, &body);
        match status {
            412 => Ok(false),
            404 if answer.names_absent_object() => Ok(true),
            _ => Err(failed(answer)),
        }
    }
}

#[async_trait]
impl DeleteIf for ConditionalDeletes {
    async fn delete_if(&self, location: &Path, version: &Version) -> Result<bool> {
        let mut result = self.try_once(location, version).await;
        for back_off in BACK_OFFS {
            if !result.as_ref().is_err_and(may_have_happened) {
                break;
            }
            wait(back_off.max(SHORTEST_BACK_OFF)).await;
            result = self.try_once(location, version).await;
        }
        result
    }
}

impl fmt::Debug for ConditionalDeletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionalDeletes").finish_non_exhaustive()
    }
}

fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Generic {
        store: "a conditional delete",
        source: Box::new(cause),
    }
}

/// Escapes the key of an object as a part of a path, as the library does.
#[cfg(feature = "gcs")]
fn escaped(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(byte.into()),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}
