//! What whoever had registry:2 goes on doing: health checks, its image's command lines, its certificates and addresses.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::path::Path;
use std::process::{Command, Output};

use crate::secrets::certificate;
use crate::starts::Running;
use crate::support::server::until;
use crate::{program, run, with_configuration};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Asks how the server is that listens at `url`, by its configuration but for the port.
fn health(server: &Running, variables: &[(&str, &str)]) -> Output {
    let (_, address) = server.url.split_once("://").expect("it is a URL");
    let mut command = program(server.folder.path());
    command
        .args(["health", "--config", "config.yml"])
        .env("REGISTRY_HTTP_ADDR", address)
        // What is outside is reached through it, and not the server.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .envs(variables.iter().copied());
    command.output().expect("the program can be started")
}

#[test]
fn health_finds_the_server_by_its_configuration() {
    for rest in [
        "",
        "http: {prefix: /registry/}\n",
        "http: {tls: {certificate: cert, key: key}}\n",
        "http: {tls: {certificate: cert, key: key, clientcas: [cert]}}\n",
        "auth: {htpasswd: {realm: a, path: users}}\n",
    ] {
        let folder = with_configuration(&format!("version: 0.1\nstorage: inmemory\n{rest}"));
        let (certificate, key) = certificate();
        std::fs::write(folder.path().join("cert"), certificate).expect("a file can be written");
        std::fs::write(folder.path().join("key"), key).expect("a file can be written");
        let user = "someone:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
        std::fs::write(folder.path().join("users"), user).expect("a file can be written");
        let server = Running::start_in(folder, true, &[]);
        let output = health(&server, &[]);
        assert!(output.status.success(), "{rest}: {}", text(&output));
        assert_eq!(text(&output).lines().count(), 1, "{}", text(&output));
        assert!(text(&output).starts_with("healthy: "), "{}", text(&output));

        let refused = health(&server, &[("REGISTRY_HTTP_ADDR", "127.0.0.1:1")]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert_eq!(text(&refused).lines().count(), 1, "{}", text(&refused));
    }
}

#[test]
fn health_asks_at_a_url_through_a_socket_and_a_server_with_its_own_certificate() {
    let server = Running::start(Some("version: 0.1\nstorage: inmemory\n"), &[]);
    let folder = server.folder.path();
    for (path, code) in [("/v2/", 0), ("/v2/nobody/manifests/a", 1)] {
        let url = format!("{}{path}", server.url);
        let output = program(folder).args(["health", &url]).output();
        let output = output.expect("the program can be started");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }

    let socket = "version: 0.1\nstorage: inmemory\nhttp: {net: unix, addr: registry.sock}\n";
    let folder = with_configuration(socket);
    let mut served = Child::start(folder.path(), &["serve", "config.yml"]);
    let healthy = || {
        let output = program(folder.path())
            .args(["health", "--config", "config.yml"])
            .output();
        output.expect("the program can be started").status.success()
    };
    until(healthy);
    served.end();
    assert!(!healthy());
}

/// A process that ends with the test.
struct Child(std::process::Child);

impl Child {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let output = std::fs::File::create(folder.join("output")).expect("a file can be made");
        let child = program(folder)
            .args(arguments)
            .stderr(output.try_clone().expect("a handle can be copied"))
            .stdout(output)
            .spawn();
        Self(child.expect("the program can be started"))
    }

    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn health_finds_a_server_that_made_its_certificate_itself() {
    let folder = with_configuration("");
    let arguments = [
        "serve",
        "--storage",
        "memory",
        "--listen",
        "127.0.0.1:0",
        "--tls-self-signed",
    ];
    let _served = Child::start(folder.path(), &arguments);
    let printed = || std::fs::read_to_string(folder.path().join("output")).unwrap_or_default();
    until(|| printed().contains("Listening on https://") && printed().contains("Push with"));
    let output = printed();
    let (_, rest) = output.split_once("Listening on https://").expect("it listens");
    let address = rest.lines().next().expect("an address");
    let health = program(folder.path())
        .arg("health")
        .env("REGISTRY_HTTP_ADDR", address)
        .output();
    let health = health.expect("the program can be started");
    assert!(health.status.success(), "{}", text(&health));
}

/// A job that may not look into the folder would never collect, and nobody would know.
#[cfg(unix)]
#[test]
fn garbage_collect_fails_if_it_cannot_look() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("loop");
    std::os::unix::fs::symlink(&root, &root).unwrap();
    let configuration = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n",
        root.display()
    );
    let output = run(&["garbage-collect", "config.yml"], &configuration, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("cannot look into"), "{}", text(&output));
}

