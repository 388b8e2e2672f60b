//! What the black-box tests share: the server as a process, an HTTP client, content, and a repository to work in.

pub(crate) mod address;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod issuer;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod sink;
pub(crate) mod tree;
pub(crate) mod users;
