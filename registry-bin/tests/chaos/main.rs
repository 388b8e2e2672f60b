//! Replicas over one bucket that fails at random, and that are killed at random: nothing that was answered is lost, no
//! client sees an error that clients do not retry, and nothing is left over.

#![expect(clippy::disallowed_methods, reason = "tests are programs of their own")]

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../clients/docker_daemon.rs"]
mod docker_daemon;
#[expect(dead_code, reason = "each test program uses its own part")]
#[path = "../clients/tools.rs"]
mod tools;

mod balancer;
mod client;
mod engine;
mod replicas;
mod skopeo;
mod store;
