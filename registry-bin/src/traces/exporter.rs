//! The export of spans to a collector.

use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::WithHttpConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use registry_core::printable::with_causes;
use tokio::runtime::Handle;

use super::environment::TraceOptions;
use crate::bounded_file;
use crate::failure::Failure;

/// The longest answer of a collector, in bytes.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// Exports spans, and logs when that begins to fail and when it works again, but not each failure in between.
#[derive(Debug)]
pub(super) struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    is_failing: AtomicBool,
    /// Why the last request failed, which the error of the exporter does not include.
    reason: Reason,
}

type Reason = Arc<Mutex<Option<String>>>;

impl Exporter {
    /// Creates an exporter whose connections belong to the current runtime; the SDK calls it from its own thread.
    pub(super) fn new(options: &TraceOptions) -> Result<Self, Failure> {
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(options.timeout);
        if let Some(path) = &options.certificates {
            client = client.tls_certs_merge(certificates(path)?);
        }
        let client = client
            .build()
            .map_err(|cause| Failure::new("no HTTP client can be made for traces").because(cause))?;
        let reason = Reason::default();
        let client = CollectorClient {
            client,
            reason: Arc::clone(&reason),
            runtime: Handle::current(),
        };
        let inner = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .build()
            // The error quotes values, which may be secret.
            .map_err(|_| {
                Failure::new("the variables OTEL_EXPORTER_OTLP_* do not name a collector that can be used")
            })?;
        Ok(Self {
            inner,
            is_failing: AtomicBool::new(false),
            reason,
        })
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let failed = || Failure::new(format!("cannot use the certificates in {}", path.display()));
    let text = bounded_file::read(path).map_err(|cause| failed().because(cause))?;
    let certificates =
        reqwest::Certificate::from_pem_bundle(&text).map_err(|cause| failed().because(cause))?;
    if certificates.is_empty() {
        return Err(failed().because("it holds no certificate in the form PEM"));
    }
    Ok(certificates)
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        match self.inner.export(batch).await {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes traces again");
                }
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
                    tracing::warn!(%error, reason, spans, "traces cannot be sent; spans are dropped until they can");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Sends requests with the HTTP client library of the rest of the program, from any thread.
#[derive(Debug)]
struct CollectorClient {
    client: reqwest::Client,
    reason: Reason,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = self
            .runtime
            .spawn(async move { exchange(&client, request).await });
        let result = exchange.await?;
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = result.as_ref().err().cloned();
        Ok(result?)
    }
}

async fn exchange(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let request = reqwest::Request::try_from(request).map_err(describe)?;
    let mut answer = client.execute(request).await.map_err(describe)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(describe)? {
        if body.len() + chunk.len() > LONGEST_ANSWER_BYTES {
            return Err(format!(
                "the collector's answer has more than {LONGEST_ANSWER_BYTES} bytes"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// Returns an error with its causes, but without the URL, which may contain a password.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    with_causes(error.to_string(), error.source())
}
