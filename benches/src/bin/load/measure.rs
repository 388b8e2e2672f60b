//! What is measured, and how.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::client::{Connection, Response, target_of, with_query};
use crate::content::{Content, sha256};
use crate::subject::Subject;

/// The media type of the manifest.
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The repository that everything is in.
const REPOSITORY: &str = "/v2/load/test";
/// Bytes of the blobs that are pulled on many connections.
const SMALL: [u64; 2] = [1 << 20, 4 << 10];
/// Clients at once where there are several.
const CLIENTS: u64 = 8;
/// Bytes of each of several pushes at once.
const MIDDLE: u64 = 100 << 20;
/// Tags that are pushed in a row.
const TAGS: u32 = 500;
/// Bytes of a MiB, as a divisor.
const MIB: f64 = 1_048_576.0;

/// The setting of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// wrk, if it is there.
    pub(crate) wrk: Option<PathBuf>,
    /// Seconds that wrk runs.
    pub(crate) seconds: u32,
    /// Bytes of a large blob.
    pub(crate) large: u64,
}

macro_rules! measures {
    ($($name:ident: $title:literal, $unit:literal, $more:literal;)*) => {
        /// One row of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Measure {
            $($name,)*
        }

        impl Measure {
            /// All measures in the order in which they are taken.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns what is measured.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Returns the unit.
            pub(crate) const fn unit(self) -> &'static str {
                match self { $(Self::$name => $unit,)* }
            }

            /// Returns whether a larger value is better.
            pub(crate) const fn more_is_better(self) -> bool {
                match self { $(Self::$name => $more,)* }
            }
        }
    };
}

measures! {
    PullLarge: "pull a large blob, 1 connection", "MiB/s", true;
    PullMebibyte: "pull 1 MiB, 32 connections", "requests/s", true;
    PullSmall: "pull 4 KiB, 32 connections", "requests/s", true;
    PullTag: "pull a manifest by tag, 32 connections", "requests/s", true;
    PullDigest: "pull a manifest by digest, 32 connections", "requests/s", true;
    PushLarge: "push a large blob: POST, PATCH, PUT", "MiB/s", true;
    PushMany: "8 pushes of 100 MiB at once", "MiB/s", true;
    PushTags: "tag pushes in a row", "tags/s", true;
    Start: "start with an existing store", "ms", false;
    IdleMemory: "memory after the start", "MiB", false;
    PeakMemory: "peak memory, 8 pushes and 8 pulls of large blobs at once", "MiB", false;
}

/// Pushes what is pulled later; where nothing can be pushed, writes it as files.
pub(crate) fn fill(subject: &Subject, run: &Run) -> Result<(), String> {
    for length in [run.large, SMALL[0], SMALL[1]] {
        let content = pulled(length);
        let digest = content.clone().digest();
        if subject.is_registry() {
            push(subject, content, &digest)?;
        } else {
            let path = subject.data().join(format!("v2/load/test/blobs/{digest}"));
            write(&path, content)?;
        }
    }
    let manifest = manifest();
    if subject.is_registry() {
        put_manifest(&mut connect(subject)?, subject, "latest", &manifest)?;
    } else {
        for reference in ["latest", &sha256(&manifest)] {
            let path = subject.data().join(format!("v2/load/test/manifests/{reference}"));
            write(&path, manifest.as_slice())?;
        }
    }
    Ok(())
}

impl Measure {
    /// Takes the measure once; `None` where it does not apply. `round` makes what is pushed new.
    pub(crate) fn take(self, subject: &mut Subject, run: &Run, round: u64) -> Result<Option<f64>, String> {
        if !subject.is_registry() && self as usize >= Self::PushLarge as usize {
            return Ok(None);
        }
        settle();
        let seed = (self as u64) << 32 | round << 8;
        match self {
            Self::PullLarge => {
                let target = blob(run.large);
                let began = Instant::now();
                pull(subject, &target, run.large)?;
                Ok(Some(run.large as f64 / MIB / began.elapsed().as_secs_f64()))
            }
            Self::PullMebibyte => wrk(subject, run, &blob(SMALL[0])),
            Self::PullSmall => wrk(subject, run, &blob(SMALL[1])),
            Self::PullTag => wrk(subject, run, &format!("{REPOSITORY}/manifests/latest")),
            Self::PullDigest => wrk(
                subject,
                run,
                &format!("{REPOSITORY}/manifests/{}", sha256(&manifest())),
            ),
            Self::PushLarge => at_once(subject, seed, 1, run.large).map(Some),
            Self::PushMany => at_once(subject, seed, CLIENTS, MIDDLE.min(run.large)).map(Some),
            Self::PushTags => tags(subject, round).map(Some),
            Self::Start => {
                subject.stop();
                Ok(Some(subject.start()?.as_secs_f64() * 1000.0))
            }
            Self::IdleMemory => {
                subject.stop();
                subject.start()?;
                subject.memory("VmRSS").map(Some)
            }
            Self::PeakMemory => {
                subject.stop();
                subject.start()?;
                peak(subject, run, seed).map(Some)
            }
        }
    }
}

/// Waits until what was written is on the disk, so that one measure does not pay for another.
fn settle() {
    Command::new("sync").status().ok();
}

/// Returns the content of this length that is there to be pulled.
const fn pulled(length: u64) -> Content {
    Content::new(length, length)
}

fn blob(length: u64) -> String {
    format!("{REPOSITORY}/blobs/{}", pulled(length).digest())
}

