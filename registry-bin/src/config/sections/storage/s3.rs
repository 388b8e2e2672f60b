//! `storage.s3`: a bucket of Amazon S3, or of what speaks its protocol.

use registry_storage::{LocationError, PartSize, S3Encryption, S3Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{Secret, SecretUrl};

/// A bucket of Amazon S3, or of what speaks its protocol.
///
/// What is not given here comes from the variables `AWS_…`, then from web identity, the container or the instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3 {
    /// The name of the access key.
    #[serde(rename = "accesskey")]
    pub(crate) access_key: Option<Secret>,
    /// The access key itself.
    #[serde(rename = "secretkey")]
    pub(crate) secret_key: Option<Secret>,
    /// The session token of a temporary key.
    #[serde(rename = "sessiontoken")]
    pub(crate) session_token: Option<Secret>,
    /// The region.
    pub(crate) region: Option<String>,
    /// The address of a service that is not Amazon's.
    #[serde(rename = "regionendpoint")]
    pub(crate) region_endpoint: Option<SecretUrl>,
    /// Put the bucket into the path of URLs, not into their host.
    #[serde(rename = "forcepathstyle")]
    pub(crate) force_path_style: Option<bool>,
    /// The bucket.
    pub(crate) bucket: String,
    /// The folder in the bucket.
    #[serde(rename = "rootdirectory")]
    pub(crate) root: Option<String>,
    /// Let the service encrypt content.
    pub(crate) encrypt: bool,
    /// The key of the key management service that content is encrypted with.
    #[serde(rename = "keyid")]
    pub(crate) key_id: Option<String>,
    /// Speak TLS with the service.
    pub(crate) secure: bool,
    /// Do not verify the service's certificate.
    #[serde(rename = "skipverify")]
    pub(crate) skip_verify: bool,
    /// Sign requests with signature version 4.
    #[serde(rename = "v4auth")]
    pub(crate) v4_auth: bool,
    /// The class of storage.
    #[serde(rename = "storageclass")]
    pub(crate) storage_class: Option<String>,
    /// The user agent of requests to the service.
    #[serde(rename = "useragent")]
    pub(crate) user_agent: Option<String>,
    /// Who else may read objects.
    #[serde(rename = "objectacl")]
    pub(crate) object_acl: Option<String>,
    /// Amazon's addresses for IPv4 and IPv6.
    #[serde(rename = "usedualstack")]
    pub(crate) dual_stack: bool,
    /// Amazon's addresses near the client.
    pub(crate) accelerate: bool,
    /// Amazon's addresses with certified cryptography.
    #[serde(rename = "usefipsendpoint")]
    pub(crate) fips: bool,
    /// The address that clients are sent to for blobs, in place of the one that this server uses: `https://HOST`, without a path.
    #[serde(rename = "redirectendpoint")]
    pub(crate) redirect_endpoint: Option<SecretUrl>,
    /// The size in bytes of all parts of an upload but the last, for services that take only equal ones, such as Cloudflare R2: 5 MiB
    /// to 5 GiB. A blob has at most 10000 parts, so 10485760 limits it to 97 GiB. Without it, parts grow, and a blob may have 5 TiB.
    #[serde(rename = "chunksize")]
    pub(crate) chunk_size: Option<u64>,
    /// Only one process will ever write to the bucket. Then the service need not keep conditional writes, which are tried at the first
    /// start: this process decides them, and a lock in the bucket keeps others from writing beside it. Without it, a service that does
    /// not keep them is refused.
    #[serde(rename = "singlewriter")]
    pub(crate) single_writer: bool,
    /// The service deletes an object only if it is as it was read (`If-Match` of a `DELETE`), also beside a writer, so that deleted
    /// content leaves no records. A probe tries it, but may miss a service that looks first and deletes afterwards: set it only if the
    /// maker says so. `false` tries none. By default, only Amazon's own hosts are tried.
    #[serde(rename = "conditionaldeletes")]
    pub(crate) conditional_deletes: Option<bool>,
    /// The size of a part of a copy.
    #[serde(rename = "multipartcopychunksize")]
    pub(crate) copy_chunk_size: Option<u64>,
    /// How many parts of a copy are copied at once.
    #[serde(rename = "multipartcopymaxconcurrency")]
    pub(crate) copy_concurrency: Option<u64>,
    /// From what size a copy is made in parts.
    #[serde(rename = "multipartcopythresholdsize")]
    pub(crate) copy_threshold: Option<u64>,
    /// What is logged of requests to the service.
    #[serde(rename = "loglevel")]
    pub(crate) log_level: Option<String>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            access_key: None,
            secret_key: None,
            session_token: None,
            region: None,
            region_endpoint: None,
            force_path_style: None,
            bucket: String::new(),
            root: None,
            encrypt: false,
            key_id: None,
            secure: true,
            skip_verify: false,
            v4_auth: true,
            storage_class: None,
            user_agent: None,
            object_acl: None,
            dual_stack: false,
            accelerate: false,
            fips: false,
            redirect_endpoint: None,
            chunk_size: None,
            single_writer: false,
            conditional_deletes: None,
            copy_chunk_size: None,
            copy_concurrency: None,
            copy_threshold: None,
            log_level: None,
        }
    }
}

