//! `auth`: who a client is.

use std::path::Path;
use std::time::Duration;

use registry_http::Probed;
use registry_http::auth::TokenServerOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{
    FileOrUrl, FilePath, GoDuration, SecretUrl, UrlPath, is_url_path, plain_path, shown,
};

/// Who a client is: one of the keys, or none to let everybody do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Anyone may do anything.
    pub(crate) none: Option<NoKeys>,
    /// A mode for distribution's own tests that asks for credentials and takes any.
    pub(crate) silly: Option<Silly>,
    /// Users and passwords from a file.
    pub(crate) htpasswd: Option<Htpasswd>,
    /// Signed tokens from a server that issues them.
    pub(crate) token: Option<Token>,
}

/// How clients authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthKind {
    /// They do not.
    Nobody,
    /// With a name and a password.
    Htpasswd,
    /// With a token of this registry's own token server.
    OwnTokens,
    /// With a token of another token server.
    Tokens,
}

impl Auth {
    /// Returns how clients authenticate.
    pub(crate) const fn kind(&self) -> AuthKind {
        match (&self.htpasswd, &self.token) {
            (Some(_), _) => AuthKind::Htpasswd,
            (None, Some(token)) if token.builtin.is_some() => AuthKind::OwnTokens,
            (None, Some(_)) => AuthKind::Tokens,
            (None, None) => AuthKind::Nobody,
        }
    }

    /// Returns the files of users, each with the key that names it.
    pub(crate) fn files_of_users(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let htpasswd = self.htpasswd.as_ref();
        let builtin = self.token.as_ref().and_then(|token| token.builtin.as_ref());
        let files = [
            htpasswd.map(|htpasswd| (HTPASSWD_PATH, &*htpasswd.path)),
            builtin.map(|builtin| (BUILTIN_USERS, &*builtin.users)),
        ];
        files.into_iter().flatten()
    }

    /// Checks the values.
    pub(in crate::config) fn check(&self, problems: &mut Problems<'_>) {
        if let Some(token) = &self.token {
            token.check(problems);
        }
        if let Some(htpasswd) = &self.htpasswd {
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
}

/// The keys that name files of users.
pub(crate) const HTPASSWD_PATH: &str = "auth.htpasswd.path";
pub(crate) const BUILTIN_USERS: &str = "auth.token.builtin.users";

/// No keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NoKeys {}

/// Credentials are asked for, and any are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Silly {
    /// The name that clients show when they ask for a password.
    pub(crate) realm: Option<String>,
    /// The name of the registry.
    pub(crate) service: Option<String>,
}

/// Users and passwords from a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Htpasswd {
    /// The name that clients show when they ask for a password.
    pub(crate) realm: String,
    /// The file: lines of `USER:HASH` with bcrypt's hashes.
    pub(crate) path: FilePath,
}

/// Signed tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Token {
    /// The URL that clients get tokens from.
    pub(crate) realm: Option<String>,
    /// This registry's name, which tokens are for.
    pub(crate) service: Option<String>,
    /// The issuer that tokens must name.
    pub(crate) issuer: Option<String>,
    /// The file of certificates whose keys sign tokens, as PEM.
    #[serde(rename = "rootcertbundle")]
    pub(crate) root_certificates: Option<FilePath>,
    /// The keys that sign tokens as a JSON Web Key Set: a file or a URL.
    pub(crate) jwks: Option<FileOrUrl>,
    /// The algorithms that tokens may be signed with; by default all asymmetric ones.
    #[serde(rename = "signingalgorithms")]
    pub(crate) signing_algorithms: Vec<SigningAlgorithm>,
    /// The realm is this registry's own host, at `autoredirectpath`.
    #[serde(rename = "autoredirect")]
    pub(crate) auto_redirect: bool,
    /// The path of the realm with `autoredirect`, and of the tokens of `builtin`.
    #[serde(rename = "autoredirectpath")]
    pub(crate) auto_redirect_path: UrlPath,
    /// Tokens from this registry's own server, at `/auth/token`.
    pub(crate) builtin: Option<BuiltinTokens>,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            realm: None,
            service: None,
            issuer: None,
            root_certificates: None,
            jwks: None,
            signing_algorithms: Vec::new(),
            auto_redirect: false,
            auto_redirect_path: "/auth/token".into(),
            builtin: None,
        }
    }
}

