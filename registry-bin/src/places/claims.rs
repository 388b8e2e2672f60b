//! Places that a server would use for two purposes and write for one of them. For example, audit lines in the file of
//! users lock all users out at the next start, and audit lines in the records destroy them.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use registry_storage::filesystem::own_files;
use registry_storage::outbox::Outbox;

use super::{OUTBOX_PATH, certificates_folder, outbox_file, resolved, signing_keys_file};
use crate::config::sections::http::Network;
use crate::config::values::FileOrUrl;
use crate::config::{Configuration, Loaded};
use crate::control;
use crate::failure::Failure;

/// How a server uses a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Reads it.
    Reads,
    /// Writes it, or creates a file or socket there.
    Writes,
    /// Has a folder there that others may use too.
    Shares,
    /// Has a folder there in which nothing else may be written.
    Owns,
}

/// A place and its use.
#[derive(Debug)]
struct Claim {
    /// The key that names it; `None` if it cannot be configured.
    key: Option<String>,
    /// The description of the place if another key names it too.
    whose: String,
    written: PathBuf,
    place: Place,
    purpose: Use,
}

/// The location of something that exists, or will be created.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// The device and inode of the last existing part of the path, and the parts after it. Hard links and mounts give
    /// one file several paths.
    identity: Option<((u64, u64), PathBuf)>,
}

impl Place {
    /// Returns `None` for a device or pipe, which several writers may share.
    fn of(path: &Path) -> Option<Self> {
        let kind = fs::metadata(path).ok().map(|found| found.file_type());
        if kind.is_some_and(|kind| kind.is_char_device() || kind.is_block_device() || kind.is_fifo()) {
            return None;
        }
        let path = resolved(path);
        let identity = path.ancestors().find_map(|there| {
            let found = there.metadata().ok()?;
            let rest = path.strip_prefix(there).ok()?;
            Some(((found.dev(), found.ino()), rest.to_owned()))
        });
        Some(Self { path, identity })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.path == other.path || self.identity.is_some() && self.identity == other.identity
    }

    fn is_below(&self, other: &Self) -> bool {
        self.path != other.path && self.path.starts_with(&other.path)
    }
}

/// Refuses places that a server would use for two purposes.
///
/// # Errors
/// The first key that names such a place, and the other use.
pub(crate) fn require_apart(loaded: &Loaded) -> Result<(), Failure> {
    failures(loaded).into_iter().next().map_or(Ok(()), Err)
}

/// Returns a failure for each place that has two uses.
pub(crate) fn failures(loaded: &Loaded) -> Vec<Failure> {
    let claims = claims(loaded);
    let mut failures = Vec::new();
    for (index, later) in claims.iter().enumerate() {
        let Some(key) = &later.key else { continue };
        let mut earlier = claims.iter().take(index);
        if let Some(problem) = earlier.find_map(|earlier| problem(earlier, later)) {
            failures.push(Failure::of(key, problem));
        }
    }
    failures
}

/// Describes how two claims conflict. Returns `None` if they do not.
fn problem(earlier: &Claim, later: &Claim) -> Option<String> {
    let (one, other) = (&earlier.place, &later.place);
    let (place, first) = (later.written.display(), earlier.written.display());
    let whose = &earlier.whose;
    let is_in_the_way = |above: Use, below: Use| match above {
        Use::Writes => true,
        Use::Owns => below != Use::Reads,
        Use::Reads | Use::Shares => false,
    };
    if one.is_same(other) {
        let is_read_only = earlier.purpose == Use::Reads && later.purpose == Use::Reads;
        (!is_read_only).then(|| format!("{place} is {whose}; name another place"))
    } else if other.is_below(one) && is_in_the_way(earlier.purpose, later.purpose) {
        Some(format!(
            "{place} is below {first}, which is {whose}; name another place"
        ))
    } else if one.is_below(other) && is_in_the_way(later.purpose, earlier.purpose) {
        Some(format!(
            "{place} would be no folder, and below it is {first}, which is {whose}; name another place"
        ))
    } else {
        None
    }
}

