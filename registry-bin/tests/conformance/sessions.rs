//! The life of an upload session: its status (end-13), its cancellation (end-14), its end, and clients that vanish.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::backend::behaviours;
use crate::support::client::{Connection, target_of, with_query};
use crate::support::content::{Content, sha256};
use crate::support::repository::Repository;
use crate::support::server::pause;

behaviours![
    a_fresh_session_stands_at_0_0,
    the_status_tells_how_much_arrived,
    a_session_that_never_was_is_404,
    a_cancelled_session_is_404,
    a_finished_session_is_404,
    a_put_whose_answer_was_lost_may_be_repeated,
    a_put_that_is_sent_several_times_at_once_is_201_each_time,
    a_put_that_another_one_of_other_content_overtakes_may_be_sent_again,
    a_patch_that_is_sent_again_beside_the_first_is_202,
    a_session_belongs_to_its_repository,
    a_session_survives_a_client_that_vanishes,
    a_put_that_breaks_off_stores_nothing,
    a_put_that_breaks_off_may_be_sent_again,
    a_post_that_breaks_off_stores_nothing,
    many_sessions_may_be_open_at_once,
];

const UNKNOWN: &[&str] = &["BLOB_UPLOAD_UNKNOWN"];

#[track_caller]
fn expect_gone(repository: &Repository, location: &str) {
    repository
        .follow("GET", location)
        .send()
        .expect_error(&[404], UNKNOWN);
    repository
        .patch(location, 0, b"content")
        .expect_error(&[404], UNKNOWN);
    repository
        .follow("PATCH", location)
        .chunked(b"content".as_slice())
        .send()
        .expect_error(&[404], UNKNOWN);
    let target = with_query(location, "digest", &sha256(b"content"));
    repository
        .follow("PUT", &target)
        .body(b"content")
        .send()
        .expect_error(&[404], UNKNOWN);
    repository
        .follow("DELETE", location)
        .send()
        .expect_error(&[404], UNKNOWN);
}

fn a_fresh_session_stands_at_0_0(repository: &Repository) {
    let location = repository.open_upload();
    let status = repository.follow("GET", &location).send();
    status.expect_status(204);
    status.expect_header("Range", "0-0");
    assert!(
        status.header("Docker-Upload-UUID").is_some(),
        "{}",
        status.summary()
    );
    repository
        .patch(&status.location(), 0, b"goes on")
        .expect_status(202);
}

fn the_status_tells_how_much_arrived(repository: &Repository) {
    let location = repository
        .patch(&repository.open_upload(), 0, b"12345")
        .location();
    let status = repository.follow("GET", &location).send();
    status.expect_status(204);
    status.expect_header("Range", "0-4");
    let patched = repository.patch(&status.location(), 5, b"67");
    repository
        .follow("GET", &patched.location())
        .send()
        .expect_header("Range", "0-6");
}

fn a_session_that_never_was_is_404(repository: &Repository) {
    let location = repository.open_upload();
    for id in ["2f3a5d1e-0000-4000-8000-000000000000", "nonsense", "0"] {
        expect_gone(repository, &repository.path(&format!("blobs/uploads/{id}")));
    }
    repository.follow("GET", &location).send().expect_status(204);
}

fn a_cancelled_session_is_404(repository: &Repository) {
    let location = repository
        .patch(&repository.open_upload(), 0, b"cancelled")
        .location();
    let cancelled = repository.follow("DELETE", &location).send();
    cancelled.expect_status(204);
    assert_eq!(cancelled.body, b"");
    expect_gone(repository, &location);
    let fresh = repository.open_upload();
    repository.follow("DELETE", &fresh).send().expect_status(204);
    expect_gone(repository, &fresh);
}

fn a_finished_session_is_404(repository: &Repository) {
    let location = repository
        .patch(&repository.open_upload(), 0, b"finished")
        .location();
    repository
        .close_upload(&location, &sha256(b"finished"))
        .expect_status(201);
    repository
        .follow("GET", &location)
        .send()
        .expect_error(&[404], UNKNOWN);
    repository
        .patch(&location, 8, b"more")
        .expect_error(&[404], UNKNOWN);
    repository
        .close_upload(&location, &sha256(b"another"))
        .expect_error(&[404], UNKNOWN);
    repository
        .get(&format!("blobs/{}", sha256(b"finished")))
        .expect_status(200);
}

