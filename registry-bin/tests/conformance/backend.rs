//! The servers under test, one for each storage, and the macro that runs a list of behaviours on each.

use std::sync::OnceLock;

use crate::support::bucket::BucketServer;
use crate::support::repository::Repository;
use crate::support::server::Server;

/// A kind of storage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    /// `--storage memory`
    Memory,
    /// `--storage PATH`
    Filesystem,
    /// `--storage s3://BUCKET/PREFIX`; any S3 server if `S3_TEST_ENDPOINT` names one
    S3,
    /// The same, and clients are sent to the bucket for blobs.
    Redirects,
}

impl Backend {
    /// Returns the repository of the test with this path (`module_path!()` and a name), on the server of this storage.
    pub(crate) fn repository(self, test: &str) -> Repository {
        static MEMORY: OnceLock<Server> = OnceLock::new();
        static FILESYSTEM: OnceLock<Server> = OnceLock::new();
        static BUCKET: OnceLock<(Option<BucketServer>, Server)> = OnceLock::new();
        static REDIRECTS: OnceLock<(BucketServer, Server)> = OnceLock::new();
        let server = match self {
            Self::Memory => MEMORY.get_or_init(Server::memory),
            Self::S3 => &BUCKET.get_or_init(|| Server::on_test_bucket(&[])).1,
            Self::Redirects => &REDIRECTS.get_or_init(redirecting).1,
            // Relative to the server's own temporary folder.
            Self::Filesystem => FILESYSTEM.get_or_init(|| Server::start(&["--storage", "data"])),
        };
        let name = test.split("::").skip(1).collect::<Vec<_>>().join("/");
        Repository::new(server.address(), name)
    }
}

fn redirecting() -> (BucketServer, Server) {
    let bucket = BucketServer::start();
    let server = Server::redirecting_to(&bucket);
    (bucket, server)
}

/// Makes each behaviour, a `fn(&Repository)`, a test on every storage.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        behaviours!(@on memory Memory $($name)*);
        behaviours!(@on filesystem Filesystem $($name)*);
        behaviours!(@on s3 S3 $($name)*);
        behaviours!(@on redirects Redirects $($name)*);
    };
    (@on $module:ident $backend:ident $($name:ident)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                let path = concat!(module_path!(), "::", stringify!($name));
                super::$name(&crate::backend::Backend::$backend.repository(path));
            })*
        }
    };
}

pub(crate) use behaviours;
