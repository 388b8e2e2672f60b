//! `registry-bin serve`: the sequence of a start and of a stop. Each step is in the file of its concern.

mod arguments;
mod authentication;
mod backups;
mod bucket_adoption;
pub(crate) mod checks;
pub(crate) mod credentials;
mod listeners;
mod notifications;
mod old_tree;
mod process;
mod quotas;
mod reload;
mod repositories;
mod retention;
mod service;
mod signing_keys;
mod storage;
mod telemetry;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use registry_http::{Probed, Proxied, Server, ServerHealth, check_clock};
use registry_storage::filesystem::FILE_THREADS;
use tokio::runtime;
use tokio::time::sleep;

use self::arguments::LocalNames;
pub(crate) use self::arguments::Serve;
use self::authentication::{Authentication, KeyRefresh};
use self::backups::Backups;
use self::listeners::{Inherited, OpenFiles, Reservation, announce, inherited};
use self::notifications::Notifications;
use self::old_tree::OldTree;
use self::process::{ServiceManager, Signals, Watchdog, log_what_has_no_effect};
use self::quotas::{AppliedQuotas, QuotaMetrics};
use self::reload::{Reload, Reloadable, Watch};
use self::repositories::RepositoryMetrics;
use self::retention::AppliedRetention;
use self::service::{RequestHooks, catalog_key, proxy_options, service};
use self::storage::start_control;
use self::telemetry::{Telemetry, start_debug_listener, start_health_checks};
use self::tls::{Encryption, Renewal, SelfSigned, Unencrypted};
use crate::config::sections::http::Http;
use crate::config::{Loaded, load};
use crate::control::server::{ControlServer, Rules};
use crate::failure::Failure;
use crate::line_writer::LineWriter;
use crate::logging::{LogHandle, Logging};
use crate::places::{claims, writable};
use crate::storage::{Applied, OpenStorage, StorageLocation};

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

