//! Azurite, the emulator of Azure Blob Storage by Microsoft.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};
use registry_storage::{AzureCredentials, AzureOptions, ObjectStoreBackend};

/// The account that every Azurite has, and its key, which Microsoft publishes.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The program that `AZURITE` names, for all tests of this program. A shell ends it when this program does.
struct Emulator {
    url: String,
    _shell: Child,
}

fn emulator() -> &'static Emulator {
    static STARTED: OnceLock<Emulator> = OnceLock::new();
    STARTED.get_or_init(|| {
        let program = std::env::var("AZURITE").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let script = "\"$1\" --inMemoryPersistence --silent --skipApiVersionCheck --disableTelemetry --blobHost 127.0.0.1 --blobPort \"$2\" &
            read _; kill $!";
        let shell = Command::new("sh")
            .args(["-c", script, "sh", &program, &address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "Azurite does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Emulator {
            url: format!("http://{address}/{ACCOUNT}"),
            _shell: shell,
        }
    })
}

/// A container, which ends with the emulator.
pub(crate) struct Container {
    pub(crate) name: String,
}

impl Container {
    pub(crate) async fn create() -> Self {
        let name = format!("test-{}", uuid::Uuid::new_v4());
        let container = Self { name };
        container.put("?restype=container", &[], Vec::new()).await;
        container
    }

    /// Sends a request that creates something: what follows the container in the address, and header fields.
    pub(crate) async fn put(&self, target: &str, headers: &[(&str, &str)], body: Vec<u8>) {
        let mut request = http::Request::builder()
            .method("PUT")
            .uri(format!("{}/{}{target}", emulator().url, self.name))
            .header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(HttpRequestBody::from(body)).unwrap();
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT)
            .try_authorize(&mut request)
            .unwrap();
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
        let created = client.unwrap().execute(request).await.unwrap();
        assert_eq!(created.status(), 201, "{target}");
    }

    pub(crate) fn backend(&self, prefix: &str) -> ObjectStoreBackend {
        ObjectStoreBackend::azure(&self.name, prefix, &options()).unwrap()
    }
}

pub(crate) fn options() -> AzureOptions {
    let mut options = AzureOptions::default();
    options.account = Some(ACCOUNT.into());
    options.credentials = AzureCredentials::Key(KEY.into());
    options.endpoint = Some(emulator().url.clone());
    options
}

/// A new container. Nothing has to be kept for it.
pub(crate) async fn start() -> (ObjectStoreBackend, ()) {
    (Container::create().await.backend("a/prefix"), ())
}
