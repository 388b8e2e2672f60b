//! Stores by others, which a test starts if a variable names the program. docs/stores.md says how to install each.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::Method;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};
use registry_storage::{ObjectStoreBackend, S3Options};

/// Makes `$make!` of each store that the probe accepts: its name, its program, and why a test with it is ignored.
macro_rules! accepted_stores {
    ($make:ident) => {
        $make! { versitygw VERSITYGW "needs VERSITYGW=/path/to/versitygw" }
        $make! { rclone RCLONE "needs RCLONE=/path/to/rclone" }
        $make! { seaweedfs SEAWEEDFS "needs SEAWEEDFS=/path/to/weed" }
        $make! { moto MOTO "needs MOTO=/path/to/moto_server" }
        $make! { localstack LOCALSTACK "needs LOCALSTACK=/path/to/python" }
        #[cfg(feature = "azure")]
        $make! { azurite AZURITE "needs AZURITE=/path/to/azurite-blob" }
    };
}

/// A store, which runs once for all tests of a program; each test has a bucket of its own.
pub(crate) struct Store {
    /// Names the program.
    variable: &'static str,
    dialect: Dialect,
    /// Begins one process in the shell, in an empty folder. `$1` is where it serves; eight more ports are free, `$2` to `$9`.
    command: &'static str,
    running: OnceLock<Running>,
}

/// Whose requests a store takes.
#[derive(Clone, Copy)]
enum Dialect {
    Amazon,
    #[cfg(feature = "azure")]
    Azure,
    #[cfg(feature = "gcs")]
    Google,
}

struct Running {
    url: String,
    folder: PathBuf,
    /// Ends the store when this process does, which closes its input.
    _shell: Child,
}

/// The name of the access key and the key itself: the only ones that s3rver knows.
const KEY: &str = "S3RVER";

pub(crate) static VERSITYGW: Store = Store::new(
    "VERSITYGW",
    Dialect::Amazon,
    r#""$VERSITYGW" --access S3RVER --secret S3RVER --port 127.0.0.1:$1 posix ."#,
);

pub(crate) static RCLONE: Store = Store::new(
    "RCLONE",
    Dialect::Amazon,
    r#""$RCLONE" serve s3 --addr 127.0.0.1:$1 --auth-key S3RVER,S3RVER --multipart-max-uploads 2000 ."#,
);

/// It takes any key if it has no configuration. Each bucket has some volumes of its own. Its sockets in `/tmp` stay.
pub(crate) static SEAWEEDFS: Store = Store::new(
    "SEAWEEDFS",
    Dialect::Amazon,
    r#"TMPDIR=. "$SEAWEEDFS" server -ip 127.0.0.1 -dir . -filer -s3 -s3.port $1 -s3.port.grpc $2 -s3.port.iceberg 0 -master.port $3
        -master.port.grpc $4 -volume.port $5 -volume.port.grpc $6 -volume.max 2000 -filer.port $7 -filer.port.grpc $8"#,
);

