//! Clients that are known by their certificates, over real TLS.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use rcgen::{CertifiedIssuer, DnType, ExtendedKeyUsagePurpose};
use registry_core::operation::{Action, Operation};
use registry_core::{Authorizer, Error, ErrorCode, Principal, Registry};
use registry_http::tls::{ClientCertificates, ClientVerification, Tls};
use registry_http::{
    AccessControl, Authenticator, Connection, Limits, Listener, PeerAddress, RegistryService,
    ReplaceableAccess, Server, TlsVersion,
};
use registry_storage::{ObjectStoreBackend, Store};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::client_http2::{Pieces, request};
use crate::tls::{Caller, Issuer, Pair, authority, authority_params, ecdsa, leaf, options};

/// A client is the user whom the common name of its certificate names. It keeps what it saw.
#[derive(Clone, Debug, Default)]
struct CommonNames(Arc<Mutex<Vec<Connection>>>);

impl Authenticator for CommonNames {
    fn authenticate<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Principal, Error>> {
        self.0.lock().unwrap().extend(Connection::of(request).cloned());
        let session = Connection::of(request).and_then(Connection::tls);
        let certificate = session.and_then(|session| session.client_certificates.first());
        let user = certificate.and_then(|der| common_name(der));
        let principal = user.map_or_else(Principal::anonymous, Principal::new);
        Box::pin(std::future::ready(Ok(principal)))
    }
}

fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// Lets each user read below its own name, and clients without one nothing.
#[derive(Debug)]
struct Own;

impl Authorizer for Own {
    fn authorize(&self, principal: &Principal, operation: &Operation<'_>) -> Result<(), Error> {
        let owner = operation
            .repository
            .and_then(|name| name.as_str().split('/').next());
        if operation.action == Action::Connect || owner == Some(principal.name()) {
            Ok(())
        } else {
            Err(ErrorCode::Denied.into())
        }
    }
}

/// Starts a registry that asks for certificates of `authority`.
async fn start(authority: &Issuer, verification: ClientVerification) -> (Server, SocketAddr, CommonNames) {
    let mut options = options(&leaf(authority, &ecdsa(), |_| {}));
    let clients = ClientCertificates::from_pem([authority.pem()], verification);
    options.clients = Some(clients.unwrap());
    let tls = Tls::new(options).unwrap();
    let names = CommonNames::default();
    let storage = Arc::new(Store::new(ObjectStoreBackend::memory()));
    let registry = Registry::new(storage, registry_core::registry::Options::default());
    let service = RegistryService::new(registry, Limits::default());
    let service = service.with_access(Arc::new(ReplaceableAccess::new(AccessControl {
        authenticator: Arc::new(names.clone()),
        authorizer: Arc::new(Own),
        endpoints: Vec::new(),
    })));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap().with_tls(tls);
    let server = Server::serve([listener], service, Limits::default()).unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    (server, address, names)
}

