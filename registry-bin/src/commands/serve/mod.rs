//! `registry-bin serve`.

mod adopt;
mod announce;
mod authentication;
mod control;
mod debug;
pub(crate) mod files;
mod frontend;
mod listen;
mod notifications;
mod observe;
mod open_files;
mod process;
mod reload;
mod rules;
mod self_signed;
mod service_manager;
mod signals;
mod tls;
mod token_keys;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_traces.rs")]
mod traces;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry_core::Authorizer;
use registry_core::registry::Registry;
use registry_http::operations::Health;
use registry_http::{EventSink, Frontend, Rate, RateLimits, RegistryService, Server};
use tokio::runtime;

use self::announce::announce;
use self::authentication::{Authentication, KeyRefresh};
use self::frontend::frontend;
use self::listen::{Inherited, Reserved, inherited};
use self::notifications::Notifications;
use self::observe::Observation;
use self::reload::{Reload, Reloadable, Watch};
use self::rules::rules;
use self::self_signed::SelfSigned;
use self::service_manager::Watchdog;
use self::signals::Signals;
use self::tls::{Encryption, Renewal, Unencrypted};
use crate::cli::Serve;
use crate::config::sections::http::RateLimit;
use crate::config::supported::{limited, without_effect};
use crate::config::{DEFAULT_FOLDER, Loaded, load};
use crate::failure::Failure;
use crate::logging::{LogHandle, Logging};
use crate::storage::{OpenStorage, StorageLocation};

/// The most threads for calls that block: reads and writes of files, and hashing. A thread more costs memory and wins
/// nothing, as each call is short.
const BLOCKING_THREADS: usize = 32;

/// Serves until a signal comes.
pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let loaded = load(&serve.configuration.store(), &serve.flags())?;
    let log = Logging::of(&loaded.configuration).start();
    tell_what_has_no_effect(&loaded);
    // Before there are other threads, which could read the environment meanwhile.
    let inherited = inherited()?;
    let runtime = runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|cause| Failure::new("cannot start threads").because(cause))?;
    let served = runtime.block_on(serve_until_signal(serve, &loaded, log, inherited));
    served.map_err(|failure| loaded.locate(failure))
}

