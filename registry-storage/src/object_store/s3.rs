//! Amazon S3, and services that speak its protocol.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};

use super::ObjectStoreBackend;
use super::PartSize;
use super::begun::UploadListing;
use super::client::Connector;
use super::conditional_delete::ConditionalDeletes;
use super::location::{LocationError, NO_LIMIT, is_plain_http, retries};
use super::signed_url::as_octets;

/// How a bucket of S3 is reached. Options that are not set come from the variables `AWS_…` of the environment, then
/// from web identity, the container or the instance.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct S3Options {
    /// The name of the access key and the key itself. If set, the environment is not read.
    pub access_key: Option<(String, String)>,
    /// The third part of a temporary access key.
    pub session_token: Option<String>,
    /// The region, such as `eu-central-1`.
    pub region: Option<String>,
    /// The URL of a service that is not Amazon's. Without a scheme, it is HTTPS, or HTTP if `plain_http` is set.
    pub endpoint: Option<String>,
    /// The bucket is part of the host: `https://bucket.host/key`. By default it is the first part of the path.
    pub bucket_in_host: bool,
    /// Requests may go to the service without TLS.
    pub plain_http: bool,
    /// The certificate of the service is not verified, so an attacker in between can read and change everything.
    pub accept_any_certificate: bool,
    /// How the service encrypts objects.
    pub encryption: Option<S3Encryption>,
    /// The `User-Agent` of requests to the service.
    pub user_agent: Option<String>,
    /// Use Amazon's hosts for both IPv4 and IPv6.
    pub dual_stack: bool,
    /// Use Amazon's hosts with certified cryptography.
    pub fips: bool,
    /// Use Amazon's hosts near the client.
    pub accelerate: bool,
    /// Scheme, host and port of the URLs with which clients read content: `https://HOST`, in place of those that this process
    /// uses. The path stays, so behind it must be the same bucket, in the path unless [`bucket_in_host`](Self::bucket_in_host).
    pub redirect_endpoint: Option<String>,
    /// The size of all parts of an upload but the last, for a service that takes only equal ones.
    pub part_size: Option<PartSize>,
    /// Whether the service may keep the condition of a delete, so that a probe tries it. `None`, the default, is yes for Amazon's own
    /// hosts only: of a service that looks first and deletes afterwards a probe may not see it, and what a delete meets there is lost.
    pub conditional_deletes: Option<bool>,
}

/// How the service encrypts objects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum S3Encryption {
    /// With a key of the service, AES-256.
    Service,
    /// With this key of the key management service.
    Key(String),
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("redirect_endpoint", &self.redirect_endpoint)
            .finish_non_exhaustive()
    }
}

impl S3Options {
    /// The URL that requests go to, if it does not follow from the region.
    fn endpoint(&self, bucket: &str) -> Option<String> {
        let dual_stack = if self.dual_stack { ".dualstack" } else { "" };
        let region = self.region.as_deref().unwrap_or("us-east-1");
        let url = match &self.endpoint {
            Some(endpoint) if endpoint.contains("://") => endpoint.clone(),
            Some(endpoint) if self.plain_http => format!("http://{endpoint}"),
            Some(endpoint) => format!("https://{endpoint}"),
            None if self.accelerate => format!("https://s3-accelerate{dual_stack}.amazonaws.com"),
            None if self.fips => format!("https://s3-fips{dual_stack}.{region}.amazonaws.com"),
            None if self.dual_stack => format!("https://s3.dualstack.{region}.amazonaws.com"),
            None => return None,
        };
        let url = url.trim_end_matches('/');
        Some(match url.split_once("://") {
            Some((scheme, host)) if self.is_bucket_in_host() => format!("{scheme}://{bucket}.{host}"),
            _ => url.to_owned(),
        })
    }

    /// Checks whether requests for `bucket` have an address, without creating a client.
    ///
    /// # Errors
    /// [`LocationError::Bucket`], [`LocationError::Region`], [`LocationError::Endpoint`],
    /// [`LocationError::EndpointForm`] and [`LocationError::RedirectEndpoint`].
    pub fn check(&self, bucket: &str) -> Result<(), LocationError> {
        check_address(bucket, self.region.as_deref(), self.endpoint(bucket).as_deref())?;
        self.check_redirect_endpoint()
    }

    fn check_redirect_endpoint(&self) -> Result<(), LocationError> {
        let Some(endpoint) = &self.redirect_endpoint else {
            return Ok(());
        };
        let origin = endpoint.split_once("://");
        let is_origin = origin.is_some_and(|(_, host)| !host.trim_end_matches('/').contains('/'));
        match check_address("bucket", None, Some(endpoint)) {
            Ok(()) if is_origin => Ok(()),
            _ => Err(LocationError::RedirectEndpoint),
        }
    }

