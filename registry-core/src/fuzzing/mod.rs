//! Properties that must hold for any input, as bodies for a fuzzer and for property tests. Not part of the API.
//!
//! Each function takes any bytes, and panics if the code is wrong.

mod grammar;
mod request;
mod response;
pub mod upload_model;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{Debug, Display};
use core::str::FromStr;

use serde_json::Value;

pub use self::request::{forwarded, ranges, request};
pub use self::response::response;
use crate::digest::{Algorithm, Digest};
use crate::hash::{HashSnapshot, Hasher};
use crate::manifest::ManifestView;
use crate::media_type::MediaType;
use crate::name::RepositoryName;
use crate::reference::Reference;
use crate::tag::Tag;
use crate::upload::{Commit, Upload, UploadSnapshot};
use crate::upload_id::UploadId;

/// Names, tags, references, media types and upload identifiers follow their grammars, and are written as they were
/// parsed.
pub fn name(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    check_text::<RepositoryName>(text, grammar::is_repository_name(text));
    check_text::<Tag>(text, grammar::is_tag(text));
    let is_reference = grammar::is_tag(text) || grammar::is_digest(text);
    check_text::<Reference>(text, is_reference);
    check_text::<UploadId>(text, grammar::is_uuid(text));
    let base = text.split(';').next().unwrap_or_default();
    let base = base.trim_matches([' ', '\t']);
    assert_eq!(text.parse::<MediaType>().is_ok(), grammar::is_media_type(base));
    check_text::<MediaType>(base, grammar::is_media_type(base));
}

/// Digests follow their grammar, and are written as they were parsed.
pub fn digest(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    check_text::<Digest>(text, grammar::is_digest(text));
    if let Ok(digest) = text.parse::<Digest>() {
        let known = Algorithm::ALL
            .into_iter()
            .find(|known| text.starts_with(&alloc::format!("{known}:")));
        assert_eq!(digest.algorithm(), known);
        assert_eq!(digest.supported_algorithm().ok(), known);
    }
}

/// An accepted manifest is of one kind, and its view is what the document says. The first byte selects the content
/// type.
pub fn manifest(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let content_type = [
        MediaType::OCI_MANIFEST,
        MediaType::OCI_INDEX,
        MediaType::DOCKER_MANIFEST,
        MediaType::DOCKER_LIST,
        MediaType::OCTET_STREAM,
    ]
    .get(usize::from(*choice % 8))
    .and_then(|text| text.parse().ok());
    let Ok(view) = ManifestView::parse(bytes, content_type.as_ref()) else {
        return;
    };
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        panic!("an accepted manifest is JSON");
    };
    if document.get("manifests").is_some() {
        assert!(document.get("layers").is_none() && document.get("config").is_none());
    }
    let named: BTreeSet<&str> = ["config", "layers", "manifests"]
        .iter()
        .filter_map(|key| document.get(key))
        .flat_map(|value| match value {
            Value::Array(list) => list.as_slice(),
            one => core::slice::from_ref(one),
        })
        .filter_map(|descriptor| descriptor.get("digest")?.as_str())
        .collect();
    let children = view.children().iter().chain(view.optional_children());
    let children: Vec<&str> = children.map(|child| child.digest.as_str()).collect();
    assert_eq!(children.len(), named.len(), "each digest is a child once");
    assert_eq!(children.into_iter().collect::<BTreeSet<_>>(), named);
    let again = ManifestView::parse(bytes, Some(view.media_type()));
    assert_eq!(
        again.ok(),
        Some(view),
        "the type that is served is the one that is accepted"
    );
}

/// An upload behaves like [`upload_model`], for the operations that the bytes encode.
pub fn upload_operations(bytes: &[u8]) {
    let (algorithm, operations) = upload_model::decode(bytes);
    upload_model::check(algorithm, &operations);
}

/// A record of a session, or the state of a hash in it, may be anything: it is refused, or the session continues.
pub fn session_snapshot(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(mut hasher) = Hasher::resume(&HashSnapshot::from(text))
    {
        let before = hasher.length();
        hasher.update(&[7; 300]);
        assert_eq!(hasher.length(), before + 300);
        match Hasher::resume(&hasher.snapshot()) {
            Ok(resumed) => assert_eq!(resumed.finish(), hasher.finish()),
            Err(_) => assert!(hasher.length() > 1 << 60, "only 1 EiB is too much"),
        }
    }
    let Ok(snapshot) = serde_json::from_slice::<UploadSnapshot>(bytes) else {
        return;
    };
    let Ok(upload) = Upload::resume(snapshot) else {
        return;
    };
    assert!(Upload::resume(upload.snapshot()).is_ok());
    let Ok(length) = upload.length() else {
        return;
    };
    assert!(upload.hasher().length() <= length);
    assert_eq!(upload.append_at(Some(length)).ok(), Some(length));
    let Ok(upload) = upload.appended(b"more") else {
        panic!("an open session takes bytes");
    };
    assert_eq!(upload.length().ok(), Some(length.saturating_add(4)));
    let other = Digest::of(Algorithm::Sha256, b"other bytes");
    assert_ne!(upload.commit(&other).ok(), Some(Commit::Matches));
}

fn check_text<T: FromStr + Display + Debug>(text: &str, is_valid: bool) {
    match text.parse::<T>() {
        Ok(value) => {
            assert!(is_valid, "{text:?} is not of the grammar");
            let written: String = value.to_string();
            assert_eq!(written, text);
        }
        Err(_) => assert!(!is_valid, "{text:?} is of the grammar"),
    }
}
