//! The bucket that the configuration names, of any service.

use std::fmt;
use std::time::{Duration, Instant};

use registry_core::{Error, ErrorCode};
#[cfg(feature = "gcs")]
use registry_storage::GcsCredentials;
#[cfg(feature = "azure")]
use registry_storage::{AzureCredentials, AzureOptions};
use registry_storage::{
    Backend as _, Clock as _, Key, LocationError, ObjectStoreBackend, ProbeError, S3Options, SystemClock,
    WriterError,
};

use crate::aws_environment;
#[cfg(feature = "gcs")]
use crate::config::sections::storage::Gcs;
use crate::config::sections::storage::Storage;
#[cfg(feature = "azure")]
use crate::config::sections::storage::{Azure, AzureCredentialKind};
#[cfg(feature = "azure")]
use crate::config::values::Secret;
use crate::failure::Failure;
use crate::host_name::host_name;

/// The longest time between two looks at a bucket that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A bucket, and a folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    name: String,
    /// The folder in the bucket, with slashes between its parts.
    prefix: String,
    /// Only one process will ever write to it.
    has_single_writer: bool,
    service: Service,
}

/// The service of a bucket, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Service {
    S3(S3Options),
    #[cfg(feature = "gcs")]
    Gcs(GcsCredentials),
    #[cfg(feature = "azure")]
    Azure(AzureOptions),
}

impl Bucket {
    /// Returns the bucket that the configuration names, if it names one.
    pub(crate) fn of(storage: &Storage) -> Option<Self> {
        let bucket = |name: &str, root: &Option<String>, service| Self {
            name: name.to_owned(),
            prefix: root.as_deref().unwrap_or_default().trim_matches('/').to_owned(),
            has_single_writer: storage.s3.as_ref().is_some_and(|s3| s3.single_writer),
            service,
        };
        if let Some(s3) = &storage.s3 {
            return Some(bucket(&s3.bucket, &s3.root, Service::S3(s3.options())));
        }
        #[cfg(feature = "gcs")]
        if let Some(gcs) = &storage.gcs {
            return Some(bucket(&gcs.bucket, &gcs.root, Service::Gcs(gcs_credentials(gcs))));
        }
        #[cfg(feature = "azure")]
        if let Some(azure) = &storage.azure {
            return Some(bucket(
                &azure.container,
                &azure.root,
                Service::Azure(azure_options(azure)),
            ));
        }
        None
    }

