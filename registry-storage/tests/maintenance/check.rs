//! `Store::check`: each invariant is broken by hand, found as what it is, and repaired.

use bytes::Bytes;
use registry_core::storage::{
    BlobStorage as _, ListStorage as _, ManifestStorage as _, PageRequest, UploadStorage as _,
};
use registry_core::{Digest, ErrorCode, Reference};
use registry_storage::check::{CheckOptions, CheckReport, Problem, RecordFinding, Repair, Severity};
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Observed;
use registry_storage::{Backend, Key, Maintenance as _, ObjectStoreBackend, Step, Store, SweepOptions};

use crate::support::images::{Image, digest, name, push_blob, push_image, push_index, push_referrer, tag};
use crate::support::tamper::{edit_header, put_raw, remove};

/// Larger than what is kept in a record.
const LARGE: usize = 40_000;

async fn check<B: Backend>(store: &Store<B>, repair: bool) -> (CheckReport, Vec<RecordFinding>) {
    let options = CheckOptions::new()
        .repair(repair)
        .verify_content(true)
        .settle(std::time::Duration::ZERO);
    let observed = Observed::default();
    let report = store.check(&options, &observed).await.unwrap();
    (report, observed.into_records())
}

/// A store with an image, an index, a referrer and an open upload.
struct Sample<B> {
    store: Store<B>,
    image: Image,
    index: Digest,
    referrer: Image,
}

async fn sample<B: Backend>(backend: B) -> Sample<B> {
    let store = Store::new(backend);
    let image = push_image(&store, "a/b", Some("v1"), 1, LARGE).await;
    let index = push_index(&store, "a/b", "all", &[&image]).await;
    let referrer = push_referrer(&store, "a/b", &image, 2).await;
    store
        .mount_blob(&name("a/b"), &name("other"), &digest(&image.layer))
        .await
        .unwrap();
    store
        .create_upload(&name("a/b"), "", registry_core::Algorithm::Sha256)
        .await
        .unwrap();
    let (report, findings) = check(&store, false).await;
    assert_eq!(findings, [], "a sound store");
    assert!(report.is_sound() && report.records > 10 && report.content >= LARGE as u64);
    Sample {
        store,
        image,
        index,
        referrer,
    }
}

/// Returns the keys of what is in quarantine and was not pushed since; nothing else is broken.
async fn missing<B: Backend>(store: &Store<B>) -> Vec<Key> {
    let (report, findings) = check(store, true).await;
    let broken = findings
        .into_iter()
        .filter(|found| found.problem.severity() == Severity::Broken);
    let missing = broken.map(|found| {
        let is_kept = matches!(found.problem, Problem::InQuarantine { .. });
        assert!(is_kept && found.repair == Repair::None, "{found}");
        found.key
    });
    let missing: Vec<Key> = missing.collect();
    assert_eq!((report.broken, report.repaired), (missing.len() as u64, 0));
    assert_eq!(report.is_sound(), missing.is_empty());
    missing
}

/// Checks that exactly this is found, then that a repair leaves nothing, or puts it into quarantine.
async fn expect<B: Backend>(store: &Store<B>, key: &Key, problem: Problem) {
    let (report, findings) = check(store, false).await;
    let expected = RecordFinding {
        key: key.clone(),
        problem: problem.clone(),
        repair: if problem.is_repairable() {
            Repair::Possible
        } else {
            Repair::None
        },
    };
    assert_eq!(findings, [expected]);
    let is_broken = problem.severity() == Severity::Broken;
    assert_eq!(report.is_sound(), !is_broken);
    assert!(
        findings[0].to_string().starts_with(key.as_str()),
        "{}",
        findings[0]
    );
    if !problem.is_repairable() {
        return;
    }
    let (report, findings) = check(store, true).await;
    assert!(report.is_sound(), "{findings:?}");
    assert_eq!(
        findings
            .iter()
            .filter(|found| found.repair == Repair::Done)
            .count(),
        1,
        "{findings:?}"
    );
    let is_lost = matches!(
        problem,
        Problem::MissingBlob
            | Problem::MissingBytes
            | Problem::OtherLength { .. }
            | Problem::OtherContent { .. }
    );
    let expected: &[Key] = if is_lost { std::slice::from_ref(key) } else { &[] };
    assert_eq!(missing(store).await, expected);
}

