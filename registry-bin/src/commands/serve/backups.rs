//! The backups that a server makes regularly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use registry_storage::filesystem::backup::{is_backup, made_at};
use registry_storage::{Clock as _, Maintenance, SystemClock};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::commands::backup;
use crate::config::sections::backup::Backup;
use crate::failure::Failure;
use crate::ownership::WithOwner as _;

/// The prefix of backup names. The time follows, so that their order is chronological.
const BACKUP_PREFIX: &str = "backup-";

/// When a failed backup is retried, unless the next one is due earlier.
const BACKUP_RETRY_INTERVAL: Duration = Duration::from_mins(10);

/// Makes backups until it is dropped.
#[derive(Debug)]
pub(super) struct Backups(JoinHandle<()>);

impl Backups {
    /// Starts, if backups are configured. The first backup is made at once if there is none, or the last one is too
    /// old.
    #[expect(clippy::disallowed_methods, reason = "its owner ends it and waits for it")]
    pub(super) fn start(wanted: &Backup, store: &Arc<dyn Maintenance>) -> Option<Self> {
        let (Some(folder), Ok(_)) = (&wanted.folder, store.on_disk()) else {
            return None;
        };
        if store.write_state().is_read_only {
            tracing::warn!("no backups are made of a folder that is only read");
            return None;
        }
        let plan = BackupPlan {
            folder: folder.to_path_buf(),
            every: wanted.every.0,
            keep: usize::try_from(wanted.keep.get()).unwrap_or(usize::MAX),
        };
        Some(Self(tokio::spawn(plan.run(Arc::clone(store)))))
    }

    /// Stops a running backup; what it wrote is removed.
    pub(super) async fn shutdown(mut self) {
        self.0.abort();
        // The task was aborted, so its result does not matter.
        drop((&mut self.0).await);
    }
}

impl Drop for Backups {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone, Debug)]
struct BackupPlan {
    folder: PathBuf,
    every: Duration,
    keep: usize,
}

impl BackupPlan {
    async fn run(self, store: Arc<dyn Maintenance>) {
        loop {
            let plan = self.clone();
            let wait = match spawn_blocking(move || plan.wait()).await {
                Ok(Ok(wait)) => wait,
                Ok(Err(cause)) => self.failed(cause),
                Err(_) => return,
            };
            sleep(wait).await;
            if let Err(cause) = self.back_up(&*store).await {
                sleep(self.failed(cause)).await;
            }
        }
    }

    /// Logs that a backup failed, and returns when to try again.
    fn failed(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Duration {
        let failure = Failure::of("backup.folder", "no backup was made").because(cause);
        tracing::error!(folder = %self.folder.display(), %failure, "it is tried again");
        BACKUP_RETRY_INTERVAL.min(self.every)
    }

    async fn back_up(&self, store: &dyn Maintenance) -> Result<(), Failure> {
        let name = format!("{BACKUP_PREFIX}{}", SystemClock.now()).replace(':', "-");
        let target = self.folder.join(name);
        let failed = || Failure::new(format!("cannot write {}", target.display()));
        let report = store.backup(&target, Arc::new(())).await;
        let report = report.map_err(|cause| failed().because(cause.with_owner()))?;
        tracing::info!(backup = %target.display(), "a backup was made: {}", backup::describe(&report));
        let plan = self.clone();
        if let Ok(Err(cause)) = spawn_blocking(move || plan.remove_old()).await {
            tracing::warn!(folder = %self.folder.display(), %cause, "old backups cannot be removed");
        }
        Ok(())
    }

    /// Returns the time until the next backup.
    fn wait(&self) -> io::Result<Duration> {
        let last = self.whole()?.pop();
        let Some(made) = last.and_then(|last| made_at(&last)) else {
            return Ok(Duration::ZERO);
        };
        // If the clock was set back, the wait is no longer than usual.
        Ok(self.every.saturating_sub(SystemClock.now().since(made)))
    }

    /// Removes the oldest backups, and incomplete ones that a killed server left.
    fn remove_old(&self) -> io::Result<()> {
        let whole = self.whole()?;
        let kept = whole
            .get(whole.len().saturating_sub(self.keep)..)
            .unwrap_or_default();
        for path in self.all()? {
            if !kept.contains(&path) {
                fs::remove_dir_all(&path)?;
                tracing::info!(backup = %path.display(), "an old backup was removed");
            }
        }
        Ok(())
    }

    /// Returns the complete backups, oldest first.
    fn whole(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = self.all()?;
        all.retain(|path| is_backup(path));
        Ok(all)
    }

    /// Returns the folders with names of backups, oldest first.
    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() && is_name(entry.file_name()) {
                found.push(entry.path());
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Returns whether a name is that of a scheduled backup.
fn is_name(name: impl AsRef<Path>) -> bool {
    let Some(time) = name
        .as_ref()
        .to_str()
        .and_then(|name| name.strip_prefix(BACKUP_PREFIX))
    else {
        return false;
    };
    let shape: String = time
        .chars()
        .map(|character| {
            if character.is_ascii_digit() {
                '0'
            } else {
                character
            }
        })
        .collect();
    shape == "0000-00-00T00-00-00.000Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_schedule_made_has_the_name_of_a_backup() {
        assert!(is_name("backup-2026-11-28T09-15-00.123Z"));
        for other in [
            "backup-monday",
            "backup-",
            "2026-11-28T09-15-00.123Z",
            "backup-2026-11-28",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }
}
