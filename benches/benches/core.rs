//! What the core does for each request, without I/O.

#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use registry_core::hash::Hasher;
use registry_core::manifest::ManifestView;
use registry_core::request::Request;
use registry_core::upload::Upload;
use registry_core::{Algorithm, Digest};

const NO_FIELDS: [(&str, &str); 0] = [];

/// How often each measurement is repeated; the median is printed, and the extremes show the noise.
const REPETITIONS: usize = 11;

/// How long one repetition takes at least.
const REPETITION: Duration = Duration::from_millis(100);

/// Runs measurements one after the other.
struct Bench {
    /// Whether each is only run once, as a test.
    is_test: bool,
    /// Only those are run that have this in their name.
    filter: String,
}

impl Bench {
    /// Reads the arguments of `cargo bench`: `--test`, or a part of a name.
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            is_test: arguments.iter().any(|argument| argument == "--test"),
            filter: arguments
                .into_iter()
                .find(|argument| !argument.starts_with("--"))
                .unwrap_or_default(),
        }
    }

    /// Measures `act`, which takes `bytes` bytes if it is about throughput.
    fn run<T>(&self, name: &str, bytes: Option<usize>, mut act: impl FnMut() -> T) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut time = |count: u32| {
            let start = Instant::now();
            for _ in 0..count {
                black_box(act());
            }
            start.elapsed()
        };
        if self.is_test {
            time(1);
            println!("{name}: ran");
            return;
        }
        let mut count = 1;
        while time(count) < REPETITION {
            count *= 2;
        }
        let mut seconds: Vec<f64> = (0..REPETITIONS)
            .map(|_| time(count).as_secs_f64() / f64::from(count))
            .collect();
        seconds.sort_by(f64::total_cmp);
        let (least, median, most) = (seconds[0], seconds[REPETITIONS / 2], seconds[REPETITIONS - 1]);
        let [least, middle, most] = [least, median, most].map(|value| value * 1e9);
        print!("{name:32} {middle:>12.1} ns ({least:.1} to {most:.1})");
        match bytes {
            Some(bytes) => println!(", {:.2} GB/s", bytes as f64 / median / 1e9),
            None => println!(),
        }
    }
}

fn requests(bench: &Bench) {
    let digest = "a".repeat(64);
    let targets = [
        ("blob", "GET", format!("/v2/library/alpine/blobs/sha256:{digest}")),
        ("tag", "GET", "/v2/library/alpine/manifests/latest".to_owned()),
        (
            "mount",
            "POST",
            format!("/v2/a/blobs/uploads/?mount=sha256%3A{digest}&from=library/alpine"),
        ),
    ];
    for (name, method, target) in targets {
        bench.run(&format!("request parse {name}"), None, || {
            Request::parse(method, black_box(&target), &NO_FIELDS[..])
        });
        let request = Request::parse(method, &target, &NO_FIELDS[..]).expect("the request is valid");
        bench.run(&format!("request build {name}"), None, || {
            black_box(&request).build()
        });
    }
}

fn digests(bench: &Bench) {
    let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
    bench.run("digest parse", None, || black_box(&text).parse::<Digest>());
    let content = vec![7_u8; 1 << 20];
    for algorithm in Algorithm::ALL {
        bench.run(&format!("hash {algorithm} of 1 MiB"), Some(content.len()), || {
            Digest::of(algorithm, black_box(&content))
        });
    }
}

/// Makes an image manifest of about `size` bytes.
fn image(size: usize) -> Vec<u8> {
    let descriptor = |media_type: &str, number: usize| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"sha256:{number:064x}","size":{number}}}"#
        )
    };
    let mut text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":["#,
        descriptor("config.v1+json", 0)
    );
    text.push_str(&descriptor("layer.v1.tar+gzip", 1));
    let mut number = 2;
    while text.len() < size {
        let layer = descriptor("layer.v1.tar+gzip", number);
        write!(text, ",{layer}").expect("writing to a string does not fail");
        number += 1;
    }
    text.push_str("]}");
    text.into_bytes()
}

fn manifests(bench: &Bench) {
    for (name, size) in [("4 KB", 4_000), ("4 MB", 4_000_000)] {
        let bytes = image(size);
        bench.run(&format!("manifest view of {name}"), Some(bytes.len()), || {
            ManifestView::parse(black_box(&bytes), None).map(drop)
        });
    }
}

fn uploads(bench: &Bench) {
    let upload = Upload::new(Algorithm::Sha256);
    bench.run("upload step of 4 KiB", None, || {
        upload.clone().appended(black_box(&[7; 4096]))
    });
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&[7; 100]);
    let snapshot = hasher.snapshot();
    bench.run("hash snapshot", None, || black_box(&hasher).snapshot());
    bench.run("hash resume", None, || Hasher::resume(black_box(&snapshot)));
}

fn main() {
    let bench = Bench::from_arguments();
    requests(&bench);
    digests(&bench);
    manifests(&bench);
    uploads(&bench);
}