macro_rules! on_each_backend {
    ($($(#[$attribute:meta])* async fn $name:ident($sample:ident) $body:block)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $name() {
                super::$name(sample(ObjectStoreBackend::memory()).await).await;
            })*
        }
        mod filesystem {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(sample(FilesystemBackend::open(folder.path()).await.unwrap()).await).await;
            })*
        }
        $($(#[$attribute])* async fn $name<B: Backend>($sample: Sample<B>) $body)*
    };
}

on_each_backend! {
    async fn a_tag_without_its_manifest_is_deleted(sample) {
        let Sample { store, image, .. } = sample;
        let gone = digest(b"gone");
        edit_header(&store, &Key::tag(&name("a/b"), &tag("v1")), |tag| tag["digest"] = gone.as_str().into()).await;
        expect(&store, &Key::tag(&name("a/b"), &tag("v1")), Problem::DeadTag { digest: gone }).await;
        let page = PageRequest { last: None, limit: 10 };
        let tags = store.list_tags(&name("a/b"), page).await.unwrap().items;
        assert_eq!(tags, [tag("all")]);
        store.get_manifest(&name("a/b"), &Reference::Digest(image.digest)).await.unwrap();
    }

    async fn a_tag_of_another_incarnation_is_deleted(sample) {
        let Sample { store, image, .. } = sample;
        let key = Key::tag(&name("a/b"), &tag("v1"));
        edit_header(&store, &key, |tag| tag["incarnation"] = "another".into()).await;
        expect(&store, &key, Problem::DeadTag { digest: image.digest }).await;
    }

    async fn the_back_reference_of_a_tag_is_written(sample) {
        let Sample { store, image, .. } = sample;
        let back_reference = Key::tagged(&name("a/b"), &image.digest, &tag("v1"));
        remove(&store, &back_reference).await;
        let problem = Problem::MissingTagReference { digest: image.digest.clone() };
        expect(&store, &Key::tag(&name("a/b"), &tag("v1")), problem).await;
        // A delete by digest finds the tag by its back reference.
        store.delete_manifest(&name("a/b"), &image.digest, None, None).await.unwrap();
        let page = PageRequest { last: None, limit: 10 };
        assert_eq!(store.list_tags(&name("a/b"), page).await.unwrap().items, [tag("all")]);
    }

    async fn a_manifest_whose_child_is_not_there_is_told(sample) {
        let Sample { store, image, index, .. } = sample;
        store.delete_blob(&name("a/b"), &digest(&image.layer), None).await.unwrap();
        let key = Key::manifest(&name("a/b"), &image.digest);
        expect(&store, &key, Problem::MissingChildren { digests: vec![digest(&image.layer)] }).await;
        push_blob(&store, "a/b", &image.layer).await;
        store.delete_manifest(&name("a/b"), &image.digest, None, None).await.unwrap();
        let key = Key::manifest(&name("a/b"), &index);
        expect(&store, &key, Problem::MissingChildren { digests: vec![image.digest] }).await;
    }

    async fn a_manifest_is_entered_in_the_list_of_its_subject(sample) {
        let Sample { store, image, referrer, .. } = sample;
        let page = || PageRequest { last: None, limit: 10 };
        let before = store.list_referrers(&name("a/b"), &image.digest, page().into()).await.unwrap();
        let listed = store.backend().list(&Key::referrers(&name("a/b"), &image.digest), None, 10).await.unwrap();
        remove(&store, &listed[0].key).await;
        let key = Key::manifest(&name("a/b"), &referrer.digest);
        expect(&store, &key, Problem::MissingReferrer { subject: image.digest.clone() }).await;
        let after = store.list_referrers(&name("a/b"), &image.digest, page().into()).await.unwrap();
        assert_eq!(before, after);
        assert_eq!(after.items.len(), 1);
    }

    async fn an_entry_of_referrers_without_a_manifest_is_removed(sample) {
        let Sample { store, image, referrer, .. } = sample;
        let listed = store.backend().list(&Key::referrers(&name("a/b"), &image.digest), None, 10).await.unwrap();
        let value = store.backend().get(&listed[0].key).await.unwrap().unwrap().value;
        let text = String::from_utf8(value.to_vec()).unwrap();
        let start = text.find("\"incarnation\":\"").unwrap() + 15;
        let incarnation = &text[start..start + 32];
        let other = "0".repeat(32);
        let key = Key::referrer(&name("a/b"), &image.digest, &referrer.digest, &other);
        put_raw(&store, &key, Bytes::from(text.replace(incarnation, &other))).await;
        expect(&store, &key, Problem::DeadReferrer).await;
        assert!(store.backend().get(&key).await.unwrap().is_none());
    }

    async fn what_a_repair_brings_about_is_reported_once(sample) {
        let Sample { store, image, index, .. } = sample;
        let key = Key::manifest(&name("a/b"), &image.digest);
        let mut value = store.backend().get(&key).await.unwrap().unwrap().value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        put_raw(&store, &key, value.into()).await;
        let (report, findings) = check(&store, true).await;
        assert!(report.is_sound() && report.repaired > 0, "{findings:?}");
        let key = Key::manifest(&name("a/b"), &index);
        let problem = Problem::MissingChildren { digests: vec![image.digest] };
        let expected = RecordFinding { key, problem, repair: Repair::None };
        assert_eq!(findings.iter().filter(|found| **found == expected).count(), 1, "{findings:?}");
        assert_eq!(report.notices, 1, "{findings:?}");
    }

    async fn a_repository_is_entered_in_the_catalog(sample) {
        let Sample { store, image, index, referrer } = sample;
        remove(&store, &Key::repository(&name("a/b"))).await;
        let (_, findings) = check(&store, false).await;
        let problem = Problem::MissingRepository { repository: name("a/b") };
        assert_eq!(findings.len(), 3, "each manifest tells: {findings:?}");
        for digest in [&image.digest, &index, &referrer.digest] {
            let key = Key::manifest(&name("a/b"), digest);
            assert!(findings.iter().any(|found| found.key == key && found.problem == problem));
        }
        let (report, _) = check(&store, true).await;
        assert!(report.is_sound());
        let (report, _) = check(&store, false).await;
        assert_eq!(report.broken, 0);
        let page = PageRequest { last: None, limit: 10 };
        assert_eq!(store.list_repositories(page).await.unwrap().items, [name("a/b")]);
    }

    async fn a_grant_without_its_blob_goes_into_quarantine(sample) {
        let Sample { store, image, .. } = sample;
        let digest = digest(&image.config);
        remove(&store, &Key::blob(&digest)).await;
        expect(&store, &Key::grant(&digest, &name("a/b")), Problem::MissingBlob).await;
        push_blob(&store, "a/b", &image.config).await;
        let (report, findings) = check(&store, false).await;
        assert_eq!(findings, [], "a push healed it");
        assert_eq!(report.quarantined, 1);
    }

    async fn a_grant_of_other_bytes_goes_into_quarantine(sample) {
        let Sample { store, image, .. } = sample;
        let digest = digest(&image.layer);
        let key = Key::grant(&digest, &name("a/b"));
        edit_header(&store, &key, |grant| grant["blob"]["size"] = 7.into()).await;
        expect(&store, &key, Problem::OtherBytes).await;
        store.stat_blob(&name("other"), &digest).await.unwrap();
    }

    async fn the_back_reference_of_a_grant_is_written(sample) {
        let Sample { store, image, .. } = sample;
        let digest = digest(&image.layer);
        remove(&store, &Key::repository_blob(&name("a/b"), &digest)).await;
        expect(&store, &Key::grant(&digest, &name("a/b")), Problem::MissingGrantReference).await;
    }

    async fn a_blob_without_bytes_is_gone_until_it_is_pushed_again(sample) {
        let Sample { store, image, .. } = sample;
        let name_of_bytes = store.backend().list_bytes(None, 10).await.unwrap().remove(0);
        store.backend().delete_bytes(&name_of_bytes).await.unwrap();
        let digest = digest(&image.layer);
        expect(&store, &Key::blob(&digest), Problem::MissingBytes).await;
        for repository in ["a/b", "other"] {
            let error = store.stat_blob(&name(repository), &digest).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::BlobUnknown);
        }
        push_blob(&store, "a/b", &image.layer).await;
        let (_, findings) = check(&store, false).await;
        assert_eq!(findings, []);
    }

    async fn a_blob_of_another_size_is_found(sample) {
        let Sample { store, image, .. } = sample;
        let digest = digest(&image.layer);
        let expected = LARGE as u64 + 1;
        for key in [
            Key::blob(&digest), Key::grant(&digest, &name("a/b")), Key::grant(&digest, &name("other"))
        ] {
            edit_header(&store, &key, |record| record["blob"]["size"] = expected.into()).await;
        }
        expect(&store, &Key::blob(&digest), Problem::OtherLength { expected, found: LARGE as u64 }).await;
    }

    async fn a_small_blob_of_other_content_is_found(sample) {
        let Sample { store, image, .. } = sample;
        let key = Key::blob(&digest(&image.config));
        let mut value = store.backend().get(&key).await.unwrap().unwrap().value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        let mut other = image.config.to_vec();
        *other.last_mut().unwrap() ^= 1;
        put_raw(&store, &key, value.into()).await;
        expect(&store, &key, Problem::OtherContent { found: digest(&other) }).await;
    }

    async fn a_manifest_of_other_content_goes_into_quarantine_with_its_tags(sample) {
        let Sample { store, image, .. } = sample;
        let key = Key::manifest(&name("a/b"), &image.digest);
        let mut value = store.backend().get(&key).await.unwrap().unwrap().value.to_vec();
        *value.last_mut().unwrap() = b' ';
        put_raw(&store, &key, value.into()).await;
        let (report, findings) = check(&store, true).await;
        assert!(report.is_sound(), "{findings:?}");
        assert!(findings.iter().any(|found| found.key == key
            && matches!(found.problem, Problem::OtherContent { .. })
            && found.repair == Repair::Done));
        let error = store.get_manifest(&name("a/b"), &Reference::Tag(tag("v1"))).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ManifestUnknown);
        let page = PageRequest { last: None, limit: 10 };
        assert_eq!(store.list_tags(&name("a/b"), page).await.unwrap().items, [tag("all")]);
        assert_eq!(missing(&store).await, [key]);
        let again = push_image(&store, "a/b", Some("v1"), 1, LARGE).await;
        assert_eq!(again.digest, image.digest);
        let (_, findings) = check(&store, false).await;
        assert_eq!(findings, []);
    }

    async fn records_that_cannot_be_read_are_written_anew_or_put_into_quarantine(sample) {
        let Sample { store, image, .. } = sample;
        let repository = name("a/b");
        let upload = store.backend().list(&Key::uploads(), None, 1).await.unwrap().remove(0).key;
        let referrer = store.backend().list(&Key::referrers(&repository, &image.digest), None, 1).await.unwrap();
        let keys = [
            Key::blob(&digest(&image.layer)),
            Key::grant(&digest(&image.config), &repository),
            Key::manifest(&repository, &image.digest),
            Key::tag(&repository, &tag("all")),
            Key::tagged(&repository, &image.digest, &tag("v1")),
            Key::repository_blob(&repository, &digest(&image.config)),
            Key::repository(&repository),
            referrer[0].key.clone(),
            upload,
        ];
        for key in &keys {
            let before = store.backend().get(key).await.unwrap().unwrap().value;
            put_raw(&store, key, Bytes::from_static(b"garbage")).await;
            let (_, findings) = check(&store, false).await;
            assert_eq!(findings.len(), 1, "{key}: {findings:?}");
            assert_eq!((&findings[0].key, &findings[0].problem), (key, &Problem::Unreadable));
            put_raw(&store, key, before).await;
        }
        for key in &keys {
            put_raw(&store, key, Bytes::from_static(b"garbage")).await;
        }
        let (report, findings) = check(&store, true).await;
        assert!(report.is_sound(), "{findings:?}");
        let mut lost = keys[..4].to_vec();
        lost.sort_unstable();
        let mut missing = missing(&store).await;
        missing.sort_unstable();
        assert_eq!(missing, lost);
        // What can be pushed again can be pushed again.
        let again = push_image(&store, "a/b", Some("v1"), 1, LARGE).await;
        push_index(&store, "a/b", "all", &[&again]).await;
        let (_, findings) = check(&store, false).await;
        assert_eq!(findings, []);
    }

    async fn a_record_whose_size_tells_another_state_is_written_anew(sample) {
        let Sample { store, .. } = sample;
        let key = Key::tag(&name("a/b"), &tag("v1"));
        let value = store.backend().get(&key).await.unwrap().unwrap().value;
        let text = String::from_utf8(value.to_vec()).unwrap();
        put_raw(&store, &key, Bytes::from(text.replace('\n', "  \n"))).await;
        expect(&store, &key, Problem::WrongSize).await;
    }

    async fn what_this_version_does_not_know_is_left_alone(sample) {
        let Sample { store, .. } = sample;
        let key = Key::all_repositories().join("a/b/!/news/1");
        put_raw(&store, &key, Bytes::from_static(b"{}\n")).await;
        expect(&store, &key, Problem::UnknownKey).await;
        assert!(store.backend().get(&key).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_large_blob_of_other_content_is_found_and_its_bytes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let Sample { store, image, .. } = sample(FilesystemBackend::open(folder.path()).await.unwrap()).await;
    let name_of_bytes = store.backend().list_bytes(None, 10).await.unwrap().remove(0);
    let path = folder.path().join("bytes").join(name_of_bytes.as_str());
    let mut damaged = image.layer.to_vec();
    damaged[100] ^= 0x40;
    std::fs::write(&path, &damaged).unwrap();
    let problem = Problem::OtherContent {
        found: digest(&damaged),
    };
    expect(&store, &Key::blob(&digest(&image.layer)), problem).await;
    let error = store
        .open_blob(&name("other"), &digest(&image.layer))
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::BlobUnknown);
    store.sweep(&SweepOptions::default()).await.unwrap();
    assert!(path.exists(), "what is in quarantine is not swept");
    push_blob(&store, "a/b", &image.layer).await;
    let (report, findings) = check(&store, false).await;
    assert_eq!(findings, []);
    assert_eq!((report.quarantined, report.unnamed_bytes), (1, 0));
}

