//! The requirements on tokens, according to `auth.token`.

use registry_http::auth::{Realm, SigningAlgorithm, TokenAuthenticator, TokenOptions};

use crate::config::sections::auth::{self, Token};

/// Returns the requirements on tokens, and where clients get them.
pub(super) fn token_options(token: &Token) -> TokenOptions {
    let path = &token.auto_redirect_path;
    let realm = match &token.realm {
        Some(url) if !url.is_empty() && !token.auto_redirect => Realm::Url(url.clone()),
        _ => Realm::Path(path.to_string()),
    };
    let service = token.service.clone().unwrap_or_default();
    let algorithms = token
        .signing_algorithms
        .iter()
        .filter_map(|name| algorithm(*name));
    let mut algorithms: Vec<_> = algorithms.collect();
    if token.signing_algorithms.is_empty() {
        algorithms = TokenAuthenticator::ALGORITHMS.to_vec();
    }
    if token.builtin.is_some() {
        algorithms = vec![SigningAlgorithm::ES256];
    }
    TokenOptions {
        realm,
        issuer: token.issuer.clone().unwrap_or_else(|| service.clone()),
        service,
        algorithms,
    }
}

const fn algorithm(name: auth::SigningAlgorithm) -> Option<SigningAlgorithm> {
    use auth::SigningAlgorithm as Name;
    Some(match name {
        Name::EdDsa => SigningAlgorithm::EdDSA,
        Name::RS256 => SigningAlgorithm::RS256,
        Name::RS384 => SigningAlgorithm::RS384,
        Name::RS512 => SigningAlgorithm::RS512,
        Name::ES256 => SigningAlgorithm::ES256,
        Name::ES384 => SigningAlgorithm::ES384,
        Name::PS256 => SigningAlgorithm::PS256,
        Name::PS384 => SigningAlgorithm::PS384,
        Name::PS512 => SigningAlgorithm::PS512,
        // The check of the configuration refuses these.
        Name::ES512 | Name::HS256 | Name::HS384 | Name::HS512 => return None,
    })
}
