//! `registry-bin serve`.

mod adopt;
mod announce;
mod authentication;
mod backups;
mod claims;
mod control;
mod debug;
mod dropped_lines;
pub(crate) mod files;
mod listen;
mod names;
mod notifications;
mod open;
mod open_files;
mod places;
mod process;
mod proxy;
mod reload;
mod rules;
mod running;
mod self_signed;
mod service;
mod service_manager;
mod signals;
mod storage_state;
mod telemetry;
mod tls;
mod token_keys;
mod token_options;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_traces.rs")]
mod traces;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use registry_http::Health;
use registry_http::{Proxied, Server, check_clock};
use registry_storage::filesystem::FILE_THREADS;
use tokio::runtime;

use self::announce::announce;
use self::authentication::{Authentication, KeyRefresh};
use self::backups::Backups;
use self::listen::{Inherited, inherited};
use self::names::NamesHere;
use self::notifications::Notifications;
use self::open::Opening;
use self::open_files::OpenFiles;
use self::proxy::proxy_options;
use self::reload::{Reload, Reloadable, Watch};
use self::running::Running;
use self::self_signed::SelfSigned;
use self::service::{RequestHooks, service};
use self::service_manager::Watchdog;
use self::signals::Signals;
use self::telemetry::Telemetry;
use self::tls::{Encryption, Renewal, Unencrypted};
use crate::cli::Serve;
use crate::config::supported::without_effect;
use crate::config::{DEFAULT_FOLDER, Loaded, bare_durations, load, protection, remarks};
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::logging::{LogHandle, Logging};
use crate::storage::StorageLocation;

/// The folder of our own certificate, below the data folder.
const OWN_CERTIFICATES: &str = "tls";

/// The most threads for blocking calls, such as reads of records and hashing, in addition to those for files of bytes,
/// of which some may hang. More threads would cost memory without a gain, because each call is short.
const BLOCKING_THREADS: usize = 32;

/// Serves until a signal arrives. Returns `false` if that failed and the reason was reported.
pub(crate) fn run(serve: &Serve) -> Result<bool, Failure> {
    let errors = LineWriter::stderr()?;
    let served = load_and_serve(serve, &errors);
    // Written after what is queued in the log. Does not wait for a reader that does not read.
    errors.close(served.as_ref().err().map(Failure::last_word));
    Ok(served.is_ok())
}

fn load_and_serve(serve: &Serve, errors: &LineWriter) -> Result<(), Failure> {
    check_clock(SystemTime::now()).map_err(|cause| Failure::new("cannot serve").because(cause))?;
    let loaded = load(&serve.configuration.store(), &serve.flags())?;
    claims::require_apart(&loaded)
        .and_then(|()| places::check_backups(&loaded.configuration))
        .map_err(|failure| loaded.locate(failure))?;
    let log = Logging::of(&loaded.configuration).start_through(errors.clone());
    tell_what_has_no_effect(&loaded);
    // Called before there are threads that could read the environment at the same time; the thread of the log does not.
    let inherited = inherited()?;
    let names = NamesHere::find(serve);
    let mut serve = serve.clone();
    let mut loaded = loaded;
    if inherited.is_empty() {
        serve.named_address = names.listen_address(&serve, &loaded);
    }
    if serve.named_address.is_some() {
        loaded = load(&serve.configuration.store(), &serve.flags())?;
    }
    let own = self_signed(&serve, &loaded, names)?;
    let runtime = runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS + FILE_THREADS)
        .enable_all()
        .build()
        .map_err(|cause| Failure::new("cannot start threads").because(cause))?;
    let served = runtime.block_on(serve_until_signal(
        (&serve, own),
        &loaded,
        (log, errors),
        inherited,
    ));
    served.map_err(|failure| loaded.locate(failure))
}