impl S3 {
    /// Returns how to reach the bucket.
    pub(crate) fn options(&self) -> S3Options {
        let reveal = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
        let mut options = S3Options::default();
        options.access_key = reveal(&self.access_key).zip(reveal(&self.secret_key));
        options.session_token = reveal(&self.session_token);
        options.region.clone_from(&self.region);
        options.endpoint = self.region_endpoint.as_ref().map(|url| url.reveal().to_owned());
        options.bucket_in_host = self.force_path_style == Some(false);
        options.plain_http = !self.secure;
        options.accept_any_certificate = self.skip_verify;
        options.encryption = self.encrypt.then(|| match &self.key_id {
            Some(key) => S3Encryption::Key(key.clone()),
            None => S3Encryption::Service,
        });
        options.user_agent.clone_from(&self.user_agent);
        options.dual_stack = self.dual_stack;
        options.fips = self.fips;
        options.accelerate = self.accelerate;
        let reveal = |url: &SecretUrl| url.reveal().to_owned();
        options.redirect_endpoint = self.redirect_endpoint.as_ref().map(reveal);
        options.part_size = self.chunk_size.and_then(|size| PartSize::try_from(size).ok());
        options.conditional_deletes = self.conditional_deletes;
        options
    }

    /// Checks the values.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.required("storage.s3.bucket", self.bucket.is_empty(), "name the bucket");
        if self.access_key.is_some() != self.secret_key.is_some() {
            problems.add(
                "storage.s3",
                "`accesskey` and `secretkey` go together; give both, or none to take what the environment has",
            );
        }
        if let (false, Err(wrong)) = (self.bucket.is_empty(), self.options().check(&self.bucket)) {
            let (key, remedy) = match wrong {
                LocationError::Bucket(_) => ("storage.s3.bucket", "takes letters, digits, `-`, `.` and `_`"),
                LocationError::Region(_) => (
                    "storage.s3.region",
                    "takes the name of a region, such as eu-central-1",
                ),
                LocationError::Endpoint => (
                    "storage.s3.regionendpoint",
                    "takes an address without a user, a password or a query; the access key is `accesskey` and `secretkey`",
                ),
                LocationError::RedirectEndpoint => (
                    "storage.s3.redirectendpoint",
                    "takes an address without a path, a user, a password or a query: https://HOST, or https://HOST:PORT",
                ),
                _ => (
                    "storage.s3.regionendpoint",
                    "takes an address: https://HOST, or https://HOST:PORT",
                ),
            };
            problems.add(key, remedy);
        }
        if let Some(size) = self.chunk_size
            && PartSize::try_from(size).is_err()
        {
            problems.add(
                "storage.s3.chunksize",
                format!("takes 5242880 (5 MiB) to 5368709120 (5 GiB), not {size}; remove it unless the service needs equal parts"),
            );
        }
        if self.key_id.is_some() && !self.encrypt {
            problems.add(
                "storage.s3.keyid",
                "has no effect without `encrypt: true`; add that or remove the key",
            );
        }
    }
}
