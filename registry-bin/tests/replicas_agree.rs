//! Several servers over one bucket: what each of them makes up at its start, the others have to know.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use registry_core::Timestamp;
use registry_http::auth::SigningKeys;
use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{Maintenance as _, SecretName, Store};
use serde::Deserialize;
use tempfile::TempDir;

use support::address::free_address;
use support::bucket::BucketServer;
use support::client::{Request, Response};
use support::content::sha256;
use support::repository::Repository;
use support::server::{Server, until};
use support::users::{basic, set_password};

/// A bucket, and the folder with the configuration that its replicas share.
struct Place {
    bucket: BucketServer,
    folder: TempDir,
}

impl Place {
    /// Makes one whose users can log in by tokens, with `more` keys in `auth.token.builtin`.
    fn with_tokens(more: &str) -> Self {
        let place = Self {
            bucket: BucketServer::start(),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        };
        let folder = place.folder.path().display();
        let configuration = format!(
            "version: 0.1\n\
             storage: {{s3: {{region: us-east-1, regionendpoint: '{}', bucket: bucket, rootdirectory: registry, \
             accesskey: double, secretkey: double, forcepathstyle: true}}}}\n\
             auth: {{token: {{service: registry, builtin: {{users: {folder}/users{more}}}}}}}\n",
            place.bucket.url()
        )
        .replace("FOLDER", &folder.to_string());
        fs::write(place.configuration(), configuration).expect("a file can be written");
        place
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("config.yml")
    }

