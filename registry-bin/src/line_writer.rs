//! Writers of lines to the standard streams or to files, each on its own thread.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry_http::LineSink;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;
use crate::ownership;

/// How many bytes of lines are queued at most for a slow reader.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// What a queued line takes besides its text, in bytes.
const LINE_OVERHEAD_BYTES: usize = 64;

/// How many bytes are collected for one batch.
const BATCH_BYTES: usize = 64 * 1024;

/// How many bytes one call writes, small enough that a slow reader is seen to make progress.
const PIECE_BYTES: usize = 16 * 1024;

/// How long the last lines may take while a reader makes progress.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// After how long without progress the last lines are given up.
const LAST_LINES_PROGRESS_TIMEOUT: Duration = Duration::from_millis(400);

/// How often dropped lines are reported at most in a flood.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before retrying a write to a non-blocking pipe that is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

thread_local! {
    /// This thread writes a log. Its own messages are few, and never dropped.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Writes lines without blocking the caller. If they are not read as fast as they come, some are dropped and counted.
#[derive(Clone, Debug)]
pub(crate) struct LineWriter {
    messages: Sender<Message>,
    queue: Arc<Queue>,
    /// Disconnected when the thread ends.
    ended: Arc<Mutex<Receiver<()>>>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Write what is queued and then this line, however much is queued; then end.
    End(Option<String>),
}

/// The state that both sides share.
#[derive(Debug)]
struct Queue {
    /// The name of these lines in the log and the metrics.
    name: &'static str,
    /// Bytes in the queue.
    waiting: AtomicUsize,
    /// Lines in the queue or being written.
    unwritten: AtomicU64,
    /// How often a write made progress.
    taken: AtomicU64,
    dropped: AtomicU64,
}

impl Queue {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            waiting: AtomicUsize::new(0),
            unwritten: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl LineWriter {
    /// Writes to standard error.
    pub(crate) fn stderr() -> Result<Self, Failure> {
        Self::stream("server", &io::stderr())
    }

    /// Writes to standard output.
    pub(crate) fn stdout() -> Result<Self, Failure> {
        Self::stream("access", &io::stdout())
    }

    /// Appends to a file. If it is created here, only its owner can read it. It may be truncated while it is written,
    /// as `logrotate` does with `copytruncate`, and it may be a named pipe without a reader yet.
    pub(crate) fn file(name: &'static str, path: &Path) -> Result<Self, Failure> {
        // Opening a named pipe for writing only would block until it has a reader, and with it the start of the server.
        let is_pipe = path
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_fifo());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(is_pipe)
            .mode(0o600)
            .open(path);
        let file = file.map_err(|cause| {
            let failed = Failure::new(format!("cannot write to {}", path.display()));
            failed.because(ownership::with_owner(path, cause))
        })?;
        Self::start(name, file)
    }

    fn stream(name: &'static str, stream: &impl AsFd) -> Result<Self, Failure> {
        // Bypasses the buffer and the lock of the standard library, which other threads would wait for.
        let copy = stream.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|cause| Failure::new("cannot use the standard streams").because(cause))?;
        Self::start(name, File::from(copy))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the queue counts and bounds the bytes in it"
    )]
    fn start(name: &'static str, sink: impl Write + Send + 'static) -> Result<Self, Failure> {
        let (messages, received) = channel();
        let (running, ended) = sync_channel::<()>(0);
        let queue = Arc::new(Queue::new(name));
        let output = Output {
            sink,
            queue: Arc::clone(&queue),
            is_torn: false,
            is_failing: false,
            reported: (0, None),
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || output.run(&received, running))
            .map_err(|cause| Failure::new("cannot start a thread for the log").because(cause))?;
        Ok(Self {
            messages,
            queue,
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    /// Returns the name of the lines.
    pub(crate) fn name(&self) -> &'static str {
        self.queue.name
    }

    /// Returns how many lines were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is queued and `last`, and ends. Blocks for less than half a second if the lines are not read, and
    /// for little more than two seconds if they are read slowly.
    pub(crate) fn close(&self, last: Option<String>) {
        self.end(last).wait();
    }

    /// Closes several writers at the same time. Logs how many lines were not read.
    pub(crate) fn close_all(writers: &[&Self]) {
        let endings: Vec<_> = writers.iter().map(|writer| writer.end(None)).collect();
        for ending in endings {
            let lines = ending.wait();
            if lines > 0 {
                let log = ending.writer.queue.name;
                tracing::warn!(
                    log,
                    "{lines} lines were dropped at the end, because nobody took them"
                );
            }
        }
    }

    fn end(&self, last: Option<String>) -> Ending<'_> {
        Ending {
            writer: self,
            taken: self.queue.taken.load(Ordering::Relaxed),
            begun: Instant::now(),
            is_running: self.messages.send(Message::End(last)).is_ok(),
        }
    }
}