pub(crate) static MOTO: Store = Store::new("MOTO", Dialect::Amazon, r#""$MOTO" -H 127.0.0.1 -p $1"#);

pub(crate) static LOCALSTACK: Store = Store::new(
    "LOCALSTACK",
    Dialect::Amazon,
    r#"SERVICES=s3 GATEWAY_LISTEN=127.0.0.1:$1 DISABLE_EVENTS=1 "$LOCALSTACK" -m localstack.runtime.main"#,
);

pub(crate) static S3RVER: Store = Store::new(
    "S3RVER",
    Dialect::Amazon,
    r#""$S3RVER" -a 127.0.0.1 -p $1 -d . --no-vhost-buckets"#,
);

pub(crate) static S3S_FS: Store = Store::new(
    "S3S_FS",
    Dialect::Amazon,
    r#""$S3S_FS" --host 127.0.0.1 --port $1 --access-key S3RVER --secret-key S3RVER ."#,
);

pub(crate) static S3MOCK: Store = Store::new(
    "S3MOCK",
    Dialect::Amazon,
    r#"java -Djava.io.tmpdir=. -cp "$S3MOCK/*" com.adobe.testing.s3mock.S3MockApplication --http.port=$1"#,
);

#[cfg(feature = "azure")]
pub(crate) static AZURITE: Store = Store::new(
    "AZURITE",
    Dialect::Azure,
    r#""$AZURITE" --inMemoryPersistence --silent --skipApiVersionCheck --disableTelemetry --blobHost 127.0.0.1 --blobPort $1"#,
);

#[cfg(feature = "gcs")]
pub(crate) static FAKE_GCS_SERVER: Store = Store::new(
    "FAKE_GCS_SERVER",
    Dialect::Google,
    r#""$FAKE_GCS_SERVER" -scheme http -host 127.0.0.1 -port $1 -backend memory"#,
);

impl Store {
    const fn new(variable: &'static str, dialect: Dialect, command: &'static str) -> Self {
        Self {
            variable,
            dialect,
            command,
            running: OnceLock::new(),
        }
    }

    fn run(&self) -> &Running {
        self.running.get_or_init(|| {
            assert!(
                std::env::var_os(self.variable).is_some(),
                "{} is set",
                self.variable
            );
            let folder = tempfile::tempdir().unwrap().keep();
            let listeners: [_; 9] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
            let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
            let command = self.command.replace('\n', " ");
            // A signal to all of them is for the tests: the shell goes on to its end.
            let script = format!(
                "trap '' INT TERM HUP; {command} > log 2>&1 & read _; kill -9 $!; wait; rm -rf \"$PWD\""
            );
            let shell = Command::new("sh")
                .args(["-c", &script, "sh"])
                .args(ports.map(|port| port.to_string()))
                .current_dir(&folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            Running {
                url: format!("http://127.0.0.1:{}", ports[0]),
                folder,
                _shell: shell,
            }
        })
    }

    /// Makes a bucket. There is nothing that has to be kept for it.
    pub(crate) async fn start(&self) -> (ObjectStoreBackend, ()) {
        (self.bucket(None).await, ())
    }

    /// Makes a container of Azure.
    #[cfg(feature = "azure")]
    pub(crate) async fn container(&self) -> azure::Container {
        let name = format!("test-{}", uuid::Uuid::new_v4());
        azure::Container::create(self.run(), name).await
    }

    /// Makes a bucket, on which it may be said whether deletes on condition are tried.
    pub(crate) async fn bucket(&self, conditional_deletes: Option<bool>) -> ObjectStoreBackend {
        let running = self.run();
        let url = &running.url;
        let bucket = format!("test-{}", uuid::Uuid::new_v4().simple());
        match self.dialect {
            Dialect::Amazon => {
                let credential = AwsCredential {
                    key_id: KEY.into(),
                    secret_key: KEY.into(),
                    token: None,
                };
                running
                    .wait_for(|| {
                        let mut request = request(Method::PUT, format!("{url}/{bucket}"), String::new());
                        AwsAuthorizer::new(&credential, "s3", "us-east-1")
                            .try_authorize(&mut request, None)
                            .unwrap();
                        request
                    })
                    .await;
                let mut options = S3Options::default();
                options.endpoint = Some(url.clone());
                options.region = Some("us-east-1".into());
                options.access_key = Some((KEY.into(), KEY.into()));
                options.conditional_deletes = conditional_deletes;
                ObjectStoreBackend::s3(&bucket, "a/prefix", &options).unwrap()
            }
            #[cfg(feature = "azure")]
            Dialect::Azure => azure::Container::create(running, bucket)
                .await
                .backend("a/prefix"),
            #[cfg(feature = "gcs")]
            Dialect::Google => {
                let url_of_buckets = format!("{url}/storage/v1/b?project=test");
                let body = format!("{{\"name\":\"{bucket}\"}}");
                running
                    .wait_for(|| request(Method::POST, url_of_buckets.clone(), body.clone()))
                    .await;
                let key = format!(
                    "{{\"gcs_base_url\":\"{url}\",\"disable_oauth\":true,\"client_email\":\"\",\"private_key\":\"\",\
                     \"private_key_id\":\"\"}}"
                );
                let credentials = registry_storage::GcsCredentials::Key(key);
                ObjectStoreBackend::gcs(&bucket, "a/prefix", &credentials).unwrap()
            }
        }
    }
}

impl Running {
    /// Sends the request that makes a bucket until it is there. A store that has just begun may refuse it.
    async fn wait_for(&self, make: impl Fn() -> HttpRequest) {
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
        let client = client.unwrap();
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            let answer = client.execute(make()).await.map(|answer| answer.status());
            // It is there if it was made and the answer was lost.
            if matches!(&answer, Ok(status) if status.is_success() || *status == 409) {
                return;
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap();
                panic!("no bucket can be made: {answer:?}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn request(method: Method, url: String, body: impl Into<HttpRequestBody>) -> HttpRequest {
    let (request, body) = (http::Request::builder().method(method).uri(url), body.into());
    let request = request.header("content-length", body.content_length());
    request.body(body).unwrap()
}

#[cfg(feature = "azure")]
pub(crate) mod azure {
    use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
    use registry_storage::{AzureCredentials, AzureOptions};

    use super::*;

    /// The account that every Azurite has, and its key, which Microsoft publishes.
    const ACCOUNT: &str = "devstoreaccount1";
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// A container, which ends with the emulator.
    pub(crate) struct Container {
        pub(crate) name: String,
        /// That of the account.
        url: String,
    }

    impl Container {
        pub(super) async fn create(running: &Running, name: String) -> Self {
            let url = format!("{}/{ACCOUNT}", running.url);
            let container = Self { name, url };
            running
                .wait_for(|| container.request("?restype=container", &[], String::new()))
                .await;
            container
        }

        fn request(
            &self,
            target: &str,
            headers: &[(&str, &str)],
            body: impl Into<HttpRequestBody>,
        ) -> HttpRequest {
            let mut request = request(Method::PUT, format!("{}/{}{target}", self.url, self.name), body);
            for (name, value) in headers {
                let name: http::HeaderName = name.parse().unwrap();
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
            let authorizer = AzureAuthorizer::new(&credential, ACCOUNT);
            authorizer.try_authorize(&mut request).unwrap();
            request
        }

        /// Sends a request that creates something: what follows the container in the address, and header fields.
        pub(crate) async fn put(&self, target: &str, headers: &[(&str, &str)], body: Vec<u8>) {
            let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
            let request = self.request(target, headers, body);
            let created = client.unwrap().execute(request).await.unwrap();
            assert_eq!(created.status(), 201, "{target}");
        }

        pub(crate) fn backend(&self, prefix: &str) -> ObjectStoreBackend {
            ObjectStoreBackend::azure(&self.name, prefix, &self.options()).unwrap()
        }

        pub(crate) fn options(&self) -> AzureOptions {
            let mut options = AzureOptions::default();
            options.account = Some(ACCOUNT.into());
            options.credentials = AzureCredentials::Key(KEY.into());
            options.endpoint = Some(self.url.clone());
            options
        }
    }
}
