use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use registry_core::storage::UploadKey;
use registry_core::{Algorithm, Digest, Error, ErrorCode, RepositoryName, Storage};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;
use crate::backend::{Backend as _, Durability, RecordTransaction, Transaction};
use crate::key::Key;
use crate::{Maintenance as _, ObjectStoreBackend, Store, SweepOptions};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const PATIENCE: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_hours(1);

/// A budget with `size` bytes for whole parts.
fn for_parts(size: usize, patience: Option<Duration>) -> PartMemory {
    PartMemory::new(size / 7 * 8, patience)
}

#[tokio::test]
async fn waits_for_memory_that_others_hold() {
    let memory = for_parts(14 * MIB, None);
    assert_eq!(memory.size(), 16 * MIB);
    let first = memory.reserve(8 * MIB).await;
    assert!(memory.reserve(8 * MIB).now_or_never().is_none());
    let second = memory.reserve(6 * MIB).now_or_never().unwrap();
    assert!(memory.reserve(1).now_or_never().is_none());
    drop((first, second));
    assert!(memory.reserve(14 * MIB).now_or_never().is_some());
}

#[tokio::test]
async fn a_part_larger_than_the_budget_waits_for_all_of_it() {
    let memory = for_parts(14 * MIB, None);
    let small = memory.reserve(1).await;
    assert!(memory.reserve(1024 * MIB).now_or_never().is_none());
    assert!(memory.at_once(1024 * MIB).size() < MIB);
    drop(small);
    let large = memory.at_once(1024 * MIB);
    assert_eq!(large.size(), 1024 * MIB);
    assert!(memory.reserve(1).now_or_never().is_none());
    drop(large);
    assert!(memory.reserve(1024 * MIB).now_or_never().is_some());
}

