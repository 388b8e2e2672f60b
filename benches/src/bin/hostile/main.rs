//! What one hostile client can do to the others: each load runs against a server of its own, for some seconds and from
//! one address, while a bystander at another address pulls and pushes. Printed are the server's peak of memory and how
//! long the bystander waited.
//!
//! ```text
//! cargo run --release -p registry-benches --bin hostile
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a table, and what went wrong"
)]

mod bystander;
mod loads;
mod server;
mod slow;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::bystander::{Bystander, Waits};
use self::loads::Load;
use self::server::Server;

/// The most memory in MiB that the server may take under any load.
const MEMORY_GOAL: f64 = 128.0;
/// The longest that 99 of 100 requests of the bystander may take.
const WAIT_GOAL: Duration = Duration::from_millis(100);

/// Runs hostile loads on loopback and prints what they did. Exits with 1 if one went over a goal: 128 MiB of memory,
/// 100 ms for 99 of 100 requests of others, and none of them refused.
#[derive(Debug, Parser)]
struct Options {
    /// The server's program; built where it is not given.
    #[arg(long)]
    server: Option<PathBuf>,
    /// The loads to run, by a part of their names; all where none is given.
    loads: Vec<String>,
    /// Seconds that each load goes on.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Where the stores are.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

fn main() -> Result<ExitCode, String> {
    let options = Options::parse();
    let program = match &options.server {
        Some(path) => path.clone(),
        None => registry_benches::build_server()?,
    };
    rlimit::increase_nofile_limit(u64::MAX).map_err(|error| format!("open files: {error}"))?;
    let folder = options
        .folder
        .join(format!("registry-hostile-{}", std::process::id()));
    let is_asked = |load: &&Load| {
        options.loads.is_empty()
            || options
                .loads
                .iter()
                .any(|part| load.name().contains(part.as_str()))
    };
    println!(
        "| load | peak, MiB | others: requests | refused | median, ms | 99 of 100, ms | longest, ms | left on disk, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut is_good = true;
    for load in Load::ALL.iter().filter(is_asked) {
        let result = run(*load, &program, &folder, Duration::from_secs(options.seconds));
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let result = result?;
        println!("{}", result.row(*load));
        is_good &= result.is_good();
    }
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What one load did.
struct Outcome {
    peak: f64,
    waits: Waits,
    left: f64,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.peak <= MEMORY_GOAL && self.waits.refused == 0 && self.waits.percentile(99) <= WAIT_GOAL
    }

    fn row(&self, load: Load) -> String {
        let milliseconds = |wait: Duration| wait.as_secs_f64() * 1000.0;
        format!(
            "| {} | {:.0} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            load.name(),
            self.peak,
            self.waits.count(),
            self.waits.refused,
            milliseconds(self.waits.percentile(50)),
            milliseconds(self.waits.percentile(99)),
            milliseconds(self.waits.percentile(100)),
            self.left
        )
    }
}

fn run(
    load: Load,
    program: &std::path::Path,
    folder: &std::path::Path,
    time: Duration,
) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let server = Server::start(program, folder)?;
    runtime.block_on(async {
        let address = server.address();
        Bystander::prepare(address).await?;
        load.prepare(address).await?;
        let before = server.stored()?;
        server.reset_peak()?;
        let bystander = Bystander::start(address);
        let attack = load.run(address, time).await;
        let waits = bystander.end();
        attack?;
        Ok(Outcome {
            peak: server.peak()?,
            waits: waits?,
            left: server.stored()? - before,
        })
    })
}
