//! TLS over real sockets, with certificates that are made for each test.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, RsaKeySize, SignatureAlgorithm,
};
use registry_http::tls::{
    CipherSuites, ClientCertificates, ClientVerification, ServerCertificate, Tls, TlsError, TlsOptions,
    TlsVersion,
};
use registry_http::{Connection, Limits, Listener, Server};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::eventually;
use crate::listeners::service;

/// An authority.
pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

/// PEM text of a chain and a key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

pub(crate) fn ecdsa() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn generate(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

pub(crate) fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

pub(crate) fn authority(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_params(name), ecdsa()).unwrap()
}

pub(crate) fn leaf(issuer: &Issuer, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let certificate = params.signed_by(key, issuer).unwrap();
    Pair {
        chain: certificate.pem(),
        key: key.serialize_pem(),
    }
}

fn client_leaf(issuer: &Issuer) -> Pair {
    leaf(issuer, &ecdsa(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

fn certificate(pair: &Pair) -> Result<ServerCertificate, TlsError> {
    ServerCertificate::from_pem(pair.chain.as_bytes(), pair.key.as_bytes(), SystemTime::now())
}

pub(crate) fn options(pair: &Pair) -> TlsOptions {
    TlsOptions::new(certificate(pair).unwrap())
}

/// Starts a server with these options.
async fn start(options: TlsOptions) -> (Server, SocketAddr, Tls) {
    let tls = Tls::new(options).unwrap();
    let (server, address) = start_with(tls.clone(), Limits::default()).await;
    (server, address, tls)
}

async fn start_with(tls: Tls, limits: Limits) -> (Server, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap().with_tls(tls);
    let server = Server::serve([listener], service(), limits).unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    (server, address)
}

/// A client that trusts `issuer`.
pub(crate) struct Caller {
    roots: RootCertStore,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    suites: Option<rustls::SupportedCipherSuite>,
    pub(crate) own: Option<Pair>,
    pub(crate) protocols: Vec<&'static str>,
}

impl Caller {
    pub(crate) fn trusting(issuer: &Issuer) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        Self {
            roots,
            versions: rustls::ALL_VERSIONS.to_vec(),
            suites: None,
            own: None,
            protocols: Vec::new(),
        }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(suite) = self.suites {
            provider.cipher_suites = vec![suite];
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_slice_iter(own.chain.as_bytes())
                        .map(Result::unwrap)
                        .collect(),
                    PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = self
            .protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.config(), address).await
    }

    /// Connects, asks and returns the first line of the answer.
    async fn ask(&self, address: SocketAddr) -> std::io::Result<String> {
        ask(&mut self.connect(address).await?).await
    }
}

async fn connect(config: Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Asks on an open connection and returns the first line of the answer.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8(answer)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned())
}

const OK: &str = "HTTP/1.1 200 OK";

#[tokio::test]
async fn keys_of_each_kind_serve() {
    let issuer = authority("root");
    let keys = [
        ecdsa(),
        generate(&rcgen::PKCS_ECDSA_P384_SHA384),
        generate(&rcgen::PKCS_ED25519),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ];
    for key in &keys {
        let (_server, address, _) = start(options(&leaf(&issuer, key, |_| {}))).await;
        assert_eq!(Caller::trusting(&issuer).ask(address).await.unwrap(), OK);
    }
}

#[tokio::test]
async fn a_chain_is_shown_whole() {
    let root = authority("root");
    let between = CertifiedIssuer::signed_by(authority_params("between"), ecdsa(), &root).unwrap();
    let mut pair = leaf(&between, &ecdsa(), |_| {});
    let (_server, address, tls) = start(options(&pair)).await;
    Caller::trusting(&root)
        .ask(address)
        .await
        .expect_err("the client cannot know the one between");
    pair.chain.push_str(&between.pem());
    tls.replace(options(&pair)).unwrap();
    assert_eq!(Caller::trusting(&root).ask(address).await.unwrap(), OK);
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_go_on() {
    let (old, new) = (authority("old"), authority("new"));
    let (_server, address, tls) = start(options(&leaf(&old, &ecdsa(), |_| {}))).await;
    let mut open = Caller::trusting(&old).connect(address).await.unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), OK);
    tls.replace(options(&leaf(&new, &ecdsa(), |_| {}))).unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), OK);
    assert_eq!(Caller::trusting(&new).ask(address).await.unwrap(), OK);
    Caller::trusting(&old)
        .ask(address)
        .await
        .expect_err("the old certificate is gone");
}