/// The usual job stops the registry, collects, and starts it again; many are run with `set -e`.
#[test]
fn garbage_collect_takes_the_arguments_of_registry_2_and_does_not_end_the_job_that_calls_it() {
    for arguments in [
        &["garbage-collect", "config.yml"][..],
        &[
            "registry",
            "garbage-collect",
            "--delete-untagged",
            "--dry-run",
            "config.yml",
        ],
        &["/bin/registry", "garbage-collect", "-m", "config.yml"],
        &[
            "garbage-collect",
            "--delete-untagged=true",
            "--dry-run=false",
            "-q=true",
            "config.yml",
        ],
        // Booleans are Go's, and the last one counts.
        &[
            "garbage-collect",
            "--dry-run=1",
            "-m=T",
            "-d=f",
            "--dry-run=0",
            "-q=true",
            "-q=FALSE",
            "config.yml",
        ],
    ] {
        let output = run(arguments, "version: 0.1\nstorage: inmemory\n", &[]);
        assert!(output.status.success(), "{}", text(&output));
        let is_quiet = arguments.contains(&"-q=true") && !arguments.contains(&"-q=FALSE");
        assert_eq!(
            text(&output).contains("Nothing was collected"),
            !is_quiet,
            "{}",
            text(&output)
        );
    }
}

#[test]
fn command_lines_of_the_image_of_registry_2_serve() {
    for arguments in [
        &["config.yml"][..],
        &["registry", "serve", "config.yml"],
        &["/entrypoint.sh", "config.yml"],
    ] {
        let folder = with_configuration("version: 0.1\nstorage: inmemory\nhttp: {addr: '127.0.0.1:0'}\n");
        let _served = Child::start(folder.path(), arguments);
        until(|| {
            let output = std::fs::read_to_string(folder.path().join("output"));
            output.is_ok_and(|output| output.contains("Listening on http://127.0.0.1:"))
        });
    }
}

#[test]
fn check_refuses_addresses_that_serve_refuses() {
    for address in [
        "http://0.0.0.0:5000",
        "'*:5000'",
        "'::1:5000'",
        "'a:1,b:1'",
        "no-such-host.invalid:5000",
    ] {
        for key in [
            format!("addr: {address}"),
            format!("addr: '127.0.0.1:0', debug: {{addr: {address}}}"),
        ] {
            let configuration = format!("version: 0.1\nstorage: inmemory\nhttp: {{{key}}}\n");
            for command in [&["config", "check", "config.yml"][..], &["serve", "config.yml"]] {
                let output = run(command, &configuration, &[]);
                assert_eq!(output.status.code(), Some(1), "{key}: {}", text(&output));
                assert!(text(&output).contains("addr: "), "{}", text(&output));
            }
        }
    }
}

