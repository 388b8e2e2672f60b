//! `registry-bin config`.

mod check;
mod show;

pub(crate) use self::show::listing;

use std::io::{self, Write as _};

use clap::Subcommand;

use crate::arguments::ConfigArguments;
use crate::config::schema::schema;
use crate::config::{Loaded, load};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, and say which keys have no effect.
    Check(ConfigArguments),
    /// Print the configuration in effect, each value with the line, variable or default it comes from. Secrets are
    /// masked.
    Show(ConfigArguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

/// Checks, shows or describes a configuration.
pub(crate) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(arguments) => print(&check::report(&read(arguments)?)?),
        ConfigCommand::Show(arguments) => print(&listing(&read(arguments)?)?),
        ConfigCommand::Schema => {
            let text = serde_json::to_string_pretty(&schema())
                .map_err(|cause| Failure::new("the schema cannot be written").because(cause))?;
            print(&format!("{text}\n"))
        }
    }
}

fn read(arguments: &ConfigArguments) -> Result<Loaded, Failure> {
    load(&arguments.store(), &[])
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to the standard output").because(cause))
        }
        _ => Ok(()),
    }
}
