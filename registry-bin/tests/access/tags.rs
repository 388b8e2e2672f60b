//! Tags that never move, whoever asks and however many do at once.

use std::collections::BTreeMap;

use crate::support::bucket::BucketServer;
use crate::support::repository::{IMAGE, INDEX, Repository, descriptor, image, index};
use crate::support::users::GuardedServer;

const DENIED: &[&str] = &["DENIED"];

/// The rules, with the storage to be filled in.
const CONFIGURATION: &str = "\
version: 0.1
storage: {STORAGE, delete: {enabled: true}}
auth: {htpasswd: {realm: Registry, path: USERS}}
access:
  rules:
    - {repositories: ['**'], identities: [root], actions: ['*']}
    - {repositories: ['**'], identities: [alice], actions: [pull, push]}
tags:
  immutable: [{repositories: ['team/**'], tags: ['v*']}]
";

fn server(storage: &str) -> GuardedServer {
    GuardedServer::start(&CONFIGURATION.replace("STORAGE", storage))
}

#[test]
fn an_immutable_tag_stays_whoever_asks() {
    let server = server("inmemory: {}");
    let root = server.repository("root", "team/app");
    let first = root.push_image("v1", "first");
    let second = root.push_image("latest", "second");
    root.put_manifest("v1", IMAGE, &second.content)
        .expect_error(&[409], DENIED);
    root.delete("manifests/v1").expect_error(&[409], DENIED);
    root.delete(&format!("manifests/{}", first.digest))
        .expect_error(&[409], DENIED);
    root.delete("_registry/repository").expect_error(&[409], DENIED);
    root.get("manifests/v1")
        .expect_header("Docker-Content-Digest", &first.digest);
    let alice = server.repository("alice", "other/app");
    alice.push_image("v1", "first");
    alice.delete("_registry/repository").expect_error(&[403], DENIED);
    let root_elsewhere = server.repository("root", "other/app");
    root_elsewhere.delete("_registry/repository").expect_status(202);
    root.delete(&format!("manifests/{}", second.digest))
        .expect_status(202);
}

#[test]
fn what_was_deleted_is_restored_by_whoever_may_push_it() {
    let server = GuardedServer::start(&CONFIGURATION.replace("STORAGE", "inmemory: {}").replace(
        "[pull, push]",
        "[pull, push]}\n    - {repositories: ['**'], identities: [bob], actions: [pull]",
    ));
    let [root, alice, bob] = ["root", "alice", "bob"].map(|user| server.repository(user, "team/app"));
    let first = root.push_image("v1", "first");
    let second = root.push_image("latest", "second");
    let third = root.push_image("latest", "third");
    let restore = |who: &Repository, query: &str| {
        who.request("POST", &format!("_registry/tags/restore?{query}"))
            .send()
    };
    let history = bob.get("_registry/tags/history?tag=latest");
    history.expect_status(200);
    assert!(!history.summary().contains("root"), "{}", history.summary());
    // Which tags there are is known to whoever may list them.
    bob.get("_registry/tags/history").expect_error(&[403], DENIED);
    root.get("_registry/tags/history").expect_status(200);
    restore(&bob, "tag=latest").expect_error(&[403], DENIED);
    // Alice may not move a tag.
    restore(&alice, "tag=latest").expect_error(&[409], DENIED);
    restore(&root, "tag=latest").expect_status(201);
    root.get("manifests/latest")
        .expect_header("Docker-Content-Digest", &second.digest);
    root.delete(&format!("manifests/{}", second.digest))
        .expect_status(202);
    root.delete(&format!("manifests/{}", third.digest))
        .expect_status(202);
    restore(&alice, &format!("tag=latest&digest={}", third.digest)).expect_status(201);
    // An immutable tag does not move, whoever asks.
    restore(&root, &format!("tag=v1&digest={}", third.digest)).expect_error(&[409], DENIED);
    root.get("manifests/v1")
        .expect_header("Docker-Content-Digest", &first.digest);
}