/// A writer that was asked to end.
struct Ending<'w> {
    writer: &'w LineWriter,
    taken: u64,
    begun: Instant,
    is_running: bool,
}

impl Ending<'_> {
    /// Waits until the last lines are written, or are not read any more. Returns how many were not written.
    fn wait(&self) -> u64 {
        let queue = &self.writer.queue;
        let ended = self.writer.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut deadline) = (self.taken, self.begun + LAST_LINES_PROGRESS_TIMEOUT);
        loop {
            // Nothing is ever sent: either the thread has ended, or the time is up.
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.is_running || ended.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            let before = std::mem::replace(&mut taken, queue.taken.load(Ordering::Relaxed));
            if taken == before || self.begun.elapsed() > LAST_LINES_TIMEOUT {
                break;
            }
            deadline = Instant::now() + LAST_LINES_PROGRESS_TIMEOUT;
        }
        queue.unwritten.load(Ordering::Relaxed)
    }
}

impl LineSink for LineWriter {
    fn write(&self, line: String) {
        self.queue.unwritten.fetch_add(1, Ordering::Relaxed);
        let size = line.len().saturating_add(LINE_OVERHEAD_BYTES);
        let waiting = self.queue.waiting.fetch_add(size, Ordering::Relaxed);
        let is_full = waiting.saturating_add(size) > QUEUE_BYTES && !IS_WRITER.get();
        if is_full || self.messages.send(Message::Line(line)).is_err() {
            self.queue.waiting.fetch_sub(size, Ordering::Relaxed);
            self.queue.unwritten.fetch_sub(1, Ordering::Relaxed);
        }
        if is_full {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'w> MakeWriter<'w> for LineWriter {
    type Writer = Entry<'w>;

    fn make_writer(&'w self) -> Entry<'w> {
        Entry(self)
    }
}

/// Receives an entry of the program's own log, which is complete and ends with a line feed.
#[derive(Debug)]
pub(crate) struct Entry<'w>(&'w LineWriter);

impl Write for Entry<'_> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(entry.strip_suffix(b"\n").unwrap_or(entry));
        LineSink::write(self.0, line.into_owned());
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of the writing thread.
struct Output<W> {
    sink: W,
    queue: Arc<Queue>,
    /// The last write ended within a line.
    is_torn: bool,
    is_failing: bool,
    /// How many dropped lines were reported, and when.
    reported: (u64, Option<Instant>),
}

impl<W: Write> Output<W> {
    /// Writes until asked to end, and then drops `running`.
    fn run(mut self, messages: &Receiver<Message>, running: SyncSender<()>) {
        IS_WRITER.set(true);
        while let Ok(first) = messages.recv() {
            let (mut batch, mut lines) = (Vec::new(), 0);
            let mut message = Some(first);
            let (mut is_last, mut is_empty) = (false, false);
            while let Some(taken) = message.take() {
                match taken {
                    Message::Line(line) => {
                        self.queue
                            .waiting
                            .fetch_sub(line.len().saturating_add(LINE_OVERHEAD_BYTES), Ordering::Relaxed);
                        push_line(&mut batch, &line);
                        lines += 1;
                    }
                    Message::End(last) => {
                        last.iter().for_each(|last| push_line(&mut batch, last));
                        is_last = true;
                        break;
                    }
                }
                if batch.len() < BATCH_BYTES {
                    message = messages.try_recv().ok();
                    is_empty = message.is_none();
                }
            }
            let written = self.write_batch(&batch);
            self.queue.unwritten.fetch_sub(lines, Ordering::Relaxed);
            if is_last {
                break;
            }
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    tracing::info!(
                        log = self.queue.name,
                        "nobody takes the lines of a log any more; it ends"
                    );
                    self.discard(messages);
                    break;
                }
                written => self.report(written, is_empty),
            }
        }
        drop(running);
    }

    /// Discards lines after the reader is gone, so that they are neither queued nor counted as dropped.
    fn discard(&self, messages: &Receiver<Message>) {
        while let Ok(Message::Line(line)) = messages.recv() {
            self.queue
                .waiting
                .fetch_sub(line.len().saturating_add(LINE_OVERHEAD_BYTES), Ordering::Relaxed);
            self.queue.unwritten.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Reports problems of this log in the program's own log, which may be the same one.
    fn report(&mut self, written: io::Result<()>, is_empty: bool) {
        let log = self.queue.name;
        match written {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!(log, "lines of a log can be written again");
            }
            Ok(()) => {}
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(log, %error, "lines of a log cannot be written; they are dropped until they can");
            }
            Err(_) => {}
        }
        let total = self.queue.dropped.load(Ordering::Relaxed);
        let (reported, last) = self.reported;
        if !self.is_failing
            && total > reported
            && (is_empty || last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL))
        {
            self.reported = (total, Some(Instant::now()));
            let lines = total - reported;
            tracing::warn!(
                log,
                total,
                "{lines} lines were dropped, because they were not taken in time"
            );
        }
    }

