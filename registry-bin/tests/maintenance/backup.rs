//! Backups.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::content::sha256;
use crate::support::repository::Repository;
use crate::support::server::{Server, until};
use crate::{failure, success};

fn large(seed: u32) -> Vec<u8> {
    seed.to_le_bytes().repeat(10_000)
}

/// What root made there, the service could not write to.
#[test]
fn a_restore_of_root_into_the_folder_of_another_user_is_refused_with_the_line_to_type() {
    const SOMEBODY: u32 = 65532;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    Server::on(&path.join("root")).terminate();
    success(path, &["backup", "backup", "--storage", "root"]);
    fs::create_dir(path.join("theirs")).expect("a folder can be made");
    if std::os::unix::fs::chown(path.join("theirs"), Some(SOMEBODY), None).is_err() {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    // The folder itself, and one that would be made in it.
    for target in ["theirs", "theirs/data"] {
        let said = failure(path, &["restore", "backup", "--storage", target]);
        let line = format!("restore backup --storage {target}");
        assert!(
            said.contains("type: setpriv --reuid=65532 ") && said.contains(&line),
            "{said}"
        );
        let mut made = fs::read_dir(path.join("theirs")).expect("it can be listed");
        assert!(made.next().is_none());
    }
    success(path, &["restore", "backup", "--storage", "ours"]);
}

#[test]
fn a_backup_beside_pushes_has_all_that_was_answered_before_and_is_sound() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    let address = server.address();
    let before = Repository::new(address, "before").push_image("v1", "before");
    let stop = AtomicBool::new(false);
    let pushed = thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            let mut count = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let repository = Repository::new(address, format!("during/{count}"));
                // Large enough for a file of its own.
                repository.push_blob(&large(count));
                repository.push_image("v1", &count.to_string());
                count += 1;
            }
            count
        });
        let said = success(path, &["backup", "copies/one", "--storage", "root"]);
        assert!(said.contains("is whole"), "{said}");
        stop.store(true, Ordering::Relaxed);
        pushing.join().expect("the pushes succeed")
    });
    server.output_with("a command came through the socket");
    let again = failure(path, &["backup", "copies/one", "--storage", "root"]);
    assert!(again.contains("is not empty"), "{again}");
    let held = failure(path, &["restore", "copies/one", "--storage", "root"]);
    assert!(held.contains("is in use by process"), "{held}");
    // What is deleted and lost afterwards is in the backup all the same.
    Repository::new(address, "before")
        .delete(&format!("manifests/{}", before.digest))
        .expect_status(202);
    server.kill9();
    fs::remove_dir_all(path.join("root")).expect("a folder can be removed");

    success(path, &["restore", "copies/one", "--storage", "root"]);
    let said = success(path, &["check", "--verify-content", "--storage", "root"]);
    assert!(said.contains("nothing is broken"), "{said}");
    let server = Server::on(&path.join("root"));
    let restored = Repository::new(server.address(), "before").get("manifests/v1");
    assert_eq!(restored.body, before.content);
    // Each image is there as a whole, or it is not: no push was answered between two of them.
    let there = (0..pushed).take_while(|count| {
        let repository = Repository::new(server.address(), format!("during/{count}"));
        let manifest = repository.get("manifests/v1");
        manifest.status == 200 && {
            let digest = sha256(&large(*count));
            assert_eq!(repository.get(&format!("blobs/{digest}")).body, large(*count));
            true
        }
    });
    let there = u32::try_from(there.count()).expect("few are pushed in a second");
    for count in there..pushed {
        let repository = Repository::new(server.address(), format!("during/{count}"));
        repository.get("manifests/v1").expect_status(404);
    }
    // It serves as any other: what is pushed is kept, and the backup stays as it was.
    Repository::new(server.address(), "after").push_image("v1", "after");
    assert!(server.terminate().success());
    success(path, &["restore", "copies/one", "--storage", "second"]);
}

#[test]
fn a_backup_that_was_cut_short_is_not_restored() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let server = Server::on(&path.join("root"));
    Repository::new(server.address(), "a").push_image("v1", "x");
    assert!(server.terminate().success());
    // Inside the folder there is no border between file systems.
    let said = success(path, &["backup", "root/backup/one", "--storage", "root"]);
    assert!(said.contains(" 0 copied"), "{said}");
    success(path, &["restore", "root/backup/one", "--storage", "good"]);
    success(path, &["check", "--storage", "good"]);
    success(path, &["check", "--storage", "root"]);
    fs::remove_file(path.join("root/backup/one/backup.json")).expect("a backup has this file");
    let said = failure(path, &["restore", "root/backup/one", "--storage", "new"]);
    assert!(said.contains("one that was interrupted"), "{said}");
}

/// A copy of the running folder was a backup at registry:2; this takes its place.
#[test]
fn a_schedule_makes_backups_that_can_be_restored_and_keeps_the_newest() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let backups = path.join("backups");
    let old = [
        "backup-2020-01-01T00-00-00.000Z",
        "backup-2020-01-02T00-00-00.000Z",
    ];
    for name in old {
        fs::create_dir_all(backups.join(name)).expect("a folder can be made");
        let said =
            r#"{"format": 2, "made": 1577836800000, "linked": 0, "copied": 0, "size": 0, "missing": 0}"#;
        fs::write(backups.join(name).join("backup.json"), said).expect("a file can be written");
    }
    for other in ["backup-2020-01-03T00-00-00.000Z", "monday", "backup-by-hand"] {
        fs::create_dir_all(backups.join(other)).expect("a folder can be made");
    }
    let server = Server::on(&path.join("root"));
    Repository::new(server.address(), "a").push_image("v1", "x");
    assert!(server.terminate().success());
    let configuration = path.join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nbackup: {{folder: '{}', every: 1h, keep: 2}}\n",
        path.join("root").display(),
        backups.display()
    );
    fs::write(&configuration, text).expect("a file can be written");
    let names = || {
        let entries = fs::read_dir(&backups).expect("it can be read");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("it can be read")
                    .file_name()
                    .into_string()
                    .expect("a plain name")
            })
            .collect();
        names.sort_unstable();
        names
    };
    let server = Server::configured(&configuration);
    server.output_with("a backup was made");
    until(|| names().len() == 4);
    let names = names();
    assert_eq!(names[0], old[1]);
    assert_eq!(names[2..], ["backup-by-hand", "monday"]);
    assert!(server.terminate().success());
    // The next start finds a young one, and makes none.
    let server = Server::configured(&configuration);
    Repository::new(server.address(), "a")
        .get("manifests/v1")
        .expect_status(200);
    assert!(!server.output().contains("a backup was made"));
    let made = format!("backups/{}", names[1]);
    success(path, &["restore", &made, "--storage", "restored"]);
    let said = success(path, &["check", "--verify-content", "--storage", "restored"]);
    assert!(said.contains("nothing is broken"), "{said}");
}
