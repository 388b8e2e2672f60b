//! Loading a configuration from a file, the environment and flags.

use std::path::{Path, PathBuf};

use super::Configuration;
use super::fingerprint::Fingerprint;
use super::kinds::DRIVERS;
use super::origin::Origin;
use super::problem::Problem;
use super::tree::{Applied, Entry, FILE_VARIABLE, Node, PREFIX, Value, apply_variables, parse};
use super::values::no_path;
use super::{check, schema};
use crate::arguments::StoreArguments;
use crate::bounded_file;

use crate::failure::Failure;

/// Where a registry stores its data by default.
pub(crate) const DEFAULT_FOLDER: &str = "registry-data";

/// A configuration and its sources.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) configuration: Configuration,
    /// The configuration as it was written.
    pub(crate) tree: Node,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// The content of the file.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether the file may have been cut within its last line, so that what is left may have another meaning.
    pub(crate) may_be_cut: bool,
    /// The result of applying the variables.
    pub(crate) variables: Applied,
}

impl Loaded {
    /// Adds to a failure where its key was written.
    pub(crate) fn locate(&self, failure: Failure) -> Failure {
        let origin = failure.key().map(|key| self.tree.origin_of(key));
        match (origin, &self.file) {
            (None | Some(Origin::Default), _) => failure,
            (Some(origin @ Origin::Line(_)), Some(file)) => {
                failure.at(format!("{}: {origin}", file.display()))
            }
            (Some(origin), _) => failure.at(origin.to_string()),
        }
    }
}

/// A value from a command-line flag.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// The key that it sets, such as `http.addr`.
    pub(crate) path: &'static str,
    /// The flag, such as `--listen`.
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Reads the file that `arguments` or the environment names, if any, and applies the environment and then the flags to
/// it.
///
/// # Errors
/// Everything that is wrong, each with where it was written and what to do.
#[expect(clippy::disallowed_methods, reason = "the home of the environment")]
pub(crate) fn load(arguments: &StoreArguments, flags: &[Flag]) -> Result<Loaded, Failure> {
    let file = arguments.config.clone().or_else(|| {
        std::env::var_os(FILE_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    });
    let text = file.as_deref().map(read).transpose()?;
    let variables = variables()?;
    let name = file.as_ref().map(|file| file.display().to_string());
    let (configuration, tree, variables) =
        assemble(text.as_deref(), variables, arguments.storage.as_deref(), flags)
            .map_err(|problems| failure(&problems, name.as_deref()))?;
    Ok(Loaded {
        configuration,
        tree,
        file,
        may_be_cut: text.as_deref().is_some_and(may_be_cut),
        fingerprint: text.map(|text| Fingerprint::of(text.as_bytes())),
        variables,
    })
}

/// Reads a file, or the configuration of a place that `--storage` would take, without the environment: for a command with two
/// registries, a variable would be a key of both.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_alone(arguments: &StoreArguments) -> Result<Configuration, Failure> {
    let file = arguments.config.as_deref();
    let text = file.map(read).transpose()?;
    let name = file.map(|file| file.display().to_string());
    let (configuration, ..) = assemble(text.as_deref(), [], arguments.storage.as_deref(), &[])
        .map_err(|problems| failure(&problems, name.as_deref()))?;
    Ok(configuration)
}

/// Returns the variables of this process that may be keys.
#[expect(clippy::disallowed_methods, reason = "the home of the environment")]
fn variables() -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 cannot be one of ours.
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let value = value.into_string().map_err(|_| {
            Failure::new(format!(
                "environment variable {name}: its value is not text; write it in UTF-8"
            ))
        })?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn read(path: &Path) -> Result<String, Failure> {
    // A configuration may contain secrets too.
    if let Some(problem) = path.to_str().and_then(no_path) {
        return Err(Failure::new(format!("the path of the configuration: {problem}")));
    }
    let failed = || Failure::new(format!("cannot read the configuration {}", path.display()));
    bounded_file::read_to_string(path).map_err(|cause| failed().because(cause))
}

/// Returns whether a text may end within a line. JSON is excluded, because it is invalid without its last brace.
fn may_be_cut(text: &str) -> bool {
    !text.ends_with('\n') && !text.trim_start().starts_with('{')
}

fn failure(problems: &[Problem], file: Option<&str>) -> Failure {
    let lines: Vec<String> = problems.iter().map(|problem| problem.in_file(file)).collect();
    Failure::new(lines.join("\nerror: "))
}