/// Returns a manifest of a size that is common, some 2 KiB.
fn manifest() -> Vec<u8> {
    let describe = |media_type: &str, length: u64| {
        let digest = pulled(length).digest();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{length}}}"#)
    };
    let layers = vec![describe("application/vnd.oci.image.layer.v1.tar", SMALL[0]); 10].join(",");
    let config = describe("application/vnd.oci.image.config.v1+json", SMALL[1]);
    format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{layers}]}}"#)
        .into_bytes()
}

fn write(path: &std::path::Path, mut content: impl io::Read) -> Result<(), String> {
    let folder = path.parent().ok_or("a file is in a folder")?;
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let mut file = std::fs::File::create(path).map_err(|error| error.to_string())?;
    io::copy(&mut content, &mut file)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn expect(response: io::Result<Response>, status: u16) -> Result<Response, String> {
    let response = response.map_err(|error| error.to_string())?;
    if response.status == status {
        return Ok(response);
    }
    Err(format!(
        "{status} was expected, not {} {}",
        response.status,
        String::from_utf8_lossy(&response.body)
    ))
}

fn connect(subject: &Subject) -> Result<Connection, String> {
    Connection::open(subject.address()).map_err(|error| error.to_string())
}

fn push(subject: &Subject, content: Content, digest: &str) -> Result<(), String> {
    let opened = expect(
        subject
            .request("POST", &format!("{REPOSITORY}/blobs/uploads/"))
            .try_send(),
        202,
    )?;
    let location = |response: &Response| response.header("Location").map(target_of);
    let target = location(&opened).ok_or("no Location")?;
    let patched = expect(subject.request("PATCH", &target).chunked(content).try_send(), 202)?;
    let target = with_query(&location(&patched).ok_or("no Location")?, "digest", digest);
    expect(subject.request("PUT", &target).try_send(), 201).map(drop)
}

/// Counts bytes and drops them.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pull(subject: &Subject, target: &str, length: u64) -> Result<(), String> {
    let mut count = Count(0);
    expect(subject.request("GET", target).try_pull_to(&mut count), 200)?;
    if count.0 == length {
        Ok(())
    } else {
        Err(format!("{} bytes of {length} came", count.0))
    }
}

/// Pushes `count` new blobs at once and returns MiB per second.
fn at_once(subject: &Subject, seed: u64, count: u64, length: u64) -> Result<f64, String> {
    let contents: Vec<_> = (0..count)
        .map(|number| Content::new(seed + number, length))
        .collect();
    let digests: Vec<_> = contents.iter().map(|content| content.clone().digest()).collect();
    let began = Instant::now();
    thread::scope(|scope| {
        let pushes: Vec<_> = contents
            .iter()
            .zip(&digests)
            .map(|(content, digest)| scope.spawn(|| push(subject, content.clone(), digest)))
            .collect();
        join(pushes)
    })?;
    Ok((count * length) as f64 / MIB / began.elapsed().as_secs_f64())
}

fn join(threads: Vec<thread::ScopedJoinHandle<'_, Result<(), String>>>) -> Result<(), String> {
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?)
}

fn put_manifest(
    connection: &mut Connection,
    subject: &Subject,
    reference: &str,
    manifest: &[u8],
) -> Result<(), String> {
    let request = subject.request("PUT", &format!("{REPOSITORY}/manifests/{reference}"));
    let incoming = connection.exchange(request.header("Content-Type", IMAGE).body(manifest));
    expect(incoming.and_then(|incoming| incoming.collect()), 201).map(drop)
}

fn tags(subject: &Subject, round: u64) -> Result<f64, String> {
    let manifest = manifest();
    let mut connection = connect(subject)?;
    let began = Instant::now();
    for number in 0..TAGS {
        put_manifest(&mut connection, subject, &format!("r{round}-{number}"), &manifest)?;
    }
    Ok(f64::from(TAGS) / began.elapsed().as_secs_f64())
}

fn peak(subject: &Subject, run: &Run, seed: u64) -> Result<f64, String> {
    let contents: Vec<_> = (0..CLIENTS)
        .map(|number| Content::new(seed + number, run.large))
        .collect();
    let digests: Vec<_> = contents.iter().map(|content| content.clone().digest()).collect();
    let target = blob(run.large);
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for (content, digest) in contents.iter().zip(&digests) {
            clients.push(scope.spawn(|| push(subject, content.clone(), digest)));
            clients.push(scope.spawn(|| pull(subject, &target, run.large)));
        }
        join(clients)
    })?;
    subject.memory("VmHWM")
}

/// Runs wrk on 32 connections and returns requests per second.
fn wrk(subject: &Subject, run: &Run, target: &str) -> Result<Option<f64>, String> {
    let Some(program) = &run.wrk else { return Ok(None) };
    let output = Command::new(program)
        .args([
            "--threads",
            "2",
            "--connections",
            "32",
            "--duration",
            &format!("{}s", run.seconds),
        ])
        .args([
            "--header",
            &format!("Accept: {IMAGE}"),
            &format!("http://{}{target}", subject.address()),
        ])
        .output()
        .map_err(|error| format!("wrk: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if printed.contains("Non-2xx") || printed.contains("Socket errors") {
        return Err(format!("{}: {printed}", subject.name()));
    }
    let rate = printed
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = rate.and_then(|rate| rate.trim().parse().ok());
    rate.map(Some)
        .ok_or_else(|| format!("wrk printed no rate: {printed}"))
}
