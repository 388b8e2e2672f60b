//! Each configuration of `broken.txt` is refused with exactly the message that stands below it.
//!
//! A case is `=== NAME`, variables as `$ NAME=VALUE`, the file, `---`, and the message. With `UPDATE_MESSAGES=1` in the
//! environment the messages are written anew; read what changed before you commit it.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::run;

const CASES: &str = include_str!("broken.txt");

struct Case<'a> {
    name: &'a str,
    variables: Vec<(&'a str, &'a str)>,
    text: String,
    message: &'a str,
}

fn cases() -> impl Iterator<Item = Case<'static>> {
    CASES.split("=== ").skip(1).map(|case| {
        let (name, rest) = case.split_once('\n').expect("a case begins with its name");
        let (input, message) = rest.split_once("---\n").map_or((rest, ""), |_| {
            // The file itself may hold the line that separates documents.
            let at = rest.rfind("---\n").expect("it was found");
            (&rest[..at], &rest[at + 4..])
        });
        let variable = |line: &'static str| line.strip_prefix("$ ")?.split_once('=');
        let text = input.lines().filter(|line| !line.starts_with("$ "));
        Case {
            name,
            variables: input.lines().filter_map(variable).collect(),
            text: text.fold(String::new(), |text, line| text + line + "\n"),
            message,
        }
    })
}

#[test]
fn broken_configurations_are_refused_with_key_and_remedy() {
    let update = std::env::var_os("UPDATE_MESSAGES").is_some();
    let mut updated = String::new();
    let mut wrong = String::new();
    for case in cases() {
        let output = run(&["serve", "config.yml"], &case.text, &case.variables);
        let message = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = message
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        let message = lines.join("\n") + "\n";
        assert_eq!(output.status.code(), Some(1), "{}: {message}", case.name);
        assert!(!message.contains("canary"), "{}: {message}", case.name);
        if message != case.message {
            writeln!(
                wrong,
                "{}:\n  expected {}  got      {message}",
                case.name, case.message
            )
            .unwrap();
        }
        writeln!(updated, "=== {}", case.name).unwrap();
        for (name, value) in &case.variables {
            writeln!(updated, "$ {name}={value}").unwrap();
        }
        write!(updated, "{}---\n{message}", case.text).unwrap();
    }
    if update {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/configuration/broken.txt");
        std::fs::write(path, updated).unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn there_are_enough_cases_and_each_has_a_message() {
    assert!(cases().count() >= 40);
    for case in cases() {
        assert!(case.message.starts_with("error: "), "{}", case.name);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(&["serve", "other.yml"], "", &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains("cannot read the configuration other.yml"),
        "{message}"
    );
    let output = run(&["serve"], "", &[("REGISTRY_CONFIGURATION_PATH", "third.yml")]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("third.yml"), "{message}");
}