async fn serve_until_signal(
    (serve, own): (&Serve, Option<SelfSigned>),
    loaded: &Loaded,
    (log, errors): (LogHandle, &LineWriter),
    inherited: Vec<Inherited>,
) -> Result<(), Failure> {
    let configuration = &loaded.configuration;
    let watch = Watch::start(loaded)?;
    let mut signals = Signals::listen()?;
    let _watchdog = Watchdog::start();
    let http = &configuration.http;
    let options = proxy_options(http)?;
    let location = StorageLocation::of(&configuration.storage)?;
    let encryption = Encryption::start(http, own)?.map(Arc::new);
    let opening = Opening::new(http, inherited, serve.wait)?;
    let telemetry = Telemetry::start(&configuration.log, errors)?;
    let health = Health::new();
    let debug = debug::start(configuration, &health, &telemetry.metrics)?;
    let files = OpenFiles::divide(http)?;
    let opened = opening.storage(configuration, &location, files.blobs, &health, &mut signals);
    let Some((storage, reserved)) = opened.await? else {
        return Ok(());
    };
    let control = control::start(&location, &storage);
    debug::watch(configuration, &health, &storage.store)?;
    storage_state::add(&telemetry.metrics, storage.store.clone());
    let listeners = reserved.listen(http, encryption.as_deref()).await?;
    let address = listeners.first().map(|listener| listener.address().clone());
    let notifications = Notifications::start(configuration, (&location, &storage), address.as_ref()).await?;
    let authentication = Arc::new(Authentication::start(configuration, &location)?);
    let hooks = RequestHooks {
        authentication: &authentication,
        telemetry: &telemetry,
        notifications: notifications.as_ref(),
    };
    let limits = files.limits;
    telemetry.metrics.add_memory(limits.memory.clone());
    let service = service(configuration, (&location, &storage), &hooks, limits.clone());
    let server = Server::serve(listeners, Proxied::new(service, options), limits)
        .map_err(|cause| Failure::new("cannot accept connections").because(cause))?;
    // What can change while the server runs; each part reads what it needs from the new configuration.
    let parts: Vec<Arc<dyn Reloadable>> = vec![
        Arc::new(log),
        Arc::clone(&authentication) as _,
        telemetry.reloadable(),
        match &encryption {
            Some(encryption) => Arc::clone(encryption) as _,
            None => Arc::new(Unencrypted),
        },
    ];
    let _refresh = KeyRefresh::start(authentication);
    let reload = Reload::start(serve, loaded, watch, parts);
    let _renewal = encryption.as_ref().and_then(Renewal::start);
    health.started();
    announce(
        &telemetry.output,
        configuration,
        server.addresses(),
        &location,
        encryption.as_deref(),
    );
    service_manager::ready(&format!("storing in {location}"));
    let running = Running {
        server,
        backups: Backups::start(&configuration.backup, &storage.store),
        debug,
        health,
        reload,
        control,
        notifications,
        telemetry,
        storage,
    };
    signals.next().await;
    running.stop(http.drain_timeout.0, &mut signals).await
}

/// Returns our own certificate, if the command line asks for one.
fn self_signed(serve: &Serve, loaded: &Loaded, here: NamesHere) -> Result<Option<SelfSigned>, Failure> {
    let Some(names) = &serve.tls_self_signed else {
        return Ok(None);
    };
    let folder = match StorageLocation::of(&loaded.configuration.storage)? {
        StorageLocation::Folder(root) => root,
        StorageLocation::Memory | StorageLocation::Bucket(_) => PathBuf::from(DEFAULT_FOLDER),
    };
    SelfSigned::new(folder.join(OWN_CERTIFICATES), names, here).map(Some)
}

/// Logs everything in the configuration that has no effect, so that nothing is ignored silently.
fn tell_what_has_no_effect(loaded: &Loaded) {
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configured");
    }
    let keys = without_effect(&loaded.tree);
    if !keys.is_empty() {
        tracing::info!(
            keys = keys.join(", "),
            "these keys of the configuration have no effect, because nothing here needs them"
        );
    }
    for (key, remark) in remarks(&loaded.configuration, &loaded.tree) {
        tracing::warn!("{key} {remark}");
    }
    for (key, origin, number) in bare_durations(&loaded.configuration, &loaded.tree) {
        tracing::warn!("{key} ({origin}) is {number} nanoseconds; write {number}s if seconds are meant");
    }
    for (key, origin) in protection::empty(&loaded.tree) {
        tracing::warn!("{key} ({origin}) is empty and protects nothing; write `~` if that is meant");
    }
    for variable in &loaded.variables.unused {
        tracing::warn!(
            "{} is set in the environment and has no effect: {}",
            variable.name,
            variable.reason
        );
    }
}
