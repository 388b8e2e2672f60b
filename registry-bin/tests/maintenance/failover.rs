//! A second server on the same folder.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::support::client::Request;
use crate::support::repository::Repository;
use crate::support::server::{Server, guard, pause};

#[test]
fn a_server_that_waits_leaves_its_port_alone_and_takes_over_what_was_answered() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().join("root");
    let first = Server::on(&root);
    let image = Repository::new(first.address(), "a").push_image("v1", "x");
    let address = free_address();
    let output = folder.path().join("output");
    let log = std::fs::File::create(&output).expect("a file can be made");
    let mut second = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(["serve", "--wait", "--listen", &address.to_string(), "--storage"])
        .arg(&root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the program runs");
    let guard = guard(&second, folder.path());
    let waits = || std::fs::read_to_string(&output).is_ok_and(|text| text.contains("waiting for the root"));
    until(waits);
    assert!(
        TcpStream::connect(address).is_err(),
        "clients should go to the first"
    );
    first.kill9();
    until(|| is_up(address));
    let pulled = Repository::new(address, "a").get("manifests/v1");
    assert_eq!(pulled.body, image.content);
    drop(guard);
    second.kill().ok();
    second.wait().ok();
}

/// Returns an address at which nobody listens just now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a socket has an address")
}

fn is_up(address: SocketAddr) -> bool {
    let response = Request::new(address, "GET", "/v2/").try_send();
    response.is_ok_and(|response| response.status == 200)
}

fn until(check: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !check() {
        assert!(std::time::Instant::now() < end, "it did not happen in time");
        pause();
    }
}