#[tokio::test]
async fn versions_and_cipher_suites_are_as_asked() {
    let issuer = authority("root");
    let pair = leaf(&issuer, &ecdsa(), |_| {});
    let (_server, address, tls) = start(options(&pair)).await;
    let mut caller = Caller::trusting(&issuer);
    for (version, name) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        caller.versions = vec![version];
        let stream = caller.connect(address).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
    }

    let mut newest = options(&pair);
    newest.minimum_version = TlsVersion::Tls13;
    tls.replace(newest).unwrap();
    caller.versions = vec![&rustls::version::TLS12];
    caller.connect(address).await.expect_err("TLS 1.2 is too old");

    let mut few = options(&pair);
    let wanted = rustls::crypto::aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    few.cipher_suites = CipherSuites::from_names(["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"])
        .unwrap()
        .0;
    tls.replace(few).unwrap();
    let stream = caller.connect(address).await.unwrap();
    assert_eq!(stream.get_ref().1.negotiated_cipher_suite(), Some(wanted));
    caller.suites = Some(rustls::crypto::aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    caller
        .connect(address)
        .await
        .expect_err("this suite is not on the list");
}

#[tokio::test]
async fn http2_is_negotiated_unless_it_is_off() {
    let issuer = authority("root");
    let pair = leaf(&issuer, &ecdsa(), |_| {});
    let (_server, address, tls) = start(options(&pair)).await;
    let mut caller = Caller::trusting(&issuer);
    let negotiated = async |caller: &Caller| {
        let stream = caller.connect(address).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol();
        protocol.map(|protocol| String::from_utf8_lossy(protocol).into_owned())
    };
    assert_eq!(negotiated(&caller).await, None);
    caller.protocols = vec!["h2", "http/1.1"];
    assert_eq!(negotiated(&caller).await.unwrap(), "h2");

    let stream = caller.connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    let request = crate::client_http2::request("GET", "/v2/", crate::client_http2::Pieces::empty());
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, http::Version::HTTP_2)
    );
    connection.abort();

    let mut plain = options(&pair);
    plain.http2 = false;
    tls.replace(plain).unwrap();
    assert_eq!(negotiated(&caller).await.unwrap(), "http/1.1");
}

#[tokio::test]
async fn clients_are_verified_in_four_ways() {
    let (issuer, others) = (authority("root"), authority("others"));
    let pair = leaf(&issuer, &ecdsa(), |_| {});
    let (known, unknown) = (client_leaf(&issuer), client_leaf(&others));
    let expired = leaf(&issuer, &ecdsa(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let (_server, address, tls) = start(options(&pair)).await;
    // Without a certificate, with one of the authority, with one of another, with one that has ended.
    for (verification, expected) in [
        (ClientVerification::Request, [true, true, true, true]),
        (ClientVerification::RequireAny, [false, true, true, true]),
        (ClientVerification::VerifyIfGiven, [true, true, false, false]),
        (ClientVerification::RequireAndVerify, [false, true, false, false]),
    ] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut asking = options(&pair);
            let authorities = issuer.pem();
            let clients = ClientCertificates::from_pem([authorities.as_bytes()], verification);
            asking.clients = Some(clients.unwrap());
            tls.replace(asking).unwrap();
            let mut results = Vec::new();
            for own in [None, Some(&known), Some(&unknown), Some(&expired)] {
                let mut caller = Caller::trusting(&issuer);
                caller.versions = vec![version];
                caller.own = own.cloned();
                results.push(caller.ask(address).await.is_ok());
            }
            assert_eq!(results, expected, "{verification:?} {version:?}");
        }
    }
    assert_eq!(
        ClientVerification::default(),
        ClientVerification::RequireAndVerify
    );
}

