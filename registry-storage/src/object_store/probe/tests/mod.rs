//! Each lie is found by its probe, and nothing else is taken for one.

mod liar;

use std::sync::Arc;

use registry_core::ErrorCode;

use self::liar::{Liar, Lie, LyingDeletes};
use super::*;
use crate::object_store::memory::MemoryStore;

const DAY: u64 = LEFTOVER_AGE_MILLIS;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn backend(lie: Lie) -> (ObjectStoreBackend, Arc<MemoryStore>) {
    let liar = Liar::new(lie);
    let memory = Arc::clone(&liar.inner);
    let deletes = LyingDeletes {
        inner: Arc::clone(&memory),
        lie,
    };
    let backend = ObjectStoreBackend::new(liar, "a/root").unwrap();
    (backend.deleting_by(deletes), memory)
}

/// A store that writes whatever the condition says.
pub(in crate::object_store) fn lying_store() -> ObjectStoreBackend {
    backend(Lie::IgnoresConditions).0
}

async fn keys(backend: &ObjectStoreBackend) -> Vec<String> {
    let objects = backend.list_objects("", None, 1000).await.unwrap();
    objects.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn each_lie_is_found_by_its_probe() {
    for (lie, promise, told) in [
        (
            Lie::IgnoresConditions,
            Promise::Create,
            "it overwrote an object that a request with `If-None-Match: *`",
        ),
        (Lie::OverwritesOnCreate, Promise::Create, "it overwrote an object"),
        (
            Lie::StoresWhatItRefuses,
            Promise::Create,
            "it refused a write and stored it",
        ),
        (
            Lie::NoCreates,
            Promise::Create,
            "does not implement conditional writes (`If-None-Match: *`",
        ),
        (
            Lie::NoUpdates,
            Promise::Update,
            "does not implement conditional writes (`If-Match`",
        ),
        (Lie::NoTags, Promise::Create, "no entity tag"),
        (Lie::EmptyTags, Promise::Create, "no entity tag"),
        (Lie::SameTags, Promise::Update, "it overwrote a newer version"),
        (
            Lie::AcceptsStaleVersions,
            Promise::Update,
            "it overwrote a newer version",
        ),
        (Lie::CreatesOnUpdate, Promise::Update, "it created an object"),
        (
            Lie::ManyCreators,
            Promise::OneCreator,
            "two writers created one object at once",
        ),
        (
            Lie::ManyUpdaters,
            Promise::OneUpdater,
            "two writers replaced one version",
        ),
        (
            Lie::NobodyWins,
            Promise::OneCreator,
            "it refused both of two writers",
        ),
        (Lie::OtherTagsOnRead, Promise::Versions, "another entity tag"),
        (Lie::StaleReads, Promise::Reads, "a read right after a write"),
        (Lie::KeepsDeleted, Promise::Reads, "a read right after a delete"),
        (Lie::ListsLate, Promise::Listings, "did not show exactly them"),
        (
            Lie::ListsDeleted,
            Promise::Listings,
            "a listing right after deletes",
        ),
        (
            Lie::ListsFoldersFirst,
            Promise::Order,
            "B a/b a! a-b a.b a0 a_b ab",
        ),
        (Lie::IgnoresOffset, Promise::Pages, "a listing in pages"),
        (Lie::RepeatsFirstPage, Promise::Pages, "a listing in pages"),
        (Lie::NewestPart, Promise::Parts, "became other bytes"),
    ] {
        let (backend, _) = backend(lie);
        let error = backend.probe_promises(NOW).await.expect_err(&format!("{lie:?}"));
        let text = error.to_string();
        let ProbeError::Broken { promise: broken, .. } = error else {
            panic!("{lie:?}: {error:?}");
        };
        assert_eq!(broken, promise, "{lie:?}: {text}");
        assert!(text.contains(told) && !text.contains('\n'), "{lie:?}: {text}");
        assert!(text.contains(promise.name()), "{lie:?}: {text}");
        assert!(!backend.was_probed(NOW).await.unwrap(), "{lie:?}");
    }
}

#[tokio::test]
async fn what_harms_nobody_is_no_lie() {
    for lie in [Lie::None, Lie::NobodyWinsSometimes, Lie::PartsOnce] {
        let (backend, _) = backend(lie);
        for _ in 0..20 {
            backend.probe_promises(NOW).await.unwrap();
        }
        assert_eq!(keys(&backend).await, ["probed/store"], "{lie:?}");
    }
}

/// A store need not know deletes on condition. One that gets them wrong is used as if it did not know them.
#[tokio::test]
async fn deletes_are_on_condition_only_if_the_store_keeps_it() {
    for (lie, expected) in [
        (Lie::None, Some(true)),
        (Lie::NobodyWinsSometimes, Some(true)),
        (Lie::NoConditionalDeletes, Some(false)),
        (Lie::DeletesAnyVersion, Some(false)),
        (Lie::StoresNothingOfARefusedDelete, Some(false)),
        (Lie::DeletesBesideWriters, Some(false)),
        (Lie::FailsConditionalDeletes, None),
    ] {
        let (backend, _) = backend(lie);
        backend.probe_promises(NOW).await.unwrap();
        assert_eq!(backend.deletes_on_condition(), expected == Some(true), "{lie:?}");
        // The next start knows it.
        backend.set_deletes_on_condition(expected == Some(false));
        assert!(backend.was_probed(NOW).await.unwrap(), "{lie:?}");
        assert_eq!(backend.deletes_on_condition(), expected == Some(true), "{lie:?}");
        assert_eq!(keys(&backend).await, ["probed/store"], "{lie:?}");
    }
    // What was undecided is tried again.
    let (failing, memory) = backend(Lie::FailsConditionalDeletes);
    failing.probe_promises(NOW).await.unwrap();
    let honest = failing.deleting_by(memory);
    let later = Timestamp(NOW.0 + 2 * DAY);
    assert!(honest.was_probed(NOW).await.unwrap() && !honest.deletes_on_condition());
    assert!(honest.was_probed(later).await.unwrap() && honest.deletes_on_condition());
    honest.set_deletes_on_condition(false);
    assert!(honest.was_probed(later).await.unwrap() && honest.deletes_on_condition());
    let (backend, _) = backend(Lie::None);
    let backend = ObjectStoreBackend {
        deleter: None,
        ..backend
    };
    backend.probe_promises(NOW).await.unwrap();
    assert!(!backend.deletes_on_condition());
}

#[tokio::test]
async fn a_refused_store_is_left_clean() {
    let (backend, _) = backend(Lie::ManyUpdaters);
    backend.probe_promises(NOW).await.unwrap_err();
    assert_eq!(keys(&backend).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_is_down_is_not_called_a_liar() {
    let (backend, _) = backend(Lie::IsDown);
    match backend.probe_promises(NOW).await.unwrap_err() {
        ProbeError::Unanswered(Promise::Create, error) => assert_eq!(error.code(), ErrorCode::Unavailable),
        error => panic!("{error:?}"),
    }
    backend.was_probed(NOW).await.unwrap_err();
}

#[tokio::test]
async fn a_probe_is_repeated_if_what_it_was_about_changed() {
    let (mut backend, _) = backend(Lie::None);
    assert!(!backend.was_probed(NOW).await.unwrap());
    backend.probe_promises(NOW).await.unwrap();
    assert!(backend.was_probed(NOW).await.unwrap());
    let address = std::mem::replace(&mut backend.address, "elsewhere".into());
    assert!(!backend.was_probed(NOW).await.unwrap());
    backend.address = address;
    assert!(backend.was_probed(NOW).await.unwrap());
    let older = ProbedRecord {
        probes: PROBES - 1,
        store: backend.address.to_string(),
        deletes_on_condition: None,
        has_leftovers: false,
        stamp: Stamp::new(NOW),
    };
    let values = [encode(&older, &[]).unwrap(), Bytes::from_static(b"no record")];
    for value in values {
        let key = Key::probed();
        backend.put_record(&key, value, Condition::Any).await.unwrap();
        assert!(!backend.was_probed(NOW).await.unwrap());
    }
}

#[tokio::test]
async fn what_a_killed_probe_left_goes_after_a_day() {
    let (backend, _) = backend(Lie::None);
    let days = |days: u64| Timestamp(NOW.0 + days * DAY);
    let killed = Probe::new(&backend, NOW);
    killed.create().await.unwrap();
    // It may still be running.
    backend.probe_promises(NOW).await.unwrap();
    assert!(backend.was_probed(days(0)).await.unwrap());
    assert_eq!(keys(&backend).await.len(), 2);
    assert!(backend.was_probed(days(3)).await.unwrap());
    assert_eq!(keys(&backend).await, ["probed/store"]);
}

/// What a process needs that writes alone is all but the conditions.
#[tokio::test(start_paused = true)]
async fn a_store_that_lies_about_conditions_may_serve_a_single_writer() {
    use Lie::{
        AcceptsStaleVersions, CreatesOnUpdate, EmptyTags, IgnoresConditions, IgnoresOffset, KeepsDeleted,
        ListsDeleted, ListsFoldersFirst, ListsLate, ManyCreators, ManyUpdaters, NewestPart, NoCreates,
        NoTags, NoUpdates, NobodyWins, OtherTagsOnRead, OverwritesOnCreate, RepeatsFirstPage, SameTags,
        StaleReads, StoresWhatItRefuses,
    };
    for lie in [
        IgnoresConditions,
        OverwritesOnCreate,
        StoresWhatItRefuses,
        NoCreates,
        NoUpdates,
        AcceptsStaleVersions,
        CreatesOnUpdate,
        ManyCreators,
        ManyUpdaters,
        NobodyWins,
    ] {
        let (store, _) = backend(lie);
        let alone = store.clone().with_single_writer("host", 1);
        alone.begin_writing(NOW).await.unwrap();
        alone.probe_promises(NOW).await.unwrap();
        assert!(alone.decides_conditions(), "{lie:?}");
        assert_eq!(keys(&store).await, ["probed/store", "writer/lock"], "{lie:?}");
        alone.end_writing().await.unwrap();
        let next = store.clone().with_single_writer("host", 2);
        assert!(
            next.was_probed(NOW).await.unwrap() && next.decides_conditions(),
            "{lie:?}"
        );
        // Of use to a single writer only.
        assert!(!store.was_probed(NOW).await.unwrap(), "{lie:?}");
        store.probe_promises(NOW).await.unwrap_err();
    }
    for lie in [
        NoTags,
        EmptyTags,
        SameTags,
        OtherTagsOnRead,
        StaleReads,
        KeepsDeleted,
        ListsLate,
        ListsDeleted,
        ListsFoldersFirst,
        IgnoresOffset,
        RepeatsFirstPage,
        NewestPart,
    ] {
        let alone = backend(lie).0.with_single_writer("host", 1);
        // Without a way to tell that it has the lock, it does not have it.
        let claimed = alone.begin_writing(NOW).await;
        let Err(error) = alone.probe_promises(NOW).await else {
            panic!("{lie:?} {claimed:?}");
        };
        assert!(matches!(error, ProbeError::Broken { .. }), "{lie:?}: {error:?}");
        assert!(!alone.was_probed(NOW).await.unwrap(), "{lie:?}");
    }
    for lie in [Lie::None, Lie::NobodyWinsSometimes, Lie::PartsOnce] {
        let alone = backend(lie).0.with_single_writer("host", 1);
        alone.begin_writing(NOW).await.unwrap();
        alone.probe_promises(NOW).await.unwrap();
        assert!(!alone.decides_conditions(), "{lie:?}");
    }
}