#[test]
fn what_an_immutable_tag_reaches_can_not_be_deleted() {
    for storage in ["inmemory: {}", "filesystem: {rootdirectory: FOLDER/data}"] {
        let server = server(storage);
        let root = server.repository("root", "team/app");
        let (config, layer) = (b"{}".as_slice(), b"layer".as_slice());
        let blobs = [root.push_blob(config), root.push_blob(layer)];
        let unnamed = root.push_blob(b"nobody's");
        let image = image(
            &descriptor("application/vnd.oci.image.config.v1+json", config),
            &[descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        );
        let image = image.to_string().into_bytes();
        let image_digest = root.push_manifest("latest", IMAGE, &image);
        let index = index(&[descriptor(IMAGE, &image)]).to_string().into_bytes();
        root.push_manifest("v1", INDEX, &index);
        let children = blobs.iter().map(|blob| format!("blobs/{blob}"));
        for path in children.chain([format!("manifests/{image_digest}")]) {
            let refused = root.delete(&path);
            refused.expect_error(&[409], DENIED);
            assert!(refused.summary().contains("the tag v1 "), "{}", refused.summary());
            root.head(&path).expect_status(200);
        }
        root.delete(&format!("blobs/{unnamed}")).expect_status(202);
        // Elsewhere no tag is immutable.
        let open = server.repository("root", "open/app");
        let blob = open.push_blob(layer);
        open.delete(&format!("blobs/{blob}")).expect_status(202);
    }
}

#[test]
fn notation_signs_twice_where_no_tag_may_move() {
    let everywhere = CONFIGURATION.replace("['v*']", "['*']");
    for configuration in [everywhere.as_str(), CONFIGURATION] {
        // By a rule for tags, or by one who may not overwrite.
        let server = GuardedServer::start(
            &configuration.replace("STORAGE", "filesystem: {rootdirectory: FOLDER/data}"),
        );
        let (root, alice) = (
            server.repository("root", "team/app"),
            server.repository("alice", "team/app"),
        );
        let signed = alice.push_image("v1", "signed");
        let list = signed.digest.replace(':', "-");
        let signatures = ["one", "two"].map(|seed| alice.push_image(seed, seed).content);
        let [one, two] = signatures.each_ref().map(|content| descriptor(IMAGE, content));
        let index = |entries: &[_]| index(entries).to_string().into_bytes();
        let old = alice.push_manifest(&list, INDEX, &index(std::slice::from_ref(&one)));
        alice
            .put_manifest(&list, INDEX, &index(std::slice::from_ref(&two)))
            .expect_error(&[409], DENIED);
        let new = alice.push_manifest(&list, INDEX, &index(&[one, two]));
        alice
            .head(&format!("manifests/{list}"))
            .expect_header("Docker-Content-Digest", &new);
        root.delete(&format!("manifests/{old}")).expect_status(202);
        alice
            .put_manifest(&list, IMAGE, &signed.content)
            .expect_error(&[409], DENIED);
        alice.delete(&format!("manifests/{new}")).expect_status(403);
    }
}

/// Pushes different images to one tag at once, and returns how each was answered.
fn push_at_once(repository: &Repository, tag: &str, contents: &[Vec<u8>]) -> Vec<u16> {
    std::thread::scope(|scope| {
        let push = |content| move || repository.put_manifest(tag, IMAGE, content).status;
        let threads: Vec<_> = contents
            .iter()
            .map(|content| scope.spawn(push(content)))
            .collect();
        let join =
            |thread: std::thread::ScopedJoinHandle<'_, u16>| thread.join().expect("a push is answered");
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn of_pushes_that_come_at_once_one_makes_an_immutable_tag() {
    let bucket = BucketServer::start();
    let on_bucket = format!(
        "s3: {{region: us-east-1, regionendpoint: '{}', bucket: bucket, accesskey: double, secretkey: double, \
         forcepathstyle: true}}",
        bucket.url()
    );
    for storage in [
        "inmemory: {}",
        "filesystem: {rootdirectory: FOLDER/data}",
        &on_bucket,
    ] {
        let server = server(storage);
        let root = server.repository("root", "team/app");
        let images: Vec<_> = (0..8)
            .map(|number| root.push_image("latest", &number.to_string()))
            .collect();
        let contents: Vec<_> = images.iter().map(|image| image.content.clone()).collect();
        // A tag that no rule covers, by one who may not overwrite, is as good as immutable.
        let alice = server.repository("alice", "open/app");
        for number in 0..8 {
            alice.push_image(&format!("image{number}"), &number.to_string());
        }
        for (repository, tag) in [
            (&root, "v1"),
            (&root, "v2"),
            (&alice, "first"),
            (&alice, "second"),
        ] {
            let statuses = push_at_once(repository, tag, &contents);
            let mut counted = BTreeMap::new();
            for status in &statuses {
                *counted.entry(*status).or_insert(0) += 1;
            }
            assert_eq!(counted, BTreeMap::from([(201, 1), (409, 7)]), "{storage} {tag}");
            let winner = statuses
                .iter()
                .position(|status| *status == 201)
                .expect("one won");
            let tagged = repository.head(&format!("manifests/{tag}"));
            tagged.expect_header("Docker-Content-Digest", &images[winner].digest);
        }
    }
}

#[test]
fn a_manifest_with_an_immutable_tag_outlives_deletes_and_pushes_at_once() {
    for storage in ["inmemory: {}", "filesystem: {rootdirectory: FOLDER/data}"] {
        let server = server(storage);
        let root = server.repository("root", "team/app");
        let image = root.push_image("latest", "image");
        let manifest = format!("manifests/{}", image.digest);
        let deletes: Vec<u16> = std::thread::scope(|scope| {
            let pushing = scope.spawn(|| {
                for version in 0..20 {
                    // It may have been deleted before it had an immutable tag. Then it comes back with the push.
                    root.put_manifest(&format!("v{version}"), IMAGE, &image.content)
                        .expect_status(201);
                }
            });
            let mut statuses = Vec::new();
            while !pushing.is_finished() {
                statuses.push(root.delete(&manifest).status);
                statuses.push(root.delete("manifests/v3").status);
            }
            pushing.join().expect("the pushes succeed");
            statuses
        });
        assert!(
            deletes.iter().all(|status| matches!(status, 202 | 404 | 409)),
            "{deletes:?}"
        );
        for version in 0..20 {
            root.head(&format!("manifests/v{version}"))
                .expect_header("Docker-Content-Digest", &image.digest);
        }
    }
}
