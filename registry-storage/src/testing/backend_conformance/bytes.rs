//! Bytes: written in parts, finished, read, deleted.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use registry_core::{Error, ErrorCode, Timestamp};

use super::steps::complete;
use crate::backend::{Backend, Expect, Part, StagedBytes};
use crate::bytes_name::BytesName;

/// Any day.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Returns a size that is too large for one part and ends in the middle of another.
fn large<B: Backend>(backend: &B) -> usize {
    let first = backend.part_size(0);
    first + backend.part_size(first as u64) + 12_345
}

/// Returns content that differs at every position.
fn content(seed: u8, size: usize) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

/// Bytes whose parts are all written.
struct Written {
    bytes: StagedBytes,
    parts: Vec<Part>,
    /// How many bytes the parts have.
    size: u64,
    tail: Bytes,
}

/// Writes content as a store does: whole parts, and the rest as a tail if it may be one.
///
/// If no tail may follow a part, a tail alone never becomes bytes: the store keeps such content in a record.
async fn write<B: Backend>(backend: &B, content: &Bytes) -> Written {
    let mut written = Written {
        bytes: StagedBytes {
            name: BytesName::random(NOW),
            token: None,
        },
        parts: Vec::new(),
        size: 0,
        tail: Bytes::new(),
    };
    append(backend, &mut written, content).await;
    written
}

async fn append<B: Backend>(backend: &B, written: &mut Written, content: &Bytes) {
    let mut left = content.clone();
    let has_tails = backend.tail_limit(backend.part_size(0) as u64) > 0;
    loop {
        let size = backend.part_size(written.size);
        let may_be_tail = has_tails && left.len() < size && left.len() <= backend.tail_limit(written.size);
        if left.is_empty() || may_be_tail {
            written.tail = left;
            return;
        }
        let part = left.split_to(size.min(left.len()));
        write_part(backend, written, part).await;
    }
}

async fn write_part<B: Backend>(backend: &B, written: &mut Written, content: Bytes) {
    if written.size == 0 && written.bytes.token.is_none() {
        written.bytes.token = backend.begin_bytes(&written.bytes.name).await.unwrap();
    }
    let size = content.len() as u64;
    let mut writer = backend.write_bytes(&written.bytes, Arc::new(())).await.unwrap();
    let number = written.parts.len();
    let tag = writer.write(number, written.size, content).await.unwrap();
    writer.close().await.unwrap();
    written.parts.extend(tag.map(|tag| Part { size, tag }));
    written.size += size;
}

async fn finish<B: Backend>(backend: &B, written: &Written) -> Result<(), Error> {
    backend.seal_bytes(&written.bytes, written.size).await?;
    let parts = written.parts.clone();
    complete(backend, written.bytes.clone(), parts, written.tail.clone()).await
}

/// Reads a range; `None` if there are no such bytes.
async fn read<B: Backend>(backend: &B, name: &BytesName, range: Range<u64>) -> Option<Bytes> {
    let opened = backend.open_bytes(name, Expect::Nothing).await.unwrap()?;
    let mut stream = opened.read(range);
    let mut gathered = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                assert!(chunk.len() <= 4 << 20, "a chunk of {} bytes", chunk.len());
                gathered.extend_from_slice(&chunk);
            }
            Err(error) if gathered.is_empty() && error.code() == ErrorCode::BlobUnknown => return None,
            Err(error) => panic!("{error:?}"),
        }
    }
    Some(gathered.into())
}

async fn assert_content<B: Backend>(backend: &B, name: &BytesName, content: &Bytes) {
    let stored = read(backend, name, 0..content.len() as u64).await.unwrap();
    assert!(stored == *content, "{} of {} bytes", stored.len(), content.len());
}

/// Bytes that were never written read as `None`, not as an error of the medium.
pub async fn absent_bytes_read_as_nothing<B: Backend>(backend: Arc<B>) {
    assert_eq!(read(&*backend, &BytesName::random(NOW), 0..10).await, None);
}

/// Parts and tail become one content.
pub async fn finishes_parts_and_tail<B: Backend>(backend: Arc<B>) {
    let parts = backend.part_size(0) + backend.part_size(backend.part_size(0) as u64);
    for (seed, size) in [large(&*backend), parts, parts + 1].into_iter().enumerate() {
        let content = content(u8::try_from(seed).unwrap(), size);
        let written = write(&*backend, &content).await;
        finish(&*backend, &written).await.unwrap();
        assert_content(&*backend, &written.bytes.name, &content).await;
    }
}