/// Builds a configuration without reading files or the environment of this process.
pub(super) fn assemble(
    text: Option<&str>,
    variables: impl IntoIterator<Item = (String, String)>,
    storage: Option<&str>,
    flags: &[Flag],
) -> Result<(Configuration, Node, Applied), Vec<Problem>> {
    let alone = |problem| vec![problem];
    let default = Origin::Default;
    let mut tree = match text {
        Some(text) => parse(text, None).map_err(alone)?,
        None => Node::map(Vec::new(), default.clone()),
    };
    if !matches!(tree.value, Value::Map(_)) && !tree.is_null() {
        let wrong = Problem::new("takes keys such as `version` and `storage`, but has none");
        return Err(alone(wrong.at(&tree.origin)));
    }
    if text.is_some() && !tree.has("version") {
        let missing = Problem::new("the key `version` is missing; write `version: 0.1`");
        return Err(alone(missing.at(&Origin::Line(1))));
    }
    settle_forms(&mut tree);
    let applied = apply_variables(&mut tree, &schema::schema(), variables).map_err(alone)?;
    settle_forms(&mut tree);
    if let Some(location) = storage {
        set_storage(&mut tree, location).map_err(alone)?;
    }
    for flag in flags {
        tree.set(
            flag.path,
            Node::text(flag.value.as_str(), Origin::Flag(flag.name)),
        );
    }
    if text.is_none() {
        if check::drivers(&tree).is_empty() {
            let folder = Node::text(DEFAULT_FOLDER, default.clone());
            tree.set("storage.filesystem.rootdirectory", folder);
        }
        // A user who tries the server out must be able to delete what was pushed; a configured server must enable
        // deletes.
        if applied.used.is_empty() {
            tree.set("storage.delete.enabled", Node::text("true", default));
        }
    }
    let configuration: Configuration = tree.read().map_err(alone)?;
    let problems = check::problems(&configuration, &tree);
    if problems.is_empty() {
        Ok((configuration, tree, applied))
    } else {
        Err(problems)
    }
}

/// Normalizes different notations of the same value: `storage: inmemory` is a driver without keys, and so is
/// `inmemory:` without a value; some keys have older names.
fn settle_forms(tree: &mut Node) {
    if let (Some(level), false) = (tree.child("loglevel").cloned(), tree.has("log.level")) {
        tree.set("log.level", level);
    }
    let Value::Map(sections) = &mut tree.value else {
        return;
    };
    for Entry { key, node, .. } in sections {
        if key != "storage" && key != "auth" {
            continue;
        }
        node.settle_word();
        let Value::Map(entries) = &mut node.value else {
            continue;
        };
        for entry in entries {
            if entry.node.is_null() {
                entry.node = Node::map(Vec::new(), entry.node.origin.clone());
            }
            match entry.key.as_str() {
                "s3aws" => "s3".clone_into(&mut entry.key),
                "cache" => rename(&mut entry.node, "layerinfo", "blobdescriptor"),
                _ => {}
            }
        }
    }
}

fn rename(node: &mut Node, old: &str, new: &str) {
    if let Value::Map(entries) = &mut node.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == old) {
            new.clone_into(&mut entry.key);
        }
    }
}

/// Replaces all drivers with the one that `--storage` names.
fn set_storage(tree: &mut Node, location: &str) -> Result<(), Problem> {
    const FLAG: &str = "--storage";
    let origin = Origin::Flag(FLAG);
    let text = |text: &str| Node::text(text, origin.clone());
    let wrong = |what: String| {
        let remedy = "use memory, a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";
        Problem::new(format!("{what}; {remedy}")).at(&origin)
    };
    for driver in DRIVERS {
        tree.remove(&format!("storage.{driver}"));
    }
    let Some((scheme, rest)) = location.split_once("://") else {
        match location {
            "" => return Err(wrong("it is empty".to_owned())),
            "memory" => tree.set("storage.inmemory", Node::map(Vec::new(), origin.clone())),
            folder => tree.set("storage.filesystem.rootdirectory", text(folder)),
        }
        return Ok(());
    };
    let (driver, bucket_key) = match scheme {
        "s3" => ("s3", "bucket"),
        "gs" => ("gcs", "bucket"),
        "az" => ("azure", "container"),
        _ => return Err(wrong(format!("{scheme}:// is not known"))),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || rest.contains(['?', '#', '@']) {
        // The value is not shown, because the text before an `@` may be a password.
        return Err(wrong("it does not name a bucket".to_owned()));
    }
    tree.set(&format!("storage.{driver}.{bucket_key}"), text(bucket));
    if !prefix.is_empty() {
        tree.set(&format!("storage.{driver}.rootdirectory"), text(prefix));
    }
    Ok(())
}
