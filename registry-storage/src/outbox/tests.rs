use super::*;

fn values(range: std::ops::RangeInclusive<u8>) -> Vec<Vec<u8>> {
    range.map(|byte| vec![byte]).collect()
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
    let outbox = Outbox::in_memory(100, &["a", "b"]).unwrap();
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
    // A late acknowledgement takes nothing back.
    outbox.acknowledge("b", 1).unwrap();
    assert_eq!(read(&outbox, "b", 0).await, [(3, 3)]);
    assert_eq!(outbox.dropped(), 0);
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_go() {
    let outbox = Outbox::in_memory(3, &["a"]).unwrap();
    outbox.append(values(1..=2)).await.unwrap();
    outbox.append(values(3..=5)).await.unwrap();
    assert_eq!(read(&outbox, "a", 0).await, [(3, 3), (4, 4), (5, 5)]);
    assert_eq!((outbox.dropped(), outbox.pending(0)), (2, 3));
}

#[tokio::test]
async fn a_file_keeps_entries_and_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let open = |consumers: &[&str]| Outbox::open(&path, 100, consumers).unwrap();
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
    let outbox = Outbox::open(&path, 100, &["a"]).unwrap();
    outbox.append(values(1..=2)).await.unwrap();
    // As after a kill: nobody closed it, and another connection sees what is in the file.
    let other = Outbox::open(&path, 100, &["a"]).unwrap();
    assert_eq!(read(&other, "a", 0).await, [(1, 1), (2, 2)]);
    other.close();
    outbox.close();
}
