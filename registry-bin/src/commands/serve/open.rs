//! Opening the port and the data, in an order that lets one server take over from another.

use registry_http::Health;

use super::listen::{Inherited, Reserved};
use super::signals::Signals;
use super::{adopt, service_manager};
use crate::config::Configuration;
use crate::config::sections::http::Http;
use crate::failure::Failure;
use crate::storage::{OpenStorage, StorageLocation};

/// A server that has reserved its port, or will do so later, and has not opened its data yet.
pub(super) enum Opening {
    Reserved(Reserved),
    Waiting(Vec<Inherited>),
}

impl Opening {
    /// Reserves the port before the storage is opened, so that a second server that was started by mistake reports it.
    /// With `wait`, the port is left alone meanwhile, because the server that has the storage may have it.
    pub(super) fn new(http: &Http, inherited: Vec<Inherited>, wait: bool) -> Result<Self, Failure> {
        if wait {
            Ok(Self::Waiting(inherited))
        } else {
            Reserved::new(http, inherited).map(Self::Reserved)
        }
    }

    /// Opens the storage, and adopts what registry:2 left there. Returns `None` if a signal came first.
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