    /// Returns the name of the driver, as in distribution.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.service {
            Service::S3(_) => "s3",
            #[cfg(feature = "gcs")]
            Service::Gcs(_) => "gcs",
            #[cfg(feature = "azure")]
            Service::Azure(_) => "azure",
        }
    }

    /// Returns whether this process reaches the bucket with an access key that only its environment has.
    pub(crate) fn needs_environment(&self) -> bool {
        matches!(&self.service, Service::S3(options) if options.access_key.is_none())
            && aws_environment::has_access_key()
    }

    /// Creates the client of the bucket, without sending a request.
    pub(crate) fn open(&self) -> Result<ObjectStoreBackend, Failure> {
        if let Service::S3(options) = &self.service
            && options.access_key.is_none()
        {
            aws_environment::refuse_profiles()?;
        }
        let backend = self.client().map_err(|cause| self.unusable().because(cause))?;
        Ok(match self.has_single_writer {
            true => backend.with_single_writer(&host_name(), std::process::id()),
            false => backend,
        })
    }

    /// Asks the bucket for a key, so that a start says at once what is wrong with it, and tries what a store needs of the
    /// service if it will be written to. With `wait`, does so until what may pass has passed: a service that is down, or a
    /// bucket that is created later.
    ///
    /// # Errors
    /// What is wrong with the bucket, the access key or the way to the service, and what the service does not keep.
    pub(crate) async fn reach(
        &self,
        backend: &ObjectStoreBackend,
        is_written: bool,
        wait: bool,
    ) -> Result<(), Failure> {
        let mut pauses = [1, 2, 5].into_iter();
        loop {
            let reached = match backend.list(&Key::repositories(), None, 1).await {
                Ok(_) if is_written => self.prepare_writes(backend).await,
                reached => reached.map(drop).map_err(|error| self.unanswered(error)),
            };
            let failure = match reached {
                Err(Unusable {
                    failure,
                    may_pass: true,
                }) if wait => failure,
                reached => return reached.map_err(|unusable| unusable.failure),
            };
            tracing::warn!("waiting until the bucket can be used: {failure}");
            tokio::time::sleep(pauses.next().map_or(LONGEST_PAUSE, Duration::from_secs)).await;
        }
    }

    fn unusable(&self) -> Failure {
        Failure::new(format!("cannot use {self}"))
    }

    fn unanswered(&self, error: Error) -> Unusable {
        Unusable {
            may_pass: may_pass(&error),
            failure: self.unusable().because(error),
        }
    }

    /// Tries what the registry needs of the service, unless that was done before.
    ///
    /// # Errors
    /// What the service did, or that it cannot be asked.
    pub(crate) async fn require_promises(&self, backend: &ObjectStoreBackend) -> Result<(), Failure> {
        let prepared = self.prepare_writes(backend).await;
        prepared.map_err(|unusable| unusable.failure)
    }

    async fn prepare_writes(&self, backend: &ObjectStoreBackend) -> Result<(), Unusable> {
        let claimed = backend.begin_writing(SystemClock.now()).await;
        claimed.map_err(|error| self.not_the_writer(error))?;
        let tried = self.try_promises(backend).await;
        if tried.is_err()
            && let Err(error) = backend.close().await
        {
            tracing::warn!(%error, "the bucket was not given back; the next start waits 20 s");
        }
        tried?;
        match (self.has_single_writer, backend.decides_conditions()) {
            (true, true) => tracing::warn!(
                "this bucket does not keep conditional writes, so this process decides them: nothing else may write there, also no \
                 second server (`storage.s3.singlewriter`)"
            ),
            (true, false) => tracing::info!(
                "this bucket keeps conditional writes, so `storage.s3.singlewriter` is not needed; it keeps other servers from \
                 writing there"
            ),
            (false, _) => {}
        }
        Ok(())
    }

    fn not_the_writer(&self, error: WriterError) -> Unusable {
        match error {
            WriterError::Store(error) => self.unanswered(error),
            WriterError::Held(holder) => Unusable {
                may_pass: true,
                failure: self.unusable().because(format!(
                    "{holder} is running, and is the only one that may write there (`storage.s3.singlewriter`); stop it first, or \
                     wait for that with `serve --wait`"
                )),
            },
            error => Unusable {
                may_pass: true,
                failure: self.unusable().because(error),
            },
        }
    }

    async fn try_promises(&self, backend: &ObjectStoreBackend) -> Result<(), Unusable> {
        let now = SystemClock.now();
        let was_probed = backend.was_probed(now).await;
        if was_probed.map_err(|error| self.unanswered(error))? {
            return Ok(());
        }
        let begun = Instant::now();
        backend.probe_promises(now).await.map_err(|error| match error {
            ProbeError::Unanswered(promise, error) => Unusable {
                may_pass: may_pass(&error),
                failure: Failure::new(format!(
                    "cannot use {self}: a request of the probe {:?}, which tries what a registry needs of a bucket, failed",
                    promise.name()
                ))
                .because(error),
            },
            error => Unusable {
                may_pass: false,
                failure: self.unusable().because(error),
            },
        })?;
        tracing::info!(
            bucket = %self,
            seconds = begun.elapsed().as_secs_f32(),
            "tried what a registry needs of a bucket, conditional writes above all; {}",
            match backend.decides_conditions() {
                false => "it keeps all of it",
                true => "it keeps what a single server needs",
            }
        );
        Ok(())
    }

    fn client(&self) -> Result<ObjectStoreBackend, LocationError> {
        match &self.service {
            Service::S3(options) => ObjectStoreBackend::s3(&self.name, &self.prefix, options),
            #[cfg(feature = "gcs")]
            Service::Gcs(credentials) => ObjectStoreBackend::gcs(&self.name, &self.prefix, credentials),
            #[cfg(feature = "azure")]
            Service::Azure(options) => ObjectStoreBackend::azure(&self.name, &self.prefix, options),
        }
    }
}

/// Why a bucket cannot be used, and whether that may pass by itself.
struct Unusable {
    failure: Failure,
    may_pass: bool,
}

fn may_pass(error: &Error) -> bool {
    error.code() == ErrorCode::Unavailable && !ObjectStoreBackend::is_misconfiguration(error)
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.service {
            Service::S3(_) => "s3",
            #[cfg(feature = "gcs")]
            Service::Gcs(_) => "gs",
            #[cfg(feature = "azure")]
            Service::Azure(_) => "az",
        };
        write!(f, "{scheme}://{}/{}", self.name, self.prefix)
    }
}

#[cfg(feature = "azure")]
fn reveal(secret: &Option<Secret>) -> Option<String> {
    secret.as_ref().map(|secret| secret.reveal().to_owned())
}

#[cfg(feature = "gcs")]
fn gcs_credentials(gcs: &Gcs) -> GcsCredentials {
    match (&gcs.key_file, &gcs.credentials) {
        (Some(file), _) => GcsCredentials::File(file.to_path_buf()),
        (None, Some(fields)) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), value.reveal().into()));
            GcsCredentials::Key(serde_json::Value::Object(fields.collect()).to_string())
        }
        (None, None) => GcsCredentials::Environment,
    }
}

