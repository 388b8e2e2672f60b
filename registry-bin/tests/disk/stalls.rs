//! Pulls that nobody takes, more than files may be open, while others push and pull.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::World;
use crate::support::content::sha256;
use crate::support::repository::Repository;

/// How many stall, and how many files the server may open.
struct Load {
    limit: &'static str,
    /// Pulls at once.
    pulls: usize,
    /// How many blobs they are of: more than the server may open.
    blobs: usize,
    /// Pushes at once.
    pushes: usize,
}

/// Larger than what is kept in a record, and than the window of a stream.
const SIZE: usize = 40_000;

/// Where the greedy client is.
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn content(number: usize) -> Vec<u8> {
    format!("{number:08}").repeat(SIZE / 8).into_bytes()
}

/// Connects from another address than those who go on, with little room for what comes.
async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind((GREEDY, 0).into())?;
    socket.connect(server).await
}

/// What is held, so that it stalls until this is dropped.
#[derive(Default)]
struct Stalled {
    streams: Vec<Response<hyper::body::Incoming>>,
    connections: Vec<TcpStream>,
}

/// Begins pulls over HTTP/2, a hundred to a connection, and takes nothing but the heads. Returns those that got one.
async fn stall_streams(server: SocketAddr, targets: &[String]) -> Stalled {
    let mut stalled = Stalled::default();
    for targets in targets.chunks(100) {
        let stream = connect(server).await.expect("it connects");
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1024)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut client, connection) = handshake.expect("HTTP/2 is spoken");
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for target in targets {
            let request = Request::get(format!("http://registry{target}")).body(Empty::<Bytes>::new());
            if client.ready().await.is_err() {
                break;
            }
            answers.push(client.send_request(request.expect("it is a request")));
        }
        let answers = futures_util::future::join_all(answers);
        if let Ok(answers) = tokio::time::timeout(Duration::from_secs(20), answers).await {
            stalled.streams.extend(answers.into_iter().flatten());
        }
    }
    stalled
}

/// Begins pulls over HTTP/1.1, one to a connection, and takes nothing.
async fn stall_connections(server: SocketAddr, targets: &[String]) -> Stalled {
    let mut stalled = Stalled::default();
    for target in targets {
        let Ok(mut stream) = connect(server).await else {
            continue;
        };
        let request = format!("GET {target} HTTP/1.1\r\nHost: registry\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_ok() {
            stalled.connections.push(stream);
        }
    }
    stalled
}

/// Begins pushes over HTTP/1.1, one to a connection, and sends a half of each.
async fn stall_pushes(server: SocketAddr, path: &str, count: usize) -> Stalled {
    let mut stalled = Stalled::default();
    for number in 0..count {
        let Ok(mut stream) = connect(server).await else {
            continue;
        };
        let content = content(number);
        let target = format!("{path}?digest={}", sha256(&content));
        let head = format!("POST {target} HTTP/1.1\r\nHost: registry\r\nContent-Length: {SIZE}\r\n\r\n");
        let sent = [head.as_bytes(), &content[..SIZE / 2]].concat();
        if stream.write_all(&sent).await.is_ok() {
            stalled.connections.push(stream);
        }
    }
    stalled
}

#[test]
fn pulls_that_stall_take_no_files_from_pushes_and_small_pulls_of_others() {
    go_on_beside(&Load {
        limit: "ulimit -Sn 1024; ulimit -Hn 1024",
        pulls: 973,
        blobs: 600,
        pushes: 500,
    });
}

#[test]
fn with_few_files_one_address_that_stalls_keeps_no_other_from_pushing_and_pulling() {
    let log = go_on_beside(&Load {
        limit: "ulimit -Sn 128; ulimit -Hn 128",
        pulls: 120,
        blobs: 60,
        pushes: 60,
    });
    assert!(
        log.contains("few files may be open") && log.contains("connections=32 pulls=21 pushes=8"),
        "{log}"
    );
}

#[test]
fn a_server_that_may_open_hardly_any_file_says_so_and_does_not_start() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -Sn 63; ulimit -Hn 63; exec \"$0\" serve --listen 127.0.0.1:0",
        ])
        .arg(env!("CARGO_BIN_EXE_registry-bin"))
        .current_dir(&folder)
        .output()
        .expect("a shell can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("only 63 files") && said.contains("ulimit -n"),
        "{said}"
    );
}

/// Pushes and pulls while another address does all it can to be in the way. Returns the log.
fn go_on_beside(load: &Load) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let world = World::start(folder.path(), &folder.path().join("data"), load.limit);
    let server = world.server.address();
    rlimit::increase_nofile_limit(4096).expect("this process may open files");
    let repository = Repository::new(server, "a");
    let image = repository.push_image("v1", "x");
    let blobs: Vec<String> = (0..load.blobs)
        .map(|number| repository.push_blob(&content(number)))
        .map(|digest| repository.path(&format!("blobs/{digest}")))
        .collect();
    let targets: Vec<String> = blobs.iter().cycle().take(load.pulls).cloned().collect();
    let runtime = Runtime::new().expect("threads can be started");
    for kind in 0..3 {
        let stalled = match kind {
            0 => runtime.block_on(stall_streams(server, &targets)),
            1 => runtime.block_on(stall_connections(server, &targets)),
            _ => {
                let path = repository.path("blobs/uploads/");
                runtime.block_on(stall_pushes(server, &path, load.pushes))
            }
        };
        assert!(!stalled.streams.is_empty() || !stalled.connections.is_empty());
        for number in 0..30 {
            let tag = format!("t{kind}{number}");
            let pushed = repository.push_image(&tag, &tag);
            repository.push_blob(&content(10_000 + number + 1000 * kind));
            repository
                .get(&format!("manifests/{}", pushed.digest))
                .expect_status(200);
            repository
                .get(&format!("blobs/{}", image.layer))
                .expect_status(200);
        }
        assert_eq!(world.text("/ready"), "ok\n");
        assert!(
            world
                .text("/metrics")
                .contains("registry_storage_writes_stopped 0")
        );
        drop(stalled);
    }
    drop(runtime);
    // Whoever takes what was asked for gets it.
    for target in targets.iter().take(20) {
        let blob = world.server.request("GET", target).send();
        blob.expect_status(200);
        assert_eq!(blob.body.len(), SIZE);
    }
    repository.push_image("after", "after");
    let log = world.server.output();
    assert!(!log.contains("Nothing is written"));
    log
}
