//! Real clients over TLS: by the certificate that the server makes, and by one of a private authority.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::containerd;
use crate::docker_daemon::DockerDaemon;
use crate::samples::{FILES, expect_file};
use crate::skopeo;
use crate::tls_reload::until;
use crate::tls_server::{Authority, TlsServer, command, prepare};
use crate::tools::Tool;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn curl(folder: &Path) -> Option<Tool> {
    Some(Tool::find("curl", folder)?.with([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "20",
    ]))
}

/// A store with an image, and a server on it by the certificate of its own.
fn self_signed() -> (TlsServer, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    prepare(&data, "tls/test");
    let server = TlsServer::start(
        folder.path(),
        &["--storage", text(&data), "--tls-self-signed", "registry.example"],
        &[],
    );
    let authority = data.join("tls/ca.pem");
    (server, authority, folder)
}

/// The same by a private authority and the well-known variables.
fn private_authority() -> (TlsServer, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    prepare(&data, "tls/test");
    let authority = Authority::new("private");
    authority.write(&folder.path().join("ca.pem"));
    authority.issue(folder.path(), "server", |_| {});
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let server = TlsServer::start(
        folder.path(),
        &["--storage", text(&data)],
        &[
            ("REGISTRY_HTTP_TLS_CERTIFICATE", &file("server.pem")),
            ("REGISTRY_HTTP_TLS_KEY", &file("server-key.pem")),
        ],
    );
    let authority = folder.path().join("ca.pem");
    (server, authority, folder)
}

/// A folder with the authority's certificate, as the clients of containers/image take it.
fn certificates(folder: &Path, authority: &Path) -> PathBuf {
    let certificates = folder.join("certificates");
    fs::create_dir_all(&certificates).expect("a folder can be made");
    fs::copy(authority, certificates.join("ca.crt")).expect("a file can be copied");
    certificates
}

fn skopeo_copies(server: &TlsServer, authority: &Path) {
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(skopeo) = skopeo::tool(work.path()) else {
        return;
    };
    let source = format!("docker://{}/tls/test:v1", server.host());
    let layout = format!("oci:{}", work.path().join("layout").display());
    let refused = skopeo
        .try_run(["copy", &source, &layout])
        .expect_err("nobody signed for it");
    assert!(refused.contains("x509"), "{refused}");
    let certificates = certificates(work.path(), authority);
    let folder = text(&certificates);
    skopeo.run(["copy", "--src-cert-dir", folder, &source, &layout]);
    let target = format!("docker://{}/tls/skopeo:v1", server.host());
    skopeo.run(["copy", "--dest-cert-dir", folder, &layout, &target]);
}

fn podman_pulls(server: &TlsServer, authority: &Path) {
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(podman) = crate::tools::podman(work.path()) else {
        return;
    };
    let certificates = certificates(work.path(), authority);
    let (image, copy) = (
        format!("{}/tls/test:v1", server.host()),
        format!("{}/tls/podman:v1", server.host()),
    );
    podman
        .try_run(["pull", &image])
        .expect_err("nobody signed for it");
    podman.run(["pull", "--cert-dir", text(&certificates), &image]);
    podman.run(["push", "--cert-dir", text(&certificates), &image, &copy]);
}

/// Removes a folder of the system that the test made.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn docker_pulls(server: &TlsServer, authority: &Path) {
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    // Docker looks for certificates nowhere else.
    let trusted = PathBuf::from(format!("/etc/docker/certs.d/{}", server.host()));
    if fs::create_dir_all(&trusted).is_err() {
        assert!(
            std::env::var_os("CI").is_none(),
            "only root may write to {}",
            trusted.display()
        );
        return;
    }
    let _removed = Removed(trusted.clone());
    fs::copy(authority, trusted.join("ca.crt")).expect("a file can be copied");
    let Some(daemon) = DockerDaemon::start(work.path()) else {
        return;
    };
    let docker = &daemon.docker;
    let image = format!("{}/tls/test:v1", server.host());
    let copy = format!("{}/tls/docker:v1", server.host());
    docker.run(["pull", &image]);
    docker.run(["tag", &image, &copy]);
    docker.run(["push", &copy]);
    docker.run(["create", "--name", "probe", &image, "/byte"]);
    for (name, _) in FILES {
        let out = work.path().join(name);
        docker.run(["cp", &format!("probe:/{name}"), text(&out)]);
        expect_file(&out, name);
    }
    docker.run(["rm", "--force", "probe"]);
}

