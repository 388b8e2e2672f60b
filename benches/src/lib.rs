//! Measures the registry; see `README.md` in this folder.

#![expect(clippy::disallowed_methods, reason = "benchmarks are programs of their own")]

use std::path::PathBuf;
use std::process::Command;

/// Builds the server beside the program that runs, with the same profile, and returns its path.
///
/// # Errors
/// Where it cannot be built, in words.
pub fn build_server() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "registry-bin"])
        .status();
    let built = status.map_err(|error| format!("cargo: {error}"))?.success();
    let program = std::env::current_exe()
        .map_err(|error| error.to_string())?
        .with_file_name("registry-bin");
    if built && program.is_file() {
        Ok(program)
    } else {
        Err("registry-bin was not built; build it, and name it on the command line".into())
    }
}
