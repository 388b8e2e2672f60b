//! Commands that work on a store: if a server has it, that server runs them when asked through its socket; otherwise
//! this process does.
//!
//! A [`Command`] is complete in itself. It runs on either side of the socket, and reports its progress to a [`Reporter`];
//! [`execute`] decides which side, and shows the messages.

mod client;
mod command;
mod message;
mod reporter;
pub(crate) mod server;
pub(crate) mod show;
mod socket;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_storage::filesystem::{FilesystemBackend, FilesystemOptions, OpenError, is_root, is_writable};
use registry_storage::{Maintenance, MaintenanceObserver, ObjectStoreBackend, Store, distribution};
use serde::Serialize;

use self::client::Connection;
pub(crate) use self::command::{Bounds, Command, NewFolder};
pub(crate) use self::message::Outcome;
use self::reporter::Messages;
pub(crate) use self::reporter::Reporter;
use self::show::Show;
pub(crate) use self::socket::{
    PATH_BYTES as SOCKET_PATH_BYTES, check as check_socket, places as socket_places,
};
use crate::adoption;
use crate::config::Configuration;
use crate::failure::Failure;
use crate::ownership::{self, WithOwner as _, cannot_look_into, with_remedy};
use crate::storage::{self, StorageLocation, store};

/// Runs a command and shows its progress. Returns `false` if it found a fault in the registry.
pub(crate) fn execute(
    configuration: &Configuration,
    command: impl Command + Serialize,
) -> Result<bool, Failure> {
    let outcome = block_on(dispatch(configuration, command))?;
    // A command that printed all it had to say as it went has no text.
    if !outcome.text.is_empty() {
        show::print(&outcome.text)?;
    }
    Ok(outcome.is_success)
}

/// Runs a command, and shows only what is wrong. Returns `false` if it found a fault in the registry.
pub(crate) fn execute_quietly(
    configuration: &Configuration,
    command: impl Command + Serialize,
) -> Result<bool, Failure> {
    let outcome = block_on(dispatch(configuration, command))?;
    if !outcome.is_success {
        show::print(&outcome.text)?;
    }
    Ok(outcome.is_success)
}

/// Does work that is never done by a server, shows its progress, and prints the result.
pub(crate) fn with_progress(
    work: impl AsyncFnOnce(Arc<dyn MaintenanceObserver>) -> Result<String, Failure>,
) -> Result<(), Failure> {
    with_reporter(async |reporter| work(Arc::new(reporter)).await)
}

/// Like [`with_progress`], for work that also prints lines.
pub(crate) fn with_reporter(
    work: impl AsyncFnOnce(Reporter) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let (reporter, messages) = Reporter::new();
    let text = block_on(while_showing(messages, work(reporter)))?;
    show::print(&text)
}

/// Returns the absolute path, for a process that runs in another folder.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    if path == Path::new("-") {
        return Err(Failure::new(
            "- is no stream here, as another process may do the work; name a file, and ./- for one of that name",
        ));
    }
    std::path::absolute(path)
        .map_err(|cause| Failure::new(format!("{} is no path", path.display())).because(cause))
}

fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new("cannot start threads").because(cause))?
        .block_on(command)
}

async fn dispatch(
    configuration: &Configuration,
    command: impl Command + Serialize,
) -> Result<Outcome, Failure> {
    let location = StorageLocation::of(&configuration.storage)?;
    if configuration.storage.maintenance.read_only.enabled && command.changes_content() {
        return Err(Failure::new(format!(
            "the configuration of {location} says `storage.maintenance.readonly.enabled`, so nothing is changed there; remove that first"
        )));
    }
    let usage = Usage {
        only_reads: command.only_reads(),
        new_folder: command.new_folder(),
    };
    match find(&location, configuration, usage).await? {
        Found::Server(connection) => {
            let show = Show::new();
            let outcome = unless_interrupted(connection.ask(&command, &show)).await;
            show.end();
            outcome
        }
        Found::Store(store) => run_in_this_process(&*store, command).await,
    }
}

/// What a command does with a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Nothing is written.
    pub(crate) only_reads: bool,
    pub(crate) new_folder: NewFolder,
}

/// How a store is reached.
enum Found {
    /// Through the server that has its folder.
    Server(Connection),
    /// This process has opened it.
    Store(Arc<dyn Maintenance>),
}

/// Opens a store beside the one on which a command works.
///
/// # Errors
/// As of any command; also if a running server has it, because no process can have both then.
pub(crate) async fn open_beside(
    location: &StorageLocation,
    configuration: &Configuration,
    usage: Usage,
) -> Result<Arc<dyn Maintenance>, Failure> {
    match find(location, configuration, usage).await? {
        Found::Store(store) => Ok(store),
        Found::Server(_) => Err(Failure::new(format!(
            "a running server has {location}, and the other folder is open in another process, so neither can do this; stop one \
             of the two servers meanwhile"
        ))),
    }
}

