//! Azure Blob Storage.

use std::fmt;

use object_store::ClientConfigKey;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::ObjectStoreBackend;
use super::location::{LocationError, NO_LIMIT, retries};

/// How a container of Azure Blob Storage is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureOptions {
    /// The account; that of the environment unless given.
    pub account: Option<String>,
    /// How to log in.
    pub credentials: AzureCredentials,
    /// The URL of the service, where it is not Azure's own for the account.
    pub endpoint: Option<String>,
    /// The certificate of the service is not verified, so whoever sits in between reads and changes everything.
    pub accept_any_certificate: bool,
}

/// How to log in at Azure.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AzureCredentials {
    /// By the variables `AZURE_…` of the environment, then by the workload's or the machine's identity.
    #[default]
    Environment,
    /// By the account's key.
    Key(String),
    /// By a client's secret.
    Client {
        /// The client.
        id: String,
        /// Its tenant.
        tenant: String,
        /// Its secret.
        secret: String,
    },
}

impl fmt::Debug for AzureCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Key(_) => "Key(..)",
            Self::Client { .. } => "Client(..)",
        })
    }
}

impl ObjectStoreBackend {
    /// Keeps everything in a container of Azure Blob Storage, below `prefix`: folders with slashes between them, or
    /// nothing.
    ///
    /// Must be called within a tokio runtime. Nothing is asked of the service.
    ///
    /// # Errors
    /// Those of [`LocationError`].
    pub fn azure(container: &str, prefix: &str, options: &AzureOptions) -> Result<Self, LocationError> {
        let mut builder = match &options.credentials {
            AzureCredentials::Environment => MicrosoftAzureBuilder::from_env(),
            AzureCredentials::Key(key) => MicrosoftAzureBuilder::new().with_access_key(key),
            AzureCredentials::Client { id, tenant, secret } => {
                MicrosoftAzureBuilder::new().with_client_secret_authorization(id, secret, tenant)
            }
        };
        if let Some(account) = &options.account {
            builder = builder.with_account(account);
        }
        if let Some(endpoint) = &options.endpoint {
            // An endpoint without TLS was stated as such.
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint.clone());
        }
        if options.accept_any_certificate {
            let key = AzureConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
            builder = builder.with_config(key, "true");
        }
        let store = builder
            .with_container_name(container)
            .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), NO_LIMIT)
            .with_retry(retries())
            .build()?;
        Ok(Self::new(store, prefix)?)
    }
}
