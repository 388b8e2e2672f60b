//! Every command finds the registry's data alike: by its configuration as an argument or a flag, by `--storage`, and by the
//! environment.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::program;
use crate::support::content::sha256;

/// The commands that need the data, without what says where it is; and what they print on the standard output.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["import", "layout", "app", "--layout", "oci"], "Imported 1 "),
    (&["check"], "nothing is broken"),
    (&["backup", "TARGET"], "is whole"),
    (&["export", "TARGET", "--layout", "distribution"], "Exported 1 "),
    (&["adopt", "--dry-run"], "would adopt 1 repository"),
    (&["config", "show"], "rootdirectory: data"),
    (&["config", "check"], "stores in data"),
    (&["explain", "app", "--action", "pull"], "allowed: "),
    (&["tags", "history", "app"], "the tags of app"),
    (&["usage"], "app: "),
];

/// The commands whose only argument is not the configuration.
const BY_FLAGS_ONLY: &[&str] = &["export", "import", "usage"];

/// The commands that have tests of their own: the server's, that which fills an empty folder, that with two places, and those
/// without data.
const OTHERS: &[&str] = &[
    "serve",
    "completion",
    "man",
    "restore",
    "htpasswd",
    "token-keys",
    "health",
    "collect",
    "copy",
    "garbage-collect",
    "repositories",
    "retention",
    "help",
];

/// What names the data: arguments and variables.
type Way = (&'static [&'static str], &'static [(&'static str, &'static str)]);

const WAYS: [Way; 5] = [
    (&["config.yml"], &[]),
    (&["--config", "config.yml"], &[]),
    (&["--storage", "data"], &[]),
    (&[], &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "data")]),
    (&[], &[("REGISTRY_CONFIGURATION_PATH", "config.yml")]),
];

/// Writes an image without layers in the form of an OCI layout.
fn write_layout(folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("folders can be made");
    let write = |content: &[u8], kind: &str| {
        let digest = sha256(content);
        let name = digest.strip_prefix("sha256:").expect("it is of SHA-256");
        std::fs::write(blobs.join(name), content).expect("a file can be written");
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let config = write(b"{}", "application/vnd.oci.image.config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [] });
    let mut entry = write(manifest.to_string().as_bytes(), kind);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("a file can be written");
    std::fs::write(folder.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")
        .expect("a file can be written");
}

fn run_at(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program(folder);
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the program can be started")
}

#[test]
fn every_command_finds_the_data_in_every_way() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path();
    write_layout(&path.join("layout"));
    let import = ["import", "layout", "app", "--layout", "oci", "--storage", "data"];
    assert!(run_at(path, &import, &[]).status.success());
    // Beside the data is a tree of distribution with one repository.
    let link = "data/docker/registry/v2/repositories/old/_manifests/revisions";
    std::fs::create_dir_all(path.join(link)).expect("folders can be made");
    let file = "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n";
    std::fs::write(path.join("config.yml"), file).expect("a file can be written");
    for (index, (more, variables)) in WAYS.iter().enumerate() {
        for (command, expected) in COMMANDS {
            if more == &["config.yml"] && BY_FLAGS_ONLY.contains(&command[0]) {
                continue;
            }
            let target = format!("{}-{index}", command[0]);
            let mut arguments: Vec<&str> = command.to_vec();
            for argument in arguments.iter_mut().filter(|argument| **argument == "TARGET") {
                *argument = &target;
            }
            arguments.extend(*more);
            let output = run_at(path, &arguments, variables);
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && printed.contains(expected),
                "{arguments:?} {variables:?}: {output:?}"
            );
        }
    }
    // `--storage` goes before all else.
    let output = run_at(
        path,
        &["config", "show", "--storage", "data", "config.yml"],
        &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "elsewhere")],
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("rootdirectory: data  # --storage"),
        "{output:?}"
    );
}

#[test]
fn no_command_is_forgotten() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let help = String::from_utf8(run_at(folder.path(), &["--help"], &[]).stdout).expect("help is text");
    let list = help.split_once("Commands:\n").expect("there are commands").1;
    let names = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    for name in names.filter(|name| !name.is_empty()) {
        let is_known = COMMANDS.iter().any(|(command, _)| command[0] == name) || OTHERS.contains(&name);
        assert!(is_known, "{name}");
    }
}