fn containerd_pulls(server: &TlsServer, authority: &Path) {
    let work = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(containerd) = containerd::start(work.path()) else {
        return;
    };
    let place = server.host();
    let hosts = work.path().join("hosts").join(&place);
    fs::create_dir_all(&hosts).expect("a folder can be made");
    let trust = format!(
        "server = \"https://{place}\"\n[host.\"https://{place}\"]\n  ca = \"{}\"\n",
        authority.display()
    );
    fs::write(hosts.join("hosts.toml"), trust).expect("a file can be written");
    let (image, copy) = (
        format!("{place}/tls/test:v1"),
        format!("{place}/tls/containerd:v1"),
    );
    let (ctr, hosts) = (&containerd.ctr, text(&work.path().join("hosts")).to_owned());
    ctr.run([
        "images",
        "pull",
        "--hosts-dir",
        &hosts,
        "--snapshotter",
        "native",
        &image,
    ]);
    ctr.run(["images", "tag", &image, &copy]);
    ctr.run(["images", "push", "--hosts-dir", &hosts, &copy]);
}

fn curl_asks(server: &TlsServer, authority: &Path) {
    let Some(curl) = curl(&server.folder) else { return };
    let url = format!("https://{}/v2/", server.host());
    let refused = curl.try_run([&url]).expect_err("nobody signed for it");
    assert!(refused.contains("certificate"), "{refused}");
    let written = curl.run([
        "--cacert",
        text(authority),
        "--write-out",
        "%{http_version}",
        &url,
    ]);
    assert_eq!(written, "{}2");
    let old = curl.run(["--cacert", text(authority), "--tls-max", "1.2", "--http1.1", &url]);
    assert_eq!(old, "{}");
}

#[test]
fn every_client_works_by_the_certificate_of_the_server_s_own() {
    let (server, authority, _folder) = self_signed();
    curl_asks(&server, &authority);
    skopeo_copies(&server, &authority);
    podman_pulls(&server, &authority);
    docker_pulls(&server, &authority);
    containerd_pulls(&server, &authority);
    // What was printed is ready to paste.
    let log = server.log();
    for client in ["docker", "podman", "containerd", "curl"] {
        let line = log.lines().find(|line| line.trim_start().starts_with(client));
        let line = line.unwrap_or_else(|| panic!("nothing about {client}: {log}"));
        assert!(
            line.contains(text(&authority)) && line.contains(&server.host()),
            "{line}"
        );
    }
    if let Some(shell) = Tool::find("sh", &server.folder) {
        let line = log.lines().find(|line| line.contains("curl --cacert"));
        let (_, pasted) = line.and_then(|line| line.split_once("curl ")).expect("a command");
        assert_eq!(shell.run(["-c", &format!("curl {pasted}")]), "{}");
    }
}

#[test]
fn every_client_works_by_the_certificate_of_a_private_authority() {
    let (server, authority, _folder) = private_authority();
    curl_asks(&server, &authority);
    skopeo_copies(&server, &authority);
    podman_pulls(&server, &authority);
    docker_pulls(&server, &authority);
    containerd_pulls(&server, &authority);
}

/// Starts a server in memory by a file with these lines below `tls`, and these below `http`.
fn configured(folder: &Path, tls: &str, http: &str) -> TlsServer {
    let file = |name: &str| text(&folder.join(name)).to_owned();
    let config = format!(
        "version: 0.1\nstorage: inmemory\nhttp:\n{http}  tls:\n    certificate: {}\n    key: {}\n{tls}",
        file("server.pem"),
        file("server-key.pem"),
    );
    fs::write(file("config.yml"), config).expect("a file can be written");
    TlsServer::start(folder, &[&file("config.yml")], &[])
}

