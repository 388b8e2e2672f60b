//! Header fields of requests that may contain credentials.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Secret;
use super::header_fields::name_of_field;

/// Names and values, such as `Authorization: [Bearer …]`. The values are neither printed nor logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SecretFields(BTreeMap<String, Vec<Secret>>);

impl SecretFields {
    /// Returns each name with each of its values, as written.
    pub(crate) fn revealed(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0.iter();
        fields.flat_map(|(name, values)| values.iter().map(|value| (name.as_str(), value.reveal())))
    }

    /// Returns the fields as a header map.
    pub(crate) fn to_map(&self) -> HeaderMap {
        self.revealed()
            .filter_map(|(name, value)| field(name, value).ok())
            .collect()
    }
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let field = name_of_field(name)?;
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name} cannot be in a header: it takes one line of text"))?;
    value.set_sensitive(true);
    Ok((field, value))
}

impl<'de> Deserialize<'de> for SecretFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Self(BTreeMap::deserialize(deserializer)?);
        for name in fields.0.keys() {
            name_of_field(name).map_err(de::Error::custom)?;
        }
        for (name, value) in fields.revealed() {
            field(name, value).map_err(de::Error::custom)?;
        }
        Ok(fields)
    }
}

impl JsonSchema for SecretFields {
    fn schema_name() -> Cow<'static, str> {
        "SecretFields".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, Vec<Secret>>::json_schema(generator)
    }
}
