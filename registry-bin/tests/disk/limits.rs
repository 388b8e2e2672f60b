//! The limit on the size of a file.

use crate::World;
use crate::support::content::sha256;
use crate::support::repository::Repository;

/// 12 MiB, in the blocks of 512 bytes that a POSIX shell counts.
const LIMIT: &str = "ulimit -f 24576";

#[test]
fn a_file_beyond_the_limit_of_the_process_is_a_full_disk_and_not_its_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let world = World::start(folder.path(), &folder.path().join("data"), LIMIT);
    let repository = Repository::new(world.server.address(), "a");
    repository.push_image("v1", "x");
    let large = vec![7; 16 << 20];
    let location = repository.open_upload();
    let answer = repository.close_upload(&location, &sha256(&large));
    assert_ne!(answer.status, 201, "nothing was sent");
    let location = repository.open_upload();
    let answer = repository.follow("PATCH", &location).body(&large).send();
    answer.expect_status(507);
    assert!(answer.summary().contains("full"), "{}", answer.summary());
    let log = world.server.output_with("File too large");
    assert!(log.contains("a call to the file system failed"), "{log}");
    repository.get("manifests/v1").expect_status(200);
    repository.push_image("v2", "y");
    repository.delete("manifests/v2").expect_status(202);
    assert!(world.server.terminate().success());
}
