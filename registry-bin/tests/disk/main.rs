//! What a server does when its disk, or the folder on it, is not as it should be.
#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod full;
mod limits;
mod locked;
mod owners;
mod read_only;
mod stalls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use support::address::free_address;
use support::client::{Request, Response};
use support::server::Server;

/// A server with a debug listener, whose data is in a folder.
struct World {
    server: Server,
    debug: SocketAddr,
}

impl World {
    /// Starts a server on `root`. `limits` are commands of a shell that come before, such as `ulimit`.
    fn start(folder: &Path, root: &Path, limits: &str) -> Self {
        let debug = free_address();
        let configuration = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n\
             http: {{debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}}}\n\
             health: {{storagedriver: {{enabled: true, interval: 1s}}}}\n\
             notifications: {{endpoints: [{{name: nobody, url: 'http://127.0.0.1:9/'}}]}}\n",
            root.display()
        );
        let path: PathBuf = folder.join("config.yml");
        std::fs::write(&path, configuration).expect("a file can be written");
        Self {
            server: Server::configured_under(&path, limits),
            debug,
        }
    }

    fn ask(&self, path: &str) -> Response {
        Request::new(self.debug, "GET", path).send()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.ask(path).body).into_owned()
    }
}
