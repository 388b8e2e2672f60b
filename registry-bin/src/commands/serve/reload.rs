//! A configuration that changes while the server runs.
//!
//! On SIGHUP, and when the configuration or a file that it names has changed, everything is read again. Only when all
//! of it is good does any of it come into force, so that a bad file leaves the server as it was.
//!
//! A file that somebody is writing is not read: it has to stay the same for a while. A writer may also have died half-way,
//! so nothing that protects is taken away because it is [gone] from a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{claims, service_manager};
use crate::cli::{Serve, StoreArguments};
use crate::config::fingerprint::Fingerprint;
use crate::config::supported::has_effect;
use crate::config::tree::Node;
use crate::config::values::MASK;
use crate::config::{Flag, Loaded, load};
use crate::failure::Failure;
use crate::logging::{LogFilter, LogHandle};

/// How often files are looked at. Their content is compared, because the notices of a kernel do not come through
/// network file systems and the symbolic links that Kubernetes swaps.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a file that changed has to stay the same before it is read.
const SETTLED: Duration = Duration::from_secs(1);

/// The keys that a running server takes over, as pointers into the configuration (RFC 6901).
const RELOADED: [&str; 7] = [
    "/log/level",
    "/log/accesslog/disabled",
    "/loglevel",
    "/access",
    "/http/tls",
    "/http/http2",
    "/tags/immutable",
];

/// A change that is ready to come into force.
pub(super) type Change = Box<dyn FnOnce() + Send>;

/// A part of a server that a new configuration can change while it runs.
pub(super) trait Reloadable: Send + Sync {
    /// Reads and checks all that is needed, and changes nothing yet. May block.
    ///
    /// # Errors
    /// What is wrong with the configuration or a file that it names, and what would be [gone].
    fn prepare(self: Arc<Self>, new: &Loaded) -> Result<Change, Failure>;
}

/// Refuses a configuration in which a key that protects is gone or empty: somebody may have cut the file, or mistyped.
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

/// What has to begin before the server reads what its configuration names, so that no change and no signal is missed.
pub(super) struct Watch {
    hangup: Signal,
    seen: Seen,
}

impl Watch {
    /// Looks at the files once and listens to SIGHUP, which would end the process otherwise.
    ///
    /// # Errors
    /// Where the signal cannot be listened to.
    pub(super) fn start(loaded: &Loaded) -> Result<Self, Failure> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|cause| Failure::new("cannot listen to signals").because(cause))?;
        let seen = Seen::of(loaded);
        Ok(Self { hangup, seen })
    }
}

/// The task that looks for changes. It ends with [`Reload::shutdown`], or soon after it was dropped.
#[derive(Debug)]
pub(super) struct Reload {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Reload {
    /// Starts looking for changes of what the server was started with.
    pub(super) fn start(
        serve: &Serve,
        loaded: &Loaded,
        watch: Watch,
        parts: Vec<Arc<dyn Reloadable>>,
    ) -> Self {
        let Watch { hangup, seen } = watch;
        let server = Arc::new(Running {
            arguments: serve.configuration.store(),
            flags: serve.flags(),
            started: loaded.clone(),
            parts,
        });
        let (stop, mut stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = watch_for_changes(server, seen, hangup) => {}
                // An error means that the sender was dropped, and so the handle.
                _ = stopped.changed() => {}
            }
        });
        Self { stop, task }
    }

    /// Stops the task and waits for its end.
    pub(super) async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the watch for changes of the configuration ended unexpectedly");
        }
    }
}

/// What does not change while the server runs.
struct Running {
    arguments: StoreArguments,
    flags: Vec<Flag>,
    /// What it was started with.
    started: Loaded,
    parts: Vec<Arc<dyn Reloadable>>,
}

async fn watch_for_changes(server: Arc<Running>, read: Seen, mut hangup: Signal) {
    let mut files = Files { read, changed: None };
    loop {
        let pause = if files.changed.is_some() {
            SETTLED
        } else {
            INTERVAL
        };
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if is_asked {
            service_manager::reloading();
        }
        let server = Arc::clone(&server);
        // Files are read, which blocks.
        let looked = tokio::task::spawn_blocking(move || {
            server.look(&mut files, is_asked);
            files
        });
        let looked = looked.await;
        if is_asked {
            service_manager::reloaded();
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

/// What the files hold.
struct Files {
    /// What they held when they were last read, whatever came of it.
    read: Seen,
    /// What they held at the last look, where that is something else.
    changed: Option<Seen>,
}

impl Files {
    /// Tells whether there is something to read that has stayed the same from one look to the next.
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

/// What came of reading everything.
enum Reading {
    InForce,
    /// Files changed meanwhile, or others are named now: these have to settle.
    Unsettled(Seen),
}

impl Running {
    /// Reads everything again if a file changed and has settled, or if somebody asks for it.
    fn look(&self, files: &mut Files, is_asked: bool) {
        if !files.have_settled() && !is_asked {
            return;
        }
        let settled = files.changed.take();
        let mut read = settled.clone().unwrap_or_else(|| files.read.now());
        match self.reload(settled.as_ref().filter(|_| !is_asked), &mut read) {
            Ok(Reading::InForce) => tracing::info!("the configuration was read again and is in force"),
            Ok(Reading::Unsettled(seen)) => {
                tracing::debug!(
                    "a file changes while it is read; it is read when it has stayed the same for a second"
                );
                files.changed = Some(seen);
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was read again and is not good; the old one stays in force");
            }
        }
        // Whatever came of it, the same content is not tried again.
        files.read = read;
    }

    /// Reads everything and puts it into force, if it is what `settled` says where that is given. Says in `read` what was
    /// read.
    fn reload(&self, settled: Option<&Seen>, read: &mut Seen) -> Result<Reading, Failure> {
        let loaded = load(&self.arguments, &self.flags)?;
        claims::require_apart(&loaded)?;
        let seen = Seen::of(&loaded);
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
        tell_what_waits_for_a_restart(&self.started, &loaded);
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

/// What the files held that a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen(BTreeMap<PathBuf, Fingerprint>);

impl Seen {
    /// Has to be taken before the files that the configuration names are read: what changes from then on is noticed.
    fn of(loaded: &Loaded) -> Self {
        let named = loaded.configuration.files().into_iter();
        let mut seen: BTreeMap<_, _> = named
            .map(|path| (path.clone(), Fingerprint::of_file(&path)))
            .collect();
        seen.extend(loaded.file.clone().zip(loaded.fingerprint));
        Self(seen)
    }

    /// What the same files hold now.
    fn now(&self) -> Self {
        let paths = self.0.keys();
        Self(
            paths
                .map(|path| (path.clone(), Fingerprint::of_file(path)))
                .collect(),
        )
    }
}

/// Says which keys are other than at the start, and that a running server does not take over.
fn tell_what_waits_for_a_restart(started: &Loaded, now: &Loaded) {
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

/// The values that a running server does not take over.
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
        // What is masked looks alike whatever it is.
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
            read: Seen(paths),
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
        // Whoever takes it back has changed nothing.
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
