//! Tokens: which are good, which are not, and what they grant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use registry_core::Timestamp;
use registry_core::operation::AllowAll;
use registry_core::policy::TokenScopes;
use registry_core::response::ResponseBody;
use registry_http::Endpoint as _;
use registry_http::auth::{
    Htpasswd, HtpasswdLine, Passwords, Realm, SigningKeys, TokenAuthenticator, TokenKeys, TokenOptions,
    TokenServer, TokenServerOptions,
};
use registry_http::testing::TestRegistry;
use serde_json::{Value, json};

use crate::client::Client;

const SERVICE: &str = "registry.example";
const ISSUER: &str = "tokens.example";

/// A key pair and what others know of it.
struct Signer {
    pair: KeyPair,
    certificate: Certificate,
}

impl Signer {
    fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&pair).unwrap();
        Self { pair, certificate }
    }

    fn encoding(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.pair.serialize_der())
    }

    fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.encoding(), Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("the-key".to_owned());
        jwk
    }

    fn thumbprint(&self) -> String {
        self.jwk().thumbprint(ThumbprintHash::SHA256).unwrap()
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.encoding()).unwrap()
    }
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": SERVICE, "sub": "alice", "exp": now() + 100, "nbf": now(), "iat": now(),
        "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
    })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn by_id(id: &str) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    header
}

fn authenticator(keys: TokenKeys) -> TokenAuthenticator {
    let options = TokenOptions {
        realm: Realm::Path("/auth/token".to_owned()),
        service: SERVICE.to_owned(),
        issuer: ISSUER.to_owned(),
        algorithms: TokenAuthenticator::ALGORITHMS.to_vec(),
    };
    TokenAuthenticator::new(options, keys)
}

async fn registry(keys: TokenKeys) -> TestRegistry {
    registry_of(authenticator(keys)).await
}

async fn registry_of(authenticator: TokenAuthenticator) -> TestRegistry {
    TestRegistry::builder()
        .authenticator(Arc::new(authenticator))
        .authorizer(Arc::new(TokenScopes::new()))
        .start()
        .await
}

fn key_set(signers: &[&Signer]) -> TokenKeys {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    TokenKeys::from_key_set(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

/// A clock that a test sets, in seconds since 1970.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn function(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let clock = Arc::clone(&self.0);
        move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed))
    }
}

/// Asks for a tag that is not there: 404 where that is allowed.
async fn status(registry: &TestRegistry, token: &str) -> u16 {
    let mut client = Client::connect(registry.address()).await;
    let credentials = [("Authorization", &*format!("Bearer {token}"))];
    client
        .call("GET", "/v2/a/b/manifests/none", &credentials, b"")
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn claims_have_to_be_for_this_registry_and_this_moment() {
    let signer = Signer::new();
    let registry = registry(key_set(&[&signer])).await;
    let header = by_id("the-key");
    for (change, expected) in [
        (json!({}), 404),
        (json!({"aud": ["other", SERVICE]}), 404),
        (json!({"exp": now() - 30}), 404),
        (json!({"nbf": now() + 30}), 404),
        (json!({"sub": null}), 401),
        (json!({"aud": "other"}), 401),
        (json!({"aud": null}), 401),
        (json!({"iss": "other"}), 401),
        (json!({"iss": null}), 401),
        (json!({"exp": now() - 61}), 401),
        (json!({"exp": null}), 401),
        (json!({"nbf": now() + 90}), 401),
        (json!({"access": null}), 401),
        (
            json!({"access": [{"type": "repository", "name": "a/c", "actions": ["*"]}]}),
            401,
        ),
        (
            json!({"access": [{"type": "repository", "name": "a/b", "actions": ["*"]}]}),
            404,
        ),
    ] {
        let token = signer.sign(&header, &with(change.clone()));
        assert_eq!(status(&registry, &token).await, expected, "{change}");
        // The second time it is known.
        assert_eq!(status(&registry, &token).await, expected, "{change}");
    }
}

/// No clock of the machine takes part: the times are of the year 2001.
#[tokio::test]
async fn a_token_is_valid_by_the_clock_that_is_set() {
    const BEGIN: u64 = 1_000_000_000;
    let (signer, clock) = (Signer::new(), SetClock::default());
    let authenticator = authenticator(key_set(&[&signer])).with_clock(clock.function());
    // New keys keep the clock.
    let authenticator = authenticator.with_keys(key_set(&[&signer]));
    let registry = registry_of(authenticator).await;
    let claims = with(json!({"nbf": BEGIN, "exp": BEGIN + 100, "iat": BEGIN}));
    let token = signer.sign(&by_id("the-key"), &claims);
    for (seconds, expected) in [
        (0, 401),
        (BEGIN - 61, 401),
        (BEGIN - 60, 404),
        (BEGIN, 404),
        // The signature is cached, the time is not.
        (BEGIN + 160, 404),
        (BEGIN + 161, 401),
        (BEGIN + 1_000_000, 401),
    ] {
        clock.set(seconds);
        assert_eq!(status(&registry, &token).await, expected, "at {seconds}");
    }
}

#[tokio::test]
async fn a_chain_of_certificates_is_valid_by_the_clock_that_is_set() {
    let (root, leaf, clock) = (
        KeyPair::generate().unwrap(),
        KeyPair::generate().unwrap(),
        SetClock::default(),
    );
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2003, 1, 1);
    let root_certificate = parameters.self_signed(&root).unwrap();
    let mut of_leaf = CertificateParams::default();
    of_leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
    of_leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let leaf_certificate = of_leaf
        .signed_by(&leaf, &Issuer::from_params(&parameters, &root))
        .unwrap();
    let keys = TokenKeys::from_certificates(root_certificate.pem().as_bytes()).unwrap();
    let registry = registry_of(authenticator(keys).with_clock(clock.function())).await;
    let year = |year| u64::try_from(rcgen::date_time_ymd(year, 6, 1).unix_timestamp()).unwrap();
    for (pair, certificate, years) in [
        (
            &root,
            &root_certificate,
            [(2000, 401), (2001, 404), (2002, 404), (2003, 401)],
        ),
        (
            &leaf,
            &leaf_certificate,
            [(2000, 401), (2001, 404), (2002, 401), (2003, 401)],
        ),
    ] {
        for (number, expected) in years {
            clock.set(year(number));
            let mut header = Header::new(Algorithm::ES256);
            header.x5c = Some(vec![STANDARD.encode(certificate.der())]);
            let claims = with(json!({"nbf": year(number), "exp": year(number) + 60}));
            let key = EncodingKey::from_ec_der(&pair.serialize_der());
            let token = encode(&header, &claims, &key).unwrap();
            assert_eq!(status(&registry, &token).await, expected, "in {number}");
        }
    }
}

