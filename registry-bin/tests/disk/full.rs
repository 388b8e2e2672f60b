//! A disk that is full, for real: a small one of memory. That takes root; without it the test says so and ends.

use registry_storage::testing::SmallDisk;

use crate::World;
use crate::support::repository::{CONFIG, IMAGE, Repository, descriptor, image};
use crate::support::server::until;

#[test]
fn a_server_whose_disk_is_full_and_whose_reserve_is_gone_starts_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mount = folder.path().join("disk");
    std::fs::create_dir(&mount).expect("a folder can be made");
    let Some(disk) = SmallDisk::mount(&mount, 40, 10_000) else {
        println!("skipped: a file system cannot be mounted here");
        return;
    };
    let root = mount.join("root");
    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    let pushed = repository.push_image("v1", "x");
    let layer = repository.push_blob(&vec![7; 100_000]);
    assert!(world.server.terminate().success());
    std::fs::remove_file(root.join("reserve")).expect("it was kept");
    disk.fill(0).expect("the disk can be filled");

    let world = World::start(folder.path(), &root, "");
    let repository = Repository::new(world.server.address(), "a");
    repository.get("manifests/v1").expect_status(200);
    repository.get(&format!("blobs/{layer}")).expect_status(200);
    let config = descriptor(CONFIG, b"x");
    let other = image(&config, &[]).to_string();
    repository
        .put_manifest("v2", IMAGE, other.as_bytes())
        .expect_status(507);
    repository
        .request("POST", "blobs/uploads/")
        .send()
        .expect_status(507);
    world.ask("/ready").expect_status(200);
    let said = world.text("/ready");
    assert!(said.contains("is full") && said.contains("Make room"), "{said}");
    assert!(world.text("/metrics").contains("registry_storage_full 1"));
    assert!(world.text("/metrics").contains("registry_storage_free_bytes 0"));
    assert!(
        world
            .text("/metrics")
            .contains("registry_storage_size_bytes 41943040")
    );
    let log = world.server.output();
    assert!(log.contains("ERROR") && log.contains("Make room"), "{log}");

    disk.fill(256 << 10).expect("the disk can be filled");
    repository
        .delete(&format!("manifests/{}", pushed.digest))
        .expect_status(202);
    disk.clear().expect("there is a filler");
    until(|| world.text("/ready") == "ok\n");
    assert!(world.text("/metrics").contains("registry_storage_full 0"));
    assert_eq!(
        std::fs::metadata(root.join("reserve"))
            .map(|file| file.len())
            .ok(),
        Some(8 << 20)
    );
    repository.push_image("v3", "y");
    assert!(world.server.terminate().success());
}

/// An image of 20 MB is deleted on a disk that is full, as an operator would: the next push is taken within seconds.
#[test]
fn a_server_whose_disk_is_full_takes_pushes_soon_after_something_was_deleted() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mount = folder.path().join("disk");
    std::fs::create_dir(&mount).expect("a folder can be made");
    let Some(disk) = SmallDisk::mount(&mount, 60, 10_000) else {
        println!("skipped: a file system cannot be mounted here");
        return;
    };
    let world = World::start(folder.path(), &mount.join("root"), "");
    let repository = Repository::new(world.server.address(), "a");
    let layer = repository.push_blob(&vec![7; 20 << 20]);
    disk.fill(1 << 20).expect("the disk can be filled");
    let push = || {
        let content = vec![8; 8 << 20];
        let digest = registry_core::Digest::of(registry_core::Algorithm::Sha256, &content);
        let target = format!("blobs/uploads/?digest={digest}");
        repository.request("POST", &target).body(&content).send().status
    };
    assert_eq!(push(), 507);
    repository.delete(&format!("blobs/{layer}")).expect_status(202);
    until(|| push() == 201);
    assert!(world.server.output().contains("dropped_blobs=1"));
}
