//! The distribution registry, as Debian's `docker-registry`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support::client::Request;
use crate::tools::{Daemon, find};

/// The variable by which both find the folder; the file names another one.
pub(crate) const ROOT: &str = "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY";

/// One file for both.
pub(crate) const CONFIGURATION: &str = "\
version: 0.1
log:
  level: info
storage:
  cache:
    blobdescriptor: inmemory
  delete:
    enabled: true
  filesystem:
    rootdirectory: /nowhere/at/all
http:
  addr: 127.0.0.1:0
";

/// The distribution registry over a folder.
pub(crate) struct Old {
    pub(crate) address: SocketAddr,
    _daemon: Daemon,
    _folder: tempfile::TempDir,
}

impl Old {
    pub(crate) fn start(program: &Path, configuration: &Path, root: &Path) -> Self {
        Self::with(&format!("{ROOT}='{}'", root.display()), program, configuration)
    }

    /// The distribution registry over the bucket that the configuration names.
    pub(crate) fn in_bucket(program: &Path, configuration: &Path) -> Self {
        // Its client of AWS does not start with a bundle of certificates.
        Self::with("unset AWS_CA_BUNDLE;", program, configuration)
    }

    fn with(environment: &str, program: &Path, configuration: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let script = format!(
            "{environment} exec '{}' serve '{}'",
            program.display(),
            configuration.display()
        );
        let shell = find("sh").expect("there is a shell");
        let mut daemon = Daemon::start(&shell, folder.path(), &["-c", &script]);
        let address = || {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            let after = log.split_once("listening on 127.0.0.1:")?.1;
            let port: String = after.chars().take_while(char::is_ascii_digit).collect();
            let address = SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?));
            let answer = Request::new(address, "GET", "/v2/").try_send().ok()?;
            (answer.status == 200).then_some(address)
        };
        daemon.wait_until(folder.path(), || address().is_some());
        Self {
            address: address().expect("it is ready"),
            _daemon: daemon,
            _folder: folder,
        }
    }
}