#[test]
fn check_refuses_what_only_a_start_refused() {
    let keys =
        "auth: {token: {service: a, builtin: {users: users}}}\nstorage: {s3: {bucket: a, region: b}}\n";
    for (rest, variables, message) in [
        (
            keys,
            &[][..],
            "auth.token.builtin.users: there is no file at users",
        ),
        (
            "storage: inmemory\n",
            &[
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ] {
        let configuration = format!("version: 0.1\n{rest}");
        let output = run(&["config", "check", "config.yml"], &configuration, variables);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(message), "{}", text(&output));
    }
}

/// Kubernetes tells each pod of all services of its namespace, by variables that begin with the service's name.
#[test]
fn variables_of_kubernetes_for_services_called_like_keys_do_not_stop_a_start() {
    let server = Running::start(
        Some("version: 0.1\nstorage: inmemory\n"),
        &[
            ("REGISTRY_AUTH_PORT", "tcp://10.0.0.1:5000"),
            ("REGISTRY_AUTH_SERVICE_HOST", "10.0.0.1"),
            ("REGISTRY_AUTH_SERVICE_PORT_HTTP", "5000"),
            ("REGISTRY_STORAGE_PORT_80_TCP", "tcp://[fd00::1]:80"),
            ("REGISTRY_STORAGE_PORT_80_TCP_ADDR", "fd00::1"),
            ("REGISTRY_MIDDLEWARE_PORT_53_UDP_PROTO", "udp"),
            ("REGISTRY_HTTP_SERVICE_PORT", "5000"),
        ],
    );
    let log = server.log_with("listening");
    for service in [
        "registry-auth",
        "registry-storage",
        "registry-middleware",
        "registry-http",
    ] {
        assert!(log.contains(&format!("service `{service}`")), "{service}: {log}");
    }
    assert!(log.contains("enableServiceLinks: false"), "{log}");
}

fn openssl(folder: &Path, command: &str) -> bool {
    let output = Command::new("openssl")
        .args(command.split(' '))
        .current_dir(folder)
        .output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn certificates_of_version_1_serve_and_clients_that_show_one_are_told() {
    let configuration = "version: 0.1\nstorage: inmemory\nhttp: {tls: {certificate: cert, key: key}}\n";
    let folder = with_configuration(configuration);
    if !openssl(
        folder.path(),
        "req -new -newkey rsa:2048 -nodes -keyout key -out request -subj /CN=localhost",
    ) {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing");
        eprintln!("skipped: openssl is not on this machine");
        return;
    }
    // Without `-extfile` it is one of version 1.
    assert!(openssl(
        folder.path(),
        "x509 -req -in request -signkey key -days 30 -out cert"
    ));
    let check = program(folder.path())
        .args(["config", "check", "config.yml"])
        .output();
    let check = check.expect("the program can be started");
    assert!(check.status.success(), "{}", text(&check));
    let server = Running::start_in(folder, true, &[]);
    let handshake = |server: &Running, more: &str| {
        let (_, address) = server.url.split_once("://").expect("it is a URL");
        openssl(
            server.folder.path(),
            &format!("s_client -connect {address} -no_ign_eof{more}"),
        )
    };
    assert!(
        handshake(&server, " -CAfile cert -verify_return_error"),
        "{}",
        server.log()
    );
    drop(server);

    for (verification, is_taken) in [
        ("require-any-client-cert", true),
        ("require-and-verify-client-cert", false),
    ] {
        let folder = with_configuration(&format!(
            "version: 0.1\nstorage: inmemory\nhttp: {{tls: {{certificate: cert, key: key, clientcas: [cert], clientauth: {verification}}}}}\n"
        ));
        assert!(openssl(
            folder.path(),
            "req -new -newkey rsa:2048 -nodes -keyout key -out request -subj /CN=localhost"
        ));
        assert!(openssl(
            folder.path(),
            "x509 -req -in request -signkey key -days 30 -out cert"
        ));
        let server = Running::start_in(folder, true, &[]);
        handshake(&server, " -cert cert -key key");
        if is_taken {
            assert!(!server.log().contains("handshake failed"), "{}", server.log());
        } else {
            let log = server.log_with("X.509 version 1");
            assert!(log.contains("-extfile"), "{log}");
        }
    }
}

/// In a network of its own, whose sockets are for IPv6 alone where they do not say otherwise.
#[test]
fn a_port_alone_takes_both_families_where_the_system_would_take_one() {
    const SCRIPT: &str = "ip link set lo up && sysctl -qw net.ipv6.bindv6only=1 && touch ready && exec \"$0\" serve config.yml";
    let configuration = "version: 0.1\nstorage: inmemory\nhttp: {addr: ':5000', debug: {addr: ':5001'}}\n";
    let folder = with_configuration(configuration);
    let output = std::fs::File::create(folder.path().join("output")).expect("a file can be made");
    let spawned = Command::new("unshare")
        .args(["--net", "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_registry-bin")])
        .current_dir(folder.path())
        .stderr(output.try_clone().expect("a handle can be copied"))
        .stdout(output)
        .spawn();
    let mut served = Child(spawned.expect("unshare is part of every Linux"));
    let printed = || std::fs::read_to_string(folder.path().join("output")).unwrap_or_default();
    let mut has_ended = false;
    until(|| {
        has_ended = matches!(served.0.try_wait(), Ok(Some(_)));
        has_ended || printed().contains("Push with")
    });
    if has_ended {
        assert!(!folder.path().join("ready").exists(), "{}", printed());
        eprintln!("skipped: no network of its own can be made here: {}", printed());
        return;
    }
    let process = served.0.id().to_string();
    for url in [
        "http://127.0.0.1:5000/v2/",
        "http://[::1]:5000/v2/",
        "http://127.0.0.1:5001/ready",
        "http://[::1]:5001/ready",
    ] {
        let asked = Command::new("nsenter")
            .args([
                "--net",
                "--target",
                &process,
                env!("CARGO_BIN_EXE_registry-bin"),
                "health",
                url,
            ])
            .output()
            .expect("nsenter is part of every Linux");
        assert!(asked.status.success(), "{}", text(&asked));
    }
}
