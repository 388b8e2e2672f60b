//! Retention: what the policies of the configuration keep and drop, beside a server and without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::repository::{IMAGE, Repository};
use crate::support::server::{Server, pause};
use crate::{failure, push, run, success};

/// Writes a configuration of a store in `root` below `folder`.
fn configure(folder: &Path, rest: &str) -> PathBuf {
    let file = folder.join("config.yml");
    let root = folder.join("root");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, maintenance: {{uploadpurging: {{interval: 1s}}}}}}\n\
         http: {{addr: 127.0.0.1:0}}\n{rest}",
        root.display()
    );
    fs::write(&file, text).expect("the file can be written");
    file
}

const NEWEST: &str = "retention:\n  - repositories: ['team/**']\n    tags: ['*']\n    keep:\n      - newest: 1\n      \
                      - tags: ['v*']\n        versionsperminor: 1\n    untagged: 1s\n";

#[test]
fn a_policy_is_explained_and_collect_does_what_was_explained() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let configuration = configure(path, &format!("collector: {{enabled: false}}\n{NEWEST}"));
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "team/app");
    let mut digests = Vec::new();
    for (fill, tag) in ["v1.0.0", "v1.0.1", "main", "latest"].into_iter().enumerate() {
        digests.push(push(&repository, tag, u8::try_from(fill).expect("it is small")).0);
    }
    push(&Repository::new(server.address(), "other"), "old", 9);
    let explain = ["retention", "explain", "--config", "config.yml"];
    let beside = success(path, &explain);
    for line in [
        "team/app:latest stays: retention[0].keep[0]",
        "team/app:main is dropped: nothing in retention[0] keeps it",
        "team/app:v1.0.0 is dropped: nothing in retention[0] keeps it",
        "team/app:v1.0.1 stays: retention[0].keep[1]",
        "1 repository: 2 tags and ",
    ] {
        assert!(beside.contains(line), "{line} is not in {beside}");
    }
    // As with `| head -1`.
    for command in [
        &explain[..],
        &["usage", "--storage", "root"],
        &["config", "show", "config.yml"],
    ] {
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_registry-bin"))
            .args(command)
            .current_dir(path)
            .stdout(writer)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.is_empty(), "{command:?}: {said}");
    }
    let other = success(path, &["retention", "explain", "other", "--config", "config.yml"]);
    assert!(
        other.contains("other:old stays: no policy is for this repository"),
        "{other}"
    );
    let dry = success(path, &["collect", "--dry-run", "config.yml"]);
    assert!(dry.contains("Retention would drop 2 tags"), "{dry}");
    repository.get("manifests/main").expect_status(200);
    // The second after which a manifest without a tag goes.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let said = success(
            path,
            &["retention", "explain", "--json", "--config", "config.yml"],
        );
        let sums = said.lines().last().expect("there is a line");
        let sums: Value = serde_json::from_str(sums).expect("it is a document");
        if sums["droppedManifests"] == 2 {
            break;
        }
        assert!(Instant::now() < end, "{said}");
        pause();
    }
    let said = success(path, &["collect", "--now", "config.yml"]);
    assert!(
        said.contains("Retention dropped 2 tags and removed 2 manifests"),
        "{said}"
    );
    assert!(said.contains("Removed 4 blobs"), "{said}");
    for (digest, status) in digests.iter().zip([404, 200, 404, 200]) {
        repository
            .get(&format!("manifests/{digest}"))
            .expect_status(status);
    }
    repository.get("manifests/main").expect_status(404);
    repository.get("manifests/latest").expect_status(200);
    server.output_with("retention dropped a tag");
    assert!(server.terminate().success());
    let alone = success(path, &explain);
    assert!(alone.contains("team/app:latest stays"), "{alone}");
    assert!(
        alone.contains("0 tags and 0 manifests without a tag are dropped"),
        "{alone}"
    );
    assert!(success(path, &["check", "config.yml"]).contains("nothing is broken"));
    let nothing = failure(path, &["retention", "explain", "--storage", "root"]);
    assert!(nothing.contains("there is no policy"), "{nothing}");
    let unknown = failure(
        path,
        &["retention", "explain", "team/none", "--config", "config.yml"],
    );
    assert!(unknown.contains("there is no repository team/none"), "{unknown}");
}

