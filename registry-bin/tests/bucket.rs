//! A server on a bucket that is not there, or not to be used.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::thread;

use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use support::address::free_address;
use support::bucket::BucketServer;
use support::repository::Repository;
use support::server::{Server, until};

const SERVE: [&str; 5] = [
    "serve",
    "--storage",
    "s3://bucket/registry",
    "--listen",
    "127.0.0.1:0",
];

fn environment<'a>(endpoint: (&'a str, &'a str)) -> [(&'a str, &'a str); 4] {
    [
        endpoint,
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "double"),
        ("AWS_SECRET_ACCESS_KEY", "double"),
    ]
}

/// Runs a start that is refused, and returns its last line.
fn refused(environment: &[(&str, &str)]) -> String {
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(SERVE)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{text}");
    let line = text.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{text}");
    assert!(line.len() < 500 && !line.contains(['<', '{']), "{line}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    line
}

#[test]
fn a_start_says_in_one_line_what_is_wrong_with_the_bucket() {
    let bucket = BucketServer::start();
    let url = bucket.url();
    for (status, code, remedy) in [
        (404, "NoSuchBucket", "create the bucket"),
        (404, "XAdminUserNotFound", "does not know this access key"),
        (403, "InvalidAccessKeyId", "does not know this access key"),
        (403, "SignatureDoesNotMatch", "the secret key is not that"),
        (403, "AccessDenied", "let this key list the bucket"),
        (400, "AuthorizationHeaderMalformed", "the region"),
        (301, "PermanentRedirect", "the region"),
        (503, "SlowDown", "the store answered 503"),
    ] {
        bucket
            .faults()
            .fault_from_now_on(Some(S3Fault::Answer(status, code)));
        let line = refused(&environment(("AWS_ENDPOINT_URL", url)));
        for part in ["cannot use s3://bucket/registry: GET ", url, code, remedy] {
            assert!(line.contains(part), "no {part:?} in {line}");
        }
    }
}

#[test]
fn a_start_says_in_one_line_why_nothing_answers() {
    let bucket = BucketServer::start();
    let address = free_address();
    let over_tls = bucket.url().replace("http://", "https://");
    for (url, why) in [
        (format!("http://{address}"), "nothing listens there"),
        ("https://bucket.invalid".to_owned(), "the name has no address"),
        (over_tls, "does not speak TLS"),
    ] {
        let line = refused(&environment(("AWS_ENDPOINT_URL", &url)));
        assert!(line.contains(why), "no {why:?} in {line}");
        assert!(line.contains(&url), "no {url} in {line}");
    }
}

#[test]
fn while_the_bucket_is_gone_nothing_is_said_to_be_absent() {
    let bucket = BucketServer::start();
    let server = Server::on_bucket(&bucket);
    let repository = Repository::new(server.address(), "gone/image");
    let image = repository.push_image("latest", "a");
    let large = repository.push_blob(&vec![7; 100_000]);
    for code in ["NoSuchBucket", "XAdminUserNotFound"] {
        bucket
            .faults()
            .fault_from_now_on(Some(S3Fault::Answer(404, code)));
        for rest in [
            "manifests/latest",
            &format!("manifests/{}", image.digest),
            &format!("blobs/{large}"),
            &format!("referrers/{}", image.digest),
            "tags/list",
        ] {
            repository.get(rest).expect_error(&[503], &["UNAVAILABLE"]);
            repository.head(rest).expect_status(503);
        }
        let output = server.output_with(code);
        let lines = output.lines().filter(|line| line.contains(code));
        assert!(lines.clone().all(|line| line.len() < 600), "{output}");
        assert!(!output.contains("CanonicalRequest"), "{output}");
    }
    bucket.faults().fault_from_now_on(None);
    repository.get("manifests/latest").expect_status(200);
    repository.get(&format!("blobs/{large}")).expect_status(200);
    repository.get("manifests/other").expect_status(404);
}

/// `/ready` says to clients no more than that; the log says the cause.
#[test]
fn a_health_check_that_fails_says_why_the_bucket_cannot_be_read() {
    let bucket = BucketServer::start();
    let server = Server::on_bucket_with(
        &bucket,
        &[
            ("REGISTRY_HEALTH_STORAGEDRIVER_ENABLED", "true"),
            ("REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL", "50ms"),
            ("REGISTRY_HEALTH_STORAGEDRIVER_THRESHOLD", "1"),
        ],
    );
    let fault = S3Fault::Answer(403, "InvalidAccessKeyId");
    bucket.faults().fault_from_now_on(Some(fault));
    until(|| server.request("GET", "/ready").send().status == 503);
    let output = server.output_with("a health check fails");
    let line = output.lines().find(|line| line.contains("a health check fails"));
    let line = line.expect("it is printed");
    for part in [
        "storagedriver",
        "probed/store",
        "403 InvalidAccessKeyId",
        "correct its name",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[test]
fn a_bucket_that_is_not_there_yet_is_waited_for_if_that_is_asked() {
    let bucket = BucketServer::start();
    bucket
        .faults()
        .fault_from_now_on(Some(S3Fault::Answer(404, "NoSuchBucket")));
    let server = thread::scope(|scope| {
        scope.spawn(|| {
            until(|| bucket.faults().requests() >= 2);
            bucket.faults().fault_from_now_on(None);
            // And in the middle of the probe.
            let is_of_probe = |request: &String| request.contains("/probe/");
            until(|| bucket.faults().take_seen().iter().any(is_of_probe));
            bucket
                .faults()
                .fault_from_now_on(Some(S3Fault::Answer(404, "NoSuchBucket")));
            let before = bucket.faults().requests();
            until(|| bucket.faults().requests() >= before + 2);
            bucket.faults().fault_from_now_on(None);
        });
        let arguments = [&SERVE[..], &["--wait"]].concat();
        Server::run_with(&arguments, &environment(("AWS_ENDPOINT_URL", bucket.url())))
    });
    let output = server.output();
    assert!(
        output.contains("waiting until the bucket can be used") && output.contains("a request of the probe"),
        "{output}"
    );
    Repository::new(server.address(), "late/image").push_image("latest", "a");
}

#[test]
fn what_does_not_pass_is_not_waited_for() {
    let bucket = BucketServer::start();
    let fault = S3Fault::Answer(403, "SignatureDoesNotMatch");
    bucket.faults().fault_from_now_on(Some(fault));
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
        .args(SERVE)
        .arg("--wait")
        .envs(environment(("AWS_ENDPOINT_URL", bucket.url())))
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&stderr);
    assert!(
        !status.success() && text.contains("SignatureDoesNotMatch"),
        "{text}"
    );
}

/// Its key may write, and every write of it would be seen in a bucket that is being copied.
#[test]
fn a_server_that_only_reads_leaves_a_bucket_as_it_is() {
    let bucket = BucketServer::start();
    let writer = Server::on_bucket(&bucket);
    let repository = Repository::new(writer.address(), "team/app");
    let image = repository.push_image("kept", "one");
    let gone = repository.push_image("gone", "two");
    assert!(writer.terminate().success());
    let (algorithm, hex) = gone.digest.split_once(':').expect("a digest");
    bucket.lose(&format!(
        "registry/repositories/team/app/!/manifests/{algorithm}/{hex}"
    ));
    let objects = || bucket.block_on(async |double: &S3Double| double.objects());
    let before = objects();

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let configuration = folder.path().join("registry.yml");
    let text = "version: 0.1\nstorage:\n  s3: {bucket: bucket, rootdirectory: /registry}\n  maintenance: {readonly: {enabled: \
                true}}\nhttp: {addr: '127.0.0.1:0'}\nretention:\n  - {repositories: ['**'], tags: ['*'], keep: \
                [{pulledwithin: 720h}]}\n";
    fs::write(&configuration, text).expect("a file can be written");
    let reader = Server::configured_with(&configuration, &bucket.environment());
    let repository = Repository::new(reader.address(), "team/app");
    let pulled = repository.get("manifests/kept");
    pulled.expect_header("Docker-Content-Digest", &image.digest);
    repository.head("manifests/kept").expect_status(200);
    repository.get("manifests/gone").expect_status(404);
    let output = reader.finish();
    assert!(output.contains("pulls are not recorded"), "{output}");
    assert!(
        objects() == before,
        "a server that only reads wrote to the bucket"
    );
}

#[test]
fn the_variables_of_amazons_tools_act_or_are_refused_by_name() {
    let bucket = BucketServer::start();
    for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let server = Server::run_with(&SERVE, &environment((name, bucket.url())));
        assert!(server.terminate().success());
    }
    let half = [
        ("AWS_ENDPOINT_URL", bucket.url()),
        ("AWS_SECRET_ACCESS_KEY", "double"),
    ];
    let line = refused(&half);
    assert!(
        line.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together"),
        "{line}"
    );
    let elsewhere = ("AWS_ENDPOINT_URL", "http://192.0.2.1:9000");
    let line = refused(&environment(elsewhere));
    assert!(line.contains("AWS_ALLOW_HTTP=true"), "{line}");
    for name in ["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
        let line = refused(&[("AWS_ENDPOINT_URL", bucket.url()), (name, "work")]);
        assert!(line.contains(name), "{line}");
        assert!(line.contains("AWS_ACCESS_KEY_ID"), "{line}");
    }
}
