//! The protocol of an OCI container registry, without I/O.
//!
//! This crate contains what a registry must say and decide: the grammar of names, digests and manifests, one typed
//! [`Request`] for each endpoint and the responses to it, the state machine of an upload, the one table of errors, what
//! a registry requires of its storage ([`Storage`]), and [`Registry`], which has every rule that is the same on all
//! storages. It uses no socket, file, clock, random number or process-wide state: time and randomness are arguments,
//! and the crate is `no_std`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admission;
pub mod challenge;
pub mod descriptor;
pub mod digest;
pub mod error;
pub mod event;
pub mod forwarded;
#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod operation;
pub mod page;
mod percent;
pub mod policy;
pub mod printable;
pub mod quota;
pub mod range;
pub mod reference;
pub mod referrers;
pub mod registry;
pub mod request;
pub mod response;
pub mod retention;
pub mod scope;
pub mod storage;
pub mod tag;
#[cfg(test)]
mod testing;
mod text;
pub mod time;
pub mod upload;
pub mod upload_id;

pub use crate::admission::Admission;
pub use crate::challenge::Challenge;
pub use crate::descriptor::{Annotations, Descriptor};
pub use crate::digest::{Algorithm, Digest};
pub use crate::error::{Error, ErrorCode};
pub use crate::event::Event;
pub use crate::hash::{HashSnapshot, Hasher};
pub use crate::manifest::ManifestView;
pub use crate::media_type::MediaType;
pub use crate::name::RepositoryName;
pub use crate::operation::{Authorizer, Principal};
pub use crate::reference::Reference;
pub use crate::registry::Registry;
pub use crate::request::Request;
pub use crate::response::Response;
pub use crate::scope::Scope;
pub use crate::storage::Storage;
pub use crate::tag::Tag;
pub use crate::time::Timestamp;
pub use crate::upload::{Upload, UploadSnapshot};
pub use crate::upload_id::UploadId;