    fn users(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// Starts several at once.
    fn start<const COUNT: usize>(&self) -> [Server; COUNT] {
        thread::scope(|scope| {
            let starting = [(); COUNT].map(|()| scope.spawn(|| Server::configured(&self.configuration())));
            starting.map(|server| server.join().expect("it starts"))
        })
    }
}

/// Logs in with a password, and returns an access token and a refresh token.
fn log_in(server: &Server) -> [String; 2] {
    let query = "/auth/token?scope=repository:a:pull,push&offline_token=true";
    let request = server.request("GET", query);
    let answer = request.header("Authorization", basic("alice")).send();
    ["token", "refresh_token"].map(|key| text(&answer, key))
}

#[track_caller]
fn text(answer: &Response, key: &str) -> String {
    answer.expect_status(200);
    let answer = answer.json();
    answer[key].as_str().expect("a token").to_owned()
}

fn refresh(server: &Server, token: &str) -> Response {
    let request = server.request("POST", "/auth/token");
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    let form =
        format!("grant_type=refresh_token&service=registry&scope=repository:a:pull&refresh_token={token}");
    request.body(form.as_bytes()).send()
}

/// Returns a repository as the holder of a token sees it.
fn bearer(server: &Server, token: &str) -> Repository {
    Repository::new(server.address(), "a").with_authorization(&format!("Bearer {token}"))
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-bin"));
    command.args(arguments).output().expect("the program runs")
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Each pair of replicas accepts the tokens of the other.
#[track_caller]
fn expect_agreement(replicas: &[Server]) {
    for (number, issuer) in replicas.iter().enumerate() {
        let [token, refresh_token] = log_in(issuer);
        for (other, replica) in replicas.iter().enumerate() {
            bearer(replica, &token).push_image("latest", &format!("{number} {other}"));
            refresh(replica, &refresh_token).expect_status(200);
        }
    }
}

#[test]
fn replicas_that_start_at_once_accept_each_other_s_tokens() {
    let place = Place::with_tokens("");
    set_password(&place.users(), "alice", "secret");
    let replicas: [Server; 3] = place.start();
    expect_agreement(&replicas);
    // What was given out lives on when all of them were replaced.
    let [token, refresh_token] = log_in(&replicas[0]);
    drop(replicas);
    let [later] = place.start();
    bearer(&later, &token).get("manifests/latest").expect_status(200);
    refresh(&later, &refresh_token).expect_status(200);
}

/// A replica that has not read the new keys yet meets a token that is signed by one, and reads them.
#[test]
fn a_replica_looks_for_a_key_that_it_does_not_know() {
    let place = Place::with_tokens("");
    set_password(&place.users(), "alice", "secret");
    let replicas: [Server; 2] = place.start();
    let [before, _] = log_in(&replicas[0]);
    rotate(&place.bucket);
    replicas[0].read_again();
    let [after, _] = log_in(&replicas[0]);
    bearer(&replicas[0], &before).get("tags/list").expect_status(404);
    until(|| bearer(&replicas[1], &after).get("tags/list").status == 404);
    expect_agreement(&replicas);
}

/// Replaces the keys in a bucket as a replica did two days ago.
fn rotate(bucket: &BucketServer) {
    const DAY: u64 = 24 * 3_600_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let past = |days: u64| Timestamp(u64::try_from(now.as_millis()).expect("a time") - days * DAY);
    bucket.block_on(async |double: &S3Double| {
        let store = Store::new(double.backend("registry").expect("a bucket"));
        let stored = store.secret(SecretName::TokenKeys).await.expect("it answers");
        let stored = stored.expect("keys");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("keys");
        let mut keys = read(str::from_utf8(&stored.value).expect("text"));
        let new = SigningKeys::generate(past(2)).expect("a key").to_text();
        keys["keys"][0]["created"] = past(32).0.into();
        let new = read(&new)["keys"][0].take();
        keys["keys"].as_array_mut().expect("a list").insert(0, new);
        let written = store.write_secret(SecretName::TokenKeys, keys.to_string().into(), Some(&stored));
        assert!(written.await.expect("it answers"));
    });
}

#[test]
fn replicas_with_one_file_of_keys_keep_none_in_the_bucket() {
    let place = Place::with_tokens(", keys: FOLDER/keys.json");
    set_password(&place.users(), "alice", "secret");
    let keys = place.folder.path().join("keys.json");
    let made = run(&["token-keys", "new", plain(&keys)]);
    assert!(made.status.success(), "{made:?}");
    let before = fs::read(&keys).expect("keys");
    let replicas: [Server; 2] = place.start();
    expect_agreement(&replicas);
    assert_eq!(fs::read(&keys).expect("keys"), before);
    place.bucket.block_on(async |double: &S3Double| {
        let objects = double.objects();
        assert!(objects.contains_key("registry/secrets/catalog"));
        assert!(!objects.contains_key("registry/secrets/token-keys"));
    });
}

#[test]
fn a_missing_file_of_keys_is_refused_as_each_replica_would_make_others() {
    let place = Place::with_tokens(", keys: FOLDER/keys.json");
    set_password(&place.users(), "alice", "secret");
    let configuration = place.configuration();
    for command in [
        &["serve", plain(&configuration), "--listen", "127.0.0.1:0"][..],
        &["config", "check", plain(&configuration)],
    ] {
        let refused = run(command);
        assert_eq!(refused.status.code(), Some(1));
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("auth.token.builtin.keys"), "{said}");
        assert!(said.contains("registry-bin token-keys new "), "{said}");
    }
    let keys = configuration.with_file_name("keys.json");
    assert!(run(&["token-keys", "new", plain(&keys)]).status.success());
    let [_server]: [Server; 1] = place.start();
}

#[test]
fn keys_that_are_damaged_in_the_bucket_are_named_with_what_to_do() {
    let place = Place::with_tokens("");
    set_password(&place.users(), "alice", "secret");
    let [server]: [Server; 1] = place.start();
    assert!(server.terminate().success());
    for damaged in ["x", "{}"] {
        place
            .bucket
            .block_on(async |double: &S3Double| double.put("registry/secrets/token-keys", damaged.into()));
        let refused = run(&["serve", plain(&place.configuration()), "--listen", "127.0.0.1:0"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            said.contains("it is the object `secrets/token-keys` that is damaged"),
            "{said}"
        );
    }
}

#[test]
fn keys_are_made_for_their_owner_alone_and_never_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("below/keys.json");
    let make = || run(&["token-keys", "new", plain(&path)]);
    let made = make();
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    let text = fs::read_to_string(&path).expect("keys");
    SigningKeys::from_text(&text).expect("keys");
    let mode = path.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = make();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("it exists"), "{said}");
    assert_eq!(fs::read_to_string(&path).expect("keys"), text);