#[tokio::test]
async fn a_token_server_issues_and_takes_tokens_by_the_clock_that_is_set() {
    const BEGIN: u64 = 1_000_000_000;
    let clock = SetClock::default();
    clock.set(BEGIN);
    let options = TokenServerOptions {
        service: SERVICE.to_owned(),
        issuer: ISSUER.to_owned(),
        lifetime: Duration::from_secs(300),
        refresh_lifetime: Duration::from_secs(1000),
    };
    let line = HtpasswdLine::new("alice", "secret").unwrap().to_string();
    let passwords = Arc::new(Passwords::new(Htpasswd::parse(&line).unwrap()).unwrap());
    let keys = SigningKeys::generate(Timestamp(BEGIN * 1000)).unwrap();
    let public = keys.public_keys();
    let server = TokenServer::new(options, passwords, Arc::new(AllowAll), keys).with_clock(clock.function());
    let ask = async |authorization: &str, form: &str| {
        let request = http::Request::builder()
            .method(if form.is_empty() { "GET" } else { "POST" })
            .uri("/auth/token?scope=repository:a/b:pull&offline_token=true")
            .header("authorization", authorization)
            .body(())
            .unwrap();
        let form = bytes::Bytes::copy_from_slice(form.as_bytes());
        let body = std::pin::pin!(futures_util::stream::iter([Ok(form)]));
        let (_, response) = server.answer(&request.into_parts().0, body).await;
        let ResponseBody::Bytes(bytes) = response.body else {
            return (response.status, Value::Null);
        };
        (response.status, serde_json::from_slice(&bytes).unwrap())
    };
    let basic = format!("Basic {}", STANDARD.encode("alice:secret"));
    let (granted, answer) = ask(&basic, "").await;
    assert_eq!((granted, answer["expires_in"].as_u64()), (200, Some(300)));
    assert_eq!(answer["issued_at"], "2001-09-09T01:46:40.000Z");
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let refresh = answer["refresh_token"].as_str().unwrap();
    let refresh = format!("grant_type=refresh_token&refresh_token={refresh}&scope=repository:a/b:pull");

    let registry = registry_of(authenticator(public).with_clock(clock.function())).await;
    for (seconds, at_registry, by_token, by_refresh_token) in [
        (BEGIN, 404, 200, 200),
        (BEGIN + 300, 404, 200, 200),
        (BEGIN + 301, 404, 401, 200),
        (BEGIN + 361, 401, 401, 200),
        (BEGIN + 1000, 401, 401, 200),
        (BEGIN + 1001, 401, 401, 401),
    ] {
        clock.set(seconds);
        let token = answer["token"].as_str().unwrap();
        let found = (
            status(&registry, token).await,
            ask(&bearer, "").await.0,
            ask("", &refresh).await.0,
        );
        assert_eq!(found, (at_registry, by_token, by_refresh_token), "at {seconds}");
    }
}