#[expect(clippy::disallowed_methods, reason = "the start looks at the clock")]
fn load_and_serve(serve: &Serve, errors: &LineWriter) -> Result<(), Failure> {
    check_clock(SystemTime::now()).map_err(|cause| Failure::new("cannot serve").because(cause))?;
    let loaded = load(&serve.configuration.store(), &serve.flags())?;
    claims::require_apart(&loaded)
        .and_then(|()| writable::check_backups(&loaded.configuration))
        .map_err(|failure| loaded.locate(failure))?;
    let log = Logging::of(&loaded.configuration).start_through(errors.clone());
    log_what_has_no_effect(&loaded);
    // Called before there are threads that could read the environment at the same time; the thread of the log does not.
    let inherited = inherited()?;
    let names = LocalNames::find(serve);
    let mut serve = serve.clone();
    let mut loaded = loaded;
    if inherited.is_empty() {
        serve.named_address = names.listen_address(&serve, &loaded);
    }
    if serve.named_address.is_some() {
        loaded = load(&serve.configuration.store(), &serve.flags())?;
    }
    let own = SelfSigned::of(&serve, &loaded, names)?;
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
    let reservation = Reservation::new(http, inherited, serve.wait)?;
    let telemetry = Telemetry::start(&configuration.log, errors)?;
    let health = ServerHealth::new();
    let debug = start_debug_listener(configuration, &health, &telemetry.metrics)?;
    let files = OpenFiles::divide(http)?;
    let retention = AppliedRetention::of(configuration)?;
    let quotas = AppliedQuotas::of(configuration)?;
    let applied = Applied {
        retention: retention.subscribe(),
        quotas: quotas.subscribe(),
    };
    let opened = storage::open(
        configuration,
        &location,
        reservation,
        applied,
        files.blobs,
        &health,
        &mut signals,
    );
    let Some((storage, reserved)) = opened.await? else {
        return Ok(());
    };
    let is_read_only = configuration.storage.maintenance.read_only.enabled;
    let rules = Rules {
        retention: retention.subscribe(),
        is_read_only,
    };
    let control = start_control(&location, &storage, rules);
    start_health_checks(configuration, &health, &storage.store)?;
    telemetry.add_storage(Arc::clone(&storage.store));
    if let Some(cache) = &storage.blob_cache {
        telemetry.add_blob_cache(cache.clone());
    }
    if let Some(usage) = storage.quota_usage() {
        telemetry.add(QuotaMetrics(usage));
    }
    if let Some(largest) = storage.largest_repositories() {
        telemetry.add(RepositoryMetrics(largest));
    }
    let old_tree = OldTree::start(&storage.store, is_read_only).await;
    let listeners = reserved.listen(http, encryption.as_deref()).await?;
    let address = listeners.first().map(|listener| listener.address().clone());
    let notifications = Notifications::start(configuration, (&location, &storage), address.as_ref()).await?;
    let authentication = Arc::new(Authentication::start(configuration, (&location, &storage))?);
    let hooks = RequestHooks {
        authentication: &authentication,
        telemetry: &telemetry,
        notifications: notifications.as_ref(),
    };
    let limits = files.limits;
    telemetry.metrics.add_memory(limits.memory.clone());
    let catalog_key = catalog_key(configuration, &*storage.store).await;
    let service = service(
        configuration,
        (&location, &storage),
        &hooks,
        catalog_key,
        limits.clone(),
    );
    let service = Probed::new(Proxied::new(service, options), health.clone());
    let server = Server::serve(listeners, service, limits)
        .map_err(|cause| Failure::new("cannot accept connections").because(cause))?;
    // What can change while the server runs; each part reads what it needs from the new configuration.
    let parts: Vec<Arc<dyn Reloadable>> = vec![
        Arc::new(log),
        Arc::clone(&authentication) as _,
        telemetry.reloadable(),
        Arc::new(retention),
        Arc::new(quotas),
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
    ServiceManager::ready(&format!("storing in {location}"));
    let running = Running {
        server,
        backups: Backups::start(&configuration.backup, &storage.store),
        old_tree,
        debug,
        health,
        reload,
        control,
        notifications,
        telemetry,
        storage,
    };
    signals.next().await;
    running.stop(http, &mut signals).await
}

/// What runs, and must be stopped in order.
struct Running {
    server: Server,
    backups: Option<Backups>,
    old_tree: Option<OldTree>,
    debug: Option<Server>,
    health: ServerHealth,
    reload: Reload,
    control: Option<ControlServer>,
    notifications: Option<Notifications>,
    telemetry: Telemetry,
    storage: OpenStorage,
}

impl Running {
    /// Is not ready any more, and serves on until load balancers have seen that. Then lets running requests finish, for a time
    /// or until the next signal, and stops everything else.
    async fn stop(self, http: &Http, signals: &mut Signals) -> Result<(), Failure> {
        ServiceManager::stopping();
        self.health.stopping();
        self.reload.shutdown().await;
        let (delay, drain) = (http.drain_delay.0, http.drain_timeout.0);
        if !delay.is_zero() {
            tracing::info!(
                seconds = delay.as_secs_f32(),
                "not ready any more, and serving on until load balancers have seen that; another signal ends the wait"
            );
            tokio::select! {
                () = sleep(delay) => {}
                () = signals.next() => {}
            }
        }
        tracing::info!(
            seconds = drain.as_secs(),
            "stopping; requests that run may end, a second signal cuts them"
        );
        let end = Instant::now() + drain;
        tokio::select! {
            () = self.server.shutdown(drain) => {}
            () = signals.next() => tracing::warn!("running requests were cut"),
        }
        if let Some(backups) = self.backups {
            backups.shutdown().await;
        }
        if let Some(old_tree) = self.old_tree {
            old_tree.shutdown().await;
        }
        if let Some(control) = self.control {
            control.shutdown().await;
        }
        let rest = end.saturating_duration_since(Instant::now());
        tokio::join!(
            async {
                if let Some(notifications) = self.notifications {
                    notifications.shutdown(rest).await;
                }
            },
            self.telemetry.traces.shutdown(rest),
        );
        self.storage.close().await?;
        if let Some(debug) = self.debug {
            debug.shutdown(Duration::ZERO).await;
        }
        // This waits until the request logs are written; nothing else is left to do.
        self.telemetry.close();
        tracing::info!("stopped");
        Ok(())
    }
}