#[cfg(feature = "azure")]
fn azure_options(azure: &Azure) -> AzureOptions {
    let login = &azure.credentials;
    let mut options = AzureOptions::default();
    options.account.clone_from(&azure.account);
    options.credentials = match (login.kind, reveal(&azure.account_key)) {
        (Some(AzureCredentialKind::ClientSecret), _) => AzureCredentials::Client {
            id: login.client.clone().unwrap_or_default(),
            tenant: login.tenant.clone().unwrap_or_default(),
            secret: reveal(&login.secret).unwrap_or_default(),
        },
        (Some(AzureCredentialKind::DefaultCredentials), _) | (_, None) => AzureCredentials::Environment,
        (Some(AzureCredentialKind::SharedKey) | None, Some(key)) => AzureCredentials::Key(key),
    };
    options.endpoint = azure
        .service_url
        .as_ref()
        .map(|url| url.reveal().to_owned())
        .or_else(|| {
            let (account, realm) = (azure.account.as_ref()?, azure.realm.as_ref()?);
            Some(format!("https://{account}.blob.{realm}"))
        });
    options.accept_any_certificate = azure.skip_verify;
    options
}

#[cfg(test)]
mod tests {
    use registry_storage::{PartSize, S3Encryption};

    use super::*;
    use crate::config::tests_support::loaded;

    fn bucket(text: &str) -> Bucket {
        let text = format!("version: 0.1\nstorage:\n{text}");
        Bucket::of(&loaded(&text, &[]).configuration.storage).expect("a bucket is named")
    }

    #[tokio::test]
    async fn the_keys_of_s3_act() {
        let bucket = bucket(
            "  s3:\n    bucket: images\n    rootdirectory: /a/b\n    accesskey: name\n    secretkey: key\n    \
             region: eu-west-1\n    regionendpoint: minio:9000\n    secure: false\n    skipverify: true\n    \
             encrypt: true\n    keyid: arn:key\n    forcepathstyle: false\n    useragent: agent\n    \
             usedualstack: true\n    accelerate: true\n    usefipsendpoint: true\n    storageclass: standard\n    \
             objectacl: private\n    chunksize: 10485760\n    redirectendpoint: https://cdn.example\n    \
             conditionaldeletes: true\n",
        );
        let mut expected = S3Options::default();
        expected.access_key = Some(("name".into(), "key".into()));
        expected.region = Some("eu-west-1".into());
        expected.endpoint = Some("minio:9000".into());
        expected.plain_http = true;
        expected.accept_any_certificate = true;
        expected.encryption = Some(S3Encryption::Key("arn:key".into()));
        expected.bucket_in_host = true;
        expected.user_agent = Some("agent".into());
        expected.dual_stack = true;
        expected.accelerate = true;
        expected.fips = true;
        expected.redirect_endpoint = Some("https://cdn.example".into());
        expected.part_size = PartSize::try_from(10_485_760).ok();
        expected.conditional_deletes = Some(true);
        assert_eq!(bucket.service, Service::S3(expected));
        assert!(!bucket.has_single_writer);
        assert_eq!(bucket.to_string(), "s3://images/a/b");
        assert!(bucket.open().is_ok());
    }

    #[tokio::test]
    async fn a_single_writer_writes_nothing_before_it_has_the_bucket() {
        for (is_set, text) in [(true, "true"), (false, "false")] {
            let bucket = bucket(&format!("  s3:\n    bucket: images\n    singlewriter: {text}\n"));
            assert_eq!(bucket.has_single_writer, is_set);
            assert_eq!(bucket.open().unwrap().is_read_only(), is_set);
        }
    }

    #[cfg(feature = "gcs")]
    #[test]
    fn the_keys_of_gcs_act() {
        let by_file = bucket("  gcs:\n    bucket: images\n    keyfile: /key.json\n");
        assert_eq!(
            by_file.service,
            Service::Gcs(GcsCredentials::File("/key.json".into()))
        );
        let by_key = bucket("  gcs:\n    bucket: images\n    credentials:\n      type: service_account\n");
        let key = GcsCredentials::Key("{\"type\":\"service_account\"}".into());
        assert_eq!(by_key.service, Service::Gcs(key));
        assert_eq!(by_key.to_string(), "gs://images/");
    }

    #[cfg(feature = "azure")]
    #[tokio::test]
    async fn the_keys_of_azure_act() {
        let by_key = bucket(
            "  azure:\n    container: images\n    accountname: me\n    accountkey: a2V5\n    realm: core.cloudapi.de\n",
        );
        let mut expected = AzureOptions::default();
        expected.account = Some("me".into());
        expected.credentials = AzureCredentials::Key("a2V5".into());
        expected.endpoint = Some("https://me.blob.core.cloudapi.de".into());
        assert_eq!(by_key.service, Service::Azure(expected));
        assert!(by_key.open().is_ok());
        let by_client = bucket(
            "  azure:\n    container: images\n    accountname: me\n    credentials: {type: client_secret, clientid: c, tenantid: t, secret: s}\n",
        );
        let Service::Azure(options) = by_client.service else {
            panic!("{by_client:?}")
        };
        let (id, tenant, secret) = ("c".into(), "t".into(), "s".into());
        assert_eq!(
            options.credentials,
            AzureCredentials::Client { id, tenant, secret }
        );
    }
}