fn a_put_whose_answer_was_lost_may_be_repeated(repository: &Repository) {
    let location = repository
        .patch(&repository.open_upload(), 0, b"answer lost")
        .location();
    for _ in 0..2 {
        repository
            .close_upload(&location, &sha256(b"answer lost"))
            .expect_status(201);
    }
    repository
        .delete(&format!("blobs/{}", sha256(b"answer lost")))
        .expect_status(202);
    repository
        .close_upload(&location, &sha256(b"answer lost"))
        .expect_error(&[404], UNKNOWN);
}

fn a_put_that_is_sent_several_times_at_once_is_201_each_time(repository: &Repository) {
    for round in 0..8 {
        let content = Content::new(700 + round, 300_000).bytes();
        let target = with_query(&repository.open_upload(), "digest", &sha256(&content));
        let start = Barrier::new(4);
        let send = || {
            start.wait();
            repository.follow("PUT", &target).body(&content).send()
        };
        std::thread::scope(|scope| {
            let sent: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
            for put in sent {
                put.join().expect("it is answered").expect_status(201);
            }
        });
        let blob = repository.get(&format!("blobs/{}", sha256(&content)));
        assert!(blob.body == content, "{}", blob.summary());
    }
}

fn a_put_that_another_one_of_other_content_overtakes_may_be_sent_again(repository: &Repository) {
    let content = Content::new(9, 300_000).bytes();
    let location = repository.open_upload();
    let target = with_query(&location, "digest", &sha256(&content));
    let mut stalled = begin(repository, "PUT", &target_of(&target), &content);
    let wrong = with_query(&location, "digest", &sha256(b"of something else"));
    let is_answered = AtomicBool::new(false);
    let (status, header) = std::thread::scope(|scope| {
        // Again and again: the server may look at the other one later.
        scope.spawn(|| {
            while !is_answered.load(Ordering::Relaxed) {
                repository.follow("PUT", &wrong).body(b"something else").send();
                pause();
            }
        });
        let answer = stalled.read_head();
        is_answered.store(true, Ordering::Relaxed);
        answer.expect("it is answered")
    });
    let may_repeat = header
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    assert!(status == 503 && may_repeat, "{status} {header:?}");
    let repeated = repository.follow("PUT", &target).body(&content).send();
    repeated.expect_status(201);
}

/// A client that lost its connection sends the same chunk again, before the server noticed that the first is dead.
fn a_patch_that_is_sent_again_beside_the_first_is_202(repository: &Repository) {
    let content = Content::new(10, 300_000).bytes();
    let location = repository.open_upload();
    let _stalled = begin(repository, "PATCH", &location, &content);
    // The server may look at the first one later, and then that one has the session.
    let deadline = Instant::now() + Duration::from_secs(20);
    let patched = loop {
        let patched = repository.follow("PATCH", &location).body(&content).send();
        if patched.status == 202 {
            break patched;
        }
        patched.expect_error(&[503], &["UNAVAILABLE"]);
        assert!(Instant::now() < deadline, "{}", patched.summary());
        pause();
    };
    let digest = sha256(&content);
    repository
        .close_upload(&patched.location(), &digest)
        .expect_status(201);
    assert!(repository.get(&format!("blobs/{digest}")).body == content);
}

fn a_session_belongs_to_its_repository(repository: &Repository) {
    let other = repository.sibling("other");
    other.push_blob(b"the other repository is there");
    let location = repository.open_upload();
    let moved = location.replace(&repository.path("blobs"), &other.path("blobs"));
    assert_ne!(location, moved);
    expect_gone(&other, &moved);
    repository.follow("GET", &location).send().expect_status(204);
}