/// Returns whether a running server has a folder.
///
/// # Errors
/// If this user may not ask it.
pub(crate) fn has_server(location: &StorageLocation) -> Result<bool, Failure> {
    let StorageLocation::Folder(root) = location else {
        return Ok(false);
    };
    let connecting = async {
        client::connect(root)
            .await
            .map_err(|cause| cannot_work_on(root).because(cause))
    };
    Ok(block_on(connecting)?.is_some())
}

fn cannot_work_on(root: &Path) -> Failure {
    Failure::new(format!("cannot work on {}", root.display()))
}

async fn find(
    location: &StorageLocation,
    configuration: &Configuration,
    usage: Usage,
) -> Result<Found, Failure> {
    match location {
        StorageLocation::Memory => Err(Failure::new(
            "what is kept in memory is gone with the server that has it; name a folder or a bucket with --storage",
        )),
        StorageLocation::Bucket(bucket) => {
            let backend = bucket.open()?;
            let store = store(backend.clone(), configuration);
            if usage.new_folder != NewFolder::Adopted {
                require_registry(location, &backend, usage.new_folder).await?;
            }
            if !usage.only_reads {
                bucket.require_promises(&backend).await?;
            }
            Ok(Found::Store(store))
        }
        StorageLocation::Folder(root) => {
            let failed = || cannot_work_on(root);
            let is_root = || is_root(root).map_err(|cause| cannot_look_into(root, &cause));
            if usage.new_folder != NewFolder::Adopted && !is_root()? {
                if adoption::find_if_there(root)?.is_some() {
                    return Err(failed().because(NOT_ADOPTED));
                }
                if usage.new_folder == NewFolder::Refused {
                    return Err(failed().because("there is no registry in this folder; name another one"));
                }
            }
            match client::connect(root)
                .await
                .map_err(|cause| failed().because(cause))?
            {
                Some(connection) => Ok(Found::Server(connection)),
                None => match open(root, usage.only_reads).await? {
                    Ok(backend) => Ok(Found::Store(store(backend, configuration))),
                    Err(cause @ OpenError::Held { .. }) => {
                        let message = format!(
                            "cannot work on {}: the process that has it takes no commands; it is another command, or a \
                             server that starts, stops, or says in its log why",
                            root.display()
                        );
                        Err(Failure::new(message).because(cause))
                    }
                    Err(cause) => Err(failed().because(with_remedy(root, cause.with_owner()))),
                },
            }
        }
    }
}

const NOT_ADOPTED: &str =
    "there is the distribution registry's data, which was not adopted yet; `serve` does so, and `adopt`";

/// Fails if nothing is below the prefix of a bucket, as what was mistyped would look like an empty registry, or a tree that was not
/// adopted.
async fn require_registry(
    location: &StorageLocation,
    backend: &ObjectStoreBackend,
    new_folder: NewFolder,
) -> Result<(), Failure> {
    let failed = || Failure::new(format!("cannot work on {location}"));
    if backend
        .has_registry()
        .await
        .map_err(|cause| failed().because(cause))?
    {
        return Ok(());
    }
    let has_tree = distribution::has_tree(&Store::new(backend.clone())).await;
    match has_tree.map_err(|cause| failed().because(cause))? {
        true => Err(failed().because(NOT_ADOPTED)),
        false if new_folder == NewFolder::Refused => {
            Err(failed().because("there is no registry in this folder of the bucket; name another one"))
        }
        false => Ok(()),
    }
}

/// Opens a folder for a command, unless that would leave files there that its server could not use.
async fn open(root: &Path, only_reads: bool) -> Result<Result<FilesystemBackend, OpenError>, Failure> {
    let is_read_only = only_reads && !is_writable(root);
    if !is_read_only {
        ownership::require_user_of(root)?;
        ownership::require_writable(root).map_err(|cause| cannot_work_on(root).because(cause))?;
    }
    Ok(FilesystemOptions::new().read_only(is_read_only).open(root).await)
}

/// Runs a command in this process, which has the store open.
async fn run_in_this_process(store: &dyn Maintenance, command: impl Command) -> Result<Outcome, Failure> {
    let (reporter, messages) = Reporter::new();
    let task = async {
        let outcome = command.run(store, reporter).await;
        storage::close(store).await.and(outcome)
    };
    while_showing(messages, task).await
}

/// Shows the messages of a command while it runs.
async fn while_showing<T>(
    mut messages: Messages,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let show = Show::new();
    let show_all = async {
        while let Some(message) = messages.next().await {
            show.message(&message);
        }
    };
    let both = async { tokio::join!(work, show_all).0 };
    let result = unless_interrupted(both).await;
    show.end();
    result
}

/// Drops the work, which ends it in the server too, if the user interrupts it.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let interrupted = async {
        // Without a handler, the process ends, and the work with it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = work => result,
        () = interrupted => Err(Failure::new("interrupted; it can be started again")),
    }
}
