//! `storage.azure`: a container of Azure Blob Storage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{GoDuration, Secret, SecretUrl};

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Azure {
    /// The account.
    #[serde(rename = "accountname")]
    pub(crate) account: Option<String>,
    /// The account's key.
    #[serde(rename = "accountkey")]
    pub(crate) account_key: Option<Secret>,
    /// The container.
    pub(crate) container: String,
    /// How to log in.
    pub(crate) credentials: AzureCredentials,
    /// Account, key and address in one.
    #[serde(rename = "connectionstring")]
    pub(crate) connection_string: Option<Secret>,
    /// The domain of the service.
    pub(crate) realm: Option<String>,
    /// The folder in the container.
    #[serde(rename = "rootdirectory")]
    pub(crate) root: Option<String>,
    /// The address of the service.
    #[serde(rename = "serviceurl")]
    pub(crate) service_url: Option<SecretUrl>,
    /// How often a request is retried.
    pub(crate) max_retries: Option<u64>,
    /// How long to wait before that.
    pub(crate) retry_delay: Option<GoDuration>,
    /// Do not verify the service's certificate.
    #[serde(rename = "skipverify")]
    pub(crate) skip_verify: bool,
}

impl Azure {
    /// Checks the values.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.required(
            "storage.azure.container",
            self.container.is_empty(),
            "name the container",
        );
        let login = &self.credentials;
        let is_client = login.kind == Some(AzureCredentialKind::ClientSecret);
        if is_client && (login.client.is_none() || login.tenant.is_none() || login.secret.is_none()) {
            problems.add(
                "storage.azure.credentials",
                "a client logs in by `clientid`, `tenantid` and `secret`; give all three",
            );
        }
    }
}

/// How to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AzureCredentials {
    /// How to log in.
    #[serde(rename = "type")]
    pub(crate) kind: Option<AzureCredentialKind>,
    /// The client.
    #[serde(rename = "clientid")]
    pub(crate) client: Option<String>,
    /// The tenant.
    #[serde(rename = "tenantid")]
    pub(crate) tenant: Option<String>,
    /// The client's secret.
    pub(crate) secret: Option<Secret>,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AzureCredentialKind {
    /// A client's secret.
    ClientSecret,
    /// The account's key.
    SharedKey,
    /// What the environment has.
    DefaultCredentials,
}