#[test]
fn a_server_applies_policies_by_itself_and_keeps_immutable_tags() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let rest = format!(
        "collector: {{interval: 1s, grace: 1h}}\ntags: {{immutable: [{{repositories: ['**'], tags: ['v*']}}]}}\n{NEWEST}"
    );
    let server = Server::configured(&configure(folder.path(), &rest));
    let repository = Repository::new(server.address(), "team/app");
    // Both names of one image, so that the second push is one request.
    let (digest, _) = push(&repository, "v1.0.0", 1);
    let manifest = repository.get(&format!("manifests/{digest}")).body;
    repository.push_manifest("v1.0.1", IMAGE, &manifest);
    push(&repository, "old", 2);
    push(&repository, "new", 3);
    let end = Instant::now() + Duration::from_secs(60);
    while repository.get("manifests/old").status == 200 {
        assert!(Instant::now() < end, "{}", server.output());
        pause();
    }
    for tag in ["v1.0.0", "v1.0.1", "new"] {
        repository.get(&format!("manifests/{tag}")).expect_status(200);
    }
    assert!(server.terminate().success());
}

#[test]
fn a_policy_that_is_mistyped_or_drops_everything_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let check = |retention: &str| {
        configure(folder.path(), &format!("retention:\n{retention}"));
        let output = run(folder.path(), &["config", "check", "config.yml"]);
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    for (retention, expected) in [
        ("  - repositories: ['**']\n    tags: ['*']\n", "retention[0].keep"),
        (
            "  - repositories: ['**']\n    keep: [{newest: 1}]\n",
            "retention[0].tags",
        ),
        ("  - tags: ['*']\n    keep: [{newest: 1}]\n", "repositories"),
        (
            "  - repositories: ['***']\n    untagged: 1h\n",
            "retention[0].repositories[0]",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{newst: 1}]\n",
            "newest",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{newest: 0}]\n",
            "retention[0].keep[0].newest",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{}]\n",
            "retention[0].keep[0]",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{pushedwithin: 30}]\n",
            "retention[0].keep[0].pushedwithin",
        ),
        (
            "  - repositories: ['**']\n    untagged: 30d\n",
            "retention[0].untagged",
        ),
    ] {
        let (is_good, said) = check(retention);
        assert!(
            !is_good && said.contains(expected) && said.contains("line "),
            "{retention}: {said}"
        );
    }
    for (retention, expected) in [
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{newest: 1}]\n",
            "drops tags and frees nothing",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{newest: 3, pushedwithin: 1h}]\n    untagged: 1h\n",
            "drops every tag that it names",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{tags: ['other'], newest: 1}, {pushedwithin: 1h}]\n",
            "drops tags and frees nothing",
        ),
        (
            "  - repositories: ['team/*']\n    tags: ['*']\n    keep: [{tags: ['nothing-has-this']}]\n    untagged: 1h\n",
            "drops tags that no entry of `keep` names, such as `latest`, even if they were just pushed",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{versionsperminor: 2}]\n    untagged: 1h\n",
            "drops tags that are no version, such as `latest`, even",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{versionsperminor: 2}, {tags: ['latest']}]\n",
            "drops tags that are no version, such as `main`, even",
        ),
        (
            "  - repositories: ['**']\n    tags: ['pr-*', 'v*']\n    keep: [{tags: ['v*'], newest: 2}]\n",
            "drops tags that no entry of `keep` names, such as `pr-1`, even",
        ),
    ] {
        let (is_good, said) = check(retention);
        assert!(
            is_good && said.contains(&format!("retention[0] {expected}")),
            "{retention}: {said}"
        );
    }
    for (configuration, expected) in [
        (
            "  - repositories: ['a/**']\n    untagged: 1h\n  - repositories: ['a/b', 'a/c/*']\n    untagged: 2h\n",
            "retention[1] is never reached: retention[0] decides about all its repositories",
        ),
        (
            "  - repositories: ['**']\n    untagged: 1h\n  - repositories: ['Team/*']\n    untagged: 2h\n",
            "retention[1].repositories[0] matches nothing: names of repositories have no capital letters",
        ),
        (
            "  - repositories: ['**']\n    pulledwithin: 720h\n",
            "retention[0] drops nothing: without `tags` and `untagged` everything stays",
        ),
        (
            "  - repositories: ['**']\n    tags: ['*']\n    keep: [{tags: ['*']}]\n",
            "retention[0] drops nothing: `keep` or `tags.immutable` keeps every tag that it names",
        ),
        (
            "  - repositories: ['**']\n    untagged: 1h\nquotas:\n  - repositories: ['A/*', 'a/']\n    bytes: 0\n    tags: 0\n",
            "quotas[0].repositories[1] matches nothing: no repository can have such a name",
        ),
        (
            "  - repositories: ['**']\n    untagged: 1h\nquotas:\n  - repositories: ['**']\n    bytes: 0\n    tags: 0\n",
            "quotas[0].bytes is 0, so nothing can be pushed to these repositories",
        ),
    ] {
        let (is_good, said) = check(configuration);
        assert!(is_good && said.contains(expected), "{configuration}: {said}");
        assert!(!said.contains("frees nothing"), "{configuration}: {said}");
    }
    // One entry keeps a part of what the pattern names.
    let (is_good, said) = check("  - repositories: ['**']\n    tags: ['v*']\n    keep: [{tags: ['v1*']}]\n");
    assert!(is_good && !said.contains("drops nothing"), "{said}");
    for retention in [
        "  - repositories: ['a/*']\n    tags: ['*']\n    keep: [{tags: ['*']}]\n  - repositories: ['**']\n    untagged: 1h\n",
        "  - repositories: ['**']\n    tags: ['*']\n    keep: [{newest: 1}, {versionsperminor: 2}]\n    untagged: 1h\n",
        "  - repositories: ['**']\n    tags: ['*.*.*']\n    keep: [{versionsperminor: 2}]\n    untagged: 1h\n",
        "  - repositories: ['**']\n    tags: ['*']\n    keep: [{tags: ['v*']}, {pushedwithin: 1h}]\n    untagged: 1h\n",
        "  - repositories: ['**']\n    tags: ['*']\n    keep: [{versionsperminor: 2}]\n    untagged: 1h\ntags:\n  \
         immutable: [{repositories: ['**'], tags: ['*']}]\n",
    ] {
        let (is_good, said) = check(retention);
        assert!(is_good && !said.contains("retention[0]"), "{retention}: {said}");
    }
}