async fn serve_until_signal(
    serve: &Serve,
    loaded: &Loaded,
    log: LogHandle,
    inherited: Vec<Inherited>,
) -> Result<(), Failure> {
    let configuration = &loaded.configuration;
    let watch = Watch::start(loaded)?;
    let mut signals = Signals::listen()?;
    let _watchdog = Watchdog::start();
    let http = &configuration.http;
    let frontend = frontend(http)?;
    let location = StorageLocation::of(&configuration.storage)?;
    let encryption = Encryption::start(http, self_signed(serve, &location)?)?.map(Arc::new);
    // The port before the storage: whoever starts a second server by mistake should learn that. One that waits leaves
    // the port alone meanwhile: the server that has the storage may have it.
    let (reserved, inherited) = if serve.wait {
        (None, inherited)
    } else {
        (Some(Reserved::new(http, inherited)?), Vec::new())
    };
    let observation = Observation::start(&configuration.log)?;
    let health = Health::new();
    let debug = debug::start(configuration, &health, &observation.metrics).await?;
    service_manager::status(if serve.wait {
        "opening the storage, waiting for another server that has it"
    } else {
        "opening the storage"
    });
    let storage = tokio::select! {
        storage = OpenStorage::open(&location, &configuration.storage.maintenance, serve.wait) => storage?,
        () = signals.next() => return Ok(()),
    };
    let reserved = match reserved {
        Some(reserved) => reserved,
        None => Reserved::new(http, inherited)?,
    };
    let adopted = tokio::select! {
        adopted = adopt::adopt(&location, &storage.store, &health) => adopted.map(|()| true),
        () = signals.next() => Ok(false),
    };
    if !matches!(adopted, Ok(true)) {
        storage.close().await?;
        return adopted.map(drop);
    }
    let control = control::start(&location, &storage);
    let mut rules = rules(configuration);
    rules.allow_missing_children = serve.allow_missing_content;
    debug::watch(configuration, &health, &storage.storage)?;
    let metered = observation.meter(&storage.storage, location.kind());
    let listeners = reserved.listen(http, encryption.as_deref()).await?;
    let address = listeners.first().map(|listener| listener.address().clone());
    let notifications = Notifications::start(configuration, &location, address.as_ref()).await?;
    let authentication = Arc::new(Authentication::start(configuration, &location)?);
    let authorizer = Arc::clone(&authentication.authorizer) as Arc<dyn Authorizer>;
    let registry = Registry::new(Arc::new(metered), rules).with_authorizer(authorizer);
    let limits = open_files::limits();
    let mut service = RegistryService::new(registry, limits.clone())
        .with_fields(http.headers.to_map())
        .with_observer(Arc::new(observation.observers.clone()))
        .with_authenticator(Arc::clone(&authentication.authenticator))
        .with_rate_limits(rate_limits(&http.rate_limit));
    if let Some((path, endpoint)) = &authentication.endpoint {
        service = service.with_endpoint(path.clone(), Arc::clone(endpoint));
    }
    if let Some(notifications) = &notifications {
        let notifier = Arc::clone(&notifications.notifier);
        observation.metrics.add_notifier(Arc::clone(&notifier));
        service = service.with_event_sink(notifier as Arc<dyn EventSink>);
    }
    let server = Server::serve(listeners, Frontend::new(service, frontend), limits)
        .map_err(|cause| Failure::new("cannot accept connections").because(cause))?;
    // What can change while the server runs; each part reads what it needs of the new configuration.
    let mut parts: Vec<Arc<dyn Reloadable>> = vec![
        Arc::new(log),
        Arc::clone(&authentication) as _,
        observation.reloadable(),
    ];
    parts.push(match &encryption {
        Some(encryption) => Arc::clone(encryption) as _,
        None => Arc::new(Unencrypted),
    });
    let _refresh = KeyRefresh::start(authentication);
    let reload = Reload::start(serve, loaded, watch, parts);
    let _renewal = encryption.as_ref().and_then(Renewal::start);
    health.started();
    announce(server.addresses(), &location, encryption.as_deref())?;
    service_manager::ready(&format!("storing in {location}"));
    signals.next().await;
    service_manager::stopping();
    health.stopping();
    reload.shutdown().await;
    let drain = http.drain_timeout.0;
    tracing::info!(
        seconds = drain.as_secs(),
        "stopping; requests that run may end, a second signal cuts them"
    );
    let end = Instant::now() + drain;
    tokio::select! {
        () = server.shutdown(drain) => {}
        () = signals.next() => tracing::warn!("running requests were cut"),
    }
    if let Some(control) = control {
        control.shutdown().await;
    }
    let rest = end.saturating_duration_since(Instant::now());
    tokio::join!(
        async {
            if let Some(notifications) = notifications {
                notifications.shutdown(rest).await;
            }
        },
        observation.traces.shutdown(rest),
    );
    storage.close().await?;
    if let Some(debug) = debug {
        debug.shutdown(Duration::ZERO).await;
    }
    // It waits for the logs of requests to be written, and nothing else is left to do.
    observation.close();
    tracing::info!("stopped");
    Ok(())
}

fn rate_limits(limits: &RateLimit) -> RateLimits {
    let rate = |rate: &Option<crate::config::sections::http::Rate>| {
        rate.as_ref().map(|rate| Rate {
            requests: rate.requests,
            per: rate.per.0,
            burst: rate.burst.unwrap_or(rate.requests),
        })
    };
    RateLimits::new(rate(&limits.address), rate(&limits.identity))
}

/// Returns the certificate of our own that the command line asks for.
fn self_signed(serve: &Serve, location: &StorageLocation) -> Result<Option<SelfSigned>, Failure> {
    let Some(names) = &serve.tls_self_signed else {
        return Ok(None);
    };
    let folder = match location {
        StorageLocation::Folder(root) => root.clone(),
        StorageLocation::Memory | StorageLocation::Bucket(_) => PathBuf::from(DEFAULT_FOLDER),
    };
    SelfSigned::new(folder.join("tls"), names).map(Some)
}

/// Says what was given in vain, so that nothing is ignored silently.
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
    for (key, limit) in limited(&loaded.configuration) {
        tracing::info!("{key} is limited: {limit}");
    }
    for variable in &loaded.variables.unused {
        tracing::warn!(
            "{} is set in the environment and has no effect: {}",
            variable.name,
            variable.reason
        );
    }
}