/// Those who have not shown that they send fast leave a quarter of the memory, and divide what is for pieces.
#[tokio::test]
async fn who_does_not_wait_has_less_the_more_there_are() {
    let memory = PartMemory::new(64 * MIB, None);
    let mut held: Vec<MemoryPermit> = (0..1000).map(|_| memory.at_once(5 * MIB)).collect();
    let sizes: Vec<usize> = held.iter().map(MemoryPermit::size).collect();
    assert_eq!(sizes[..8], [5 * MIB; 8]);
    assert_eq!(sizes[8], 512 * KIB);
    assert!(sizes.is_sorted_by(|one, next| one >= next), "{sizes:?}");
    assert_eq!(sizes[999], 32 * KIB);
    let in_budget: usize = sizes[8..].iter().filter(|size| **size > 32 * KIB).sum();
    assert!((7 * MIB..=8 * MIB).contains(&in_budget), "{in_budget}");
    let fast = memory.reserve(14 * MIB).now_or_never();
    assert!(fast.is_some(), "the rest is for who sends fast");
    drop((held.split_off(8), fast));
    assert_eq!(memory.at_once(5 * MIB).size(), 512 * KIB);
    drop(held);
    assert_eq!(memory.at_once(5 * MIB).size(), 5 * MIB);
    assert_eq!(memory.at_once(100).size(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_too_slow_gives_way_to_one_who_waits() {
    let memory = for_parts(14 * MIB, Some(PATIENCE));
    let mut slow = memory.reserve(7 * MIB).await;
    let mut slower = memory.reserve(7 * MIB).await;
    // While nobody waits, they may be as slow as they like.
    assert!(timeout(HOUR, slow.recalled(1)).await.is_err());
    assert!(timeout(HOUR, slower.recalled(1)).await.is_err());
    let waits = async {
        let begun = Instant::now();
        let permit = memory.reserve(7 * MIB).await;
        assert!(begun.elapsed() < PATIENCE, "both have been slow for long");
        drop(permit);
    };
    let one_gives_way = async move {
        let first = tokio::select! {
            () = slow.recalled(2) => 0,
            () = slower.recalled(2) => 1,
        };
        let (told, mut other) = if first == 0 {
            (slow, slower)
        } else {
            (slower, slow)
        };
        // One is enough for one who has not waited for longer.
        assert!(timeout(PATIENCE / 2, other.recalled(2)).await.is_err());
        drop(told);
        other
    };
    let ((), mut other) = timeout(HOUR, async { tokio::join!(waits, one_gives_way) })
        .await
        .unwrap();
    assert!(timeout(HOUR, other.recalled(2)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_makes_progress_keeps_its_memory() {
    let memory = for_parts(7 * MIB, Some(PATIENCE));
    let mut held = memory.reserve(7 * MIB).await;
    let mut waits = pin!(memory.reserve(7 * MIB));
    assert!(timeout(Duration::ZERO, &mut waits).await.is_err());
    let half = 7 * MIB / 2;
    for used in [half, 2 * half] {
        let step = timeout(PATIENCE - Duration::from_millis(1), held.recalled(used));
        tokio::select! {
            step = step => assert!(step.is_err(), "at {used}"),
            _ = &mut waits => panic!("there is no memory"),
        }
    }
    // A byte now and then is no progress.
    let drip = async {
        for used in 7 * MIB.. {
            if timeout(Duration::from_millis(100), held.recalled(used))
                .await
                .is_ok()
            {
                return used - 7 * MIB;
            }
        }
        0
    };
    let dripped = tokio::select! {
        dripped = drip => dripped,
        _ = &mut waits => panic!("there is no memory"),
    };
    assert!((0..=3).contains(&dripped), "{dripped}");
    drop(held);
    waits.await;
}

struct World {
    store: Arc<Store<ObjectStoreBackend>>,
    repository: RepositoryName,
}

impl World {
    fn new(size: usize) -> Self {
        let mut backend = ObjectStoreBackend::memory();
        backend.part_memory = PartMemory::new(size, Some(PATIENCE));
        Self {
            store: Arc::new(Store::new(backend)),
            repository: "a".parse().unwrap(),
        }
    }

    fn storage(&self) -> &dyn Storage {
        &*self.store
    }

    async fn start(&self) -> UploadKey {
        let id = self
            .storage()
            .create_upload(&self.repository, "", Algorithm::Sha256)
            .await;
        UploadKey {
            repository: self.repository.clone(),
            id: id.unwrap(),
            principal: String::new(),
        }
    }

    /// Appends in the background.
    async fn append(
        &self,
        appends: &mut JoinSet<(UploadKey, Result<u64, Error>)>,
        body: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    ) {
        let (store, upload) = (Arc::clone(&self.store), self.start().await);
        appends.spawn(async move {
            let storage: &dyn Storage = &*store;
            let length = storage.append_upload(&upload, None, pin!(body)).await;
            (upload, length)
        });
    }

    /// Pushes content as fast as it is taken, and returns how long that took.
    async fn push(&self, content: &Bytes) -> Duration {
        let begun = Instant::now();
        let upload = self.start().await;
        let chunks: Vec<_> = content.chunks(256 * KIB).map(Bytes::copy_from_slice).collect();
        let body = pin!(stream::iter(chunks.into_iter().map(Ok)));
        self.storage().append_upload(&upload, None, body).await.unwrap();
        self.commit(&upload, content).await;
        begun.elapsed()
    }

    async fn commit(&self, upload: &UploadKey, content: &Bytes) {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.storage().commit_upload(upload, &digest).await.unwrap();
        let blob = self.storage().open_blob(&self.repository, &digest).await.unwrap();
        let mut stream = blob.content.read(0..content.len() as u64);
        let mut stored = Vec::new();
        while let Some(chunk) = stream.next().await {
            stored.extend_from_slice(&chunk.unwrap());
        }
        assert!(stored == *content, "other bytes are stored");
    }

    async fn parked(&self) -> usize {
        let prefix = Key::all_parked();
        let listed = self.store.backend().list(&prefix, None, 1000).await;
        listed.unwrap().len()
    }
}

/// Yields content at a rate in bytes a second: some each tenth of a second.
fn at_rate(content: Bytes, rate: usize) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::unfold(content, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        sleep(Duration::from_millis(100)).await;
        let chunk = left.split_to((rate / 10).min(left.len()));
        Some((Ok(chunk), left))
    })
}

fn content(seed: usize, size: usize) -> Bytes {
    let mut state = seed as u64 + 1;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    });
    bytes.flatten().take(size).collect()
}

/// None of the slow ones fails, or is slower than it would be alone, and the parts of each have the size that all must have.
#[tokio::test(start_paused = true)]
async fn however_many_clients_are_slow_none_of_them_fails_and_none_holds_up_a_fast_one() {
    const SLOW: usize = 60;
    const RATE: usize = 40_000;
    let world = World::new(64 * MIB);
    let mut slow = JoinSet::new();
    let slow_content = content(0, 11 * MIB);
    let begun = Instant::now();
    for _ in 0..SLOW {
        world.append(&mut slow, at_rate(slow_content.clone(), RATE)).await;
    }
    for round in 0..5 {
        sleep(Duration::from_secs(40)).await;
        let held_up = world.push(&content(1000 + round, 50 * MIB)).await;
        assert!(held_up < PATIENCE, "{held_up:?} in round {round}");
    }
    assert!(world.parked().await > 0);
    while let Some(ended) = slow.join_next().await {
        let (upload, length) = ended.unwrap();
        assert_eq!(length.unwrap(), 11 * MIB as u64);
        world.commit(&upload, &slow_content).await;
    }
    let alone = Duration::from_secs((11 * MIB / RATE) as u64);
    assert!(begun.elapsed() < alone + PATIENCE * 3, "{:?}", begun.elapsed());
    assert_eq!(world.parked().await, 0);
}

/// Clients that send fast and stop, again and again, have memory for a whole part once.
#[tokio::test(start_paused = true)]
async fn clients_that_send_in_bursts_hold_up_a_fast_one_once() {
    const BURSTY: usize = 60;
    let world = World::new(64 * MIB);
    let mut bursty = JoinSet::new();
    let whole = content(0, 12 * MIB);
    for _ in 0..BURSTY {
        let body = stream::unfold(whole.clone(), |mut left| async move {
            if left.is_empty() {
                return None;
            }
            sleep(Duration::from_secs(5)).await;
            let burst = left.split_to((300 * KIB).min(left.len()));
            Some((Ok(burst), left))
        });
        world.append(&mut bursty, body).await;
    }
    // Each gets its turn, and is told to give way.
    sleep(PATIENCE * 20).await;
    for round in 0..3 {
        let held_up = world.push(&content(1000 + round, 50 * MIB)).await;
        assert!(held_up < PATIENCE * 2, "{held_up:?} in round {round}");
        sleep(Duration::from_secs(10)).await;
    }
    while let Some(ended) = bursty.join_next().await {
        let (upload, length) = ended.unwrap();
        assert_eq!(length.unwrap(), 12 * MIB as u64);
        world.commit(&upload, &whole).await;
    }
    assert_eq!(world.parked().await, 0);
}

/// They keep what they sent, and go on when their clients do.
#[tokio::test(start_paused = true)]
async fn clients_that_stop_in_the_middle_of_a_part_make_room_for_one_who_sends() {
    let world = World::new(20 * MIB);
    let mut stopped = JoinSet::new();
    let (go_on, _) = tokio::sync::broadcast::channel::<()>(1);
    let whole = content(1, 6 * MIB);
    for _ in 0..4 {
        let mut goes_on = go_on.subscribe();
        let (first, rest) = (whole.slice(..MIB), whole.slice(MIB..));
        let rest = stream::once(async move {
            goes_on.recv().await.unwrap();
            Ok(rest)
        });
        let body = stream::iter([Ok(first)]).chain(rest);
        world.append(&mut stopped, body).await;
    }
    while world.store.backend().part_memory.free.available_permits() > 8 * KIB {
        tokio::task::yield_now().await;
    }
    let held_up = world.push(&content(2, 12 * MIB)).await;
    assert!(held_up < PATIENCE * 2, "{held_up:?}");
    assert!(stopped.try_join_next().is_none(), "none of them ends");
    go_on.send(()).unwrap();
    while let Some(ended) = stopped.join_next().await {
        let (upload, length) = ended.unwrap();
        assert_eq!(length.unwrap(), 6 * MIB as u64);
        world.commit(&upload, &whole).await;
    }
    assert_eq!(world.parked().await, 0);
}

/// The rest of an upload that is neither a part nor small, and one that its client breaks off.
#[tokio::test(start_paused = true)]
async fn what_is_parked_when_a_request_ends_is_kept_as_the_tail() {
    let world = World::new(16 * MIB);
    let all = world.store.backend().part_memory.reserve(8 * MIB).await;
    let whole = content(1, 7 * MIB + 12_345);
    for end in [3 * MIB, 5 * MIB, 7 * MIB + 12_345] {
        for is_broken_off in [false, true] {
            let mut appends = JoinSet::new();
            let broken = is_broken_off.then(|| Err(ErrorCode::BlobUploadInvalid.into()));
            let body = at_rate(whole.slice(..end), 200_000).chain(stream::iter(broken));
            world.append(&mut appends, body).await;
            sleep(Duration::from_secs(10)).await;
            assert!(world.parked().await > 0);
            let (upload, length) = appends.join_next().await.unwrap().unwrap();
            assert_eq!(length.is_err(), is_broken_off);
            let kept = world.storage().upload_status(&upload).await.unwrap();
            assert_eq!(kept, end as u64);
            // The tail itself, if it is long.
            assert_eq!(world.parked().await, usize::from(end % (5 * MIB) > 0));
            let rest = pin!(stream::iter([Ok(whole.slice(end..))]));
            world.storage().append_upload(&upload, None, rest).await.unwrap();
            world.commit(&upload, &whole).await;
            assert_eq!(world.parked().await, 0);
        }
    }
    drop(all);
}

/// The bytes of a closing request count only if it succeeds, also those that are parked.
#[tokio::test(start_paused = true)]
async fn a_closing_request_that_fails_leaves_nothing_parked_in_its_session() {
    let world = World::new(16 * MIB);
    let _all = world.store.backend().part_memory.reserve(8 * MIB).await;
    let whole = content(1, 2 * MIB);
    let upload = world.start().await;
    let wrong = Digest::of(Algorithm::Sha256, b"something else");
    let digest = Digest::of(Algorithm::Sha256, &whole);
    for (digest, is_right) in [(&wrong, false), (&digest, true)] {
        let body = pin!(at_rate(whole.clone(), 200_000));
        let finished = world.storage().finish_upload(&upload, digest, None, body).await;
        assert_eq!(finished.is_ok(), is_right, "{finished:?}");
        assert_eq!(world.parked().await, 0);
        if !is_right {
            assert_eq!(world.storage().upload_status(&upload).await.unwrap(), 0);
        }
    }
}

/// A request that is dropped, as one of a process that dies, leaves what it parked to the sweeper, as long as its session goes on.
#[tokio::test(start_paused = true)]
async fn the_sweeper_removes_what_is_parked_once_its_session_has_ended() {
    let world = World::new(16 * MIB);
    let _all = world.store.backend().part_memory.reserve(8 * MIB).await;
    let upload = world.start().await;
    let options = SweepOptions::default();
    let body = pin!(at_rate(content(1, 2 * MIB), 200_000));
    let append = world.storage().append_upload(&upload, None, body);
    assert!(timeout(Duration::from_secs(8), append).await.is_err());
    let parked = world.parked().await;
    assert!(parked > 0);
    world.store.sweep(&options).await.unwrap();
    assert_eq!(world.parked().await, parked);
    world.storage().cancel_upload(&upload).await.unwrap();
    world.store.sweep(&options).await.unwrap();
    assert_eq!(world.parked().await, 0);
}

struct Remove(Key);

impl Transaction for Remove {
    type Output = ();

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<(), Error> {
        records.remove(&self.0).await
    }
}

/// What the store lost is not replaced by anything else.
#[tokio::test(start_paused = true)]
async fn an_upload_of_which_something_parked_is_lost_ends() {
    let world = World::new(16 * MIB);
    let backend = world.store.backend();
    let _all = backend.part_memory.reserve(8 * MIB).await;
    let mut appends = JoinSet::new();
    let body = at_rate(content(1, 2 * MIB), 200_000);
    world.append(&mut appends, body).await;
    sleep(Duration::from_secs(8)).await;
    let parked = backend.list(&Key::all_parked(), None, 1).await.unwrap();
    let lose = Remove(parked[0].key.clone());
    backend.transact(Durability::Deferred, lose).await.unwrap();
    let (_, length) = appends.join_next().await.unwrap().unwrap();
    assert_eq!(length.unwrap_err().code(), ErrorCode::BlobUploadUnknown);
}
