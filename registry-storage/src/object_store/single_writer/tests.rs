//! Who may write, and for how long.

use registry_core::{ErrorCode, Timestamp};
use tokio::time::Instant;

use super::*;
use crate::Backend as _;
use crate::record::{Stamp, WriterRecord, encode};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Longer than any lock outlives its holder.
const LONG: Duration = Duration::from_secs(30);

/// Two processes that are each to be the only writer of one store, and one that is not.
fn processes() -> [ObjectStoreBackend; 3] {
    let store = ObjectStoreBackend::memory();
    [
        store.clone().with_single_writer("one", 1),
        store.clone().with_single_writer("two", 2),
        store,
    ]
}

async fn write(backend: &ObjectStoreBackend, name: &str) -> Result<(), Error> {
    let value = Bytes::from(unique().to_string());
    let key = Key::from_stored(name);
    backend.put_record(&key, value, Condition::Any).await.map(drop)
}

fn held(error: &WriterError) -> &str {
    match error {
        WriterError::Held(holder) => holder,
        error => panic!("{error:?}"),
    }
}

/// Ends a process without a word: nothing of it runs any more.
async fn kill(backend: &ObjectStoreBackend) {
    let beat = backend.single_writer.as_ref().unwrap().take_beat();
    beat.unwrap().shutdown().await;
}

async fn has_lock(backend: &ObjectStoreBackend) -> bool {
    backend.get_record(&Key::writer()).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn only_one_process_may_write_and_the_next_one_once_it_stopped() {
    let [one, two, other] = processes();
    assert!(one.is_read_only() && !other.is_read_only());
    write(&one, "a").await.unwrap_err();
    one.begin_writing(NOW).await.unwrap();
    one.begin_writing(NOW).await.unwrap();
    assert!(!one.is_read_only());
    for _ in 0..10 {
        for refused in [&two, &other] {
            let begun = Instant::now();
            let error = refused.begin_writing(NOW).await.unwrap_err();
            assert!(
                held(&error).starts_with("process 1 on one (since 2027-01-15T"),
                "{error}"
            );
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        write(&one, "a").await.unwrap();
        sleep(LONG).await;
    }
    write(&two, "a").await.unwrap_err();
    one.close().await.unwrap();
    write(&one, "a").await.unwrap_err();
    assert!(!has_lock(&other).await);
    let begun = Instant::now();
    two.begin_writing(NOW).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    write(&two, "a").await.unwrap();
    // Nor does a late close of the first one take the lock of the second.
    one.close().await.unwrap();
    assert!(has_lock(&other).await);
    sleep(LONG).await;
    write(&two, "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_died_is_taken_over_once_it_can_write_no_more() {
    let [one, two, _] = processes();
    one.begin_writing(NOW).await.unwrap();
    kill(&one).await;
    let begun = Instant::now();
    let claim = two.begin_writing(NOW);
    tokio::pin!(claim);
    let mut last_write = Duration::ZERO;
    loop {
        tokio::select! {
            claimed = &mut claim => break claimed.unwrap(),
            () = sleep(Duration::from_millis(100)) => {
                if write(&one, "a").await.is_ok() {
                    last_write = begun.elapsed();
                }
            }
        }
    }
    assert!(begun.elapsed() > last_write + WRITE_LIMIT, "{last_write:?}");
    let error = write(&one, "a").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(one.write_state().stopped.is_some());
    write(&two, "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_lock_of_another_process_stops_for_good() {
    for removed in [false, true] {
        let [one, _, other] = processes();
        one.begin_writing(NOW).await.unwrap();
        let record = WriterRecord {
            id: unique(),
            host: "elsewhere".into(),
            process: 7,
            since: NOW,
            stamp: Stamp::new(NOW),
        };
        let key = Key::writer();
        if removed {
            other.remove_record(&key).await.unwrap();
        } else {
            let value = encode(&record, &[]).unwrap();
            other.put_record(&key, value, Condition::Any).await.unwrap();
        }
        one.probe().await.unwrap();
        sleep(Duration::from_secs(4)).await;
        let error = write(&one, "a").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        let why = one.write_state().stopped.unwrap();
        assert!(
            why.contains(if removed {
                "removed"
            } else {
                "process 7 on elsewhere"
            }),
            "{why}"
        );
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(&why), "{cause}");
        one.probe().await.unwrap_err();
        one.begin_writing(NOW).await.ok();
        write(&one, "a").await.unwrap_err();
        // What is not its own stays.
        one.close().await.unwrap();
        write(&one, "a").await.unwrap_err();
        assert!(removed || has_lock(&other).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_several_removes_the_lock_of_a_dead_process() {
    let [one, _, other] = processes();
    other.begin_writing(NOW).await.unwrap();
    one.begin_writing(NOW).await.unwrap();
    kill(&one).await;
    let begun = Instant::now();
    other.begin_writing(NOW).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!(!has_lock(&other).await);
}

/// As many claim the store at once as one likes: one has it, or nobody.
#[tokio::test(start_paused = true)]
async fn of_several_that_start_at_once_one_at_most_writes() {
    let store = ObjectStoreBackend::memory();
    let mut winners = 0;
    for round in 0..20 {
        let processes: Vec<_> = (0..5)
            .map(|number| store.clone().with_single_writer("host", number))
            .collect();
        let claims = processes.iter().zip(0_u64..).map(async |(process, number)| {
            sleep(Duration::from_millis(number * 17 * round)).await;
            process.begin_writing(NOW).await.is_ok()
        });
        let claimed = futures_util::future::join_all(claims).await;
        let count = claimed.iter().filter(|&&claimed| claimed).count();
        assert!(count <= 1, "{claimed:?}");
        winners += count;
        for process in &processes {
            process.close().await.unwrap();
        }
        // What a loser left counts as dead.
        sleep(LONG).await;
    }
    assert!(winners > 15, "{winners}");
}

/// Each of many adds one to a number that it read, until that succeeds.
#[tokio::test]
async fn of_writers_in_this_process_one_wins() {
    let store = super::super::probe::tests::lying_store();
    let backend = store.with_single_writer("one", 1);
    let writer = backend.single_writer.as_ref().unwrap();
    writer.lease.hold_for(LONG);
    writer.set_decides(true);
    let key = Key::from_stored("number");
    let add = async |_| {
        for _ in 0..10 {
            loop {
                let before = backend.get_record(&key).await.unwrap();
                let number: u64 = before.as_ref().map_or(0, |before| {
                    let text = String::from_utf8(before.value.to_vec()).unwrap();
                    text.split(' ').next().unwrap().parse().unwrap()
                });
                let condition = before.map_or(Condition::Absent, |before| Condition::Matches(before.version));
                let value = Bytes::from(format!("{} {}", number + 1, unique()));
                tokio::task::yield_now().await;
                if backend
                    .put_record(&key, value, condition)
                    .await
                    .unwrap()
                    .is_some()
                {
                    break;
                }
            }
        }
    };
    futures_util::future::join_all((0..8).map(add)).await;
    let number = backend.get_record(&key).await.unwrap().unwrap().value;
    assert!(number.starts_with(b"80 "), "{number:?}");
}
