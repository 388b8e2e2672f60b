//! `auth`: who a client is.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{FileOrUrl, FilePath, GoDuration, UrlPath};

/// Who a client is: one of the keys, or none to let everybody do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Anyone may do anything.
    pub(crate) none: Option<Nothing>,
    /// A mode for distribution's own tests that asks for credentials and takes any.
    pub(crate) silly: Option<Silly>,
    /// Users and passwords from a file.
    pub(crate) htpasswd: Option<Htpasswd>,
    /// Signed tokens from a server that issues them.
    pub(crate) token: Option<Token>,
}

/// How clients authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
    pub(crate) const fn kind(&self) -> Kind {
        match (&self.htpasswd, &self.token) {
            (Some(_), _) => Kind::Htpasswd,
            (None, Some(token)) if token.builtin.is_some() => Kind::OwnTokens,
            (None, Some(_)) => Kind::Tokens,
            (None, None) => Kind::Nobody,
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
}

/// The keys that name files of users.
pub(crate) const HTPASSWD_PATH: &str = "auth.htpasswd.path";
pub(crate) const BUILTIN_USERS: &str = "auth.token.builtin.users";

/// No keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nothing {}

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
    /// The file of the keys that sign tokens, for replicas that share it; created if missing. By default the keys are in the data folder and replaced every month.
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