#[test]
fn a_server_records_pulls_if_a_policy_asks_for_them() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let policy = "collector: {enabled: false}\nretention:\n  - repositories: ['team/**']\n    tags: ['*']\n    \
                  keep: [{pulledwithin: 720h}]\n";
    let configuration = configure(path, policy);
    let server = Server::configured(&configuration);
    let repository = Repository::new(server.address(), "team/app");
    let (pulled, _) = push(&repository, "pulled", 1);
    push(&repository, "pushed", 2);
    repository.get(&format!("manifests/{pulled}")).expect_status(200);
    // It is written down at the end at the latest.
    assert!(server.terminate().success());
    let explain = ["retention", "explain", "--config", "config.yml"];
    let said = success(path, &explain);
    let line = |tag: &str| {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("team/app:{tag} ")));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let (pulled, pushed) = (line("pulled"), line("pushed"));
    assert!(
        pulled.contains(" stays until ") && pulled.contains("retention[0].keep[0]; pulled last at 2"),
        "{pulled}"
    );
    assert!(
        pushed.contains(" stays until ") && pushed.contains("; not pulled since 2"),
        "{pushed}"
    );
    assert!(success(path, &["check", "config.yml"]).contains("nothing is broken"));
    // A server that does not record them makes all of them unknown.
    assert!(Server::on(&path.join("root")).terminate().success());
    let said = success(path, &explain);
    assert!(
        said.contains("team/app:pulled stays: retention[0].keep[0]; no pulls are recorded"),
        "{said}"
    );
}
