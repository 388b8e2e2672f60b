//! `usage`: what the collector counted, when, and what changed since; beside a server, and alone.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::repository::Repository;
use crate::support::server::Server;
use crate::{push, success};

/// Writes a configuration of a store in `root` below `folder`.
fn configure(folder: &Path, collector: &str) -> PathBuf {
    let file = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: 127.0.0.1:0}}\ncollector: {collector}\n",
        folder.join("root").display()
    );
    fs::write(&file, text).expect("the file can be written");
    file
}

fn usage(folder: &Path, arguments: &[&str]) -> String {
    success(
        folder,
        &[&["usage", "--config", "config.yml"], arguments].concat(),
    )
}

fn documents(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.map(|line| line.expect("it is a document")).collect()
}

/// The line of a repository, or of the sum.
fn line<'t>(text: &'t str, of: &str) -> &'t str {
    let found = text.lines().find(|line| line.starts_with(of));
    found.unwrap_or_else(|| panic!("{of} is not in {text}"))
}

#[test]
fn usage_is_what_the_collector_counted_and_says_what_changed_since() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    let configuration = configure(path, "{interval: 1h}");
    let server = Server::configured(&configuration);
    let app = Repository::new(server.address(), "team/app");
    let (manifest, _) = push(&app, "1", 1);
    push(&Repository::new(server.address(), "other"), "1", 2);
    let before = usage(path, &[]);
    assert!(
        before.contains("because no cycle of the collector has done so yet"),
        "{before}"
    );
    assert_eq!(
        line(&before, "team/app"),
        "team/app: 98.05 KiB in 2 blobs and 1 manifest, 1 tag"
    );
    success(path, &["collect", "config.yml"]);
    let counted = usage(path, &[]);
    let expected = "team/app: 98.05 KiB in 2 blobs and 1 manifest, 1 tag; counted 20";
    assert!(line(&counted, "team/app").starts_with(expected), "{counted}");
    assert!(!counted.contains("changed"), "{counted}");
    assert_eq!(line(&counted, "2 repositories"), line(&before, "2 repositories"));
    // A tag brings no blob, and nothing for the collector to do.
    let bytes = app.get(&format!("manifests/{manifest}")).body;
    app.push_manifest("2", crate::support::repository::IMAGE, &bytes);
    push(&Repository::new(server.address(), "new"), "1", 3);
    let changed = usage(path, &[]);
    assert!(
        line(&changed, "team/app").ends_with("Z, changed since"),
        "{changed}"
    );
    assert!(line(&changed, "other").ends_with('Z'), "{changed}");
    assert!(line(&changed, "new").contains("in 2 blobs"), "{changed}");
    assert!(line(&changed, "1 repository changed since").ends_with("`usage --now --config config.yml`."));
    for exact in [&["team/app"][..], &["--now"]] {
        let exact = usage(path, exact);
        assert_eq!(
            line(&exact, "team/app"),
            "team/app: 98.05 KiB in 2 blobs and 1 manifest, 2 tags"
        );
        assert!(!exact.contains("changed"), "{exact}");
    }
    // What the server remembered is not lost at its end.
    assert!(server.terminate().success());
    let alone = documents(&usage(path, &["--json"]));
    let app = alone.iter().find(|row| row["repository"] == "team/app");
    let app = app.expect("it is listed");
    assert_eq!((&app["tags"], &app["isChanged"]), (&1.into(), &true.into()));
    success(path, &["collect", "config.yml"]);
    let alone = documents(&usage(path, &["--json"]));
    assert_eq!(alone.len(), 3, "{alone:?}");
    for row in &alone {
        assert_eq!(row["isChanged"], false, "{row}");
        assert!(
            row["counted"].as_str().expect("a time").starts_with("20"),
            "{row}"
        );
        assert_eq!(row["sharedBytes"], Value::Null);
    }
    assert_eq!(alone[2]["tags"], 2);
    success(
        path,
        &["repositories", "delete", "team/app", "--purge", "config.yml"],
    );
    assert!(!usage(path, &[]).contains("team/app"));
    configure(path, "{enabled: false}");
    let disabled = usage(path, &[]);
    assert!(
        disabled.contains("because the collector, which would have, is disabled"),
        "{disabled}"
    );
    assert_eq!(
        line(&disabled, "2 repositories"),
        line(&usage(path, &["--now"]), "2 repositories")
    );
}