#[test]
fn clients_show_certificates_in_four_ways() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let (authority, others) = (Authority::new("private"), Authority::new("others"));
    authority.write(&folder.path().join("ca.pem"));
    authority.issue(folder.path(), "server", |_| {});
    authority.issue(folder.path(), "known", |_| {});
    others.issue(folder.path(), "unknown", |_| {});
    authority.issue(folder.path(), "ended", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    let Some(curl) = curl(folder.path()) else { return };
    let curl = curl.with(["--cacert", &file("ca.pem")]);
    // Without a certificate, with one of the authority, with one of another, with one that has ended.
    for (mode, expected) in [
        ("request-client-cert", [true, true, true, true]),
        ("require-any-client-cert", [false, true, true, true]),
        ("verify-client-cert-if-given", [true, true, false, false]),
        ("require-and-verify-client-cert", [false, true, false, false]),
        ("", [false, true, false, false]),
    ] {
        let mut tls = format!("    clientcas: [{}]\n", file("ca.pem"));
        if !mode.is_empty() {
            tls.push_str(&format!("    clientauth: {mode}\n"));
        }
        let server = configured(folder.path(), &tls, "");
        let url = format!("https://{}/v2/", server.host());
        let results = ["", "known", "unknown", "ended"].map(|name| {
            let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}-key.pem")));
            let own = ["--cert", &certificate, "--key", &key];
            let own = if name.is_empty() { &[][..] } else { &own };
            curl.try_run(own.iter().chain([&url.as_str()])).is_ok()
        });
        assert_eq!(results, expected, "{mode}");
    }
}

#[test]
fn a_client_is_shut_out_by_another_authority_while_the_server_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let (authority, others) = (Authority::new("private"), Authority::new("others"));
    authority.write(&folder.path().join("ca.pem"));
    authority.write(&folder.path().join("clients.pem"));
    authority.issue(folder.path(), "server", |_| {});
    authority.issue(folder.path(), "known", |_| {});
    others.issue(folder.path(), "unknown", |_| {});
    let Some(curl) = curl(folder.path()) else { return };
    let curl = curl.with(["--cacert", &file("ca.pem")]);
    let tls = format!("    clientcas: [{}]\n", file("clients.pem"));
    let server = configured(folder.path(), &tls, "");
    let url = format!("https://{}/v2/", server.host());
    let is_served = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}-key.pem")));
        curl.try_run(["--cert", &certificate, "--key", &key, &url])
            .is_ok()
    };
    assert!(is_served("known") && !is_served("unknown"));
    others.write(&folder.path().join("clients.pem"));
    server.signal("-HUP");
    until(&server, || is_served("unknown"));
    assert!(!is_served("known"));
}

#[test]
fn versions_suites_and_protocols_are_as_configured() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let authority = Authority::new("private");
    authority.write(&folder.path().join("ca.pem"));
    authority.issue(folder.path(), "server", |_| {});
    let Some(curl) = curl(folder.path()) else { return };
    let curl = curl.with(["--cacert", &file("ca.pem"), "--write-out", "%{http_version}"]);
    let strong = "ECDHE-ECDSA-AES256-GCM-SHA384";
    for (tls, http, arguments, expected) in [
        ("", "", &[][..], Some("{}2")),
        ("", "", &["--http1.1"], Some("{}1.1")),
        ("", "  http2: {disabled: true}\n", &["--http2"], Some("{}1.1")),
        ("", "", &["--tls-max", "1.2"], Some("{}2")),
        ("    minimumtls: tls1.2\n", "", &["--tls-max", "1.2"], Some("{}2")),
        ("    minimumtls: tls1.3\n", "", &["--tls-max", "1.2"], None),
        ("    minimumtls: tls1.3\n", "", &["--tlsv1.3"], Some("{}2")),
        ("", "", &["--tls-max", "1.2", "--ciphers", strong], Some("{}2")),
        (
            "    ciphersuites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA]\n",
            "",
            &["--tls-max", "1.2", "--ciphers", strong],
            None,
        ),
    ] {
        let server = configured(folder.path(), tls, http);
        let url = format!("https://{}/v2/", server.host());
        let answer = curl.try_run(arguments.iter().chain([&url.as_str()]));
        assert_eq!(
            answer.as_deref().ok(),
            expected,
            "{tls}{http}{arguments:?}: {answer:?}"
        );
        let has_weak = tls.contains("CBC");
        assert_eq!(
            server.log().contains("too weak and not offered"),
            has_weak,
            "{}",
            server.log()
        );
    }
}

