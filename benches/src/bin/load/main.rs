//! The speed of the server beside that of others, on one machine in one run: each measure is taken from each of them in
//! turn, three times, and the medians are printed as a table.
//!
//! ```text
//! cargo run --release -p registry-benches --bin load -- --peer docker-registry=/usr/bin/docker-registry --nginx /usr/sbin/nginx
//! ```

#![expect(clippy::disallowed_methods, reason = "benchmarks are programs of their own")]
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../../../registry-bin/tests/support/client.rs"]
mod client;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../../../registry-bin/tests/support/content.rs"]
mod content;
mod measure;
mod subject;
mod table;

use std::path::PathBuf;

use clap::Parser;
use measure::{Measure, Run};
use subject::{Kind, Subject};
use table::Table;

/// Measures this server and its peers on loopback and prints a table.
#[derive(Debug, Parser)]
struct Options {
    /// This server's program; built where it is not given.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// An environment variable of this server, as NAME=VALUE.
    #[arg(long = "variable")]
    variables: Vec<String>,
    /// A peer, as NAME=PATH: `docker-registry`, or `build` for another build of this server, or the same one without the
    /// variables.
    #[arg(long = "peer", default_value = "docker-registry=/usr/bin/docker-registry")]
    peers: Vec<String>,
    /// nginx, which serves the same bytes as plain files.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// wrk, which asks on 32 connections.
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// How often each measure is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each run of wrk takes.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// MiB of a large blob.
    #[arg(long, default_value_t = 1024)]
    large: u64,
    /// Where the stores are; some 30 large blobs have to fit.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

fn main() -> Result<(), String> {
    let options = Options::parse();
    let ours = match &options.ours {
        Some(path) => path.clone(),
        None => registry_benches::build_server()?,
    };
    let folder = options
        .folder
        .join(format!("registry-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let result = run(&options, ours, &folder);
    std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    result
}

fn run(options: &Options, ours: PathBuf, folder: &std::path::Path) -> Result<(), String> {
    let pairs = options.variables.iter().map(|variable| {
        let pair = variable.split_once('=').ok_or("a variable is NAME=VALUE")?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    });
    let variables = pairs.collect::<Result<Vec<_>, &str>>()?;
    let mut kinds = vec![("ours".to_owned(), Kind::Ours(ours, variables))];
    for peer in &options.peers {
        let (name, path) = peer.split_once('=').ok_or("a peer is NAME=PATH")?;
        match name {
            "docker-registry" => kinds.push((name.to_owned(), Kind::Distribution(path.into()))),
            "build" => kinds.push((name.to_owned(), Kind::Ours(path.into(), Vec::new()))),
            _ => return Err(format!("{name} is not a known peer")),
        }
    }
    kinds.push(("nginx".to_owned(), Kind::Nginx(options.nginx.clone())));
    let setting = Run {
        wrk: find(&options.wrk),
        seconds: options.seconds,
        large: options.large << 20,
    };
    if setting.wrk.is_none() {
        println!("wrk is absent: the measures on 32 connections are left out");
    }

    let mut subjects = Vec::new();
    for (name, kind) in kinds {
        if !kind.program().is_file() {
            println!("{name} is absent: {}", kind.program().display());
            continue;
        }
        println!("filling {name}");
        let subject = Subject::create(&name, kind, &folder.join(&name))?;
        measure::fill(&subject, &setting)?;
        subjects.push(subject);
    }

    let mut table = Table::new(subjects.iter().map(|subject| subject.name().to_owned()).collect());
    for round in 0..options.rounds {
        for measure in Measure::ALL {
            // The peak is that of one long run, and hardly varies.
            if *measure == Measure::PeakMemory && round > 0 {
                continue;
            }
            for (column, subject) in subjects.iter_mut().enumerate() {
                if let Some(value) = measure.take(subject, &setting, round as u64)? {
                    println!(
                        "{}/{} {} {}: {value:.1}",
                        round + 1,
                        options.rounds,
                        subject.name(),
                        measure.title()
                    );
                    table.add(*measure, column, value);
                }
            }
        }
    }
    println!("\n{}", table.render());
    Ok(())
}

/// Returns a program's path if it is there.
fn find(program: &std::path::Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
