//! Constraints on `auth`.

use registry_http::auth::TokenServerOptions;

use super::Problems;
use crate::config::sections::auth::{Auth, LONGEST_TOKEN_LIFE, SigningAlgorithm, Token};
use crate::config::values::{SecretUrl, is_url_path, plain_path, shown};

pub(super) fn check(auth: &Auth, problems: &mut Problems<'_>) {
    if let Some(token) = &auth.token {
        check_token(token, problems);
    }
    if let Some(htpasswd) = &auth.htpasswd {
        problems.required(
            "auth.htpasswd.realm",
            htpasswd.realm.is_empty(),
            "write for example `realm: Registry`",
        );
        problems.required(
            "auth.htpasswd.path",
            htpasswd.path.as_os_str().is_empty(),
            "name the file of users",
        );
    }
}

fn check_token(token: &Token, problems: &mut Problems<'_>) {
    problems.required(
        "auth.token.service",
        token.service.is_none(),
        "write this registry's name, such as its host",
    );
    if token.builtin.is_none() {
        problems.required(
            "auth.token.realm",
            token.realm.is_none() && !token.auto_redirect,
            "write the URL that clients get tokens from",
        );
        problems.required(
            "auth.token.issuer",
            token.issuer.is_none(),
            "write what the tokens' `iss` says",
        );
        if token.root_certificates.is_none() && token.jwks.is_none() {
            problems.add(
                "auth.token",
                "there is no key to verify tokens with; give `rootcertbundle` or `jwks`, or `builtin` to issue tokens here",
            );
        }
    } else {
        for (path, given) in [
            ("auth.token.rootcertbundle", token.root_certificates.is_some()),
            ("auth.token.jwks", token.jwks.is_some()),
            (
                "auth.token.signingalgorithms",
                !token.signing_algorithms.is_empty(),
            ),
        ] {
            if given {
                problems.add(
                    path,
                    "is for tokens from elsewhere, but `builtin` issues them here; keep one",
                );
            }
        }
    }
    check_paths(token, problems);
    if let Some(lifetime) = token.builtin.as_ref().map(|builtin| builtin.lifetime) {
        let shortest = TokenServerOptions::SHORTEST_LIFETIME;
        if lifetime.0 < shortest || lifetime.0 > LONGEST_TOKEN_LIFE {
            problems.add(
                "auth.token.builtin.lifetime",
                format!("is {lifetime}, and must be from 1m to 720h; write for example 5m"),
            );
        }
    }
    for (index, algorithm) in token.signing_algorithms.iter().enumerate() {
        let reason = match algorithm {
            SigningAlgorithm::ES512 => "is not supported; use ES256 or ES384",
            SigningAlgorithm::HS256 | SigningAlgorithm::HS384 | SigningAlgorithm::HS512 => {
                "is a shared secret: whoever verifies tokens by it could issue them; use ES256, RS256 or EdDSA"
            }
            _ => continue,
        };
        problems.add(&format!("auth.token.signingalgorithms[{index}]"), reason);
    }
}

/// Checks where clients get tokens: a URL, or a path of this registry.
fn check_paths(token: &Token, problems: &mut Problems<'_>) {
    let realm = token.realm.as_ref().filter(|realm| !realm.is_empty());
    if realm.is_some_and(|realm| !SecretUrl::from(realm.clone()).is_http()) {
        problems.add(
            "auth.token.realm",
            "takes the URL that clients get tokens from, which begins with http:// or https://",
        );
    }
    let path = &token.auto_redirect_path;
    if !(token.auto_redirect || token.builtin.is_some()) {
        return;
    }
    if !is_url_path(path) {
        problems.add(
            "auth.token.autoredirectpath",
            "takes a path without escapes that begins with a slash, such as /auth/token",
        );
        return;
    }
    let plain = plain_path(path);
    if plain == "/" || plain == "/v2" || plain.starts_with("/v2/") {
        problems.add(
            "auth.token.autoredirectpath",
            format!(
                "is {}, which the registry itself answers; write for example /auth/token",
                shown(path)
            ),
        );
    }
}