    /// Writes lines. On an error, the lines that were not written completely are dropped.
    fn write_batch(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut rest = batch;
        let written = self.end_torn_line().and_then(|()| {
            while !rest.is_empty() {
                let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
                let count = write_some(&mut self.sink, piece)?;
                self.queue.taken.fetch_add(1, Ordering::Relaxed);
                rest = rest.get(count..).unwrap_or_default();
            }
            Ok(())
        });
        if written.is_err() {
            let done = batch.len() - rest.len();
            if done > 0 {
                self.is_torn = batch.get(done - 1) != Some(&b'\n');
            }
            let dropped = rest.iter().filter(|byte| **byte == b'\n').count();
            self.queue.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        written
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.is_torn {
            write_some(&mut self.sink, b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }
}

fn push_line(batch: &mut Vec<u8>, line: &str) {
    batch.extend_from_slice(line.as_bytes());
    batch.push(b'\n');
}

/// Writes at least one byte.
#[expect(
    clippy::disallowed_methods,
    reason = "the log's own thread; a full pipe cannot be waited for with a limit"
)]
fn write_some(sink: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program made the pipe non-blocking, for all that share it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_INTERVAL),
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_all_written_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        for _ in 0..2 {
            let writer = LineWriter::file("audit", &path).unwrap();
            for number in 0..1000 {
                writer.write(number.to_string());
            }
            writer.close(Some("last".into()));
            writer.write("too late".into());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let once: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, (once + "last\n").repeat(2));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_log_and_holds_up_nobody() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::start("access", pipe).unwrap();
        drop(reader);
        for number in 0..100_000 {
            writer.write(number.to_string());
        }
        let begin = Instant::now();
        writer.close(None);
        assert!(begin.elapsed() < LAST_LINES_TIMEOUT);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_four_mebibytes_and_no_time() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::start("access", pipe).unwrap();
        let line = "x".repeat(1000);
        let written = 10_000;
        for _ in 0..written {
            writer.write(line.clone());
        }
        assert!(writer.queue.waiting.load(Ordering::Relaxed) <= QUEUE_BYTES);
        let dropped = writer.dropped();
        assert!(dropped > written / 2, "{dropped}");
        // Reading starts late.
        let reading = std::thread::spawn(move || BufReader::new(reader).lines().count());
        let deadline = Instant::now() + Duration::from_secs(30);
        while writer.queue.waiting.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        writer.close(Some("last".into()));
        assert_eq!(reading.join().unwrap() as u64, written - dropped + 1);
    }

    #[test]
    fn logs_that_nobody_reads_end_together_and_say_how_many_lines_that_cost() {
        let pipes: Vec<_> = (0..20).map(|_| io::pipe().unwrap()).collect();
        let writers: Vec<_> = pipes
            .iter()
            .map(|(_, pipe)| LineWriter::start("access", pipe.try_clone().unwrap()).unwrap())
            .collect();
        for writer in &writers {
            for _ in 0..1000 {
                writer.write("x".repeat(1000));
            }
        }
        let begun = Instant::now();
        let endings: Vec<_> = writers.iter().map(|writer| writer.end(None)).collect();
        for ending in &endings {
            assert!(ending.wait() > 500);
        }
        // One after the other, each would take its own time.
        assert!(begun.elapsed() < 10 * LAST_LINES_PROGRESS_TIMEOUT);
    }

    /// Accepts bytes until it is full, and then none until its limit is raised.
    #[derive(Default)]
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.1.saturating_sub(self.0.len()).min(bytes.len());
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(&bytes[..free]);
            Ok(free)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_was_full_leaves_one_torn_line_and_the_next_is_whole() {
        let mut output = Output {
            sink: Full(Vec::new(), 10),
            queue: Arc::new(Queue::new("audit")),
            is_torn: false,
            is_failing: false,
            reported: (0, None),
        };
        assert!(output.write_batch(b"first\nsecond\nthird\n").is_err());
        assert!(output.write_batch(b"fourth\n").is_err());
        output.sink.1 = 100;
        output.write_batch(b"fifth\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&output.sink.0), "first\nseco\nfifth\n");
        assert_eq!(output.queue.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = LineWriter::file("audit", Path::new("/nowhere/audit")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot write to /nowhere/audit: "),
            "{error}"
        );
    }
}
