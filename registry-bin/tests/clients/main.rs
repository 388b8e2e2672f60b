//! Real clients against the real server: what people type, from a build to a pull by digest.
//!
//! A client that is not on the machine is skipped with a line that says so, but fails where `CI` is set.

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod accepts;
mod buildah;
mod collecting;
mod containerd;
mod curl;
mod distribution;
mod docker;
mod docker_daemon;
mod image;
mod layouts;
mod login_places;
mod logins;
mod moving;
mod moving_bucket;
mod podman;
mod recipes;
mod redirects;
mod samples;
mod service;
mod skopeo;
mod tls;
mod tls_reload;
mod tls_server;
mod tools;