/// A session that is taken up again would be one of a client whose certificate has ended or is refused meanwhile.
#[tokio::test]
async fn a_client_that_shows_a_certificate_shows_it_each_time() {
    let issuer = authority("root");
    let pair = leaf(&issuer, &ecdsa(), |_| {});
    let (_server, address, tls) = start(options(&pair)).await;
    let mut caller = Caller::trusting(&issuer);
    caller.own = Some(client_leaf(&issuer));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        caller.versions = vec![version];
        for (verification, expected) in [
            (None, HandshakeKind::Resumed),
            (Some(ClientVerification::RequireAndVerify), HandshakeKind::Full),
            (Some(ClientVerification::VerifyIfGiven), HandshakeKind::Full),
        ] {
            let mut asking = options(&pair);
            let authorities = issuer.pem();
            asking.clients = verification.map(|verification| {
                ClientCertificates::from_pem([authorities.as_bytes()], verification).unwrap()
            });
            tls.replace(asking).unwrap();
            let config = caller.config();
            let mut first = connect(Arc::clone(&config), address).await.unwrap();
            assert_eq!(ask(&mut first).await.unwrap(), OK);
            let mut second = connect(config, address).await.unwrap();
            assert_eq!(ask(&mut second).await.unwrap(), OK);
            assert_eq!(
                second.get_ref().1.handshake_kind(),
                Some(expected),
                "{verification:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody_and_is_cut() {
    let issuer = authority("root");
    let tls = Tls::new(options(&leaf(&issuer, &ecdsa(), |_| {}))).unwrap();
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_millis(300);
    let (_server, address) = start_with(tls, limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&[0x16, 3, 1]).await.unwrap();
    assert_eq!(Caller::trusting(&issuer).ask(address).await.unwrap(), OK);
    for stream in [&mut silent, &mut slow] {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0])).await;
        assert!(matches!(ended.unwrap(), Ok(0) | Err(_)), "it is cut");
    }
}

#[tokio::test]
async fn a_handshake_holds_a_connection_s_slot_and_a_stop_ends_it() {
    let issuer = authority("root");
    let tls = Tls::new(options(&leaf(&issuer, &ecdsa(), |_| {}))).unwrap();
    let mut limits = Limits::default();
    limits.connections = 1;
    limits.handshake_timeout = Duration::from_secs(60);
    let (server, address) = start_with(tls, limits).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let caller = Caller::trusting(&issuer);
    let waiting = tokio::time::timeout(Duration::from_millis(300), caller.ask(address)).await;
    waiting.expect_err("the silent connection has the slot");
    drop(silent);
    eventually(async || caller.ask(address).await.ok()).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let begin = SystemTime::now();
    server.shutdown(Duration::from_secs(60)).await;
    assert!(begin.elapsed().unwrap() < Duration::from_secs(10));
}

#[tokio::test]
async fn plain_http_is_told_to_use_tls() {
    let issuer = authority("root");
    let (_server, address, _) = start(options(&leaf(&issuer, &ecdsa(), |_| {}))).await;
    let mut client = Client::connect(address).await;
    client.head("GET", "/v2/", &[]).await;
    let answer = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 400 ") && answer.contains("https://"),
        "{answer}"
    );
    // Neither HTTP nor TLS: nothing that could be understood.
    let mut client = Client::connect(address).await;
    client.send(b"\0\0\0\0\0\0\0\0").await;
    assert!(!client.rest().await.unwrap_or_default().starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_service_learns_that_a_request_came_over_tls() {
    let issuer = authority("root");
    let tls = Tls::new(options(&leaf(&issuer, &ecdsa(), |_| {}))).unwrap();
    let told = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
        let connection = request.extensions().get::<Connection>().unwrap();
        let status = if connection.tls().is_some() { 200 } else { 500 };
        let body = http_body_util::Full::new(bytes::Bytes::from("{}"));
        http::Response::builder().status(status).body(body)
    });
    let secure = Listener::bind("127.0.0.1:0").await.unwrap().with_tls(tls);
    let plain = Listener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::serve([secure, plain], told, Limits::default()).unwrap();
    let [secure, plain] = [0, 1].map(|place: usize| server.addresses()[place].tcp().unwrap());
    assert_eq!(Caller::trusting(&issuer).ask(secure).await.unwrap(), OK);
    assert_eq!(Client::connect(plain).await.get("/v2/").await.status, 500);
}