/// A tail alone, or a first part that is also the last.
pub async fn finishes_bytes_of_less_than_a_part<B: Backend>(backend: Arc<B>) {
    for size in [1, 20_000, backend.part_size(0) - 1] {
        let content = content(1, size);
        let written = write(&*backend, &content).await;
        finish(&*backend, &written).await.unwrap();
        assert_content(&*backend, &written.bytes.name, &content).await;
    }
}

/// Any range within the size, across the borders of parts, and the empty one.
pub async fn reads_ranges<B: Backend>(backend: Arc<B>) {
    let content = content(2, large(&*backend));
    let written = write(&*backend, &content).await;
    finish(&*backend, &written).await.unwrap();
    let (border, end) = (backend.part_size(0), content.len());
    let ranges = [
        0..0,
        0..1,
        5..17,
        border - 10..border + 10,
        border..end,
        end - 1..end,
        end..end,
    ];
    for range in ranges {
        let wanted = range.start as u64..range.end as u64;
        let stored = read(&*backend, &written.bytes.name, wanted).await.unwrap();
        assert!(stored == content.slice(range.clone()), "{range:?}");
    }
}

/// A commit that was found half done finishes the bytes again.
pub async fn finishes_again<B: Backend>(backend: Arc<B>) {
    for size in [100, large(&*backend)] {
        let content = content(3, size);
        let written = write(&*backend, &content).await;
        for _ in 0..3 {
            finish(&*backend, &written).await.unwrap();
        }
        assert_content(&*backend, &written.bytes.name, &content).await;
    }
}

/// A part whose answer was lost is sent again under its number, with other content.
pub async fn uses_the_number_of_a_lost_part_again<B: Backend>(backend: Arc<B>) {
    let size = backend.part_size(0);
    let content = content(4, large(&*backend));
    let mut written = write(&*backend, &content.slice(..size)).await;
    let lost = Bytes::from(vec![9; backend.part_size(size as u64)]);
    let mut writer = backend.write_bytes(&written.bytes, Arc::new(())).await.unwrap();
    let number = written.parts.len();
    writer.write(number, written.size, lost).await.unwrap();
    writer.close().await.unwrap();
    append(&*backend, &mut written, &content.slice(size..)).await;
    finish(&*backend, &written).await.unwrap();
    assert_content(&*backend, &written.bytes.name, &content).await;
}

/// A part whose answer was lost, and that the upload then did without, is not in the content.
pub async fn leaves_out_parts_that_are_not_named<B: Backend>(backend: Arc<B>) {
    let size = backend.part_size(0);
    let content = content(5, size);
    let mut written = write(&*backend, &content).await;
    let stray = Bytes::from(vec![9; backend.part_size(size as u64)]);
    let mut longer = Written {
        bytes: written.bytes.clone(),
        parts: written.parts.clone(),
        size: written.size,
        tail: Bytes::new(),
    };
    write_part(&*backend, &mut longer, stray.clone()).await;
    finish(&*backend, &written).await.unwrap();
    let stored = read(&*backend, &written.bytes.name, 0..content.len() as u64).await;
    assert!(stored.unwrap() == content);

    // The same for a single part that was begun and lost, if all of the content is a tail.
    written = write(&*backend, &Bytes::new()).await;
    let mut lost = Written {
        bytes: written.bytes.clone(),
        parts: Vec::new(),
        size: 0,
        tail: Bytes::new(),
    };
    write_part(&*backend, &mut lost, stray).await;
    written.bytes = lost.bytes;
    let short = content.slice(..1000);
    append(&*backend, &mut written, &short).await;
    finish(&*backend, &written).await.unwrap();
    assert_content(&*backend, &written.bytes.name, &short).await;
}

