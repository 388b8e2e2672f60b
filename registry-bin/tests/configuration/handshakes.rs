//! What the log says of clients that do not come to speak TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::secrets::{certificate, connect};
use crate::starts::Running;
use crate::support::server::until;
use crate::with_configuration;

#[test]
fn a_failed_handshake_is_told_once_and_a_look_at_the_port_is_not() {
    let ((own, key), (other, _)) = (certificate(), certificate());
    let folder =
        with_configuration("version: 0.1\nstorage: inmemory\nhttp: {tls: {certificate: cert, key: key}}\n");
    std::fs::write(folder.path().join("cert"), own).expect("a file can be written");
    std::fs::write(folder.path().join("key"), key).expect("a file can be written");
    let server = Running::start_in(folder, true, &[]);
    let address = server.url.strip_prefix("https://").expect("it is encrypted");
    let failures = || server.log().matches("a TLS handshake failed").count();

    drop(TcpStream::connect(address).expect("it listens"));
    // A client that does not trust the certificate says so.
    connect(&server, &other).expect_err("another certificate is trusted");
    until(|| failures() == 1);
    assert!(server.log().contains("127.0.0.1:"), "{}", server.log());

    let mut http = TcpStream::connect(address).expect("it listens");
    http.write_all(b"GET /v2/ HTTP/1.1\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    http.read_to_string(&mut answer).expect("it answers");
    assert!(answer.contains("HTTPS"), "{answer}");
    until(|| failures() == 2);
    assert!(server.log().contains("speaks HTTP"), "{}", server.log());

    for _ in 0..200 {
        let mut stranger = TcpStream::connect(address).expect("it listens");
        stranger.write_all(b"\x01nonsense").expect("it is open");
        // The server ends it, with an alert or without.
        drop(stranger.read_to_end(&mut Vec::new()));
    }
    until(|| failures() >= 3);
    let failures = failures();
    assert!((3..40).contains(&failures), "{failures}: {}", server.log());
}
