//! `registry-bin`: a container registry server.
//!
//! The only crate that reads files, the environment and signals. Everything that an embedder needs is in the libraries.
#![forbid(unsafe_code)]

mod adoption;
mod arguments;
mod aws_environment;
mod blob_cache;
mod bounded_file;
mod bucket;
mod cli;
mod command_line;
mod commands;
mod config;
mod control;
mod count;
mod failure;
mod host_name;
mod kernel_files;
mod line_writer;
mod logging;
mod ownership;
mod places;
mod redirects;
mod secret_file;
mod storage;
mod times;
#[cfg_attr(not(feature = "opentelemetry"), path = "no_traces.rs")]
mod traces;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = command_line::arguments(std::env::args_os());
    let Arguments { command } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => command_line::without_secrets(error).exit(),
    };
    let result = match command {
        Command::Config { command } => commands::config::run(&command).map(|()| true),
        Command::Serve(serve) => commands::serve::run(&serve),
        Command::Adopt(adopt) => commands::adopt::run(&adopt),
        Command::Check(check) => commands::check::run(&check),
        Command::Collect(collect) => commands::collect::run(&collect),
        Command::Repositories(command) => commands::repositories::run(&command),
        Command::Tags(command) => commands::tags::run(&command),
        Command::Retention(command) => commands::retention::run(&command),
        Command::Usage(command) => commands::usage::run(&command),
        Command::Backup(backup) => commands::backup::run(&backup),
        Command::Export(export) => commands::export::run(&export),
        Command::Copy(copy) => commands::copy::run(&copy),
        Command::Import(import) => commands::import::run(&import),
        Command::Restore(restore) => commands::restore::run(&restore).map(|()| true),
        Command::Htpasswd(command) => commands::htpasswd::run(&command).map(|()| true),
        Command::TokenKeys(command) => commands::token_keys::run(&command).map(|()| true),
        Command::Health(health) => commands::health::run(&health).map(|()| true),
        Command::Completion { shell } => {
            commands::manual::completion(shell, Arguments::command()).map(|()| true)
        }
        Command::Man(manual) => commands::manual::manual(&manual, Arguments::command()).map(|()| true),
        Command::GarbageCollect(collect) => commands::collect::run_as_registry2(&collect),
        Command::Explain(explain) => commands::explain::run(&explain).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // The command found a problem, and has reported it.
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