    /// Returns whether deletes on condition are tried, with requests to this address.
    fn tries_conditional_deletes(&self, endpoint: Option<&str>) -> bool {
        self.conditional_deletes.unwrap_or_else(|| {
            endpoint.is_none_or(|endpoint| {
                let host = endpoint.parse::<http::Uri>().ok();
                let host = host.as_ref().and_then(http::Uri::host).unwrap_or_default();
                [".amazonaws.com", ".amazonaws.com.cn"]
                    .iter()
                    .any(|of_amazon| host.to_ascii_lowercase().ends_with(of_amazon))
            })
        })
    }

    /// Amazon's hosts near the client find the bucket only through the host.
    fn is_bucket_in_host(&self) -> bool {
        self.bucket_in_host || (self.accelerate && self.endpoint.is_none())
    }
}

impl ObjectStoreBackend {
    /// Keeps everything in a bucket of S3, below `prefix`: folders with slashes between them, or an empty string.
    ///
    /// Must be called within a tokio runtime. No request is sent to the service.
    ///
    /// # Errors
    /// Those of [`LocationError`].
    pub fn s3(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self, LocationError> {
        let Built {
            store,
            signer,
            uploads,
            deletes,
            address,
        } = build(bucket, options)?;
        let backend = Self::new(store, prefix)?.at(address);
        let mut backend = backend
            .with_signer(Arc::new(signer), as_octets())
            .listing_uploads(uploads);
        if let Some(deletes) = deletes {
            backend = backend.deleting_by(deletes).with_hashes_as_versions();
        }
        Ok(match options.part_size {
            Some(size) => backend.with_part_size(size),
            None => backend,
        })
    }
}

/// What reaches a bucket.
#[derive(Debug)]
struct Built {
    store: AmazonS3,
    /// Signs URLs for clients.
    signer: AmazonS3,
    uploads: Option<UploadListing>,
    deletes: Option<ConditionalDeletes>,
    /// What a probe of the store depends on.
    address: String,
}

fn build(bucket: &str, options: &S3Options) -> Result<Built, LocationError> {
    let client = AmazonS3ConfigKey::Client;
    let mut builder = match &options.access_key {
        Some((name, key)) => AmazonS3Builder::new()
            .with_access_key_id(name)
            .with_secret_access_key(key),
        None => AmazonS3Builder::from_env(),
    };
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = options.endpoint(bucket) {
        // An endpoint without TLS was requested explicitly.
        builder = builder
            .with_allow_http(is_plain_http(&endpoint))
            // The client would prefer the environment's endpoint for S3 to one for all services.
            .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint)
            .with_virtual_hosted_style_request(options.is_bucket_in_host());
    } else if options.bucket_in_host {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if options.accept_any_certificate {
        builder = builder.with_config(client(ClientConfigKey::AllowInvalidCertificates), "true");
    }
    if let Some(agent) = &options.user_agent {
        builder = builder.with_config(client(ClientConfigKey::UserAgent), agent);
    }
    builder = match &options.encryption {
        None => builder,
        Some(S3Encryption::Key(key)) => builder.with_sse_kms_encryption(key),
        Some(S3Encryption::Service) => builder.with_config("aws_server_side_encryption".parse()?, "AES256"),
    };
    let value = |key| builder.get_config_value(&key);
    let region = value(AmazonS3ConfigKey::Region);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    check_address(bucket, region.as_deref(), endpoint.as_deref())?;
    options.check_redirect_endpoint()?;
    let tries_deletes = options.tries_conditional_deletes(endpoint.as_deref());
    let mut address = format!(
        "{} in {} of {}, encrypted {}",
        bucket,
        region.as_deref().unwrap_or("the usual region"),
        endpoint.as_deref().unwrap_or("Amazon"),
        value("aws_server_side_encryption".parse()?)
            .as_deref()
            .unwrap_or("as usual")
    );
    match options.conditional_deletes {
        None => {}
        Some(true) => address += ", with conditional deletes",
        Some(false) => address += ", without conditional deletes",
    }
    let is_given = |key| value(key).is_some_and(|value| !value.is_empty());
    if is_given(AmazonS3ConfigKey::AccessKeyId) != is_given(AmazonS3ConfigKey::SecretAccessKey) {
        return Err(LocationError::HalfKey);
    }
    if let Some(endpoint) = endpoint
        && is_plain_http(&endpoint)
        && value(client(ClientConfigKey::AllowHttp)).as_deref() != Some("true")
    {
        if !is_on_this_machine(&endpoint) {
            return Err(LocationError::PlainHttp);
        }
        builder = builder.with_allow_http(true);
    }
    let connector = Connector::default();
    let builder = builder
        .with_bucket_name(bucket)
        .with_config(client(ClientConfigKey::Timeout), NO_LIMIT)
        .with_retry(retries())
        .with_http_connector(connector.clone())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One object is deleted at a time, which every S3-compatible store understands.
        .with_disable_bulk_delete(true);
    let store = builder.clone().build()?;
    let deletes = match tries_deletes {
        true => ConditionalDeletes::signed(Arc::new(store.clone()), &connector),
        false => None,
    };
    let uploads = UploadListing::signed(Arc::new(store.clone()), &connector);
    let signer = match &options.redirect_endpoint {
        None => store.clone(),
        // The host is part of what is signed. Keys that expire are fetched once for both.
        Some(endpoint) => builder
            .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.trim_end_matches('/'))
            .with_allow_http(true)
            .with_credentials(Arc::clone(store.credentials()))
            .build()?,
    };
    Ok(Built {
        store,
        signer,
        uploads,
        deletes,
        address,
    })
}

