//! From the port to the data, in the order that lets one server follow another.

use registry_http::Health;

use super::listen::{Inherited, Reserved};
use super::signals::Signals;
use super::{adopt, service_manager};
use crate::config::Configuration;
use crate::config::sections::http::Http;
use crate::failure::Failure;
use crate::storage::{OpenStorage, StorageLocation};

/// A server that has its port, or may take it, and not yet its data.
pub(super) enum Opening {
    Reserved(Reserved),
    Waiting(Vec<Inherited>),
}

impl Opening {
    /// The port before the storage: whoever starts a second server by mistake should learn that. One that waits leaves
    /// the port alone meanwhile: the server that has the storage may have it.
    pub(super) fn new(http: &Http, inherited: Vec<Inherited>, wait: bool) -> Result<Self, Failure> {
        if wait {
            Ok(Self::Waiting(inherited))
        } else {
            Reserved::new(http, inherited).map(Self::Reserved)
        }
    }

    /// Opens the storage, and adopts what registry:2 left there. Nothing, if a signal came first.
    pub(super) async fn storage(
        self,
        configuration: &Configuration,
        location: &StorageLocation,
        open_files: usize,
        health: &Health,
        signals: &mut Signals,
    ) -> Result<Option<(OpenStorage, Reserved)>, Failure> {
        let wait = matches!(self, Self::Waiting(_));
        service_manager::status(if wait {
            "opening the storage, waiting for another server that has it"
        } else {
            "opening the storage"
        });
        let storage = tokio::select! {
            storage = OpenStorage::open(location, &configuration.storage.maintenance, open_files, wait) => storage?,
            () = signals.next() => return Ok(None),
        };
        let reserved = match self {
            Self::Reserved(reserved) => reserved,
            Self::Waiting(inherited) => Reserved::new(&configuration.http, inherited)?,
        };
        let adopted = tokio::select! {
            adopted = adopt::adopt(location, &storage.store, health) => adopted.map(|()| true),
            () = signals.next() => Ok(false),
        };
        if !matches!(adopted, Ok(true)) {
            storage.close().await?;
            return adopted.map(|_| None);
        }
        Ok(Some((storage, reserved)))
    }
}
