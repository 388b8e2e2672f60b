use super::*;

fn values(range: std::ops::RangeInclusive<u8>) -> Vec<Vec<u8>> {
    range.map(|byte| vec![byte]).collect()
}

fn at_most(entries: u64) -> OutboxLimits {
    OutboxLimits {
        entries,
        ..OutboxLimits::default()
    }
}

async fn read(outbox: &Outbox, consumer: &str, after: u64) -> Vec<(u64, u8)> {
    let entries = outbox.read(consumer, after, 100).await.unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.sequence, entry.value[0]))
        .collect()
}

#[tokio::test]
async fn each_consumer_reads_at_its_own_pace_and_what_all_have_is_forgotten() {
    let outbox = Outbox::in_memory(at_most(100), &["a", "b"]).unwrap();
    outbox.append(values(1..=3)).await.unwrap();
    assert_eq!(*outbox.end().borrow(), 3);
    assert_eq!(read(&outbox, "a", 0).await, [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(read(&outbox, "a", 2).await, [(3, 3)]);
    outbox.acknowledge("a", 3).unwrap();
    assert_eq!(read(&outbox, "a", 0).await, []);
    assert_eq!(read(&outbox, "b", 0).await.len(), 3, "b has not read them");
    assert_eq!((outbox.pending(3), outbox.pending(0)), (0, 3));
    outbox.acknowledge("b", 2).unwrap();
    assert_eq!(read(&outbox, "b", 0).await, [(3, 3)]);
    assert_eq!(outbox.pending(0), 1, "the first two are forgotten");
    // A late acknowledgement does not undo anything.
    outbox.acknowledge("b", 1).unwrap();
    assert_eq!(read(&outbox, "b", 0).await, [(3, 3)]);
    assert_eq!(outbox.dropped(), 0);
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_go() {
    let outbox = Outbox::in_memory(at_most(3), &["a"]).unwrap();
    outbox.append(values(1..=2)).await.unwrap();
    outbox.append(values(3..=5)).await.unwrap();
    assert_eq!(read(&outbox, "a", 0).await, [(3, 3), (4, 4), (5, 5)]);
    assert_eq!((outbox.dropped(), outbox.pending(0)), (2, 3));
}

#[tokio::test]
async fn a_file_keeps_entries_and_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let open = |consumers: &[&str]| Outbox::open(&path, at_most(100), consumers).unwrap();
    let outbox = open(&["a", "gone"]);
    outbox.append(values(1..=4)).await.unwrap();
    outbox.acknowledge("a", 1).unwrap();
    outbox.append_later(values(5..=5)).unwrap();
    outbox.close();
    assert!(matches!(
        outbox.append(values(1..=1)).await,
        Err(OutboxError::Closed)
    ));

    let outbox = open(&["a", "new"]);
    assert_eq!(read(&outbox, "a", 0).await, [(2, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!(
        read(&outbox, "new", 0).await,
        [],
        "what was before it is not for it"
    );
    outbox.acknowledge("a", 5).unwrap();
    outbox.append(values(6..=6)).await.unwrap();
    assert_eq!(read(&outbox, "new", 0).await, [(6, 6)], "no number comes twice");
    outbox.close();
}

#[tokio::test]
async fn what_was_appended_is_in_the_file_before_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let outbox = Outbox::open(&path, at_most(100), &["a"]).unwrap();
    outbox.append(values(1..=2)).await.unwrap();
    // As after a kill: the queue was not closed, and another connection sees what is in the file.
    let other = Outbox::open(&path, at_most(100), &["a"]).unwrap();
    assert_eq!(read(&other, "a", 0).await, [(1, 1), (2, 2)]);
    other.close();
    outbox.close();
}

#[tokio::test]
async fn a_file_stays_as_small_as_it_is_told_whatever_the_size_of_the_entries() {
    let bytes = 2 * 1024 * 1024;
    let limits = OutboxLimits {
        bytes,
        ..OutboxLimits::default()
    };
    for size in [100, 2100, 70_000] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let outbox = Outbox::open(&path, limits, &["a"]).unwrap();
        let count = 10 * bytes / size;
        let mut most = 0;
        for _ in 0..count.div_ceil(100) {
            outbox.append(vec![vec![1; size as usize]; 100]).await.unwrap();
            let files = std::fs::read_dir(folder.path()).unwrap();
            let taken: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
            most = most.max(taken);
        }
        // On top of that: one group of writes, each of which may take a page of the file, and the log of the database.
        let (group, step) = (
            100 * size.next_multiple_of(4096),
            16 * size.next_multiple_of(4096),
        );
        let besides = 2 * group + 12 * 1024 * 1024;
        assert!(most < bytes + besides, "{size}: {most}");
        let kept = outbox.pending(0);
        assert!(kept * size > bytes / 3 && kept * size <= bytes, "{size}: {kept}");
        assert_eq!(outbox.dropped() + kept, count.div_ceil(100) * 100);
        outbox.close();
        let taken = path.metadata().unwrap().len();
        assert!(taken <= bytes + step + 64 * 1024, "{size}: {taken}");
    }
}

#[tokio::test]
async fn an_intent_is_there_until_it_is_settled_and_its_entries_come_at_once_with_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let outbox = Outbox::open(&path, at_most(100), &["a"]).unwrap();
    let names = [[1; 16], [2; 16], [3; 16]];
    for name in names {
        outbox.intend(name, vec![9]).await.unwrap();
        outbox.intend(name, vec![name[0]]).await.unwrap();
    }
    assert_eq!(*outbox.end().borrow(), 0, "an intent is no entry");
    outbox.settle(names[0], values(1..=2)).await.unwrap();
    outbox.settle(names[1], Vec::new()).await.unwrap();
    // As after a kill.
    let other = Outbox::open(&path, at_most(100), &["a"]).unwrap();
    assert_eq!(other.intents(None).await.unwrap(), [(names[2], vec![3])]);
    assert_eq!(other.intents(Some(names[0])).await.unwrap(), []);
    assert_eq!(read(&other, "a", 0).await, [(1, 1), (2, 2)]);
    other.settle(names[2], values(3..=3)).await.unwrap();
    assert_eq!(read(&other, "a", 2).await, [(3, 3)]);
    assert_eq!(other.intents(None).await.unwrap(), []);
    other.close();
    outbox.close();
}

#[tokio::test]
async fn intents_that_nobody_settles_have_a_quarter_of_the_room() {
    let limits = OutboxLimits {
        bytes: 1024 * 1024,
        ..OutboxLimits::default()
    };
    let outbox = Outbox::in_memory(limits, &["a"]).unwrap();
    outbox.append(values(1..=1)).await.unwrap();
    for number in 0..100 {
        outbox.intend([number; 16], vec![number; 10_000]).await.unwrap();
    }
    let kept = outbox.intents(None).await.unwrap();
    assert_eq!(kept.first().unwrap().0, [74; 16]);
    assert_eq!(kept.len(), 26);
    assert_eq!(
        read(&outbox, "a", 0).await,
        [(1, 1)],
        "entries are not dropped for them"
    );
}

#[tokio::test]
async fn more_than_eight_mebibytes_do_not_wait_for_a_slow_disk() {
    let outbox = Outbox::in_memory(OutboxLimits::default(), &["a"]).unwrap();
    let mut refused = 0;
    for _ in 0..2000 {
        match outbox.append_later(vec![vec![1; 1024 * 1024]]) {
            Ok(()) => {}
            Err(OutboxError::Busy) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "a thread cannot copy two gibibytes as fast as that");
    outbox.close();
}

/// It got the tables of an outbox, and another program's entries were dropped with the first ones that were too old.
#[test]
fn the_database_of_something_else_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE entries (a); CREATE TABLE songs (a)")
        .unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    for refused in [
        Outbox::check(&path).unwrap_err(),
        Outbox::open(&path, OutboxLimits::default(), &["a"]).unwrap_err(),
    ] {
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("name another file"), "{cause}");
    }
    assert!(std::fs::read(&path).unwrap() == before);
    let own = folder.path().join("own");
    Outbox::open(&own, OutboxLimits::default(), &["a"])
        .unwrap()
        .close();
    Outbox::check(&own).unwrap();
}

#[test]
fn a_file_that_somebody_else_uses_is_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = Outbox::open(&path, at_most(100), &["a"]).unwrap_err();
    assert!(matches!(refused, OutboxError::InUse), "{refused}");
}
