//! Lines for the standard output or a file, written by a thread of their own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry_http::LineSink;

use crate::failure::Failure;

/// How many lines wait at most for whoever reads them.
const LINES: usize = 8192;

/// How long the last lines may take.
const END: Duration = Duration::from_secs(2);

/// Writes lines. Where they are not taken as fast as they come, some are left out and counted; no request waits.
#[derive(Clone, Debug)]
pub(crate) struct LineWriter {
    lines: SyncSender<Option<String>>,
    left_out: Arc<AtomicU64>,
    /// Disconnected when the thread ends.
    ended: Arc<Mutex<Receiver<()>>>,
}

impl LineWriter {
    pub(crate) fn stdout() -> Result<Self, Failure> {
        Self::start(io::stdout())
    }

    /// Appends to a file. It may be cut to nothing while it is written, as `logrotate` does with `copytruncate`.
    pub(crate) fn file(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file =
            file.map_err(|cause| Failure::new(format!("cannot write to {}", path.display())).because(cause))?;
        Self::start(file)
    }

    fn start(sink: impl Write + Send + 'static) -> Result<Self, Failure> {
        let (lines, received) = sync_channel(LINES);
        let (running, ended) = sync_channel::<()>(0);
        let left_out = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&left_out);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                write_all(io::BufWriter::new(sink), &received, &counted);
                drop(running);
            })
            .map_err(|cause| Failure::new("cannot start a thread for the log").because(cause))?;
        Ok(Self {
            lines,
            left_out,
            ended: Arc::new(Mutex::new(ended)),
        })
    }

    /// Writes what waits, and ends. It blocks, for at most two seconds where nobody takes the lines.
    pub(crate) fn close(&self) {
        if self.lines.try_send(None).is_ok() {
            // Nothing is ever sent: it returns when the thread has ended, or when it is too late.
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.recv_timeout(END).ok();
        }
    }
}

impl LineSink for LineWriter {
    fn write(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Some(line)) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(mut sink: impl Write, lines: &Receiver<Option<String>>, left_out: &AtomicU64) {
    let mut is_failing = false;
    while let Ok(Some(first)) = lines.recv() {
        let mut is_last = false;
        let mut line = Some(first);
        let mut result = Ok(());
        while let Some(text) = line {
            result = result.and_then(|()| writeln!(sink, "{text}"));
            line = match lines.try_recv() {
                Ok(Some(text)) => Some(text),
                Ok(None) => {
                    is_last = true;
                    None
                }
                Err(_) => None,
            };
        }
        match result.and_then(|()| sink.flush()) {
            Ok(()) if is_failing => {
                is_failing = false;
                tracing::info!("lines of a log of requests can be written again");
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                tracing::info!("nobody takes the lines of a log of requests any more; it ends");
                // They are still taken, so that none waits and none counts as left out.
                while !is_last && matches!(lines.recv(), Ok(Some(_))) {}
                return;
            }
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "lines of a log of requests cannot be written; they are left out until they can");
            }
            _ => {}
        }
        let count = left_out.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(
                count,
                "lines of a log of requests were left out, because they were not taken in time"
            );
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_all_written_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        for _ in 0..2 {
            let writer = LineWriter::file(&path).unwrap();
            for number in 0..1000 {
                writer.write(number.to_string());
            }
            writer.close();
            writer.write("too late".into());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let once: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, once.repeat(2));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_log_and_holds_up_nobody() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::start(pipe).unwrap();
        drop(reader);
        for number in 0..3 * LINES {
            writer.write(number.to_string());
        }
        let begin = std::time::Instant::now();
        writer.close();
        assert!(begin.elapsed() < END);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = LineWriter::file(Path::new("/nowhere/audit")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot write to /nowhere/audit: "),
            "{error}"
        );
    }
}
