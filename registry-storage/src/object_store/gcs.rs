//! Google Cloud Storage.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::ObjectStoreBackend;
use super::client::Connector;
use super::conditional_delete::ConditionalDeletes;
use super::location::{LocationError, NO_LIMIT, retries};
use super::signed_url::as_octets;

/// Where the service is, unless something else is set.
const SERVICE: &str = "https://storage.googleapis.com";

/// How a bucket of Google Cloud Storage is reached.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GcsCredentials {
    /// With the variables `GOOGLE_…` of the environment, then with the instance's metadata.
    #[default]
    Environment,
    /// With the key of a service account in this file.
    File(PathBuf),
    /// With the key of a service account, as JSON.
    Key(String),
}

impl fmt::Debug for GcsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Key(_) => f.write_str("Key(..)"),
        }
    }
}

impl ObjectStoreBackend {
    /// Keeps everything in a bucket of Google Cloud Storage, below `prefix`: folders with slashes between them, or an
    /// empty string.
    ///
    /// Must be called within a tokio runtime. No request is sent to the service, but a file of credentials is read.
    ///
    /// # Errors
    /// Those of [`LocationError`].
    pub fn gcs(bucket: &str, prefix: &str, credentials: &GcsCredentials) -> Result<Self, LocationError> {
        let by_key = |key: &str| GoogleCloudStorageBuilder::new().with_service_account_key(key);
        let builder = match credentials {
            GcsCredentials::Environment => GoogleCloudStorageBuilder::from_env(),
            GcsCredentials::File(path) => {
                let key = std::fs::read_to_string(path);
                by_key(&key.map_err(|cause| LocationError::KeyFile {
                    path: path.clone(),
                    cause,
                })?)
            }
            GcsCredentials::Key(key) => by_key(key),
        };
        let service = builder.get_config_value(&GoogleConfigKey::BaseUrl);
        let can_sign = can_sign(&builder);
        let address = format!("{bucket} of {}", service.as_deref().unwrap_or("Google"));
        let connector = Connector::default();
        let store = builder
            .with_bucket_name(bucket)
            .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), NO_LIMIT)
            .with_retry(retries())
            .with_http_connector(connector.clone())
            .build()
            .map_err(|_| LocationError::GoogleSettings)?;
        let mut backend = Self::new(store.clone(), prefix)?.at(address);
        let service = service.as_deref().unwrap_or(SERVICE);
        let credentials = Arc::clone(store.credentials());
        if let Some(deletes) = ConditionalDeletes::google(credentials, service, bucket, &connector) {
            backend = backend.deleting_by(deletes);
        }
        Ok(match can_sign {
            true => backend.with_signer(Arc::new(store), as_octets()),
            false => backend,
        })
    }
}

/// Returns whether the key of a service account is at hand. Without one, Google would have to be asked for each signature.
fn can_sign(builder: &GoogleCloudStorageBuilder) -> bool {
    let value = |key| builder.get_config_value(&key);
    let keys = [
        GoogleConfigKey::ServiceAccount,
        GoogleConfigKey::ServiceAccountKey,
    ];
    let is_given = keys.into_iter().any(|key| value(key).is_some());
    // A file with the login of a user, or of another cloud, has no such key.
    let has_key = |path: String| {
        let file = std::fs::read_to_string(path).unwrap_or_default();
        let fields: serde_json::Value = serde_json::from_str(&file).unwrap_or_default();
        fields.get("private_key").is_some()
    };
    is_given || value(GoogleConfigKey::ApplicationCredentials).is_some_and(has_key)
}
