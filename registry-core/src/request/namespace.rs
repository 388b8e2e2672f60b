//! The registry that a mirror acts for.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use super::Request;
use crate::error::{Error, ErrorCode};
use crate::name::RepositoryName;

/// The host, with an optional port, of the registry that a client means when it asks a mirror: the parameter `ns`
/// (distribution-spec, "Registry Proxying").
///
/// 1 to 255 letters, digits and `.-_:[]`, which makes it safe in a header field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Box<str>);

impl Namespace {
    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the repository's full name, whose first component is the host in lower case: `docker.io` makes
    /// `library/alpine` to `docker.io/library/alpine`. A name that already begins with the host stays as it is, because
    /// clients repeat `ns` when they follow a link of the registry.
    ///
    /// Returns `None` if the host is not a valid component of a name, as with a port, or the name becomes too long.
    #[must_use]
    pub fn full_name(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let host = self.0.to_ascii_lowercase();
        let is_full = |name: &str| {
            name.strip_prefix(host.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if is_full(repository.as_str()) {
            return Some(repository.clone());
        }
        format!("{host}/{repository}").parse().ok()
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if (1..=255).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                ErrorCode::NameInvalid,
                "ns is the host and port of a registry",
            ))
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Maps the namespace of a request and the repository that it names to the repository's name in this registry.
///
/// It returns `None` if the registry does not act for that namespace, and then `ns` is ignored. Otherwise it usually
/// returns [`Namespace::full_name`]. It answers from memory.
pub type NamespaceResolver = Arc<dyn Fn(&Namespace, &RepositoryName) -> Option<RepositoryName> + Send + Sync>;

/// A request that names its repository by the name that it has in this registry.
///
/// It carries no namespace to resolve any more, so a namespace is resolved once. It is created by
/// [`Registry::resolve`](crate::Registry::resolve).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedRequest {
    request: Request,
    namespace: Option<Namespace>,
}

impl ResolvedRequest {
    /// Resolves the namespace of a request, if it has one that `resolver` knows.
    pub(crate) fn new(mut request: Request, resolver: Option<&NamespaceResolver>) -> Self {
        let mut resolved = None;
        if let Some((repository, namespace)) = request.named_mut()
            && let Some(namespace) = namespace.take()
            && let Some(name) = resolver.and_then(|resolver| resolver(&namespace, repository))
        {
            *repository = name;
            resolved = Some(namespace);
        }
        Self {
            request,
            namespace: resolved,
        }
    }

    /// Returns the request, whose [`namespace`](Request::namespace) is `None`.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the namespace that is part of the repository's name now, which the answer repeats in `OCI-Namespace`;
    /// `None` if the request had none, or it was ignored.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;

    use super::*;

    #[test]
    fn a_full_name_begins_with_the_host_once() {
        let full = |host: &str, name: &str| {
            let namespace: Namespace = host.parse().unwrap();
            let name = namespace.full_name(&name.parse().unwrap());
            name.map(|name| name.as_str().to_owned())
        };
        for (host, name, expected) in [
            ("docker.io", "library/alpine", Some("docker.io/library/alpine")),
            ("Docker.IO", "alpine", Some("docker.io/alpine")),
            ("docker.io", "docker.io/alpine", Some("docker.io/alpine")),
            (
                "docker.io",
                "docker.iox/alpine",
                Some("docker.io/docker.iox/alpine"),
            ),
            ("docker.io", "docker.io", Some("docker.io/docker.io")),
            ("localhost:5000", "alpine", None),
            ("[::1]", "alpine", None),
        ] {
            assert_eq!(full(host, name).as_deref(), expected, "{host} {name}");
        }
        let longest = "a".repeat(250);
        assert_eq!(full("ghcr.io", &longest), None, "the name would be too long");
    }
}
