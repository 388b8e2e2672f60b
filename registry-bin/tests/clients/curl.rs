//! curl: uploads that are interrupted and resumed, downloads that are resumed, ranges, a gibibyte, HTTP/2.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::Path;

use crate::support::client::{target_of, with_query};
use crate::support::content::{Content, Hashed};
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::tools::{Tool, server_and_folder};

fn tool(folder: &Path) -> Option<Tool> {
    Some(Tool::find("curl", folder)?.with([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "250",
    ]))
}

fn write(path: &Path, mut content: Content) {
    io::copy(&mut content, &mut File::create(path).expect("a file can be made"))
        .expect("a file can be written");
}

fn digest_of(path: &Path) -> String {
    let mut hashed = Hashed::new();
    io::copy(&mut File::open(path).expect("it was downloaded"), &mut hashed).expect("a file can be read");
    hashed.finish().0
}

/// Uploads `content` in `parts` and downloads it in two.
fn up_and_down(content: &Content, parts: u64) {
    let (server, folder) = server_and_folder();
    let Some(curl) = tool(folder.path()) else { return };
    let url = |target: &str| format!("http://{}{target}", server.address());
    let repository = Repository::new(server.address(), "curl/test");
    let mut location = repository.open_upload();
    let part = content.remaining() / parts;
    let input = folder.path().join("part");
    for number in 0..parts {
        let start = number * part;
        let length = if number + 1 == parts {
            content.remaining() - start
        } else {
            part
        };
        write(&input, content.part(start, length));
        let range = format!("Content-Range: {start}-{}", start + length - 1);
        let upload = [
            "--request",
            "PATCH",
            "--header",
            &range,
            "--upload-file",
            "part",
            "--header",
            "Expect:",
        ];
        let more = [
            "--header",
            "Content-Type: application/octet-stream",
            "--write-out",
            "%header{location}",
        ];
        let answered = curl.run(upload.into_iter().chain(more).chain([url(&location).as_str()]));
        location = target_of(&answered);
        let status = repository.follow("GET", &location).send();
        status.expect_header("Range", &format!("0-{}", start + length - 1));
    }
    let digest = content.clone().digest();
    curl.run([
        "--request",
        "PUT",
        &url(&with_query(&location, "digest", &digest)),
    ]);
    let blob = url(&repository.path(&format!("blobs/{digest}")));
    let half = content.remaining() / 2;
    let first = format!("0-{}", half - 1);
    curl.run(["--range", &first, "--output", "out", &blob]);
    curl.run(["--continue-at", "-", "--output", "out", &blob]);
    assert_eq!(digest_of(&folder.path().join("out")), digest);
}

#[test]
fn an_upload_in_chunks_and_a_download_that_goes_on() {
    up_and_down(&Content::new(1, (5 << 20) + 1), 7);
}

#[test]
fn a_gibibyte_goes_up_and_down() {
    up_and_down(&Content::new(2, 1 << 30), 2);
}

#[test]
fn an_upload_that_is_cut_off_goes_on_where_it_stands() {
    let (server, folder) = server_and_folder();
    let Some(curl) = tool(folder.path()) else { return };
    let content = Content::new(3, 20 << 20);
    write(&folder.path().join("whole"), content.clone());
    let repository = Repository::new(server.address(), "curl/cut");
    let opened = repository.open_upload();
    let url = |target: &str| format!("http://{}{target}", server.address());
    let slow = [
        "--request",
        "PATCH",
        "--upload-file",
        "whole",
        "--limit-rate",
        "8M",
        "--max-time",
        "1",
    ];
    curl.try_run(slow.into_iter().chain([url(&opened).as_str()]))
        .expect_err("curl gives up after a second");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let location = loop {
        let status = repository.follow("GET", &opened).send();
        status.expect_status(204);
        let range = status.header("Range").expect("a status has a range").to_owned();
        let end: u64 = range
            .strip_prefix("0-")
            .and_then(|end| end.parse().ok())
            .expect("a range from 0");
        assert!(end < content.remaining() - 1, "{range}");
        let start = if end == 0 { 0 } else { end + 1 };
        write(
            &folder.path().join("rest"),
            content.part(start, content.remaining() - start),
        );
        let range = format!("Content-Range: {start}-{}", content.remaining() - 1);
        let upload = ["--request", "PATCH", "--header", &range, "--upload-file", "rest"];
        if curl
            .try_run(upload.into_iter().chain([url(&status.location()).as_str()]))
            .is_ok()
        {
            break status.location();
        }
        // Until the server noticed that the first client is gone it may refuse a second one.
        assert!(std::time::Instant::now() < deadline, "the upload does not go on");
    };
    let digest = content.digest();
    curl.run([
        "--request",
        "PUT",
        &url(&with_query(&location, "digest", &digest)),
    ]);
    curl.run([
        "--output",
        "out",
        &url(&repository.path(&format!("blobs/{digest}"))),
    ]);
    assert_eq!(digest_of(&folder.path().join("out")), digest);
}