#[test]
fn a_chain_with_an_rsa_key_serves() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let authority = Authority::new("private");
    authority.write(&folder.path().join("ca.pem"));
    let between = authority.below("between");
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    between.issue_for(&key.expect("a key can be made"), folder.path(), "server", |_| {});
    let file = folder.path().join("server.pem");
    let chain = fs::read_to_string(&file).expect("it was written") + &between.pem();
    fs::write(&file, chain).expect("a file can be written");
    let server = configured(folder.path(), "", "");
    curl_asks(&server, &folder.path().join("ca.pem"));
}

#[test]
fn who_speaks_no_tls_is_told_and_any_name_is_served() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let authority = Authority::new("private");
    authority.issue(folder.path(), "server", |_| {});
    let server = configured(folder.path(), "", "");
    let Some(curl) = Tool::find("curl", folder.path()) else {
        return;
    };
    let curl = curl.with(["--silent", "--max-time", "20"]);
    let told = curl.run([
        "--write-out",
        "%{http_code}",
        &format!("http://{}/v2/", server.host()),
    ]);
    assert!(told.contains("https://") && told.ends_with("400"), "{told}");
    let resolve = format!("unknown.example:{}:127.0.0.1", server.port);
    let url = format!("https://unknown.example:{}/v2/", server.port);
    assert_eq!(curl.run(["--insecure", "--resolve", &resolve, &url]), "{}");
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let authority = Authority::new("private");
    authority.issue(folder.path(), "good", |_| {});
    authority.issue(folder.path(), "other", |_| {});
    authority.issue(folder.path(), "old", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    for (certificate, key, expected) in [
        ("good.pem", "other-key.pem", "does not belong to the certificate"),
        ("old.pem", "old-key.pem", "expired on"),
        ("none.pem", "good-key.pem", "http.tls.certificate: cannot read"),
        ("good.pem", "none.pem", "http.tls.key: cannot read"),
        ("good-key.pem", "good-key.pem", "no certificate"),
        ("good.pem", "good.pem", "no private key"),
    ] {
        let (certificate, key) = (file(certificate), file(key));
        let variables = [
            ("REGISTRY_HTTP_TLS_CERTIFICATE", certificate.as_str()),
            ("REGISTRY_HTTP_TLS_KEY", &key),
        ];
        let arguments = ["--storage", "memory", "--listen", "127.0.0.1:0"];
        let output = command(&arguments, &variables)
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}

/// curl 7.88, that of Debian 12, loses an answer that it reads together with the reset of its stream. A machine that does nothing for
/// half a second, as CI's did on a full disk, may let it lose one.
#[test]
fn curl_reads_an_answer_that_comes_before_its_upload_is_sent() {
    let (server, _, folder) = self_signed();
    let Some(curl) = Tool::find("curl", &server.folder) else {
        return;
    };
    let curl = curl.with([
        "--silent",
        "--show-error",
        "--insecure",
        "--http2",
        "--max-time",
        "20",
    ]);
    let body = folder.path().join("body");
    fs::write(&body, vec![7; 16 << 20]).expect("a file can be written");
    let digest = format!("sha256:{}", "0".repeat(64));
    let session = format!("blobs/uploads/0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f?digest={digest}");
    let mut lost = Vec::new();
    for (method, rest, status) in [
        ("PUT", session.as_str(), "404"),
        ("PATCH", session.as_str(), "404"),
        ("PUT", "manifests/v1", "413"),
        ("POST", "manifests/v1", "405"),
    ] {
        for _ in 0..5 {
            let url = format!("https://{}/v2/tls/test/{rest}", server.host());
            let output = folder.path().join("answer");
            let answered = curl.try_run([
                "--request",
                method,
                "--upload-file",
                text(&body),
                "--output",
                text(&output),
                "--write-out",
                "%{http_version} %{http_code}",
                &url,
            ]);
            let answered = match answered {
                Err(complaint) if complaint.contains("curl: (92)") => {
                    lost.push(complaint);
                    continue;
                }
                answered => answered.unwrap_or_else(|complaint| panic!("{complaint}")),
            };
            assert_eq!(answered, format!("2 {status}"), "{method} {rest}");
            let answer = fs::read_to_string(&output).expect("it has a body");
            assert!(answer.contains("\"errors\""), "{answer}");
        }
    }
    assert!(lost.len() <= 1, "{lost:?}");
}
