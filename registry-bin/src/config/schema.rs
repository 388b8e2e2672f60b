//! The JSON Schema of a configuration, generated from its types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::Configuration;

/// The name of a key in variables if it is not the key itself: distribution names them after its Go fields.
pub(crate) const VARIABLE: &str = "x-variable";

/// Marks maps in which variables may set any key, which is then checked as in the file: in distribution these are maps.
pub(crate) const OPEN: &str = "x-open";

/// Returns the schema of all keys.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Configuration>()
        .to_value();
    accept_nothing(&mut schema);
    if let Some(version) = schema.pointer_mut("/properties/version") {
        // YAML reads it as a number.
        *version = json!({ "description": version.get("description"), "enum": ["0.1", 0.1] });
    }
    for section in ["storage", "auth"] {
        if let Some(section) = schema.pointer_mut(&format!("/properties/{section}")) {
            accept_word(section);
        }
    }
    schema
}

/// Accepts a key without a value if the key is optional.
fn accept_nothing(schema: &mut Value) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |key: &str| {
        required
            .as_array()
            .is_some_and(|keys| keys.iter().any(|name| name == key))
    };
    for (key, value) in schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        if !is_required(key) {
            match value.get_mut("type") {
                Some(Value::Array(types)) if !types.contains(&"null".into()) => types.push("null".into()),
                Some(kind @ Value::String(_)) => *kind = json!([kind, "null"]),
                _ => {}
            }
            if let Some(choices) = value.get_mut("oneOf").and_then(Value::as_array_mut) {
                choices.push(json!({ "type": "null" }));
            }
        }
        accept_nothing(value);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(below) {
            accept_nothing(below);
        }
    }
    for choice in schema
        .get_mut("anyOf")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        accept_nothing(choice);
    }
}

/// Accepts the name of a key as the value of a section, as in `storage: inmemory`.
fn accept_word(section: &mut Value) {
    let keys = section.get("properties").and_then(Value::as_object);
    let words: Vec<String> = keys
        .map(|keys| keys.keys().cloned().collect())
        .unwrap_or_default();
    let map = std::mem::take(section);
    let description = map.get("description").cloned();
    *section = json!({
        "description": description,
        "anyOf": [map, { "type": "string", "enum": words }],
    });
}

/// The schema of one value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description<'a>(&'a Value);

/// The schemas of the values below a value.
#[derive(Debug)]
pub(crate) enum Below<'a> {
    /// These keys.
    Keys(&'a serde_json::Map<String, Value>),
    /// Any key, each with a value of this schema.
    AnyKey(Description<'a>),
    /// A list of values of this schema.
    Items(Description<'a>),
    /// Anything.
    Anything,
    /// Nothing, because it is a single value.
    Nothing,
}

impl<'a> Description<'a> {
    pub(crate) fn new(schema: &'a Value) -> Self {
        // An optional value is described as a value or null.
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
            (_, None)
                if ["type", "enum", "oneOf"]
                    .iter()
                    .all(|key| self.0.get(key).is_none()) =>
            {
                Below::Anything
            }
            (_, None) => Below::Nothing,
        }
    }

    /// Returns whether it is marked [`OPEN`].
    pub(crate) fn is_open(self) -> bool {
        self.0.get(OPEN).is_some()
    }
}