/// Returns the places that a server uses: its own first, then what it reads, then what it writes.
fn claims(loaded: &Loaded) -> Vec<Claim> {
    let configuration = &loaded.configuration;
    let (http, auth, audit) = (&configuration.http, &configuration.auth, &configuration.log.audit);
    let mut claims = Claims::default();
    if let Some(file) = &loaded.file {
        claims.add(None, "the configuration", file, Use::Reads);
    }
    let outbox = &configuration.notifications.outbox;
    let builtin = auth.token.as_ref().and_then(|token| token.builtin.as_ref());
    if let Some(filesystem) = &configuration.storage.filesystem {
        let root: &Path = &filesystem.root;
        claims.add_key("storage.filesystem.rootdirectory", root, Use::Shares);
        let mut own = own_places(root);
        if builtin.is_some_and(|builtin| builtin.keys.is_none()) {
            own.push((signing_keys_file(root), Use::Writes));
        }
        if outbox.path.is_none() {
            let files = Outbox::files(&outbox_file(root));
            own.extend(files.map(|path| (path, Use::Writes)));
        }
        for (path, purpose) in own {
            claims.add(None, "where the registry keeps its own files", &path, purpose);
        }
    }
    for (key, path) in read_files(configuration) {
        claims.add_key(&key, path, Use::Reads);
    }
    // These may be created.
    for (key, path) in auth.files_of_users() {
        claims.add_key(key, path, Use::Writes);
    }
    if let Some(keys) = builtin.and_then(|builtin| builtin.keys.as_ref()) {
        claims.add_key("auth.token.builtin.keys", keys, Use::Writes);
    }
    for (index, check) in configuration.health.file.iter().enumerate() {
        claims.add_key(&format!("health.file[{index}].file"), &check.file, Use::Reads);
    }
    if let Some(path) = &outbox.path {
        for path in Outbox::files(path) {
            claims.add_key(OUTBOX_PATH, &path, Use::Writes);
        }
    }
    if let Some(folder) = &configuration.backup.folder {
        claims.add_key("backup.folder", folder, Use::Shares);
    }
    if let Some(folder) = &configuration.storage.cache.folder {
        claims.add_key("storage.cache.folder", folder, Use::Owns);
    }
    if http.net == Network::Unix {
        claims.add_key("http.addr", Path::new(&http.addr), Use::Writes);
    }
    if let Some(path) = audit.path.as_ref().filter(|_| audit.is_on()) {
        claims.add_key("log.audit.path", path, Use::Writes);
    }
    claims.0
}

/// Returns the files that are only read, each with the key that names it.
fn read_files(configuration: &Configuration) -> Vec<(String, &Path)> {
    let tls = &configuration.http.tls;
    let token = configuration.auth.token.as_ref();
    let key_set = token.and_then(|token| match &token.jwks {
        Some(FileOrUrl::File(path)) => Some(path),
        _ => None,
    });
    let files = [
        ("http.tls.certificate", tls.certificate.as_ref()),
        ("http.tls.key", tls.key.as_ref()),
        (
            "auth.token.rootcertbundle",
            token.and_then(|token| token.root_certificates.as_ref()),
        ),
        ("auth.token.jwks", key_set),
        (
            "storage.gcs.keyfile",
            configuration
                .storage
                .gcs
                .as_ref()
                .and_then(|gcs| gcs.key_file.as_ref()),
        ),
    ];
    let authorities = tls.client_authorities.iter().enumerate();
    let authorities = authorities.map(|(index, path)| (format!("http.tls.clientcas[{index}]"), &**path));
    files
        .into_iter()
        .filter_map(|(key, path)| Some((key.to_owned(), &**path?)))
        .chain(authorities)
        .collect()
}

/// Returns what a server creates below its root by itself.
fn own_places(root: &Path) -> Vec<(PathBuf, Use)> {
    let own = own_files(root).into_iter().chain(control::socket_places(root));
    own.chain([certificates_folder(root)])
        .map(|path| (path, Use::Owns))
        .collect()
}

#[derive(Debug, Default)]
struct Claims(Vec<Claim>);

impl Claims {
    /// Adds the place that a key names.
    fn add_key(&mut self, key: &str, path: &Path, purpose: Use) {
        self.add(Some(key), &format!("what `{key}` names"), path, purpose);
    }

    fn add(&mut self, key: Option<&str>, whose: &str, path: &Path, purpose: Use) {
        let Some(place) = Place::of(path).filter(|_| !path.as_os_str().is_empty()) else {
            return;
        };
        self.0.push(Claim {
            key: key.map(str::to_owned),
            whose: whose.to_owned(),
            written: path.to_owned(),
            place,
            purpose,
        });
    }
}
