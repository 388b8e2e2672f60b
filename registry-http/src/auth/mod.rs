//! Authenticators for the names and passwords of an htpasswd file and for the tokens of a token server, and a token
//! server.

#[cfg(feature = "htpasswd")]
mod basic;
#[cfg(feature = "token")]
mod clock;
mod credentials;
#[cfg(feature = "htpasswd")]
mod htpasswd;
#[cfg(feature = "token")]
mod libtrust;
#[cfg(feature = "htpasswd")]
mod passwords;
#[cfg(feature = "token")]
mod signing_algorithm;
#[cfg(feature = "token-server")]
mod signing_keys;
#[cfg(feature = "token")]
mod token;
#[cfg(feature = "token")]
mod token_keys;
#[cfg(feature = "token-server")]
mod token_server;

#[cfg(feature = "htpasswd")]
pub use self::basic::BasicAuthenticator;
#[cfg(feature = "htpasswd")]
pub use self::htpasswd::{
    Htpasswd, HtpasswdLine, InvalidCredentials, InvalidHtpasswd, ReplacedLine, UnusableUser,
};
#[cfg(feature = "htpasswd")]
pub use self::passwords::Passwords;
#[cfg(feature = "token")]
pub use self::signing_algorithm::SigningAlgorithm;
#[cfg(feature = "token-server")]
pub use self::signing_keys::{InvalidSigningKeys, SigningKeys};
#[cfg(feature = "token")]
pub use self::token::{Realm, TokenAuthenticator, TokenOptions};
#[cfg(feature = "token")]
pub use self::token_keys::{InvalidTokenKeys, LeftOutKey, NotJson, TokenKeys};
#[cfg(feature = "token-server")]
pub use self::token_server::{TokenServer, TokenServerOptions};
