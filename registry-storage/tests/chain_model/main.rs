//! Every interleaving of the storage protocol, explored breadth first.
//!
//! The processes (pushes, uploads, deletes, mounts, collectors, a sweeper) take every decision by the functions of
//! [`registry_storage::chain`], which the storage calls too; the model holds program counters, what a process remembers,
//! and the shared records with their versions. A step of a process is one access to the store. No clock helps: grace
//! is 0, and a collector may find a Pending too old at any time. There is one tag, one manifest, one blob, and where a
//! scenario asks for them a second repository and a second manifest.
//!
//! The scenarios run to the end, so they prove the [invariants](state::Model::violation) for their number of
//! processes. Every rule of the protocol is then taken away by a [`Mutation`](rules::Mutation), and a test each shows
//! that its loss is found. The scenarios of millions of states run where `CHAIN_MODEL=full` is set, as in
//!
//! ```text
//! CHAIN_MODEL=full cargo test --release -p registry-storage --test chain_model full_ -- --test-threads 1
//! ```
//!
//! which takes up to 4 GiB of memory.

mod explore;
mod mutations;
mod processes;
mod rules;
mod scenario;
mod scenarios;
mod state;
