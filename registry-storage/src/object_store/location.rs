//! Buckets by address.

use object_store::RetryConfig;

use super::ObjectStoreBackend;

/// Why an address of a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// It has the wrong form.
    #[error("{0:?} is not the address of a bucket: write it as s3://BUCKET/PREFIX")]
    Malformed(String),
    /// This program was built without the feature that it needs.
    #[error("{0:?} needs a feature of registry-storage that this program was built without")]
    NotBuilt(String),
    /// The prefix has characters that object stores do not preserve.
    #[error(transparent)]
    Prefix(#[from] object_store::path::Error),
    /// The address of the service has a part that requests cannot use. It is not shown, because it may hold a password.
    #[error(
        "the address of the service has a user, a password or a query; leave them out, an access key is given by itself"
    )]
    Endpoint,
    /// The address of the service is malformed. It is not shown, because it may hold a password.
    #[error("the address of the service is none; write it as https://HOST or https://HOST:PORT")]
    EndpointForm,
    /// The address that clients are sent to is malformed. It is not shown, because it may hold a password.
    #[error(
        "the address that clients are sent to is none; write it as https://HOST or https://HOST:PORT, without a path"
    )]
    RedirectEndpoint,
    /// The environment names a service on another machine that is reached without TLS, and does not allow that.
    #[error(
        "the address of the service begins with http://, so everybody in between could read and change everything; write \
         https://, or allow it with AWS_ALLOW_HTTP=true"
    )]
    PlainHttp,
    /// The environment has one half of an access key.
    #[error("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together; set both, or none of them")]
    HalfKey,
    /// The name of a bucket that cannot be part of an address.
    #[error("{0:?} is not the name of a bucket: letters, digits, `-`, `.` and `_` are")]
    Bucket(String),
    /// The name of a region that cannot be part of an address.
    #[error("{0:?} is not the name of a region, such as eu-central-1")]
    Region(String),
    /// The file of a key cannot be read.
    #[error("cannot read the file of the key {}: {cause}", path.display())]
    KeyFile {
        /// The file.
        path: std::path::PathBuf,
        /// The error.
        cause: std::io::Error,
    },
    /// The key of a service account, or the settings of the environment in its place, cannot be used. The cause is not
    /// shown, because that would quote the key.
    #[error(
        "the key of a Google service account, or what the variables GOOGLE_… say, cannot be used; the key is the JSON file that Google's console gives"
    )]
    GoogleSettings,
    /// The settings of the environment for the store are inconsistent.
    #[error(transparent)]
    Settings(#[from] object_store::Error),
}

/// Returns whether the address of a service is without TLS. A scheme may be written in capitals.
#[cfg(any(feature = "s3", feature = "azure"))]
pub(super) fn is_plain_http(endpoint: &str) -> bool {
    let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"))
}

impl ObjectStoreBackend {
    /// Keeps everything in a bucket: `s3://BUCKET/PREFIX`, or, with their features, `gs://…` and `az://…`.
    ///
    /// Credentials, region, endpoint and the like come from the sources of [`object_store`]: the variables `AWS_…`,
    /// `GOOGLE_…` and `AZURE_…` of the environment, then web identity, container and instance metadata.
    ///
    /// Must be called within a tokio runtime. No request is sent to the store.
    ///
    /// # Errors
    /// Those of [`LocationError`].
    pub fn from_url(url: &str) -> Result<Self, LocationError> {
        let malformed = || LocationError::Malformed(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || rest.contains(['?', '#', '@']) {
            return Err(malformed());
        }
        match scheme {
            #[cfg(feature = "s3")]
            "s3" => Self::s3(bucket, prefix, &super::S3Options::default()),
            #[cfg(not(feature = "s3"))]
            "s3" => Err(LocationError::NotBuilt(url.to_owned())),
            #[cfg(feature = "gcs")]
            "gs" => Self::gcs(bucket, prefix, &super::GcsCredentials::default()),
            #[cfg(not(feature = "gcs"))]
            "gs" => Err(LocationError::NotBuilt(url.to_owned())),
            #[cfg(feature = "azure")]
            "az" => Self::azure(bucket, prefix, &super::AzureOptions::default()),
            #[cfg(not(feature = "azure"))]
            "az" => Err(LocationError::NotBuilt(url.to_owned())),
            _ => Err(malformed()),
        }
    }
}

/// Retries within a request: few and short, because a client of the registry waits, and retries by itself.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: std::time::Duration::from_secs(10),
        ..RetryConfig::default()
    }
}

/// The store's own limit on the duration of a request also covers the body. A slow client must be able to take longer
/// for a blob, and the backend has its own limits on silence.
pub(super) const NO_LIMIT: &str = "1000 days";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_bucket_or_with_more_than_a_prefix_are_refused() {
        for url in [
            "s3:bucket",
            "s3://",
            "s3:///prefix",
            "s3://b?x=y",
            "s3://key@b/p",
            "ftp://b/p",
            "",
        ] {
            let error = ObjectStoreBackend::from_url(url).unwrap_err();
            assert!(matches!(error, LocationError::Malformed(_)), "{url}: {error}");
        }
    }

    #[cfg(feature = "s3")]
    #[tokio::test]
    async fn bucket_and_prefix_are_taken_from_the_address() {
        let backend = ObjectStoreBackend::from_url("s3://images/a/b/").unwrap();
        assert_eq!(&*backend.root, "a/b/");
        assert!(backend.store.to_string().contains("images"), "{backend:?}");
        assert_eq!(&*ObjectStoreBackend::from_url("s3://images").unwrap().root, "");
        let error = ObjectStoreBackend::from_url("s3://images/a//b").unwrap_err();
        assert!(matches!(error, LocationError::Prefix(_)), "{error}");
    }
}
