//! Reloading the configuration while the server runs.
//!
//! On SIGHUP, and when the configuration or a file that it names has changed, everything is read again. It only takes
//! effect if all of it is valid, so a bad file leaves the server as it was.
//!
//! A file is not read while it is being written: it must first stay unchanged for a while. A writer may also have died
//! halfway, so no protection is removed because it is [gone] from a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::arguments::Serve;
use super::process::ServiceManager;
use crate::arguments::StoreArguments;
use crate::config::fingerprint::Fingerprint;
use crate::config::supported::has_effect;
use crate::config::tree::Node;
use crate::config::values::MASK;
use crate::config::{Flag, Loaded, load};
use crate::failure::Failure;
use crate::logging::{LogFilter, LogHandle};
use crate::places::claims;

/// How often files are checked. Their content is compared, because file notifications of the kernel do not work on
/// network file systems and with the symbolic links that Kubernetes swaps.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How long a changed file must stay unchanged before it is read.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The keys that a running server reloads, as JSON pointers into the configuration (RFC 6901).
const RELOADED: [&str; 8] = [
    "/log/level",
    "/log/accesslog/disabled",
    "/loglevel",
    "/access",
    "/http/tls",
    "/http/http2",
    "/quotas",
    "/tags/immutable",
];

/// A prepared change.
pub(super) type Change = Box<dyn FnOnce() + Send>;

/// A part of a server that can be reloaded.
pub(super) trait Reloadable: Send + Sync {
    /// Reads and checks everything that is needed, without changing anything yet. May block.
    ///
    /// # Errors
    /// What is wrong with the configuration or a file that it names, and what protection would be [gone].
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure>;
}

/// Refuses a configuration in which a protecting key is gone or empty, because the file may have been cut or mistyped.
pub(super) fn gone(key: &str, consequence: &str) -> Failure {
    Failure::of(
        key,
        format!(
            "is gone, empty or says less than before, so {consequence}; a running server does not take that over: \
             put it back, or restart the server to remove it"
        ),
    )
}

impl Reloadable for LogHandle {
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure> {
        let filter = LogFilter::of(&new.configuration);
        Ok(Box::new(move || self.set(filter)))
    }
}

/// What must begin before the server reads the files of its configuration, so that no change and no signal is missed.
pub(super) struct Watch {
    hangup: Signal,
    seen: FileContents,
}

impl Watch {
    /// Reads the files once and listens for SIGHUP, which would otherwise end the process.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub(super) fn start(loaded: &Loaded) -> Result<Self, Failure> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|cause| Failure::new("cannot listen to signals").because(cause))?;
        let seen = FileContents::of(loaded);
        Ok(Self { hangup, seen })
    }
}

/// The task that watches for changes. It ends with [`Reload::shutdown`], or soon after it is dropped.
#[derive(Debug)]
pub(super) struct Reload {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Reload {
    /// Starts to watch for changes from the configuration at the start.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(super) fn start(
        serve: &Serve,
        loaded: &Loaded,
        watch: Watch,
        parts: Vec<Arc<dyn Reloadable>>,
    ) -> Self {
        let Watch { hangup, seen } = watch;
        let server = Arc::new(Reloader {
            arguments: serve.configuration.store(),
            flags: serve.flags(),
            started: loaded.clone(),
            parts,
        });
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = watch_for_changes(server, seen, hangup) => {}
                // An error means that the sender was dropped, and with it the handle.
                _ = stopped.changed() => {}
            }
        });
        Self { stop, task }
    }

    /// Stops the task and waits until it has ended.
    pub(super) async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the watch for changes of the configuration ended unexpectedly");
        }
    }
}

/// What does not change while the server runs.
struct Reloader {
    arguments: StoreArguments,
    flags: Vec<Flag>,
    /// The configuration at the start.
    started: Loaded,
    parts: Vec<Arc<dyn Reloadable>>,
}

async fn watch_for_changes(server: Arc<Reloader>, read: FileContents, mut hangup: Signal) {
    let mut files = Files { read, changed: None };
    loop {
        let pause = if files.changed.is_some() {
            SETTLED_AFTER
        } else {
            CHECK_INTERVAL
        };
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if is_asked {
            ServiceManager::reloading();
        }
        let server = Arc::clone(&server);
        // Reading files blocks.
        let looked = tokio::task::spawn_blocking(move || {
            server.look(&mut files, is_asked);
            files
        });
        let looked = looked.await;
        if is_asked {
            ServiceManager::reloaded();
        }
        files = match looked {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(%error, "changes of the configuration are not looked for any more");
                return;
            }
        };
    }
}

/// The content of the files.
struct Files {
    /// The content when they were last read, whether or not that succeeded.
    read: FileContents,
    /// The content at the last check, if it differs.
    changed: Option<FileContents>,
}

impl Files {
    /// Returns whether there is a change that has stayed the same from one check to the next.
    fn have_settled(&mut self) -> bool {
        let known = self.changed.as_ref().unwrap_or(&self.read);
        let now = known.now();
        if now == self.read {
            self.changed = None;
            return false;
        }
        let has_settled = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        has_settled
    }
}

/// The result of reading everything.
enum Reading {
    InForce,
    /// Files changed meanwhile, or other files are named now: these must settle first.
    Unsettled(FileContents),
}

