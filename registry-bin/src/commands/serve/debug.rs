//! The debug listener: metrics and health.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use registry_http::{CheckOptions, DebugService, Health, Metrics};
use registry_http::{Limits, Listener, Server};
use tokio::net::TcpStream;

use super::listen::bind_tcp;
use crate::config::Configuration;
use crate::config::sections::health::HttpCheck;
use crate::config::values::GoDuration;
use crate::failure::Failure;
use crate::storage::AnyStore;

/// Starts the listener, if it is configured.
pub(super) fn start(
    configuration: &Configuration,
    health: &Health,
    metrics: &Arc<Metrics>,
) -> Result<Option<Server>, Failure> {
    let debug = &configuration.http.debug;
    let Some(text) = &debug.addr else {
        return Ok(None);
    };
    let failed = || Failure::of("http.debug.addr", format!("cannot listen on {text}"));
    let listener = bind_tcp("http.debug.addr", text)?;
    let address = listener.local_addr().map_err(|cause| failed().because(cause))?;
    let mut service = DebugService::new(health.clone());
    if debug.prometheus.enabled {
        service = service.with_metrics(&*debug.prometheus.path, Arc::clone(metrics));
    }
    let server =
        Listener::tcp(listener).and_then(|listener| Server::serve([listener], service, Limits::default()));
    let server = server.map_err(|cause| failed().because(cause))?;
    let has_metrics = debug.prometheus.enabled;
    tracing::info!(%address, has_metrics, "health and metrics for operators");
    Ok(Some(server))
}

/// Starts the configured health checks.
pub(super) fn watch(configuration: &Configuration, health: &Health, store: &AnyStore) -> Result<(), Failure> {
    let checks = &configuration.health;
    let storage = store.clone();
    health.add_remark(move || storage.lacks_space());
    // On a bucket, each check is a request that costs money.
    let is_folder = matches!(store, AnyStore::Disk(_));
    if checks.storage.enabled.unwrap_or(is_folder) {
        let options = options(
            checks.storage.interval,
            GoDuration::default(),
            checks.storage.threshold,
        );
        let store = store.clone();
        health.watch("storagedriver", options, move || {
            let store = store.clone();
            Box::pin(async move { store.probe().await })
        });
    }
    for check in &checks.file {
        let options = options(check.interval, GoDuration::default(), check.threshold);
        let path: PathBuf = check.file.to_path_buf();
        health.watch(path.display().to_string(), options, move || {
            let path = path.clone();
            Box::pin(async move {
                match tokio::fs::try_exists(&path).await {
                    Ok(false) => Ok(()),
                    Ok(true) => Err("file exists".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            })
        });
    }
    for check in &checks.tcp {
        let options = options(check.interval, check.timeout, check.threshold);
        let address = check.addr.clone();
        health.watch(check.addr.clone(), options, move || {
            let address = address.clone();
            Box::pin(async move {
                let connected = TcpStream::connect(&address).await;
                connected
                    .map(drop)
                    .map_err(|error| format!("cannot connect: {error}"))
            })
        });
    }
    for (index, check) in checks.http.iter().enumerate() {
        watch_http(check, health).map_err(|cause| {
            Failure::of(format!("health.http[{index}]"), "cannot be watched").because(cause)
        })?;
    }
    Ok(())
}

fn watch_http(check: &HttpCheck, health: &Health) -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = reqwest::Url::parse(check.uri.reveal())?;
    // The user, password and query may be secret.
    let name = format!(
        "{}://{}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    );
    let headers = check.headers.to_map();
    let expected = if check.status == 0 { 200 } else { check.status };
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let options = options(check.interval, check.timeout, check.threshold);
    health.watch(name, options, move || {
        let request = client.head(url.clone()).headers(headers.clone());
        Box::pin(async move {
            match request.send().await {
                Ok(response) if response.status().as_u16() == expected => Ok(()),
                Ok(response) => Err(format!("it answered {}", response.status())),
                Err(error) => Err(error.without_url().to_string()),
            }
        })
    });
    Ok(())
}

const fn options(interval: GoDuration, timeout: GoDuration, threshold: u32) -> CheckOptions {
    CheckOptions {
        interval: interval.0,
        threshold,
        timeout: timeout.0,
    }
}