/// A part that was overwritten by a writer thought dead is detected, if parts have tags, unless both were kept.
pub async fn refuses_parts_that_were_overwritten<B: Backend>(backend: Arc<B>) {
    let content = content(6, large(&*backend));
    let written = write(&*backend, &content).await;
    if written.parts.is_empty() {
        return;
    }
    let zombie = Bytes::from(vec![9; backend.part_size(0)]);
    let mut writer = backend.write_bytes(&written.bytes, Arc::new(())).await.unwrap();
    writer.write(0, 0, zombie).await.unwrap();
    writer.close().await.unwrap();
    let Err(error) = finish(&*backend, &written).await else {
        return assert_content(&*backend, &written.bytes.name, &content).await;
    };
    assert_eq!(error.code(), ErrorCode::BlobUploadInvalid, "{error:?}");
    assert_eq!(read(&*backend, &written.bytes.name, 0..1).await, None);
}

/// The next request of an upload continues where the previous one ended.
pub async fn goes_on_with_parts_of_a_writer_before<B: Backend>(backend: Arc<B>) {
    let content = content(7, large(&*backend));
    let mut written = write(&*backend, &content.slice(..30_000)).await;
    let kept = content.slice(usize::try_from(written.size).unwrap()..);
    append(&*backend, &mut written, &kept).await;
    finish(&*backend, &written).await.unwrap();
    assert_content(&*backend, &written.bytes.name, &content).await;
}

/// What was aborted cannot be finished, and aborting it again is no error. Azure has nothing to abort: there it can.
pub async fn aborts_what_was_begun<B: Backend>(backend: Arc<B>) {
    let content = content(8, large(&*backend));
    let written = write(&*backend, &content).await;
    for _ in 0..2 {
        backend.abort_bytes(&written.bytes).await.unwrap();
    }
    if written.bytes.token.is_some()
        && let Err(error) = finish(&*backend, &written).await
    {
        assert_eq!(error.code(), ErrorCode::BlobUploadInvalid, "{error:?}");
        assert_eq!(read(&*backend, &written.bytes.name, 0..1).await, None);
    }
}

/// Deleted bytes are gone, others stay, and deleting them again is no error.
pub async fn deletes_bytes<B: Backend>(backend: Arc<B>) {
    let content = content(9, 1000);
    let (gone, stays) = (write(&*backend, &content).await, write(&*backend, &content).await);
    finish(&*backend, &gone).await.unwrap();
    finish(&*backend, &stays).await.unwrap();
    for _ in 0..2 {
        backend.delete_bytes(&gone.bytes.name).await.unwrap();
        assert_eq!(read(&*backend, &gone.bytes.name, 0..1000).await, None);
    }
    assert_content(&*backend, &stays.bytes.name, &content).await;
    let names = backend.list_bytes(None, 10).await.unwrap();
    assert_eq!(names, [stays.bytes.name]);
}

/// Names of finished bytes are listed in pages and in order, without records.
pub async fn lists_names_in_order<B: Backend>(backend: Arc<B>) {
    let mut names = Vec::new();
    for day in [5, 3, 4] {
        for _ in 0..3 {
            let mut written = write(&*backend, &Bytes::new()).await;
            written.bytes.name = BytesName::random(Timestamp(day * 86_400_000));
            append(&*backend, &mut written, &content(1, 50)).await;
            finish(&*backend, &written).await.unwrap();
            names.push(written.bytes.name);
        }
    }
    names.sort();
    for limit in [1, 2, 9, 1000] {
        let mut listed: Vec<BytesName> = Vec::new();
        loop {
            let page = backend.list_bytes(listed.last(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed, names, "pages of {limit}");
    }
}

/// Memory is free again once its permit was dropped, and even the largest part gets some.
pub async fn gives_memory_back<B: Backend>(backend: Arc<B>) {
    for _ in 0..1000 {
        drop(backend.reserve_memory(backend.part_size(0)).await);
        drop(backend.reserve_memory(usize::MAX).await);
        let size = backend.part_size(0);
        if let Some(memory) = backend.memory_at_once(size) {
            assert!((1..=size).contains(&memory.size()), "{memory:?}");
        }
    }
}

/// Parts have a size, and if only the last part may be smaller, anything smaller may be a tail.
pub async fn has_usable_part_sizes<B: Backend>(backend: Arc<B>) {
    for offset in [0, 1 << 30, 1 << 40, (5 << 40) - 1] {
        assert!(backend.part_size(offset) > 0);
        assert!(backend.tail_limit(offset) < backend.part_size(offset));
        if backend.must_record_parts() {
            assert_eq!(backend.tail_limit(offset), backend.part_size(offset) - 1);
        }
    }
}