#[test]
fn what_is_wrong_is_said() {
    let issuer = authority("root");
    let good = leaf(&issuer, &ecdsa(), |_| {});
    let other = leaf(&issuer, &ecdsa(), |_| {});
    let refusal = |chain: &str, key: &str| {
        ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now())
            .expect_err("this must be refused")
            .to_string()
    };
    let contains = |message: String, part: &str| assert!(message.contains(part), "{message}");
    contains(
        refusal(&good.chain, &other.key),
        "does not belong to the certificate",
    );
    let misplaced = format!("{}{}", other.chain, good.chain);
    contains(refusal(&misplaced, &good.key), "belongs to certificate 2");
    contains(refusal("", &good.key), "no certificate");
    contains(refusal(&good.key, &good.key), "no certificate");
    contains(refusal(&good.chain, &good.chain), "no private key");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    contains(refusal(&good.chain, encrypted), "openssl pkey");
    let encrypted =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    contains(refusal(&good.chain, encrypted), "openssl pkey");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    contains(refusal(broken, &good.key), "certificate 1");
    contains(refusal("-----BEGIN CERTIFICATE-----\nAAAA\n", &good.key), "PEM");
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    contains(refusal(&good.chain, broken), "cannot be used");

    let expired = leaf(&issuer, &ecdsa(), |params| {
        params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    });
    let message = refusal(&expired.chain, &expired.key);
    contains(message.clone(), "expired");
    contains(message, "2020");
    let early = leaf(&issuer, &ecdsa(), |params| {
        params.not_before = rcgen::date_time_ymd(2200, 2, 3);
    });
    contains(refusal(&early.chain, &early.key), "2200");

    let none = ClientCertificates::from_pem([good.key.as_bytes()], ClientVerification::Request);
    contains(none.unwrap_err().to_string(), "authority");
    let none = ClientCertificates::from_pem([""; 0], ClientVerification::Request);
    contains(none.unwrap_err().to_string(), "authority");
}

/// Keys for nothing but this test, by `openssl ecparam -genkey` and `openssl genrsa -traditional`, each also by
/// `openssl pkcs8 -topk8 -nocrypt`, with certificates for a hundred years.
#[test]
fn a_key_is_read_in_each_of_its_forms_and_never_shown() {
    let ec = include_bytes!("certificates/ec-certificate.pem").as_slice();
    let rsa = include_bytes!("certificates/rsa-certificate.pem").as_slice();
    for (chain, key) in [
        (ec, include_bytes!("certificates/ec-sec1.pem").as_slice()),
        (ec, include_bytes!("certificates/ec-pkcs8.pem")),
        (rsa, include_bytes!("certificates/rsa-pkcs1.pem")),
        (rsa, include_bytes!("certificates/rsa-pkcs8.pem")),
    ] {
        let certificate = ServerCertificate::from_pem(chain, key, SystemTime::now()).unwrap();
        assert!(certificate.expires() > SystemTime::now());
        let debug = format!("{:?}", TlsOptions::new(certificate));
        assert!(!debug.contains("key"), "{debug}");
        // A chain and a key may stand in one file.
        let both = [key, chain].concat();
        ServerCertificate::from_pem(&both, &both, SystemTime::now()).unwrap();
    }
}