#[tokio::test]
async fn cve_2025_24976_a_forged_key_with_a_trusted_kid_is_refused() {
    let (trusted, forger) = (Signer::new(), Signer::new());
    let registry = registry(key_set(&[&trusted])).await;
    for id in ["the-key", &*trusted.thumbprint()] {
        assert_eq!(status(&registry, &trusted.sign(&by_id(id), &claims())).await, 404);
        assert_eq!(status(&registry, &forger.sign(&by_id(id), &claims())).await, 401);
        let mut forged = forger.jwk();
        forged.common.key_id = Some(id.to_owned());
        for jwk in [forged, trusted.jwk()] {
            let mut header = by_id(id);
            header.jwk = Some(jwk);
            assert_eq!(status(&registry, &forger.sign(&header, &claims())).await, 401);
        }
    }
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(trusted.jwk());
    assert_eq!(status(&registry, &trusted.sign(&header, &claims())).await, 404);
}

#[tokio::test]
async fn cve_2025_24976_no_algorithm_and_a_public_key_as_a_secret_are_refused() {
    let signer = Signer::new();
    let registry = registry(key_set(&[&signer])).await;
    let encoded = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        let head = encoded(json!({"alg": algorithm, "typ": "JWT", "kid": "the-key"}));
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{}.{signature}", encoded(claims()));
            assert_eq!(status(&registry, &token).await, 401, "{algorithm}");
        }
    }
    let point = signer.pair.public_key_raw().to_vec();
    for secret in [point, signer.pair.public_key_pem().into_bytes()] {
        let mut header = by_id("the-key");
        header.alg = Algorithm::HS256;
        let token = encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(status(&registry, &token).await, 401);
    }
    // A signature over something else, and a critical field.
    let token = signer.sign(&by_id("the-key"), &claims());
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = rest.split_once('.').unwrap();
    let swapped = format!("{head}.{}.{signature}", encoded(with(json!({"sub": "root"}))));
    assert_eq!(status(&registry, &swapped).await, 401);
    let mut critical = by_id("the-key");
    critical.crit = Some(vec!["b64".to_owned()]);
    assert_eq!(status(&registry, &signer.sign(&critical, &claims())).await, 401);
    let symmetric = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]});
    assert!(TokenKeys::from_key_set(symmetric.to_string().as_bytes()).is_err());
}

#[tokio::test]
async fn a_chain_of_certificates_leads_to_the_bundle_or_nowhere() {
    let root = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = parameters.self_signed(&root).unwrap();
    let leaf = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&parameters, &root);
    let leaf_certificate = CertificateParams::default().signed_by(&leaf, &issuer).unwrap();
    let keys = TokenKeys::from_certificates(root_certificate.pem().as_bytes()).unwrap();
    let registry = registry(keys).await;
    let token = |pair: &KeyPair, certificate: &Certificate| {
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(vec![STANDARD.encode(certificate.der())]);
        encode(
            &header,
            &claims(),
            &EncodingKey::from_ec_der(&pair.serialize_der()),
        )
        .unwrap()
    };
    assert_eq!(status(&registry, &token(&leaf, &leaf_certificate)).await, 404);
    assert_eq!(status(&registry, &token(&root, &root_certificate)).await, 404);
    let stranger = Signer::new();
    assert_eq!(
        status(&registry, &token(&stranger.pair, &stranger.certificate)).await,
        401
    );
    // The certificate of another, whose key one does not have.
    assert_eq!(
        status(&registry, &token(&stranger.pair, &leaf_certificate)).await,
        401
    );
}

#[tokio::test]
async fn a_bundle_s_key_is_known_by_its_thumbprint_and_by_libtrust_s_fingerprint() {
    let signer = Signer::new();
    let keys = TokenKeys::from_certificates(signer.certificate.pem().as_bytes()).unwrap();
    let ids = format!("{keys:?}");
    let registry = registry(keys).await;
    assert_eq!(
        status(&registry, &signer.sign(&by_id(&signer.thumbprint()), &claims())).await,
        404
    );
    let fingerprint = ids.split('"').find(|id| id.len() == 59).unwrap();
    let groups: Vec<_> = fingerprint.split(':').collect();
    assert!(
        groups.len() == 12 && groups.iter().all(|group| group.len() == 4),
        "{fingerprint}"
    );
    assert_eq!(
        status(&registry, &signer.sign(&by_id(fingerprint), &claims())).await,
        404
    );
    assert_eq!(
        status(&registry, &signer.sign(&by_id("other"), &claims())).await,
        401
    );
}

