//! `registry-bin`: a container registry server.
//!
//! The only crate that reads files, the environment and signals. What an embedder would miss is in the libraries.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod failure;
mod logging;
mod storage;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Config { command } => commands::config::run(&command),
        Command::Serve(serve) => commands::serve::run(&serve),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