/// Issues the certificate of a user.
fn user(issuer: &Issuer, name: &str) -> Pair {
    leaf(issuer, &ecdsa(), |params| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

/// A client that shows this certificate, if it has one.
fn caller(issuer: &Issuer, own: Option<Pair>) -> Caller {
    let mut caller = Caller::trusting(issuer);
    caller.own = own;
    caller
}

/// Asks by HTTP/1.1 and returns the status.
async fn ask(stream: &mut TlsStream<TcpStream>, target: &str) -> u16 {
    let head = format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let status = std::str::from_utf8(&answer[9..12]).unwrap();
    status.parse().unwrap()
}

const OF_ALICE: &str = "/v2/alice/app/manifests/1";
const OF_BOB: &str = "/v2/bob/app/manifests/1";

/// What may not be read is refused with 403, and what may be read is not there.
const DENIED: u16 = 403;
const ABSENT: u16 = 404;

#[tokio::test]
async fn an_authenticator_is_a_mapping_from_certificates_to_users() {
    let root = authority("root");
    let (_server, address, _) = start(&root, ClientVerification::RequireAndVerify).await;
    let users = ["alice", "bob"].map(|name| caller(&root, Some(user(&root, name))));

    let mut streams = Vec::new();
    for user in &users {
        streams.push(user.connect(address).await.unwrap());
    }
    // Both connections are open at once, and each has several requests.
    for _ in 0..2 {
        assert_eq!(ask(&mut streams[0], OF_ALICE).await, ABSENT);
        assert_eq!(ask(&mut streams[1], OF_ALICE).await, DENIED);
        assert_eq!(ask(&mut streams[0], OF_BOB).await, DENIED);
        assert_eq!(ask(&mut streams[1], OF_BOB).await, ABSENT);
    }

    let [mut alice, mut bob] = users;
    let mut statuses = Vec::new();
    for user in [&mut alice, &mut bob] {
        user.protocols = vec!["h2"];
        let io = hyper_util::rt::TokioIo::new(user.connect(address).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        for target in [OF_ALICE, OF_BOB] {
            let answer = sender
                .send_request(request("HEAD", target, Pieces::empty()))
                .await;
            let answer = answer.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            statuses.push(answer.status());
        }
        connection.abort();
    }
    let expected = [ABSENT, DENIED, DENIED, ABSENT].map(|status| StatusCode::from_u16(status).unwrap());
    assert_eq!(statuses, expected);
}

#[tokio::test]
async fn a_certificate_that_is_not_verified_identifies_nobody() {
    let (root, others) = (authority("root"), authority("others"));
    for (verification, own, expected) in [
        (ClientVerification::Request, Some(user(&others, "alice")), DENIED),
        // It would be valid, but nothing was checked.
        (ClientVerification::RequireAny, Some(user(&root, "alice")), DENIED),
        (ClientVerification::VerifyIfGiven, None, DENIED),
        (
            ClientVerification::VerifyIfGiven,
            Some(user(&root, "alice")),
            ABSENT,
        ),
    ] {
        let (_server, address, names) = start(&root, verification).await;
        let mut stream = caller(&root, own).connect(address).await.unwrap();
        assert_eq!(ask(&mut stream, OF_ALICE).await, expected, "{verification:?}");
        let seen = names.0.lock().unwrap().pop().unwrap();
        let certificates = &seen.tls().unwrap().client_certificates;
        assert_eq!(certificates.is_empty(), expected == DENIED, "{verification:?}");
    }
}

#[tokio::test]
async fn the_facts_of_a_connection_reach_the_authenticator() {
    let root = authority("root");
    let between = CertifiedIssuer::signed_by(authority_params("between"), ecdsa(), &root).unwrap();
    let mut own = user(&between, "alice");
    own.chain.push_str(&between.pem());
    let (server, address, names) = start(&root, ClientVerification::RequireAndVerify).await;
    let mut stream = caller(&root, Some(own.clone())).connect(address).await.unwrap();
    assert_eq!(ask(&mut stream, OF_ALICE).await, ABSENT);

    let seen = names.0.lock().unwrap().pop().unwrap();
    let local = stream.get_ref().0.local_addr().unwrap();
    assert_eq!(seen.peer(), PeerAddress::Tcp(local));
    assert_eq!(seen.client(), Some(local.ip()));
    assert_eq!(seen.listener(), server.addresses().first());
    assert!(seen.forwarded().is_none() && seen.is_https());
    let session = seen.tls().unwrap();
    let of_client = &stream.get_ref().1;
    assert_eq!(session.version, Some(TlsVersion::Tls13));
    let suite = of_client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(session.cipher_suite.as_deref(), suite.as_str());
    assert_eq!(session.server_name.as_deref(), Some("localhost"));
    let sent: Vec<_> = CertificateDer::pem_slice_iter(own.chain.as_bytes())
        .map(|der| der.unwrap().to_vec())
        .collect();
    assert_eq!(session.client_certificates, sent);
    assert_eq!(sent.len(), 2, "the certificate and the one between");
}