    let printed = run(&["token-keys", "new", "-"]);
    let printed = String::from_utf8(printed.stdout).expect("text");
    SigningKeys::from_text(&printed).expect("keys");
    assert_ne!(printed, text);
    let refused = run(&["token-keys", "new", "alice:secret"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && !said.contains("secret"), "{said}");
    let refused = run(&["token-keys", "new", "/proc/keys.json"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot make /proc/keys.json"));
}

/// Each of them would make up another password.
#[test]
fn replicas_make_up_no_user() {
    let place = Place::with_tokens("");
    let (users, path) = (place.users(), place.configuration());
    for command in [&["config", "check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let refused = run(&[command, &[plain(&path)]].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        let remedy = format!("run `registry-bin htpasswd add {} docker`", users.display());
        assert!(
            !refused.status.success() && said.contains(&remedy),
            "{command:?}: {said}"
        );
        assert!(!users.exists());
    }
    set_password(&users, "alice", "secret");
    let [server] = place.start();
    log_in(&server);
}

/// It goes on with the keys that it has.
#[test]
fn users_change_while_the_bucket_does_not_answer() {
    let place = Place::with_tokens("");
    set_password(&place.users(), "alice", "secret");
    let [server] = place.start();
    let [_, refresh_token] = log_in(&server);
    let down = S3Fault::Answer(403, "AccessDenied");
    place.bucket.faults().fault_from_now_on(Some(down));
    set_password(&place.users(), "bob", "secret");
    let bob = || {
        let request = server.request("GET", "/auth/token");
        request.header("Authorization", basic("bob")).send().status
    };
    until(|| bob() == 200);
    refresh(&server, &refresh_token).expect_status(200);
    server.output_with("the keys of tokens cannot be read again; the old ones stay in force");
}

/// A load balancer takes out a replica that cannot reach the bucket.
#[test]
fn a_replica_without_its_bucket_is_not_ready_until_that_is_back() {
    let bucket = BucketServer::start();
    let server = Server::on_bucket_with(&bucket, &[("REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL", "20ms")]);
    let is_ready = || server.request("GET", "/ready").send().status == 200;
    until(is_ready);
    bucket
        .faults()
        .fault_from_now_on(Some(S3Fault::Answer(403, "AccessDenied")));
    until(|| !is_ready());
    server.request("GET", "/live").send().expect_status(200);
    bucket.faults().fault_from_now_on(None);
    until(is_ready);
}

/// nginx, which ends with the value.
struct Proxy {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    /// Starts nginx by the file that is to be deployed, with the addresses of these replicas; `None` if there is no nginx.
    #[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
    fn start(replicas: &[Server; 3]) -> Option<Self> {
        if Command::new("nginx").arg("-v").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "nginx is missing");
            eprintln!("skipped: nginx is not on this machine");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // nginx takes no port of the system's choice.
        let address = free_address();
        let mut text = fs::read_to_string(deployed("nginx.conf")).expect("a file of deploy/");
        let mut replace = |old: &str, new: &str| {
            assert!(text.contains(old), "{old} is not in {text}");
            text = text.replace(old, new);
        };
        for (number, replica) in replicas.iter().enumerate() {
            replace(
                &format!("registry-{}:5000", number + 1),
                &replica.address().to_string(),
            );
        }
        replace("listen 5000", &format!("listen {address}"));
        // Folders that an image has.
        let folders =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|of| format!("{of}_temp_path {of};"));
        replace(
            "http {",
            &format!("http {{ access_log off; {}", folders.join(" ")),
        );
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, text).expect("a file can be written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(configuration);
        command.args([
            "-e",
            "errors",
            "-g",
            "daemon off; master_process off; pid nginx.pid;",
        ]);
        let proxy = Self {
            process: command.spawn().expect("nginx starts"),
            address,
            _folder: folder,
        };
        until(|| Request::new(address, "GET", "/v2/").try_send().is_ok());
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/replicas")
        .join(file)
}

/// The files that are to be deployed, without containers: the same nginx and servers with the same configuration, on other
/// addresses.
#[test]
fn clients_of_the_proxy_notice_nothing_of_a_replica_that_is_killed_and_one_that_ends() {
    let bucket = BucketServer::start();
    serve_by_proxy(&[
        ("REGISTRY_STORAGE_S3_REGIONENDPOINT", bucket.url()),
        ("REGISTRY_STORAGE_S3_BUCKET", "bucket"),
        ("REGISTRY_STORAGE_S3_ACCESSKEY", "double"),
        ("REGISTRY_STORAGE_S3_SECRETKEY", "double"),
    ]);
}

/// The same on the bucket of the compose file.
#[test]
#[ignore = "needs VERSITYGW"]
fn clients_of_the_proxy_notice_nothing_on_versitygw_as_it_is_deployed() {
    let bucket = DeployedBucket::start();
    let endpoint = format!("http://{}", bucket.address);
    serve_by_proxy(&[
        ("REGISTRY_STORAGE_S3_REGIONENDPOINT", &endpoint),
        (
            "REGISTRY_STORAGE_S3_ACCESSKEY",
            &bucket.replica["REGISTRY_STORAGE_S3_ACCESSKEY"],
        ),
        (
            "REGISTRY_STORAGE_S3_SECRETKEY",
            &bucket.replica["REGISTRY_STORAGE_S3_SECRETKEY"],
        ),
    ]);
}

#[derive(Debug, Deserialize)]
struct Compose {
    services: BTreeMap<String, ComposeService>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ComposeService {
    entrypoint: Vec<String>,
    environment: BTreeMap<String, String>,
}

/// The bucket of the compose file as a process, which ends with the value, and the variables of its replicas.
struct DeployedBucket {
    process: Child,
    address: SocketAddr,
    replica: BTreeMap<String, String>,
    _folder: TempDir,
}

impl DeployedBucket {
    fn start() -> Self {
        let program = std::env::var("VERSITYGW").expect("VERSITYGW names the program");
        let text = fs::read_to_string(deployed("compose.yml")).expect("a file of deploy/");
        let text = text.replace(
            "${SECRET_KEY:?see the first lines of this file}",
            "0123456789abcdef",
        );
        let mut compose: Compose = serde_saphyr::from_str(&text).expect("a compose file");
        let [bucket, replica] = ["bucket", "registry-1"].map(|name| {
            let service = compose.services.remove(name);
            service.unwrap_or_else(|| panic!("there is no {name}"))
        });
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        let in_container = |word: &String| word.replace("/data", plain(&data)).replace("versitygw", &program);
        let entrypoint: Vec<String> = bucket.entrypoint.iter().map(in_container).collect();
        // In its container it takes its default, 7070, which is where the replicas look for it.
        let address = free_address();
        let mut command = Command::new(&entrypoint[0]);
        command.args(&entrypoint[1..]).envs(bucket.environment);
        command.env("VGW_PORT", address.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the bucket starts");
        until(|| TcpStream::connect(address).is_ok());
        Self {
            process,
            address,
            replica: replica.environment,
            _folder: folder,
        }
    }
}

impl Drop for DeployedBucket {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Serves a bucket by three replicas behind the proxy, of which one is killed and one ends.
fn serve_by_proxy(bucket: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    set_password(&users, "alice", "secret");
    let environment = [bucket, &[("REGISTRY_AUTH_TOKEN_BUILTIN_USERS", plain(&users))]].concat();
    let replicas = [(); 3].map(|()| Server::configured_with(&deployed("config.yml"), &environment));
    let Some(proxy) = Proxy::start(&replicas) else {
        return;
    };
    let token = || {
        let request = Request::new(proxy.address, "GET", "/auth/token?scope=repository:a:pull,push");
        text(&request.header("Authorization", basic("alice")).send(), "token")
    };
    let token = token();
    let repository = Repository::new(proxy.address, "a").with_authorization(&format!("Bearer {token}"));
    let challenge = Request::new(proxy.address, "GET", "/v2/").send();
    challenge.expect_status(401);
    let realm = challenge.header("WWW-Authenticate").expect("a challenge");
    assert!(
        realm.contains(&format!("http://{}/auth/token", proxy.address)),
        "{realm}"
    );

    let content: Vec<u8> = (0..7 << 20).map(|at| (at * 31 % 251) as u8).collect();
    let (first, second) = content.split_at(6 << 20);
    let location = repository.open_upload();
    let patched = repository.patch(&location, 0, first);
    patched.expect_status(202);
    let image = repository.push_image("latest", "before");

    let [killed, ended, left] = replicas;
    killed.kill9();
    let pull = || {
        let pulled = repository.get("manifests/latest");
        pulled.expect_status(200);
        pulled.expect_header("Docker-Content-Digest", &image.digest);
    };
    (0..12).for_each(|_| pull());
    let patched = repository.patch(&patched.location(), first.len() as u64, second);
    patched.expect_status(202);
    let digest = sha256(&content);
    repository
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    assert!(ended.terminate().success());
    (0..12).for_each(|_| pull());
    assert!(repository.get(&format!("blobs/{digest}")).body == content);
    repository.push_image("latest", "after");
    drop(left);
}
