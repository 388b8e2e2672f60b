//! `registry-bin token-keys`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use registry_http::auth::SigningKeys;
use registry_storage::{Clock as _, SystemClock};

use crate::config::values::no_path;
use crate::control::show::print_bytes;
use crate::failure::Failure;
use crate::ownership::heir;
use crate::secret_file;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenKeysCommand {
    /// Make keys that sign tokens, for `auth.token.builtin.keys`.
    ///
    /// Replicas on a bucket share keys in the bucket by themselves. With a file, whoever may read the bucket cannot sign
    /// tokens: give all replicas the same file, for example as a secret of Kubernetes. Its keys are never replaced by a
    /// server.
    New {
        /// The file, which only its owner may read; an existing one is not replaced. `-` is the standard output.
        file: PathBuf,
    },
}

/// Makes keys.
pub(crate) fn run(command: &TokenKeysCommand) -> Result<(), Failure> {
    let TokenKeysCommand::New { file } = command;
    if let Some(problem) = file.to_str().and_then(no_path) {
        return Err(Failure::new(format!("the path of the file of keys: {problem}")));
    }
    let keys = SigningKeys::generate(SystemClock.now())
        .map_err(|cause| Failure::new("cannot make keys").because(cause))?;
    let text = keys.to_text() + "\n";
    if file == Path::new("-") {
        return print_bytes(text.as_bytes());
    }
    let failed = || Failure::new(format!("cannot make {}", file.display()));
    let is_made =
        secret_file::create_for(file, &text, heir(file)).map_err(|cause| failed().because(cause))?;
    if is_made {
        Ok(())
    } else {
        Err(failed().because(
            "it exists, and other keys in its place would end all tokens; name another file, or remove it before",
        ))
    }
}
