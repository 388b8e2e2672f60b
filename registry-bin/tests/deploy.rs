//! The files of `deploy/`, as far as they can be tested without the systems that they are for; the image has its test
//! among the clients.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).expect("a file of deploy/")
}

/// Runs `config check` with nothing in the environment but `variables`.
fn config_check(arguments: &[&str], variables: &BTreeMap<String, String>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["config", "check"])
        .args(arguments)
        .env_clear()
        .envs(variables)
        .output()
        .expect("the program runs")
}

#[track_caller]
fn assert_accepted(output: &Output) {
    let printed = [&*output.stdout, &*output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
}

#[test]
fn the_configuration_of_the_image_is_accepted() {
    let path = deploy().join("config.yml");
    let output = config_check(&[path.to_str().expect("a plain path")], &BTreeMap::new());
    assert_accepted(&output);
}

#[derive(Debug, Deserialize)]
struct Compose {
    services: BTreeMap<String, ComposeService>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ComposeService {
    environment: BTreeMap<String, String>,
    volumes: Vec<String>,
}

/// The variables name files in the container; here they are files in a temporary folder, at the ends of the volumes.
#[test]
fn the_variables_of_the_compose_file_are_accepted_on_top_of_the_configuration_of_the_image() {
    let compose: Compose = serde_saphyr::from_str(&read("compose.yml")).expect("a compose file");
    let service = compose.services.get("registry").expect("the service");
    let root = tempfile::tempdir().expect("a temporary folder can be made");
    let inside = |path: &str| format!("{}{path}", root.path().display());
    for volume in &service.volumes {
        let (_, path) = volume.split_once(':').expect("a volume names both ends");
        fs::create_dir_all(inside(path)).expect("a folder can be made");
    }
    write_certificate(&inside("/certs"));
    fs::write(
        inside("/auth/htpasswd"),
        "someone:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
    )
    .expect("a file can be written");
    let mut variables = service.environment.clone();
    for value in variables.values_mut().filter(|value| value.starts_with('/')) {
        *value = inside(value);
    }
    variables.insert(
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY".into(),
        inside("/var/lib/registry"),
    );
    let path = deploy().join("config.yml");
    assert_accepted(&config_check(&[path.to_str().expect("a plain path")], &variables));
    // It is these variables that are read: one of them, wrong, is refused.
    variables.insert("REGISTRY_HTTP_TLS_KEY".into(), inside("/certs/none.key"));
    let refused = config_check(&[path.to_str().expect("a plain path")], &variables);
    assert!(!refused.status.success());
}

/// Servers with this configuration and nginx with its own are run by the tests of replicas.
#[test]
fn the_replicas_of_the_compose_file_are_alike_and_known_to_nginx_and_their_configuration_is_accepted() {
    let compose: Compose = serde_saphyr::from_str(&read("replicas/compose.yml")).expect("a compose file");
    let replicas: Vec<_> = compose
        .services
        .iter()
        .filter(|(name, _)| name.starts_with("registry-"))
        .collect();
    assert_eq!(replicas.len(), 3);
    let nginx = read("replicas/nginx.conf");
    for (name, replica) in &replicas {
        assert_eq!(replica, &replicas[0].1);
        assert!(nginx.contains(&format!("server {name}:5000 ")), "{name}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let users = folder.path().join("users");
    fs::write(
        &users,
        "someone:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
    )
    .expect("a file can be written");
    let mut variables = replicas[0].1.environment.clone();
    let users = users.to_str().expect("a plain path").to_owned();
    variables.insert("REGISTRY_AUTH_TOKEN_BUILTIN_USERS".into(), users);
    let path = deploy().join("replicas/config.yml");
    assert_accepted(&config_check(&[path.to_str().expect("a plain path")], &variables));
}

fn write_certificate(folder: &str) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(format!("{folder}/domain.crt"), made.cert.pem()).expect("a file can be written");
    fs::write(format!("{folder}/domain.key"), made.signing_key.serialize_pem())
        .expect("a file can be written");
}

#[test]
fn the_configuration_in_the_kubernetes_manifest_is_accepted_and_the_ports_agree() {
    let text = read("kubernetes.yaml");
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&text).expect("documents of Kubernetes");
    let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind);
    let map = of_kind("ConfigMap").expect("a configuration");
    let config = map["data"]["config.yml"].as_str().expect("a file");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("config.yml");
    fs::write(&path, config).expect("a file can be written");
    let root = folder
        .path()
        .join("data")
        .to_str()
        .expect("a plain path")
        .to_owned();
    let variables = BTreeMap::from([("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY".into(), root)]);
    assert_accepted(&config_check(&[path.to_str().expect("a plain path")], &variables));

    let set = of_kind("StatefulSet").expect("a stateful set");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let port = |index: usize| container["ports"][index]["containerPort"].clone();
    assert!(config.contains(&format!("  addr: :{}", port(0))));
    assert!(config.contains(&format!("    addr: :{}", port(1))));
    let service = of_kind("Service").expect("a service");
    assert_eq!(
        service["spec"]["selector"],
        set["spec"]["selector"]["matchLabels"]
    );
}

#[test]
fn the_systemd_units_are_right_and_little_is_exposed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let unit =
        read("registry.service").replace("/usr/local/bin/registry-bin", env!("CARGO_BIN_EXE_registry-bin"));
    let service = folder.path().join("registry.service");
    let socket = folder.path().join("registry.socket");
    fs::write(&service, unit).expect("a file can be written");
    fs::write(&socket, read("registry.socket")).expect("a file can be written");
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&service)
            .output();
        output.map(|output| {
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        })
    };
    let Ok((is_right, complaint)) = analyze(&["verify", "--man=no"]) else {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing");
        eprintln!("skipped: systemd-analyze is not on this machine");
        return;
    };
    assert!(is_right && complaint.is_empty(), "{complaint}");
    // An exposure of 2.0 of 10.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    let (is_right, complaint) = analyze(&security).expect("it was there a moment ago");
    assert!(is_right, "{complaint}");
}