fn a_session_survives_a_client_that_vanishes(repository: &Repository) {
    let content = Content::new(1, 600_000).bytes();
    for coding in ["Content-Length: 600000", "Transfer-Encoding: chunked"] {
        let location = repository.open_upload();
        let mut connection = Connection::open(repository.address).expect("the server listens");
        let head = format!("PATCH {location} HTTP/1.1\r\nHost: registry\r\n{coding}\r\n\r\n");
        connection.write_raw(head.as_bytes()).expect("the server reads");
        if coding.starts_with('T') {
            connection.write_raw(b"927c0\r\n").expect("the server reads");
        }
        connection
            .write_raw(&content[..400_000])
            .expect("the server reads");
        drop(connection);
        // The server notices the end after an unknown time; until then the session may refuse a second writer.
        let deadline = Instant::now() + Duration::from_secs(20);
        let put = loop {
            let status = repository.follow("GET", &location).send();
            status.expect_status(204);
            let range = status.header("Range").expect("a status has a range");
            let end: usize = range
                .strip_prefix("0-")
                .and_then(|end| end.parse().ok())
                .expect("a range from 0");
            assert!(end < 400_000, "{range}");
            // `0-0` is no byte or one: the only answer that does not tell.
            let start = if end == 0 { 0 } else { end + 1 };
            let patched = repository.patch(&status.location(), start as u64, &content[start..]);
            if patched.status == 202 {
                break repository.close_upload(&patched.location(), &sha256(&content));
            }
            assert!(Instant::now() < deadline, "{}", patched.summary());
            pause();
        };
        put.expect_status(201);
        assert!(repository.get(&format!("blobs/{}", sha256(&content))).body == content);
        repository
            .delete(&format!("blobs/{}", sha256(&content)))
            .expect_status(202);
    }
}

fn break_off(repository: &Repository, method: &str, target: &str, content: &[u8]) {
    drop(begin(repository, method, target, content));
}

/// Sends the header of a request and half of its body.
fn begin(repository: &Repository, method: &str, target: &str, content: &[u8]) -> Connection {
    let mut connection = Connection::open(repository.address).expect("the server listens");
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: registry\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    connection.write_raw(head.as_bytes()).expect("the server reads");
    connection
        .write_raw(&content[..content.len() / 2])
        .expect("the server reads");
    connection
}

fn a_put_that_breaks_off_stores_nothing(repository: &Repository) {
    let content = Content::new(2, 300_000).bytes();
    let location = repository.open_upload();
    break_off(
        repository,
        "PUT",
        &with_query(&location, "digest", &sha256(&content)),
        &content,
    );
    for digest in [sha256(&content), sha256(&content[..150_000])] {
        repository.head(&format!("blobs/{digest}")).expect_status(404);
    }
    repository.push_blob(&content);
    assert!(repository.get(&format!("blobs/{}", sha256(&content))).body == content);
}

/// containerd and crane send the very same request again, to the same URL.
fn a_put_that_breaks_off_may_be_sent_again(repository: &Repository) {
    let content = Content::new(4, 600_000).bytes();
    let (first, last) = content.split_at(200_000);
    let location = repository.patch(&repository.open_upload(), 0, first).location();
    let target = with_query(&location, "digest", &sha256(&content));
    for _ in 0..3 {
        break_off(repository, "PUT", &target, last);
    }
    // The server may read of what broke off after it took this, and then what broke off has the session.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let put = repository.follow("PUT", &target).body(last).send();
        if put.status == 201 {
            break;
        }
        put.expect_error(&[503], &["UNAVAILABLE"]);
        assert!(Instant::now() < deadline, "{}", put.summary());
        pause();
    }
    assert!(repository.get(&format!("blobs/{}", sha256(&content))).body == content);
}

fn a_post_that_breaks_off_stores_nothing(repository: &Repository) {
    let content = Content::new(3, 300_000).bytes();
    let target = repository.path(&format!("blobs/uploads/?digest={}", sha256(&content)));
    break_off(repository, "POST", &target, &content);
    repository
        .head(&format!("blobs/{}", sha256(&content)))
        .expect_status(404);
    repository.push_blob(&content);
}

fn many_sessions_may_be_open_at_once(repository: &Repository) {
    let contents: Vec<_> = (0..100).map(|seed| Content::new(seed, 500).bytes()).collect();
    let opened: Vec<_> = contents
        .iter()
        .map(|content| {
            repository
                .patch(&repository.open_upload(), 0, &content[..250])
                .location()
        })
        .collect();
    let patched: Vec<_> = opened
        .iter()
        .zip(&contents)
        .map(|(location, content)| repository.patch(location, 250, &content[250..]).location())
        .collect();
    for (location, content) in patched.iter().zip(&contents) {
        repository
            .close_upload(location, &sha256(content))
            .expect_status(201);
        assert!(repository.get(&format!("blobs/{}", sha256(content))).body == *content);
    }
}