#[test]
fn ranges_are_cut_as_asked() {
    let (server, folder) = server_and_folder();
    let Some(curl) = tool(folder.path()) else { return };
    let content = Content::new(4, 10_000).bytes();
    let repository = Repository::new(server.address(), "curl/ranges");
    let digest = repository.push_blob(&content);
    let blob = format!(
        "http://{}{}",
        server.address(),
        repository.path(&format!("blobs/{digest}"))
    );
    for (range, part) in [
        ("0-0", &content[..1]),
        ("9000-", &content[9000..]),
        ("-3", &content[9997..]),
    ] {
        let written = curl.run([
            "--range",
            range,
            "--output",
            "part",
            "--write-out",
            "%{http_code}",
            &blob,
        ]);
        assert_eq!(written, "206");
        assert!(
            std::fs::read(folder.path().join("part")).expect("it was downloaded") == *part,
            "{range}"
        );
    }
    let refused = curl
        .try_run(["--range", "10000-", &blob])
        .expect_err("there is nothing");
    assert!(refused.contains("416"), "{refused}");
}

#[test]
fn http_2_is_spoken_in_the_clear() {
    let (server, folder) = server_and_folder();
    let Some(curl) = tool(folder.path()) else { return };
    let content = Content::new(5, 3 << 20);
    write(&folder.path().join("whole"), content.clone());
    let repository = Repository::new(server.address(), "curl/http2");
    let url = |target: &str| format!("http://{}{target}", server.address());
    let http2 = [
        "--http2-prior-knowledge",
        "--write-out",
        "%{http_version} %{http_code}",
    ];
    let digest = content.digest();
    let put = url(&with_query(&repository.open_upload(), "digest", &digest));
    let written = curl.run(http2.into_iter().chain(["--upload-file", "whole", &put]));
    assert_eq!(written, "2 201");
    let blob = url(&repository.path(&format!("blobs/{digest}")));
    let written = curl.run(http2.into_iter().chain(["--output", "out", &blob]));
    assert_eq!(written, "2 200");
    assert_eq!(digest_of(&folder.path().join("out")), digest);
}

/// The reset came in one flight with the answer, and curl 7.88 lost all of them.
#[test]
fn an_upload_that_is_refused_for_want_of_memory_reads_the_answer() {
    let (_, folder) = server_and_folder();
    let Some(curl) = Tool::find("curl", folder.path()) else {
        return;
    };
    let curl = curl.with(["--silent", "--show-error", "--max-time", "20"]);
    let server = Server::run_with(
        &["serve", "--listen", "127.0.0.1:0"],
        &[
            ("REGISTRY_HTTP_LIMITS_MEMORY", "8388608"),
            ("REGISTRY_LOG_LEVEL", "debug"),
        ],
    );
    // A connection that cannot be paid for ends without an answer. Only then may curl fail.
    let ended = || {
        let output = server.output();
        let reasons = ["there is no memory for a connection", "its connection is cut"];
        reasons
            .map(|reason| output.matches(reason).count())
            .iter()
            .sum::<usize>()
    };
    let url = |target: &str| format!("http://{}/v2/{target}", server.address());
    let ask = |arguments: &[&str], target: &str| {
        let http2 = [
            "--http2-prior-knowledge",
            "--no-fail-with-body",
            "--output",
            "answer",
        ];
        let status = ["--write-out", "%{http_code}", &url(target)];
        curl.try_run(http2.iter().chain(arguments).chain(&status))
    };
    write(&folder.path().join("whole"), Content::new(6, 16 << 20));
    let session = format!(
        "a/blobs/uploads/0c9f3d8a-1c1d-4a4e-8f51-0b6a1d0c2e3f?digest=sha256:{}",
        "0".repeat(64)
    );
    // Requests whose body does not come hold some each, until there is enough for one more connection and not for its request.
    let hold = |number: usize| {
        let mut held = TcpStream::connect(server.address()).expect("a connection is taken");
        let head = format!(
            "PUT /v2/a/manifests/a HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\nX: {}\r\n\
             Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n{{",
            "x".repeat(number * 977 % 8000)
        );
        // It may be refused already.
        drop(held.write_all(head.as_bytes()));
        held
    };
    let mut held: Vec<TcpStream> = (0..100).map(hold).collect();
    let (mut refused, mut tries) = (0, held.len());
    while refused < 5 {
        tries += 1;
        assert!(tries < 2000, "nothing is refused");
        let before = ended();
        let asked = match ask(&[], "").as_deref() {
            Ok("429") => ask(&["--upload-file", "whole"], &session),
            Ok(_) => {
                held.push(hold(tries));
                continue;
            }
            Err(error) => Err(error.to_owned()),
        };
        match asked.as_deref() {
            Ok("429") => refused += 1,
            // Some was given back.
            Ok("404") => continue,
            Ok(other) => panic!("{other}"),
            Err(error) => {
                eprintln!("{error}");
                until(|| ended() > before);
                drop(held.swap_remove(tries % held.len()));
                continue;
            }
        }
        let answer = std::fs::read_to_string(folder.path().join("answer")).expect("it has a body");
        assert!(answer.contains("TOOMANYREQUESTS"), "{answer}");
    }
}
