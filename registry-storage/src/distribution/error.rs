//! Why a tree was not adopted.

use std::io;
use std::path::PathBuf;

use registry_core::{Error, Timestamp};

use crate::backend::NotOnDisk;
use crate::filesystem::LinkError;

/// Why a tree was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// A file of the tree cannot get a second name, so its bytes would have to be copied.
    #[error("{} cannot get a second name beside the records of this registry; {}", file.display(), remedy(cause))]
    Link {
        /// The file.
        file: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// The store has content that does not come from the tree.
    #[error(
        "the store has content of its own already; adopt again to add what the tree has, where the newer of two tags wins"
    )]
    OwnContent,
    /// Another adoption into this store is in progress.
    #[error("an adoption goes on already")]
    Running,
    /// The tree was adopted before.
    #[error("the tree was adopted at {0} already; adopt again to add what it has since")]
    Finished(Timestamp),
    /// An export into the tree in the bucket began and did not end, and a link of the tree says something else than what is here.
    #[error(
        "{key} was written at {written}, and says something else than what is here: maybe by an export into this bucket that goes on, or \
         was not ended, so it is not adopted by itself; if no export goes on, adopt again to add it"
    )]
    Exporting {
        /// The link.
        key: String,
        /// When it was written, by the clock of the bucket.
        written: Timestamp,
    },
    /// The tree in the bucket was released at this time: its content is this store's, and may be gone.
    #[error(
        "the tree was released at {0}, so nothing more of it can be adopted; copy what it has with a client"
    )]
    Released(Timestamp),
    /// Only a store in a folder can adopt a tree there.
    #[error(transparent)]
    NotOnDisk(#[from] NotOnDisk),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Returns what to do when a file cannot be linked.
fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::CrossesDevices => {
            "the folder `docker` and this registry's files have to be on one file system and in one mount"
        }
        io::ErrorKind::PermissionDenied => {
            "run this registry as the owner of the files, or change their owner; a file system without hard links has to \
             be left for another one"
        }
        io::ErrorKind::Unsupported => "the file system has no hard links; move the data to one that has",
        io::ErrorKind::TooManyLinks => {
            "the file has as many names as the file system allows; put a copy in its place"
        }
        _ => "nothing was changed in the tree; start again to go on",
    }
}

impl From<LinkError> for AdoptError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused { file, cause } => Self::Link { file, cause },
            LinkError::Storage(error) => Self::Storage(error),
        }
    }
}