#[tokio::test]
async fn a_key_set_s_key_is_known_by_libtrust_s_fingerprint_too() {
    let signer = Signer::new();
    // As Keycloak does: its key set has identifiers of its own, and its tokens for registries have the fingerprint.
    let ids = format!("{:?}", key_set(&[&signer]));
    let fingerprint = ids.split('"').find(|id| id.len() == 59).unwrap();
    let registry = registry(key_set(&[&signer])).await;
    for (id, expected) in [
        (fingerprint, 404),
        (&fingerprint.replace('A', "B").to_lowercase(), 401),
    ] {
        let token = signer.sign(&by_id(id), &claims());
        assert_eq!(status(&registry, &token).await, expected, "{id}");
    }
}

#[tokio::test]
async fn a_token_that_names_no_key_is_of_the_only_one_and_of_none_of_two() {
    let (signer, other) = (Signer::new(), Signer::new());
    let token = |signer: &Signer| signer.sign(&Header::new(Algorithm::ES256), &claims());
    let mut second = other.jwk();
    second.common.key_id = Some("other".to_owned());
    let both = json!({ "keys": [signer.jwk(), second] }).to_string();
    let bundle = TokenKeys::from_certificates(signer.certificate.pem().as_bytes()).unwrap();
    for keys in [
        key_set(&[&signer]),
        bundle.clone(),
        key_set(&[&signer]).and(bundle),
    ] {
        let registry = registry(keys).await;
        assert_eq!(status(&registry, &token(&signer)).await, 404);
        assert_eq!(status(&registry, &token(&other)).await, 401);
    }
    let registry = registry(TokenKeys::from_key_set(both.as_bytes()).unwrap()).await;
    assert_eq!(status(&registry, &token(&signer)).await, 401);
}

#[tokio::test]
async fn a_challenge_says_what_is_wrong_only_where_that_is_true() {
    let signer = Signer::new();
    let registry = registry(key_set(&[&signer])).await;
    let good = format!("Bearer {}", signer.sign(&by_id("the-key"), &claims()));
    let anonymous = format!(
        "Bearer {}",
        signer.sign(&by_id("the-key"), &with(json!({"sub": ""})))
    );
    let realm = format!("Bearer realm=\"http://registry/auth/token\",service=\"{SERVICE}\"");
    for (path, credentials, expected) in [
        ("/v2/", "", String::new()),
        (
            "/v2/a/b/manifests/x",
            "",
            ",scope=\"repository:a/b:pull\"".to_owned(),
        ),
        ("/v2/_catalog", "", ",scope=\"registry:catalog:*\"".to_owned()),
        ("/v2/", "Bearer x", ",error=\"invalid_token\"".to_owned()),
        (
            "/v2/c/manifests/x",
            &*good,
            ",scope=\"repository:c:pull\",error=\"insufficient_scope\"".to_owned(),
        ),
        (
            "/v2/c/manifests/x",
            &*anonymous,
            ",scope=\"repository:c:pull\"".to_owned(),
        ),
        ("/v2/", "Basic YTpi", String::new()),
    ] {
        let mut client = Client::connect(registry.address()).await;
        let mut fields = Vec::new();
        if !credentials.is_empty() {
            fields.push(("Authorization", credentials));
        }
        let answer = client.call("GET", path, &fields, b"").await;
        assert_eq!(
            (answer.status.as_u16(), answer.field("WWW-Authenticate")),
            (401, &*format!("{realm}{expected}")),
            "{path}"
        );
    }
    let mut client = Client::connect(registry.address()).await;
    assert_eq!(
        client
            .call("GET", "/v2/", &[("Authorization", &good)], b"")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn keys_of_unknown_kinds_do_not_spoil_a_set() {
    let signer = Signer::new();
    let ours = serde_json::to_value(signer.jwk()).unwrap();
    let others = [
        json!({"kty": "AKP", "alg": "ML-DSA-65", "kid": "a", "pub": "AAAA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "b", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "OKP", "crv": "Ed448", "kid": "c", "x": "AAAA"}),
        json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP-256", "kid": "d", "n": "AAAA", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "e"}),
        json!("a key"),
        json!(null),
    ];
    let mut keys = others.to_vec();
    keys.push(ours);
    let set = json!({ "keys": keys }).to_string();
    let registry = registry(TokenKeys::from_key_set(set.as_bytes()).unwrap()).await;
    assert_eq!(
        status(&registry, &signer.sign(&by_id("the-key"), &claims())).await,
        404
    );
    for id in ["a", "b", "c", "d", "e"] {
        assert_eq!(status(&registry, &signer.sign(&by_id(id), &claims())).await, 401);
    }
    let none = json!({ "keys": others }).to_string();
    assert!(TokenKeys::from_key_set(none.as_bytes()).is_err());
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, &"[".repeat(10_000)] {
        assert!(TokenKeys::from_key_set(text.as_bytes()).is_err());
    }
}