#[tokio::test]
async fn an_upload_that_lost_bytes_and_bytes_that_nothing_names_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let Sample { store, .. } = sample(FilesystemBackend::open(folder.path()).await.unwrap()).await;
    let upload = crate::support::images::start_upload(&store, "a/b", &Bytes::from(vec![7; LARGE])).await;
    let key = Key::upload(upload.id);
    let (report, _) = check(&store, false).await;
    assert_eq!(report.unnamed_bytes, 0, "an upload names its bytes");
    for name in store.backend().list_bytes(None, 10).await.unwrap() {
        let path = folder.path().join("bytes").join(name.as_str());
        if std::fs::read(&path).unwrap() == vec![7; LARGE] {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(10)
                .unwrap();
        }
    }
    expect(
        &store,
        &key,
        Problem::ShortUpload {
            expected: LARGE as u64,
            found: 10,
        },
    )
    .await;
    remove(&store, &key).await;
    let (report, findings) = check(&store, false).await;
    assert_eq!(findings, []);
    assert_eq!(report.unnamed_bytes, 1);
}

#[tokio::test(start_paused = true)]
async fn content_is_read_no_faster_than_told() {
    let store = Store::new(ObjectStoreBackend::memory());
    push_blob(&store, "a", &Bytes::from(vec![1; 3_000_000])).await;
    let mut options = CheckOptions::default();
    options.verify_content = true;
    options.bytes_per_second = Some(1_000_000);
    let start = tokio::time::Instant::now();
    let report = store.check(&options, &()).await.unwrap();
    assert_eq!(report.content, 3_000_000);
    assert!(
        start.elapsed() >= std::time::Duration::from_millis(2900),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_check_counts_records_and_the_bytes_that_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(FilesystemBackend::open(folder.path()).await.unwrap()).await;
    for is_verifying in [false, true] {
        let observed = Observed::default();
        let options = CheckOptions::new().verify_content(is_verifying);
        let report = sample.store.check(&options, &observed).await.unwrap();
        let told = observed.steps();
        let last = |wanted: Step| {
            let mut steps = told.iter().filter(|(step, ..)| *step == wanted);
            steps.next_back().map(|(_, done, total)| (*done, *total))
        };
        assert_eq!(last(Step::Records), Some((report.records, Some(report.records))));
        let read = is_verifying.then_some((report.content, Some(report.content)));
        assert_eq!(last(Step::Content), read);
        assert!(told.iter().all(|(_, _, total)| total.is_some()), "{told:?}");
    }
}

#[test]
fn what_clients_notice_of_a_record_that_cannot_be_read_is_said_for_its_kind() {
    let noticed = |key: &str| {
        let finding = RecordFinding {
            key: Key::from_stored(key),
            problem: Problem::Unreadable,
            repair: Repair::None,
        };
        let text = finding.to_string();
        let (_, noticed) = text.split_once("Clients notice: ").unwrap();
        noticed.split(". ").next().unwrap().to_owned()
    };
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (key, expected) in [
        (
            Key::usage(&name("a")).to_string(),
            "nothing: what the repository has is counted anew",
        ),
        (
            format!("sweeper/unnamed/{id}"),
            "nothing: the next sweep of everything deletes the bytes that it names",
        ),
        (
            format!("pushes/a!/{id}"),
            "nothing, but the sweeper deletes no bytes",
        ),
        (
            Key::blob(&digest(b"")).to_string(),
            "requests that come to it are answered with 500, and the sweeper deletes no bytes, as it may name them",
        ),
        (
            Key::grant(&digest(b""), &name("a")).to_string(),
            "requests that come to it are answered with 500",
        ),
    ] {
        assert_eq!(noticed(&key), expected, "{key}");
    }
}