/// Returns whether nobody else can hear or answer what is sent to an address.
fn is_on_this_machine(endpoint: &str) -> bool {
    let address: Option<http::Uri> = endpoint.parse().ok();
    let host = address.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The client would panic at a malformed address.
fn check_address(bucket: &str, region: Option<&str>, endpoint: Option<&str>) -> Result<(), LocationError> {
    let is_name = |text: &str, more: &[char]| {
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || more.contains(&character);
        !text.is_empty() && text.chars().all(is_allowed)
    };
    if !is_name(bucket, &['-', '.', '_']) {
        return Err(LocationError::Bucket(bucket.to_owned()));
    }
    if let Some(region) = region
        && !is_name(region, &['-', '_'])
    {
        return Err(LocationError::Region(region.to_owned()));
    }
    let Some(endpoint) = endpoint else { return Ok(()) };
    // They would be ignored, but appear in each error of the store.
    if endpoint.contains(['@', '?', '#']) {
        return Err(LocationError::Endpoint);
    }
    let address = format!("{}/{bucket}/key", endpoint.trim_end_matches('/'));
    let is_http = |uri: &http::Uri| {
        let Some(authority) = uri.authority() else {
            return false;
        };
        let has_port = authority.as_str().len() > authority.host().len();
        let is_whole = !authority.host().is_empty() && has_port == authority.port_u16().is_some();
        is_whole && matches!(uri.scheme_str(), Some("http" | "https"))
    };
    match address.parse().is_ok_and(|uri| is_http(&uri)) {
        true => Ok(()),
        false => Err(LocationError::EndpointForm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(change: impl FnOnce(&mut S3Options)) -> Option<String> {
        let mut options = S3Options {
            region: Some("eu-west-1".into()),
            ..S3Options::default()
        };
        change(&mut options);
        options.endpoint("images")
    }

    #[test]
    fn an_endpoint_with_credentials_is_refused_and_not_told() {
        for endpoint in [
            "http://user:canary@minio",
            "canary@minio:9000",
            "https://minio/?token=canary",
        ] {
            let options = S3Options {
                access_key: Some(("name".into(), "canary".into())),
                endpoint: Some(endpoint.into()),
                ..S3Options::default()
            };
            let error = build("images", &options).unwrap_err();
            assert!(matches!(error, LocationError::Endpoint), "{error:?}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_before_the_client_panics() {
        type Change = fn(&mut S3Options);
        let refused = |bucket: &str, change: Change| {
            let mut options = S3Options {
                access_key: Some(("name".into(), "key".into())),
                ..S3Options::default()
            };
            change(&mut options);
            let error = build(bucket, &options).unwrap_err();
            let checked = options.check(bucket).unwrap_err();
            assert_eq!(error.to_string(), checked.to_string());
            error.to_string()
        };
        for endpoint in [
            "foo bar",
            "http://127.0.0.1:1/a b",
            "http://",
            "ftp://minio",
            "http://minio:port",
        ] {
            let options = S3Options {
                access_key: Some(("name".into(), "key".into())),
                endpoint: Some(endpoint.into()),
                ..S3Options::default()
            };
            let error = build("images", &options).unwrap_err();
            assert!(
                matches!(error, LocationError::EndpointForm),
                "{endpoint} {error:?}"
            );
        }
        for bucket in ["A B", "", "a/b", "é"] {
            assert!(refused(bucket, |_| {}).contains("name of a bucket"), "{bucket}");
        }
        assert!(refused("b", |s3| s3.region = Some("x y".into())).contains("region"));
        assert!(refused("b", |s3| s3.region = Some("é".into())).contains("region"));
        let good: [Change; 5] = [
            |_| {},
            |s3| s3.endpoint = Some("http://[::1]:9000/".into()),
            |s3| s3.endpoint = Some("minio:9000/path".into()),
            |s3| s3.region = Some("us_east-1".into()),
            |s3| s3.redirect_endpoint = Some("HTTPS://CDN.example/".into()),
        ];
        for change in good {
            let mut options = S3Options::default();
            change(&mut options);
            options.check("My_images.2").unwrap();
        }
    }

    #[test]
    fn deletes_are_on_condition_only_if_the_service_is_known_or_trusted() {
        for (endpoint, set, expected) in [
            (None, None, true),
            (Some("https://s3.eu-west-1.amazonaws.com"), None, true),
            (Some("https://bucket.s3.cn-north-1.Amazonaws.com.cn/"), None, true),
            (Some("https://amazonaws.com.example"), None, false),
            (Some("http://127.0.0.1:9000"), None, false),
            (Some("http://127.0.0.1:9000"), Some(true), true),
            (None, Some(false), false),
        ] {
            let options = S3Options {
                conditional_deletes: set,
                ..S3Options::default()
            };
            assert_eq!(
                options.tries_conditional_deletes(endpoint),
                expected,
                "{endpoint:?} {set:?}"
            );
        }
    }

    #[test]
    fn plain_http_needs_no_permission_only_on_this_machine() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:9000", true),
            ("http://127.1.2.3", true),
            ("http://localhost:9000/", true),
            ("http://[::1]:9000", true),
            ("http://10.0.0.1:9000", false),
            ("HTTP://10.0.0.1:9000", false),
            ("HTTP://127.0.0.1:9000", true),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
        ] {
            assert_eq!(is_on_this_machine(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn endpoints_are_those_of_the_options() {
        type Change = fn(&mut S3Options);
        assert_eq!(endpoint(|_| {}), None);
        let cases: [(Change, &str); 8] = [
            (|s3| s3.endpoint = Some("minio:9000".into()), "https://minio:9000"),
            (
                |s3| {
                    s3.endpoint = Some("minio:9000".into());
                    s3.plain_http = true;
                },
                "http://minio:9000",
            ),
            (
                |s3| s3.endpoint = Some("http://minio:9000/".into()),
                "http://minio:9000",
            ),
            (
                |s3| {
                    s3.endpoint = Some("https://ceph".into());
                    s3.bucket_in_host = true;
                },
                "https://images.ceph",
            ),
            (
                |s3| s3.dual_stack = true,
                "https://s3.dualstack.eu-west-1.amazonaws.com",
            ),
            (|s3| s3.fips = true, "https://s3-fips.eu-west-1.amazonaws.com"),
            (
                |s3| {
                    s3.fips = true;
                    s3.dual_stack = true;
                },
                "https://s3-fips.dualstack.eu-west-1.amazonaws.com",
            ),
            (
                |s3| s3.accelerate = true,
                "https://images.s3-accelerate.amazonaws.com",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(endpoint(change).as_deref(), Some(expected));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let options = S3Options {
            access_key: Some(("canary".into(), "canary".into())),
            session_token: Some("canary".into()),
            ..S3Options::default()
        };
        assert!(!format!("{options:?}").contains("canary"));
    }

    #[tokio::test]
    async fn a_bucket_is_used_with_all_options() {
        let options = S3Options {
            access_key: Some(("name".into(), "key".into())),
            session_token: Some("token".into()),
            region: Some("eu-west-1".into()),
            accept_any_certificate: true,
            encryption: Some(S3Encryption::Key("arn:key".into())),
            user_agent: Some("registry".into()),
            fips: true,
            ..S3Options::default()
        };
        let backend = ObjectStoreBackend::s3("images", "a/b/", &options).unwrap();
        assert_eq!(&*backend.root, "a/b/");
        assert!(ObjectStoreBackend::s3("images", "a//b", &options).is_err());
        assert!(
            ObjectStoreBackend::s3(
                "images",
                "",
                &S3Options {
                    encryption: Some(S3Encryption::Service),
                    ..options
                }
            )
            .is_ok()
        );
    }
}
