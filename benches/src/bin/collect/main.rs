//! What the collector costs in a large store: a first cycle, one over an unchanged store, one after some repositories
//! changed, and those that free what was deleted there.
//!
//! ```text
//! cargo run --release -p registry-benches --bin collect -- --images 100000 --blobs 10
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a table, and how far it is"
)]

mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use registry_core::Error;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::Faulty;
use registry_storage::{Backend, CollectOptions, Maintenance as _, ObjectStoreBackend, Store, SweepOptions};

use self::store::Images;

/// Fills a store, and prints what cycles of the collector over it take.
#[derive(Debug, Parser)]
struct Options {
    /// The images in the store.
    #[arg(long, default_value_t = 10_000)]
    images: u64,
    /// The blobs of each image, its configuration included; no image shares one.
    #[arg(long, default_value_t = 10)]
    blobs: u64,
    /// The repositories that have them.
    #[arg(long, default_value_t = 1000)]
    repositories: u64,
    /// The repositories of a hundred in which images are deleted and pushed after the first cycle.
    #[arg(long, default_value_t = 1)]
    changed: u64,
    /// Where the store is.
    #[arg(long, value_enum, default_value_t = Medium::Disk)]
    medium: Medium,
    /// The folder in which a store on disk is made, and removed at the end.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Medium {
    /// A folder, as a server has one.
    Disk,
    /// The protocol of a bucket, in memory; the peak of memory is that of the store as well.
    Memory,
}

fn main() -> Result<ExitCode, String> {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    match options.medium {
        Medium::Memory => runtime.block_on(measure(&options, ObjectStoreBackend::memory()))?,
        Medium::Disk => {
            let folder = options
                .folder
                .join(format!("registry-collect-{}", std::process::id()));
            let measured = runtime.block_on(async {
                let backend = FilesystemBackend::open(&folder).await;
                measure(&options, backend.map_err(|error| error.to_string())?).await
            });
            std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            measured?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure<B: Backend>(options: &Options, backend: B) -> Result<(), String> {
    let store = Arc::new(Store::new(Faulty::new(backend)));
    let images = Images {
        store: Arc::clone(&store),
        blobs: options.blobs.max(1),
        repositories: options.repositories.max(1),
    };
    let begun = Instant::now();
    images.push(0..options.images).await?;
    println!(
        "{} images of {} blobs in {} repositories, pushed in {:.0} s\n",
        options.images,
        images.blobs,
        images.repositories,
        begun.elapsed().as_secs_f64()
    );
    println!("| what | s | calls of the medium | peak of memory, MiB | removed blobs |");
    println!("|---|---|---|---|---|");
    run("first cycle", &store, Work::Cycle).await?;
    run("unchanged", &store, Work::Cycle).await?;
    let changed = (images.repositories * options.changed).div_ceil(100);
    let gone = images.delete_in(changed, options.images).await?;
    let more = options.images..options.images + gone;
    images.push_to(changed, more).await?;
    let name = format!("{gone} images deleted, as many pushed");
    run(&name, &store, Work::Cycle).await?;
    run("the cycle after it", &store, Work::Cycle).await?;
    run("unchanged", &store, Work::Cycle).await?;
    run("sweep", &store, Work::Sweep).await
}

enum Work {
    Cycle,
    Sweep,
}

async fn run<B: Backend>(name: &str, store: &Store<Faulty<B>>, work: Work) -> Result<(), String> {
    let calls = store.backend().calls();
    memory::reset_peak()?;
    let begun = Instant::now();
    let options = CollectOptions::new().grace(Duration::ZERO);
    let failed = |error: Error| format!("{name}: {error:?}");
    let removed = match work {
        Work::Cycle => {
            let report = store.collect(&options, &()).await.map_err(failed)?;
            report.removed.blobs.to_string()
        }
        Work::Sweep => {
            store.sweep(&SweepOptions::default()).await.map_err(failed)?;
            String::new()
        }
    };
    println!(
        "| {name} | {:.2} | {} | {:.0} | {removed} |",
        begun.elapsed().as_secs_f64(),
        store.backend().calls() - calls,
        memory::peak()?
    );
    Ok(())
}

/// The memory of this process.
mod memory {
    use std::fs;

    /// Forgets the peak so far.
    pub(super) fn reset_peak() -> Result<(), String> {
        fs::write("/proc/self/clear_refs", "5").map_err(|error| format!("the peak of memory: {error}"))
    }

    /// Returns the peak in MiB.
    pub(super) fn peak() -> Result<f64, String> {
        let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
        let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = field.and_then(|field| field.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes / 1024.0)
            .ok_or_else(|| "the peak of memory cannot be read".to_owned())
    }
}
