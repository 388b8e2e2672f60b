//! What the core does for each request, without I/O.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use registry_core::hash::Hasher;
use registry_core::manifest::ManifestView;
use registry_core::request::Request;
use registry_core::upload::Upload;
use registry_core::{Algorithm, Digest};

const NO_FIELDS: [(&str, &str); 0] = [];

fn requests(criterion: &mut Criterion) {
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
    let mut group = criterion.benchmark_group("request");
    for (name, method, target) in targets {
        group.bench_function(format!("parse {name}"), |bencher| {
            bencher.iter(|| Request::parse(method, black_box(&target), &NO_FIELDS[..]));
        });
        let request = Request::parse(method, &target, &NO_FIELDS[..]).expect("the request is valid");
        group.bench_function(format!("build {name}"), |bencher| {
            bencher.iter(|| black_box(&request).build());
        });
    }
}

fn digests(criterion: &mut Criterion) {
    let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
    criterion.bench_function("digest parse", |bencher| {
        bencher.iter(|| black_box(&text).parse::<Digest>());
    });
    let mut group = criterion.benchmark_group("hash");
    let content = vec![7_u8; 1 << 20];
    group.throughput(Throughput::Bytes(content.len() as u64));
    for algorithm in Algorithm::ALL {
        group.bench_function(format!("{algorithm} of 1 MiB"), |bencher| {
            bencher.iter(|| Digest::of(algorithm, black_box(&content)));
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

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    for (name, size) in [("4 KB", 4_000), ("4 MB", 4_000_000)] {
        let bytes = image(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("view of {name}"), |bencher| {
            bencher.iter(|| ManifestView::parse(black_box(&bytes), None));
        });
    }
}

fn uploads(criterion: &mut Criterion) {
    let upload = Upload::new(Algorithm::Sha256);
    criterion.bench_function("upload step of 4 KiB", |bencher| {
        bencher.iter(|| upload.clone().appended(black_box(&[7; 4096])));
    });
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&[7; 100]);
    let snapshot = hasher.snapshot();
    criterion.bench_function("hash snapshot", |bencher| {
        bencher.iter(|| black_box(&hasher).snapshot());
    });
    criterion.bench_function("hash resume", |bencher| {
        bencher.iter(|| Hasher::resume(black_box(&snapshot)));
    });
}

criterion_group!(benches, requests, digests, manifests, uploads);
criterion_main!(benches);
