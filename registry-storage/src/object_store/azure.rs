//! Azure Blob Storage.

use std::fmt;
use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::signer::SignedUrlOptions;

use super::ObjectStoreBackend;
use super::client::Connector;
use super::conditional_delete::ConditionalDeletes;
use super::location::{LocationError, NO_LIMIT, is_plain_http, retries};

/// How a container of Azure Blob Storage is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureOptions {
    /// The account; by default, the environment's.
    pub account: Option<String>,
    /// How to log in.
    pub credentials: AzureCredentials,
    /// The URL of the service, if it is not Azure's own for the account.
    pub endpoint: Option<String>,
    /// The certificate of the service is not verified, so an attacker in between can read and change everything.
    pub accept_any_certificate: bool,
}

/// How to log in to Azure.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AzureCredentials {
    /// With the variables `AZURE_…` of the environment, then with the identity of the workload or machine.
    #[default]
    Environment,
    /// With the account's key.
    Key(String),
    /// With a client's secret.
    Client {
        /// The client's identifier.
        id: String,
        /// The client's tenant.
        tenant: String,
        /// The client's secret.
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
    /// Keeps everything in a container of Azure Blob Storage, below `prefix`: folders with slashes between them, or an
    /// empty string.
    ///
    /// Must be called within a tokio runtime. No request is sent to the service.
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
            // An endpoint without TLS was requested explicitly.
            builder = builder
                .with_allow_http(is_plain_http(endpoint))
                .with_endpoint(endpoint.clone());
        }
        if options.accept_any_certificate {
            let key = AzureConfigKey::Client(ClientConfigKey::AllowInvalidCertificates);
            builder = builder.with_config(key, "true");
        }
        let value = |key: &AzureConfigKey| builder.get_config_value(key).unwrap_or_default();
        let address = format!(
            "{container} of {} {}",
            value(&AzureConfigKey::AccountName),
            value(&AzureConfigKey::Endpoint)
        );
        // A URL that was given for all of the container cannot sign others, and no request is signed by nobody.
        let can_sign =
            value(&AzureConfigKey::SasKey).is_empty() && value(&AzureConfigKey::SkipSignature) != "true";
        let connector = Connector::default();
        let store = builder
            .with_container_name(container)
            .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), NO_LIMIT)
            .with_retry(retries())
            .with_http_connector(connector.clone())
            .build()?;
        let backend = Self {
            is_azure: true,
            ..Self::new(store.clone(), prefix)?.at(address)
        };
        if !can_sign {
            return Ok(backend);
        }
        let backend = match ConditionalDeletes::signed(Arc::new(store.clone()), &connector) {
            Some(deletes) => backend.deleting_by(deletes),
            None => backend,
        };
        // What it signs cannot name the type of the content.
        Ok(backend.with_signer(Arc::new(store), SignedUrlOptions::new()))
    }
}
