//! The JSON Schema of a configuration, made from the types that read it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Configuration;

/// The name by which a key goes in variables, where that is not the key: distribution names them by its Go fields.
pub(crate) const VARIABLE: &str = "x-variable";

/// What takes any key in variables, which is then judged as if it stood in the file: in distribution these are maps.
pub(crate) const OPEN: &str = "x-open";

/// Describes all keys.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Configuration>()
        .to_value()
}

/// One value's schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description<'a>(&'a Value);

/// What a schema says of the values below.
#[derive(Debug)]
pub(crate) enum Below<'a> {
    /// These keys.
    Keys(&'a serde_json::Map<String, Value>),
    /// Any key, each with such a value.
    AnyKey(Description<'a>),
    /// A list of such values.
    Items(Description<'a>),
    /// Anything.
    Anything,
    /// A single value.
    Nothing,
}

impl<'a> Description<'a> {
    pub(crate) fn new(schema: &'a Value) -> Self {
        // What may be absent is described as a value or null.
        let choices = schema.get("anyOf").and_then(Value::as_array);
        let present = choices.and_then(|choices| {
            choices
                .iter()
                .find(|choice| choice.get("type").and_then(Value::as_str) != Some("null"))
        });
        Self(present.unwrap_or(schema))
    }

    pub(crate) fn below(self) -> Below<'a> {
        if let Some(keys) = self.0.get("properties").and_then(Value::as_object) {
            return Below::Keys(keys);
        }
        match (self.0.get("additionalProperties"), self.0.get("items")) {
            (Some(Value::Bool(true)), _) => Below::AnyKey(Self(&Value::Bool(true))),
            (Some(values @ Value::Object(_)), _) => Below::AnyKey(Self::new(values)),
            (_, Some(items)) => Below::Items(Self::new(items)),
            (_, None) if self.0.get("type").is_none() && self.0.get("enum").is_none() => Below::Anything,
            (_, None) => Below::Nothing,
        }
    }

    /// See [`OPEN`].
    pub(crate) fn is_open(self) -> bool {
        self.0.get(OPEN).is_some()
    }
}
