//! `registry-bin completion` and `registry-bin man`: completion scripts and manual pages of the command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::control::show::print_bytes;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// An existing folder to write the pages of all commands to, such as /usr/local/share/man/man1.
    pub(crate) folder: Option<PathBuf>,
}

const NAME: &str = "registry-bin";

/// What the program is called in the place of registry:2.
const OTHER_NAME: &str = "registry";

/// Prints the completion script of a shell for the program that `command` describes, for the name that the program was called by.
pub(crate) fn completion(shell: Shell, command: Command) -> Result<(), Failure> {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_other = Path::new(&called).file_name() == Some(OsStr::new(OTHER_NAME));
    print_bytes(script(shell, command, if is_other { OTHER_NAME } else { NAME }).as_bytes())
}

fn script(shell: Shell, mut command: Command, name: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // For bash, clap_complete 4.6 spells the hyphen of our name in two ways, so that it finds none of the commands.
    String::from_utf8_lossy(&script).replace("registry__subcmd__bin__", "registry__bin__")
}

/// Prints the manual page of the program that `command` describes, or writes one for each command into a folder.
pub(crate) fn manual(manual: &Manual, command: Command) -> Result<(), Failure> {
    let command = command.name(NAME);
    if let Some(folder) = &manual.folder {
        return clap_mangen::generate_to(command, folder).map_err(|cause| {
            Failure::new(format!("cannot write manual pages to {}", folder.display())).because(cause)
        });
    }
    let mut page = Vec::new();
    let rendered = Man::new(command).render(&mut page);
    rendered.map_err(|cause| Failure::new("there is no manual page").because(cause))?;
    print_bytes(&page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn bash_finds_what_follows_each_command() {
        for name in [NAME, OTHER_NAME] {
            let script = script(Shell::Bash, Arguments::command(), name);
            assert!(
                script
                    .lines()
                    .any(|line| line.ends_with(&format!("default {name}"))),
                "{script}"
            );
            let commands = script
                .lines()
                .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'));
            let commands: Vec<_> = commands.filter(|command| !command.is_empty()).collect();
            assert!(commands.len() > 20, "{commands:?}");
            for command in commands {
                let label = format!("{command})");
                assert!(script.lines().any(|line| line.trim() == label), "{command}");
            }
        }
    }
}
