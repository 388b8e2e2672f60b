//! The loads. Each is bounded in count and time, and leaves what it opened open to its end.

#![expect(clippy::disallowed_methods, reason = "benchmarks are programs of their own")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::slow::{Client, blob_of, connect, manifest_of};

/// The address that loads come from, but for those that come from many.
const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const REPOSITORY: &str = "/v2/hostile/app";
const CONTENT: &[u8] = b"content of the hostile client";
/// The size of a large manifest in bytes, a little below the default limit.
const LARGE: usize = (4 << 20) - 4096;
/// What is sent in place of a large manifest; one for all, as it costs the machine nothing.
static SPACES: [u8; LARGE] = [b' '; LARGE];
/// Large manifests that are pulled.
const MANIFESTS: usize = 8;
/// Streams of one HTTP/2 connection.
const STREAMS: usize = 128;

macro_rules! loads {
    ($($name:ident: $title:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Load {
            $($name,)*
        }

        impl Load {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns what is done.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

loads! {
    Nothing: "nothing";
    ManyLayers: "a manifest with 20 000 layers, again and again";
    LargeManifests: "pushes in a repository with 100 manifests of 4 MiB";
    ManyTags: "a delete of a manifest with 20 000 tags";
    StalledStreams: "9 HTTP/2 connections that take no answers and ping";
    StalledBodies: "9 HTTP/2 connections that send no bodies and ping";
    FullStreams: "400 HTTP/2 connections with long headers and bodies that do not end";
    UnfinishedHeaders: "3500 headers that do not end";
    StalledPulls: "900 stalled pulls of a manifest of 4 MiB";
    DifferentPulls: "1200 stalled pulls of 8 manifests of 4 MiB";
    StalledPushes: "600 stalled pushes of manifests of 4 MiB";
    StalledUploads: "600 stalled uploads of blobs";
    ManyPings: "2400 HTTP/2 connections of 300 addresses, with 100 requests each that take no answers";
    ManyPulls: "2400 HTTP/2 connections of 300 addresses, with 100 pulls each that take no answers";
    LargeReferrers: "8 lists of 16 referrers with annotations of 4 MiB";
    ManyReferrers: "8 filtered lists of 10 000 referrers";
    LongFields: "2400 requests with long header fields while nobody takes the events";
}

impl Load {
    /// Pushes what the load needs.
    pub(crate) async fn prepare(self, server: SocketAddr) -> Result<(), String> {
        Client::connect(server, ADDRESS)
            .await?
            .push_blob(REPOSITORY, CONTENT)
            .await?;
        match self {
            Self::LargeManifests => {
                let large = |number| manifest_of(CONTENT, &padding(number, LARGE));
                many(100, 4, |number| {
                    push(server, format!("large-{number}"), large(number))
                })
                .await
            }
            Self::ManyTags => {
                let manifest = manifest_of(CONTENT, "");
                many(20_000, 16, |number| {
                    push(server, format!("tag-{number}"), manifest.clone())
                })
                .await
            }
            Self::StalledPulls | Self::DifferentPulls => {
                many(MANIFESTS, 1, |number| {
                    let manifest = manifest_of(CONTENT, &padding(number, LARGE));
                    push(server, format!("large-{number}"), manifest)
                })
                .await
            }
            Self::LargeReferrers => {
                push(server, "subject".into(), manifest_of(CONTENT, "")).await?;
                many(16, 4, |number| push_referrer(server, number, LARGE)).await
            }
            Self::ManyReferrers => {
                push(server, "subject".into(), manifest_of(CONTENT, "")).await?;
                many(10_000, 16, |number| push_referrer(server, number, 2048)).await
            }
            Self::LongFields => push(server, "latest".into(), manifest_of(CONTENT, "")).await,
            _ => Ok(()),
        }
    }

    /// Runs the load for so long.
    pub(crate) async fn run(self, server: SocketAddr, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        match self {
            Self::Nothing => sleep(time).await,
            Self::ManyLayers => all(4, end, move |_| push_again_and_again(server)).await,
            Self::LargeManifests => all(2, end, move |number| push_small_manifests(server, number)).await,
            Self::ManyTags => {
                let digest = blob_of(&manifest_of(CONTENT, ""));
                let mut client = Client::connect(server, ADDRESS).await?;
                let target = format!("{REPOSITORY}/manifests/{digest}");
                client
                    .request("DELETE", &target, &[], b"")
                    .await?
                    .expect(&[202])?;
                sleep(Duration::from_secs(1)).await;
            }
            Self::StalledStreams => all(9, end, move |_| stall_streams(server, Stall::Answers)).await,
            Self::StalledBodies => all(9, end, move |_| stall_streams(server, Stall::Bodies)).await,
            Self::FullStreams => all(400, end, move |_| stall_streams(server, Stall::Full)).await,
            Self::UnfinishedHeaders => all(3500, end, move |_| begin_header(server)).await,
            Self::StalledPulls => all(900, end, move |_| ask_for_large_manifest(server, 0)).await,
            Self::DifferentPulls => {
                all(1200, end, move |number| {
                    ask_for_large_manifest(server, number % MANIFESTS)
                })
                .await;
            }
            Self::StalledPushes => all(600, end, move |_| push_all_but_a_byte(server)).await,
            Self::StalledUploads => all(600, end, move |_| upload_all_but_a_byte(server)).await,
            Self::ManyPings => {
                let requests = flood("/v2/");
                all(2400, end, move |number| pour(server, number, requests.clone())).await;
            }
            Self::ManyPulls => {
                let requests = flood(&format!("{REPOSITORY}/blobs/{}", blob_of(CONTENT)));
                all(2400, end, move |number| pour(server, number, requests.clone())).await;
            }
            Self::LargeReferrers => all(8, end, move |_| list_referrers(server, "")).await,
            Self::ManyReferrers => {
                all(8, end, move |_| {
                    list_referrers(server, "?artifactType=application/none")
                })
                .await;
            }
            Self::LongFields => all(8, end, move |_| ask_with_long_fields(server)).await,
        }
        Ok(())
    }
}

/// Returns members of a manifest that are about `size` bytes long.
fn padding(number: usize, size: usize) -> String {
    format!(
        r#","annotations":{{"number":"{number}","padding":"{}"}}"#,
        "x".repeat(size.saturating_sub(600))
    )
}

/// Does `count` things, `width` at once.
async fn many<F>(count: usize, width: usize, each: impl Fn(usize) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    use futures_util::StreamExt as _;
    let mut results = futures_util::stream::iter((0..count).map(each)).buffer_unordered(width);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(())
}

/// How long a client whose connection the server ended waits before it comes again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs `count` clients until `end`. That the server ends their connections is its right; they come again.
async fn all<F>(count: usize, end: Instant, each: impl Fn(usize) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = Result<(), String>> + Send,
{
    let clients = (0..count).map(|number| {
        let each = each.clone();
        tokio::spawn(async move {
            let again = async {
                loop {
                    each(number).await.ok();
                    sleep(AGAIN).await;
                }
            };
            timeout_at(end, again).await.unwrap_or(());
        })
    });
    join_all(clients.collect::<Vec<_>>()).await;
}

async fn push(server: SocketAddr, reference: String, manifest: Vec<u8>) -> Result<(), String> {
    let mut client = Client::connect(server, ADDRESS).await?;
    let target = format!("{REPOSITORY}/manifests/{reference}");
    client.put_manifest(&target, &manifest).await?.expect(&[201])
}

async fn push_referrer(server: SocketAddr, number: usize, size: usize) -> Result<(), String> {
    let subject = manifest_of(CONTENT, "");
    let more = format!(
        r#","artifactType":"application/some","subject":{{"mediaType":"{}","digest":"{}","size":{}}}{}"#,
        crate::slow::IMAGE,
        blob_of(&subject),
        subject.len(),
        padding(number, size)
    );
    let manifest = manifest_of(CONTENT, &more);
    let reference = blob_of(&manifest);
    push(server, reference, manifest).await
}

/// Pushes a manifest that names layers which may be missing.
async fn push_again_and_again(server: SocketAddr) -> Result<(), String> {
    let config = manifest_of(CONTENT, "");
    let mut text = String::from_utf8_lossy(&config).into_owned();
    let layers: Vec<String> = (0..20_000)
        .map(|number| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"sha256:{number:064x}","size":1}}"#
            )
        })
        .collect();
    text = text.replace(r#""layers":[]"#, &format!(r#""layers":[{}]"#, layers.join(",")));
    let mut client = Client::connect(server, ADDRESS).await?;
    for number in 0.. {
        let manifest = text.replacen(
            "schemaVersion\":2",
            &format!("schemaVersion\":2,\"number\":{number}"),
            1,
        );
        let target = format!("{REPOSITORY}/manifests/many");
        client.put_manifest(&target, manifest.as_bytes()).await?;
    }
    Ok(())
}

async fn push_small_manifests(server: SocketAddr, client: usize) -> Result<(), String> {
    let mut connection = Client::connect(server, ADDRESS).await?;
    for number in 0.. {
        let manifest = manifest_of(CONTENT, &format!(r#","annotations":{{"a":"{client}-{number}"}}"#));
        let target = format!("{REPOSITORY}/manifests/small-{client}-{number}");
        connection
            .put_manifest(&target, &manifest)
            .await?
            .expect(&[201])?;
    }
    Ok(())
}

/// What an HTTP/2 client withholds.
#[derive(Clone, Copy)]
enum Stall {
    /// It gives no window for the body of the answer.
    Answers,
    /// It sends no byte of the body that it announced.
    Bodies,
    /// It sends long header fields, and as much of the bodies as the server's window takes, and not their ends.
    Full,
}

async fn stall_streams(server: SocketAddr, stall: Stall) -> Result<(), String> {
    let stream = connect(server, ADDRESS).await?;
    let mut builder = h2::client::Builder::new();
    if matches!(stall, Stall::Answers) {
        builder.initial_window_size(0);
    }
    let opened = builder.handshake::<_, bytes::Bytes>(stream).await;
    let (mut sender, mut connection) = opened.map_err(|error| error.to_string())?;
    let mut pings = connection.ping_pong().ok_or("no pings")?;
    // It ends with this.
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let mut held = Vec::new();
    let count = if matches!(stall, Stall::Full) { 16 } else { STREAMS };
    for number in 0..count {
        let (method, target) = match stall {
            Stall::Answers => ("GET", format!("{REPOSITORY}/blobs/{}", blob_of(CONTENT))),
            Stall::Bodies => ("PUT", format!("{REPOSITORY}/manifests/stalled-{number}")),
            Stall::Full => ("PUT", format!("{REPOSITORY}/manifests/full-{number}")),
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://registry{target}"));
        if matches!(stall, Stall::Full) {
            for field in 0..10 {
                request = request.header(format!("field-{field}"), "x".repeat(3000));
            }
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let ready = sender.ready().await;
        sender = ready.map_err(|error| error.to_string())?;
        let has_no_body = matches!(stall, Stall::Answers);
        let sent = sender.send_request(request, has_no_body);
        let (answer, mut body) = sent.map_err(|error| error.to_string())?;
        if matches!(stall, Stall::Full) {
            body.send_data(bytes::Bytes::from_static(&SPACES), false).ok();
        }
        held.push((answer, body));
    }
    loop {
        sleep(Duration::from_millis(500)).await;
        let pinged = pings.ping(h2::Ping::opaque()).await;
        if pinged.is_err() {
            return Err("the connection was closed".into());
        }
    }
}

/// Sends requests of an HTTP/2 connection from one of 300 addresses, and reads nothing.
async fn pour(server: SocketAddr, number: usize, requests: bytes::Bytes) -> Result<(), String> {
    let host = u8::try_from(number % 300 % 250).unwrap_or_default();
    let network = u8::try_from(number % 300 / 250).unwrap_or_default();
    let address = Ipv4Addr::new(127, 1, network, host + 1);
    // Not all in one moment.
    sleep(AGAIN * u32::try_from(number % 100).unwrap_or_default() / 100).await;
    let mut client = Client::connect(server, address).await?;
    client.send(&requests).await?;
    client.closed().await;
    Ok(())
}

/// Returns the bytes of an HTTP/2 connection with 100 requests for whose answers it gives no window (RFC 9113, RFC 7541).
/// They are made once, so that the load costs the machine little beside the server.
fn flood(path: &str) -> bytes::Bytes {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END: u8 = 5;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [head.as_slice(), payload].concat()
    };
    let field = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap_or_default();
        let (name_length, value_length) = (length(name), length(value));
        [
            &[0, name_length],
            name.as_bytes(),
            &[value_length],
            value.as_bytes(),
        ]
        .concat()
    };
    let request = [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "registry"),
        field(":path", path),
    ]
    .concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // An initial window of no bytes.
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for number in 0..100 {
        bytes.extend(frame(HEADERS, END, 1 + 2 * number, &request));
    }
    bytes.into()
}

/// Sends a header of almost 256 KiB, and not its end.
async fn begin_header(server: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(server, ADDRESS).await?;
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n").await?;
    for field in 0..80 {
        let line = format!("field-{field}: {}\r\n", "x".repeat(3000));
        client.send(line.as_bytes()).await?;
    }
    client.closed().await;
    Ok(())
}

async fn ask_for_large_manifest(server: SocketAddr, manifest: usize) -> Result<(), String> {
    let mut client = Client::connect(server, ADDRESS).await?;
    let target = format!("{REPOSITORY}/manifests/large-{manifest}");
    client.begin("GET", &target, &[], 0).await?;
    client.closed().await;
    Ok(())
}

async fn push_all_but_a_byte(server: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(server, ADDRESS).await?;
    let fields = [("Content-Type", crate::slow::IMAGE)];
    let target = format!("{REPOSITORY}/manifests/stalled");
    client.begin("PUT", &target, &fields, LARGE).await?;
    client.send(&SPACES[1..]).await?;
    client.closed().await;
    Ok(())
}

async fn upload_all_but_a_byte(server: SocketAddr) -> Result<(), String> {
    const SIZE: usize = 600 << 10;
    let mut client = Client::connect(server, ADDRESS).await?;
    let target = format!("{REPOSITORY}/blobs/uploads/?digest={}", blob_of(b"other"));
    client.begin("POST", &target, &[], SIZE).await?;
    client.send(&vec![b' '; SIZE - 1]).await?;
    client.closed().await;
    Ok(())
}

async fn list_referrers(server: SocketAddr, query: &str) -> Result<(), String> {
    let digest = blob_of(&manifest_of(CONTENT, ""));
    let target = format!("/v2/hostile/app/referrers/{digest}{query}");
    let mut client = Client::connect(server, ADDRESS).await?;
    loop {
        let answer = client.request("GET", &target, &[], b"").await?;
        answer.expect(&[200, 429, 503])?;
    }
}

async fn ask_with_long_fields(server: SocketAddr) -> Result<(), String> {
    let target = format!("{REPOSITORY}/manifests/latest");
    let long = "x".repeat(100_000);
    let fields = [("User-Agent", long.as_str()), ("X-Request-ID", &long)];
    for _ in 0..300 {
        let mut client = Client::connect(server, ADDRESS).await?;
        client.request("HEAD", &target, &fields, b"").await.ok();
    }
    std::future::pending().await
}
