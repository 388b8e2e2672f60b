//! `middleware`: code that distribution can be built with.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Code between the parts of distribution, by the part.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Middlewares {
    /// Around the registry.
    pub(crate) registry: Vec<Middleware>,
    /// Around each repository.
    pub(crate) repository: Vec<Middleware>,
    /// Around the storage.
    pub(crate) storage: Vec<Middleware>,
}

/// One piece of code.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Middleware {
    /// Its name.
    pub(crate) name: String,
    /// It is left out.
    #[serde(default)]
    pub(crate) disabled: bool,
    /// What it takes.
    #[serde(default, skip_serializing)]
    pub(crate) options: BTreeMap<String, serde_json::Value>,
}
