//! Which endpoint a path means.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, ErrorCode};
use crate::percent;

/// What separates the name of a repository from an endpoint that is not of the specification but of this registry. No
/// component of a name begins with an underscore, so the first one is it (distribution-spec, "API", on extensions).
const EXTENSION: &str = "/_registry/";

/// The resource that a path names; `name`, `digest` and so on are not validated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v2/`
    Version,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags { name: &'a str },
    /// `/v2/<name>/referrers/<digest>`
    Referrers { name: &'a str, digest: &'a str },
    /// `/v2/<name>/manifests/<reference>`
    Manifest { name: &'a str, reference: &'a str },
    /// `/v2/<name>/blobs/<digest>`
    Blob { name: &'a str, digest: &'a str },
    /// `/v2/<name>/blobs/uploads/`
    Uploads { name: &'a str },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload { name: &'a str, id: &'a str },
    /// `/v2/<name>/_registry/repository`
    Repository { name: &'a str },
    /// `/v2/<name>/_registry/tags/history`
    TagHistory { name: &'a str },
    /// `/v2/<name>/_registry/tags/restore`
    RestoreTag { name: &'a str },
}

impl<'a> Route<'a> {
    /// Finds the resource of a decoded path. `/v2` and the paths of uploads may end with a slash or not.
    ///
    /// A name contains slashes and may contain the words of the endpoints, so the path is parsed from its end.
    ///
    /// # Errors
    /// [`ErrorCode::PathUnknown`].
    pub(super) fn of(path: &'a str) -> Result<Self, Error> {
        if path == "/v2" || path == "/v2/" {
            return Ok(Self::Version);
        }
        let unknown = || Error::from(ErrorCode::PathUnknown);
        let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        if let Some((name, component)) = rest.split_once(EXTENSION) {
            return Self::of_extension(name, component);
        }
        let bare = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(name) = bare.strip_suffix("/blobs/uploads") {
            return Ok(Self::Uploads { name });
        }
        if let Some((uploads, id)) = bare.rsplit_once('/')
            && let Some(name) = uploads.strip_suffix("/blobs/uploads")
        {
            return Ok(Self::Upload { name, id });
        }
        let (front, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let (name, kind) = front.rsplit_once('/').ok_or_else(unknown)?;
        match (kind, last) {
            (_, "") => Err(unknown()),
            ("tags", "list") => Ok(Self::Tags { name }),
            ("referrers", digest) => Ok(Self::Referrers { name, digest }),
            ("manifests", reference) => Ok(Self::Manifest { name, reference }),
            ("blobs", digest) => Ok(Self::Blob { name, digest }),
            _ => Err(unknown()),
        }
    }

    /// Finds the resource of a path within this registry's extension of a repository.
    fn of_extension(name: &'a str, component: &str) -> Result<Self, Error> {
        match component {
            "repository" => Ok(Self::Repository { name }),
            "tags/history" => Ok(Self::TagHistory { name }),
            "tags/restore" => Ok(Self::RestoreTag { name }),
            _ => Err(ErrorCode::PathUnknown.into()),
        }
    }

    /// Returns the methods of the resource as the field `Allow` lists them. `OPTIONS` is left to the transport.
    pub(super) const fn methods(self) -> &'static str {
        match self {
            Self::Version
            | Self::Catalog
            | Self::Tags { .. }
            | Self::Referrers { .. }
            | Self::TagHistory { .. } => "GET, HEAD, OPTIONS",
            Self::Manifest { .. } => "GET, HEAD, PUT, DELETE, OPTIONS",
            Self::Blob { .. } => "GET, HEAD, DELETE, OPTIONS",
            Self::Uploads { .. } | Self::RestoreTag { .. } => "POST, OPTIONS",
            Self::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE, OPTIONS",
            Self::Repository { .. } => "DELETE, OPTIONS",
        }
    }
}

/// Returns the methods of a target as the field `Allow` lists them; `None` if no endpoint has its path.
///
/// It is the answer to `OPTIONS`, which a browser sends before a page of another origin may make a request.
#[must_use]
pub fn allowed_methods(target: &str) -> Option<&'static str> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let path = percent::decode(path)?;
    Route::of(&path).ok().map(Route::methods)
}

/// Returns the clean form of an unclean target, if its path is that of an endpoint or `/`.
///
/// As at the distribution registry, `//v2/`, `/v2/_catalog/` and `/v2/./x/../_catalog` are redirected to `/v2/`, `/v2/_catalog`
/// and `/v2/_catalog`. The result begins with exactly one slash, so it never leads to another host. Returns `None` for a target
/// that is clean, or that leads to no endpoint.
#[must_use]
pub fn clean_target(target: &str) -> Option<String> {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let path = percent::decode(path)?;
    if !(path.contains("//") || path.contains("/.") || path.ends_with('/')) {
        return None;
    }
    let mut segments = Vec::new();
    let mut has_dots = false;
    for segment in path.split('/') {
        match segment {
            "" => {}
            "." => has_dots = true,
            ".." => {
                has_dots = true;
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if clean == "/v2" {
        clean.push('/');
    }
    let is_known = clean == "/" || Route::of(&clean).is_ok();
    let is_wrong = has_dots || path.contains("//") || Route::of(&path).is_err();
    (is_known && is_wrong && clean != path).then(|| format!("{}{query}", percent::Encoded(&clean)))
}
