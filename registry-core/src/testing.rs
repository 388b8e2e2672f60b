//! Helpers for the tests of several modules.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::error::Error;
use crate::storage::{BlobContent, ByteStream, SignedUrl};

/// Runs a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

/// A stream of given items, which are removed as they are read.
pub(crate) struct Items(pub(crate) VecDeque<Result<Bytes, Error>>);

impl Items {
    pub(crate) fn of(chunks: &[&'static [u8]]) -> Self {
        Self(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect())
    }
}

impl Stream for Items {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// Reads a stream that never waits to its end; no item is empty.
pub(crate) fn read_all(mut stream: ByteStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(item) = now(core::future::poll_fn(|context| {
        stream.as_mut().poll_next(context)
    })) {
        let item = item?;
        assert!(!item.is_empty(), "an empty item");
        bytes.extend_from_slice(&item);
    }
    Ok(bytes)
}

/// Returns a stream as text.
pub(crate) fn text_of(stream: ByteStream) -> String {
    String::from_utf8(read_all(stream).unwrap()).unwrap()
}

/// A blob that can also be read at a URL, if there is one.
#[derive(Debug)]
pub(crate) struct Elsewhere(pub(crate) Memory, pub(crate) Option<SignedUrl>);

#[async_trait]
impl BlobContent for Elsewhere {
    fn read(&self, range: Range<u64>) -> ByteStream {
        self.0.read(range)
    }

    async fn signed_url(&self) -> Option<SignedUrl> {
        self.1.clone()
    }
}

/// A blob in memory.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl BlobContent for Memory {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let bytes = &self.0[range.start as usize..range.end as usize];
        // In two pieces, to detect code that reads only one.
        let (front, back) = bytes.split_at(bytes.len() / 2);
        let items = [front, back].into_iter().filter(|piece| !piece.is_empty());
        Box::pin(Items(
            items.map(|piece| Ok(Bytes::copy_from_slice(piece))).collect(),
        ))
    }
}
