//! `registry-bin config`.

mod check;
mod show;

pub(crate) use self::show::listing;

use clap::Subcommand;

use crate::arguments::ConfigArguments;
use crate::config::schema::schema;
use crate::config::{Loaded, load};
use crate::control::show::print_bytes;
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
        ConfigCommand::Check(arguments) => print_bytes(check::report(&read(arguments)?)?.as_bytes()),
        ConfigCommand::Show(arguments) => print_bytes(listing(&read(arguments)?)?.as_bytes()),
        ConfigCommand::Schema => {
            let text = serde_json::to_string_pretty(&schema())
                .map_err(|cause| Failure::new("the schema cannot be written").because(cause))?;
            print_bytes(format!("{text}\n").as_bytes())
        }
    }
}

fn read(arguments: &ConfigArguments) -> Result<Loaded, Failure> {
    load(&arguments.store(), &[])
}
