//! The table of keys in `docs/configuration.md`, generated from the schema and the tables of supported keys.
//!
//! With `UPDATE_DOCS=1` in the environment, the test rewrites it.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::config::load::assemble;
use crate::config::problem::alternatives;
use crate::config::schema::schema;
use crate::config::supported::{OURS, REFUSED, WITHOUT_EFFECT};

/// The keys of which only some values are refused.
const REFUSED_IN_PART: &[(&str, &str)] = &[
    ("log.hooks", "unless `disabled: true`: no mail is sent"),
    (
        "middleware",
        "unless `disabled: true`: content always comes from this server",
    ),
    (
        "storage.azure.connectionstring",
        "use `accountname`, `accountkey` and `serviceurl`",
    ),
    ("storage.s3.objectacl", "unless `private`"),
    (
        "storage.s3.storageclass",
        "unless `STANDARD` or `NONE`: add a lifecycle rule to the bucket",
    ),
    ("storage.s3.v4auth", "if `false`"),
    (
        "validation.manifests.indexes.platforms",
        "if `list`: use `all` or `none`",
    ),
    (
        "validation.manifests.indexes.platformlist",
        "with `platforms: list`",
    ),
    (
        "validation.manifests.urls",
        "unless any URL is allowed: `allow: ['^https?://']`",
    ),
];

const START: &str = "<!-- keys: made by a test -->\n";

fn table() -> String {
    let mut table = String::from("| key | what it says | default | |\n|---|---|---|---|\n");
    rows(&mut table, "", &schema());
    table
}

fn rows(table: &mut String, path: &str, schema: &Value) {
    let present = |schema: &Value| {
        let choices = schema.get("anyOf").and_then(Value::as_array);
        choices
            .and_then(|choices| choices.first().cloned())
            .unwrap_or_else(|| schema.clone())
    };
    let below = present(schema);
    let (below, path) = match below.get("items") {
        Some(items) => (present(items), format!("{path}[]")),
        None => (below, path.to_owned()),
    };
    for (key, value) in below
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let own = present(value);
        let items = own.get("items").map(present);
        let has_keys =
            own.get("properties").is_some() || items.is_some_and(|items| items.get("properties").is_some());
        let said = said_of(&path);
        if !has_keys || said.is_some() {
            row(table, &path, value, said.as_deref());
        }
        // If a key has no effect or is refused, the keys below it are not listed.
        let is_ours = OURS.contains(&path.as_str());
        if has_keys && (said.is_none() || is_ours) {
            rows(table, &path, value);
        }
    }
}

fn row(table: &mut String, path: &str, schema: &Value, said: Option<&str>) {
    let description = schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let description = description
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|");
    let words = words(schema);
    let description = if words.is_empty() {
        description
    } else {
        format!("{description} One of {}.", alternatives(&words))
    };
    let default = match schema.get("default") {
        Some(Value::Null | Value::Object(_)) | None => String::new(),
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(default) => format!("`{}`", default.to_string().trim_matches('"')),
    };
    let said = said.unwrap_or_default().replace('|', "\\|");
    writeln!(table, "| `{path}` | {description} | {default} | {said} |").unwrap();
}

/// Returns the words that a key accepts, if it only accepts some.
fn words(schema: &Value) -> Vec<&str> {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    let schema = choices.and_then(|choices| choices.first()).unwrap_or(schema);
    let schema = schema.get("items").unwrap_or(schema);
    let words = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    words.filter_map(|word| word["const"].as_str()).collect()
}

fn said_of(path: &str) -> Option<String> {
    let reason = |list: &[(&'static str, &'static str)]| {
        list.iter()
            .find(|(key, _)| *key == path)
            .map(|(_, reason)| *reason)
    };
    if let Some(reason) = reason(WITHOUT_EFFECT) {
        return Some(format!("no effect: {reason}"));
    }
    if let Some(reason) = reason(REFUSED) {
        return Some(format!("**refused**: {reason}"));
    }
    if let Some(reason) = reason(REFUSED_IN_PART) {
        return Some(format!("**refused** {reason}"));
    }
    OURS.contains(&path).then(|| "ours".to_owned())
}

#[test]
fn the_documentation_has_the_keys_of_the_schema() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, written) = text.split_once(START).expect("the table has a mark before it");
    let table = table();
    for path in OURS {
        assert!(table.contains(&format!("`{path}")), "{path} is not a key");
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, format!("{before}{START}{table}")).unwrap();
    } else {
        assert!(
            written == table,
            "docs/configuration.md is not what the schema says; run this test with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn the_keys_that_matter_first_are_keys() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (before, all) = text.split_once(START).unwrap();
    let first = before.split_once("## The keys that matter first").unwrap().1;
    let first = first.split("\n## ").next().unwrap();
    let rows = first
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut count = 0;
    for key in rows {
        let is_known = all.lines().any(|row| {
            let rest = row.strip_prefix("| `").and_then(|row| row.strip_prefix(key));
            rest.is_some_and(|rest| rest.starts_with(['`', '[', '.']))
        });
        assert!(is_known, "{key}");
        count += 1;
    }
    assert_eq!(count, 20);
}

/// Returns the configurations that a page shows: blocks fenced as YAML with a top-level key of ours.
fn examples(text: &str) -> Vec<String> {
    let schema = schema();
    let keys = schema["properties"].as_object().unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .filter(|block| {
            block
                .lines()
                .any(|line| keys.contains_key(line.split(':').next().unwrap()))
        })
        .collect()
}

#[test]
fn every_example_of_the_documentation_is_good() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages: Vec<PathBuf> = ["docs", "deploy"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root.join("README.md"));
    let mut count = 0;
    for page in pages {
        for mut example in examples(&std::fs::read_to_string(&page).unwrap()) {
            let has = |key: &str| example.lines().any(|line| line.starts_with(key));
            let storage = if has("storage:") {
                ""
            } else {
                "storage: inmemory\n"
            };
            let version = if has("version:") { "" } else { "version: 0.1\n" };
            example = format!("{version}{storage}{example}");
            let problems = assemble(Some(&example), [], None, &[]).map(|_| ());
            assert_eq!(problems, Ok(()), "{}:\n{example}", page.display());
            count += 1;
        }
    }
    let of_the_image = std::fs::read_to_string(root.join("deploy/config.yml")).unwrap();
    assert!(assemble(Some(&of_the_image), [], None, &[]).is_ok());
    assert!(count > 2, "the examples were not found");
}
