//! A second server on the same folder.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::support::address::free_address;
use crate::support::client::Request;
use crate::support::repository::Repository;
use crate::support::server::{Server, guard, until};

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

fn is_up(address: SocketAddr) -> bool {
    let response = Request::new(address, "GET", "/v2/").try_send();
    response.is_ok_and(|response| response.status == 200)
}
