//! Command lines of registry:2's image, translated to this program, and the error for those that it does not accept.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Replaces a word that is not shown.
const HIDDEN: &str = "…";

/// The names of the program in the image, besides its own. Charts and compose files name one of these as the command,
/// which then follows the image's own entry point.
const NAMES: [&str; 3] = ["registry-bin", "registry", "entrypoint.sh"];

/// Translates the arguments of registry:2's image into those of this program; its own stay as they are. As in
/// registry:2, `FILE.yml` alone means to serve it.
pub(crate) fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given = given.into_iter().peekable();
    let mut arguments: Vec<OsString> = given.next().into_iter().collect();
    while given.next_if(|argument| is_program(argument)).is_some() {}
    match given.peek() {
        Some(first) if is_configuration(first) => arguments.push("serve".into()),
        Some(first) if first == "-v" => {
            given.next();
            arguments.push("--version".into());
        }
        _ => {}
    }
    arguments.extend(given);
    arguments
}

fn is_program(argument: &OsStr) -> bool {
    let name = Path::new(argument).file_name();
    NAMES.iter().any(|known| name == Some(OsStr::new(known)))
}

fn is_configuration(argument: &OsStr) -> bool {
    let extension = Path::new(argument).extension();
    extension.is_some_and(|extension| extension == "yml" || extension == "yaml")
}

/// Removes words from an error that may be passwords, because people used to another `htpasswd` write one after the
/// user. The error goes to logs of services and of jobs.
pub(crate) fn without_secrets(mut error: clap::Error) -> clap::Error {
    let (word, is_known) = match error.kind() {
        ErrorKind::UnknownArgument => (
            ContextKind::InvalidArg,
            text(&error, ContextKind::InvalidArg).is_some_and(is_flag),
        ),
        ErrorKind::InvalidSubcommand => (
            ContextKind::InvalidSubcommand,
            error.get(ContextKind::SuggestedSubcommand).is_some(),
        ),
        ErrorKind::TooManyValues => (ContextKind::InvalidValue, false),
        _ => return error,
    };
    if !is_known {
        error.insert(word, ContextValue::String(HIDDEN.to_owned()));
        let tip = "it is not shown, as it may be a password; passwords are no arguments, but asked for, or read from the \
                   standard input";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

/// Returns whether a word is a flag of some program.
fn is_flag(word: &str) -> bool {
    let name = word
        .strip_prefix('-')
        .map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    name.is_some_and(|name| {
        name.chars()
            .all(|letter| letter.is_ascii_alphabetic() || letter == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_registry_2_and_its_image_are_taken() {
        for (given, taken) in [
            ("/entrypoint.sh /etc/c.yml", "serve /etc/c.yml"),
            ("registry /etc/c.yaml", "serve /etc/c.yaml"),
            ("registry serve /etc/c.yml", "serve /etc/c.yml"),
            ("registry /bin/registry serve c", "serve c"),
            (
                "registry registry garbage-collect -m c.yml",
                "garbage-collect -m c.yml",
            ),
            ("registry /entrypoint.sh c.yml", "serve c.yml"),
            ("registry -v", "--version"),
            ("registry-bin", ""),
            ("registry-bin serve registry", "serve registry"),
            ("registry-bin check --config c.yml", "check --config c.yml"),
        ] {
            let given = given.split(' ').map(OsString::from);
            let found = arguments(given);
            let found: Vec<_> = found.iter().skip(1).map(|part| part.to_string_lossy()).collect();
            assert_eq!(found.join(" "), taken);
        }
    }
}