impl Token {
    fn check(&self, problems: &mut Problems<'_>) {
        problems.required(
            "auth.token.service",
            self.service.is_none(),
            "write this registry's name, such as its host",
        );
        if self.builtin.is_none() {
            problems.required(
                "auth.token.realm",
                self.realm.is_none() && !self.auto_redirect,
                "write the URL that clients get tokens from",
            );
            problems.required(
                "auth.token.issuer",
                self.issuer.is_none(),
                "write what the tokens' `iss` says",
            );
            if self.root_certificates.is_none() && self.jwks.is_none() {
                problems.add(
                    "auth.token",
                    "there is no key to verify tokens with; give `rootcertbundle` or `jwks`, or `builtin` to issue tokens here",
                );
            }
        } else {
            for (path, given) in [
                ("auth.token.rootcertbundle", self.root_certificates.is_some()),
                ("auth.token.jwks", self.jwks.is_some()),
                (
                    "auth.token.signingalgorithms",
                    !self.signing_algorithms.is_empty(),
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
        self.check_paths(problems);
        if let Some(lifetime) = self.builtin.as_ref().map(|builtin| builtin.lifetime) {
            let shortest = TokenServerOptions::SHORTEST_LIFETIME;
            if lifetime.0 < shortest || lifetime.0 > LONGEST_TOKEN_LIFE {
                problems.add(
                    "auth.token.builtin.lifetime",
                    format!("is {lifetime}, and must be from 1m to 720h; write for example 5m"),
                );
            }
        }
        for (index, algorithm) in self.signing_algorithms.iter().enumerate() {
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
    fn check_paths(&self, problems: &mut Problems<'_>) {
        let realm = self.realm.as_ref().filter(|realm| !realm.is_empty());
        if realm.is_some_and(|realm| !SecretUrl::from(realm.clone()).is_http()) {
            problems.add(
                "auth.token.realm",
                "takes the URL that clients get tokens from, which begins with http:// or https://",
            );
        }
        let path = &self.auto_redirect_path;
        if !(self.auto_redirect || self.builtin.is_some()) {
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
        if plain == "/" || plain == "/v2" || plain.starts_with("/v2/") || Probed::answers_at(&plain) {
            problems.add(
                "auth.token.autoredirectpath",
                format!(
                    "is {}, which the registry itself answers; write for example /auth/token",
                    shown(path)
                ),
            );
        }
    }
}

/// How long a client gets new tokens without its password, and how long any token of ours may be valid. The keys that
/// signed a token are kept as long.
pub(crate) const LONGEST_TOKEN_LIFE: Duration = Duration::from_hours(30 * 24);

/// Tokens from this registry itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuiltinTokens {
    /// The file of users: lines of `USER:HASH` with bcrypt's hashes.
    pub(crate) users: FilePath,
    /// How long a token is valid, from 1m to 720h.
    #[serde(default = "five_minutes")]
    pub(crate) lifetime: GoDuration,
    /// The file of the keys that sign tokens, the same for all replicas; created if missing, except for a bucket, and never replaced. By default the keys are in the data folder, or in the bucket, where all replicas share them, and replaced every month.
    #[serde(default)]
    pub(crate) keys: Option<FilePath>,
}

fn five_minutes() -> GoDuration {
    GoDuration::from_secs(300)
}

/// An algorithm of RFC 7518 or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum SigningAlgorithm {
    /// Edwards curves.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSA with SHA-256.
    RS256,
    /// RSA with SHA-384.
    RS384,
    /// RSA with SHA-512.
    RS512,
    /// P-256 with SHA-256.
    ES256,
    /// P-384 with SHA-384.
    ES384,
    /// P-521 with SHA-512.
    ES512,
    /// RSA-PSS with SHA-256.
    PS256,
    /// RSA-PSS with SHA-384.
    PS384,
    /// RSA-PSS with SHA-512.
    PS512,
    /// A shared secret with SHA-256.
    HS256,
    /// A shared secret with SHA-384.
    HS384,
    /// A shared secret with SHA-512.
    HS512,
}
