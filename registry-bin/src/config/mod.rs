//! What to serve, from the command line and the configuration file.

mod file;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use crate::cli::{LogLevel, Serve};
use crate::failure::Failure;
use crate::logging::Logging;

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) storage: StorageLocation,
    pub(crate) delete_enabled: bool,
    pub(crate) logging: Logging,
}

/// Where a registry keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageLocation {
    Memory,
    Folder(PathBuf),
    Bucket(String),
}

const DEFAULT_LISTEN: &str = "127.0.0.1:5000";
const DEFAULT_FOLDER: &str = "registry-data";

impl Config {
    /// Reads the file that the command line names, if any; what the command line says itself goes first.
    pub(crate) fn load(serve: &Serve) -> Result<Self, Failure> {
        let file = serve.config.as_deref().map(read).transpose()?;
        let listen = serve
            .listen
            .as_deref()
            .or_else(|| file.as_ref().and_then(|file| file.listen.as_deref()));
        let storage = match (&serve.storage, &file) {
            (Some(location), _) => StorageLocation::parse(location)?,
            (None, Some(file)) => file.storage.clone(),
            (None, None) => StorageLocation::Folder(DEFAULT_FOLDER.into()),
        };
        let level = serve
            .log_level
            .or_else(|| file.as_ref().and_then(|file| file.log_level));
        Ok(Self {
            listen: resolve(listen.unwrap_or(DEFAULT_LISTEN))?,
            storage,
            delete_enabled: file.as_ref().is_none_or(|file| file.delete_enabled),
            logging: Logging {
                format: serve.log_format,
                level: level.unwrap_or(LogLevel::Info),
                access: file.as_ref().is_none_or(|file| file.access_log),
            },
        })
    }
}

impl StorageLocation {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text.split_once("://") {
            _ if text == "memory" => Ok(Self::Memory),
            Some(("s3", _)) => Ok(Self::Bucket(text.to_owned())),
            Some((scheme, _)) => {
                let message = format!(
                    "--storage {text}: {scheme}:// is not known; use memory, a folder or s3://BUCKET/PREFIX"
                );
                Err(Failure::new(message))
            }
            None if text.is_empty() => Err(Failure::new(
                "--storage is empty; use memory, a folder or s3://BUCKET/PREFIX",
            )),
            None => Ok(Self::Folder(text.into())),
        }
    }
}

impl std::fmt::Display for StorageLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory (gone when the server ends)"),
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

fn read(path: &Path) -> Result<file::ConfigFile, Failure> {
    let failed = || Failure::new(format!("cannot read the configuration {}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|cause| failed().because(cause))?;
    file::parse(&text).map_err(|cause| Failure::new(format!("{}: {cause}", path.display())))
}

/// Finds the address to listen on. As in Go, no host means all addresses.
fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let failed = || {
        Failure::new(format!(
            "cannot listen on {text:?}; say ADDRESS:PORT, for example {DEFAULT_LISTEN}"
        ))
    };
    let full = if text.starts_with(':') {
        format!("[::]{text}")
    } else {
        text.to_owned()
    };
    let mut addresses = full.to_socket_addrs().map_err(|cause| failed().because(cause))?;
    addresses.next().ok_or_else(failed)
}