impl Reloader {
    /// Reads everything again if a file changed and has settled, or on request.
    fn look(&self, files: &mut Files, is_asked: bool) {
        if !files.have_settled() && !is_asked {
            return;
        }
        let trigger = if is_asked { "SIGHUP" } else { "changed files" };
        let settled = files.changed.take();
        let mut read = settled.clone().unwrap_or_else(|| files.read.now());
        match self.reload(settled.as_ref().filter(|_| !is_asked), &mut read) {
            Ok(Reading::InForce) => {
                tracing::info!(trigger, "the configuration was read again and is in force");
            }
            Ok(Reading::Unsettled(seen)) => {
                tracing::debug!(
                    "a file changes while it is read; it is read when it has stayed the same for a second"
                );
                files.changed = Some(seen);
                return;
            }
            Err(error) => {
                tracing::error!(trigger, %error, "the configuration was read again and is not good; the old one stays in force");
            }
        }
        // Whatever the result, the same content is not tried again.
        files.read = read;
    }

    /// Reads everything and applies it. If `settled` is given, does so only if the content is the same. Stores in
    /// `read` what was read.
    fn reload(&self, settled: Option<&FileContents>, read: &mut FileContents) -> Result<Reading, Failure> {
        let loaded = load(&self.arguments, &self.flags)?;
        claims::require_apart(&loaded)?;
        let seen = FileContents::of(&loaded);
        if settled.is_some_and(|settled| *settled != seen) {
            return Ok(Reading::Unsettled(seen));
        }
        let changes = self.prepare(&loaded);
        let now = seen.now();
        if now != seen {
            return Ok(Reading::Unsettled(now));
        }
        *read = seen;
        for change in changes? {
            change();
        }
        log_what_waits_for_a_restart(&self.started, &loaded);
        Ok(Reading::InForce)
    }

    fn prepare(&self, loaded: &Loaded) -> Result<Vec<Change>, Failure> {
        if let (true, Some(file)) = (loaded.may_be_cut, &loaded.file) {
            return Err(Failure::new(format!(
                "{}: its last line has no end, as in a file that is written by half; end it with a line break",
                file.display()
            )));
        }
        let prepare = |part: &Arc<dyn Reloadable>| {
            let prepared = Arc::clone(part).prepare(loaded);
            prepared.map_err(|failure| loaded.locate(failure))
        };
        self.parts.iter().map(prepare).collect()
    }
}

/// The content of the files from which a configuration was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FileContents(BTreeMap<PathBuf, Fingerprint>);

impl FileContents {
    /// Must be called before the files that the configuration names are read: any later change is noticed.
    fn of(loaded: &Loaded) -> Self {
        let named = loaded.configuration.files().into_iter();
        let mut seen: BTreeMap<_, _> = named
            .map(|path| (path.clone(), Fingerprint::of_file(&path)))
            .collect();
        seen.extend(loaded.file.clone().zip(loaded.fingerprint));
        Self(seen)
    }

    /// Returns the content of the same files now.
    fn now(&self) -> Self {
        let paths = self.0.keys();
        Self(
            paths
                .map(|path| (path.clone(), Fingerprint::of_file(path)))
                .collect(),
        )
    }
}

/// Logs which keys differ from those at the start and are not reloaded.
fn log_what_waits_for_a_restart(started: &Loaded, now: &Loaded) {
    let mut changed = Vec::new();
    differences(
        "",
        &fixed(started),
        &fixed(now),
        (&started.tree, &now.tree),
        &mut changed,
    );
    changed.retain(|key| has_effect(key));
    if !changed.is_empty() {
        tracing::warn!(
            keys = changed.join(", "),
            "these keys changed and wait for a restart"
        );
    }
}

/// Returns the values that a running server does not reload.
fn fixed(loaded: &Loaded) -> Value {
    let mut value = serde_json::to_value(&loaded.configuration).unwrap_or_default();
    for pointer in RELOADED {
        if let Some(value) = value.pointer_mut(pointer) {
            *value = Value::Null;
        }
    }
    value
}

fn differences(path: &str, old: &Value, new: &Value, written: (&Node, &Node), found: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        // Masked values look the same whatever they are.
        let is_masked = old.to_string().contains(MASK);
        let is_written_alike = || match (written.0.find(path), written.1.find(path)) {
            (Some(old), Some(new)) => old.says_the_same_as(new),
            _ => true,
        };
        if old != new || (is_masked && !is_written_alike()) {
            found.push(path.to_owned());
        }
        return;
    };
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let below = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let value = |values: &serde_json::Map<String, Value>| values.get(key).cloned().unwrap_or_default();
        differences(&below, &value(old), &value(new), written, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_is_the_same_at_two_looks_and_not_while_somebody_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("old");
        let paths = BTreeMap::from([(path.clone(), Fingerprint::of(b"old"))]);
        let mut files = Files {
            read: FileContents(paths),
            changed: None,
        };
        assert!(!files.have_settled());
        for half in ["", "n", "ne"] {
            write(half);
            assert!(!files.have_settled(), "{half:?}");
        }
        write("new");
        assert!(!files.have_settled());
        assert!(files.have_settled());
        // Reverting a change counts as no change.
        write("newer");
        assert!(!files.have_settled());
        write("old");
        assert!(!files.have_settled());
        assert!(files.changed.is_none() && !files.have_settled());
        std::fs::remove_file(&path).unwrap();
        assert!(!files.have_settled());
        assert!(files.have_settled());
    }
}
