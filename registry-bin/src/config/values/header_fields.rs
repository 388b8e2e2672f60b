//! Header fields of responses.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

/// Names and values, such as `X-Content-Type-Options: [nosniff]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct HeaderFields(BTreeMap<String, Vec<String>>);

/// Fields that determine how a response is read, which the operator cannot set.
const OURS: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    LOCATION,
    TRANSFER_ENCODING,
    UPGRADE,
];

impl HeaderFields {
    /// Returns the fields as a header map.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let fields = self
            .0
            .iter()
            .flat_map(|(name, values)| values.iter().filter_map(|value| field(name, value).ok()));
        fields.collect()
    }
}

/// Parses a name. An invalid one is not shown, because it may be a secret value in the wrong place.
pub(super) fn name_of_field(name: &str) -> Result<HeaderName, &'static str> {
    HeaderName::try_from(name).map_err(
        |_| "one of the keys is not the name of a header field; write NAME: [VALUE], with the value on the right",
    )
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let field = name_of_field(name)?;
    if OURS.contains(&field) {
        return Err(format!("{name} is set by the server itself; remove it"));
    }
    let value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name} cannot be in a header: it takes one line of text"))?;
    Ok((field, value))
}

impl<'de> Deserialize<'de> for HeaderFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
        for (name, values) in &fields {
            name_of_field(name).map_err(de::Error::custom)?;
            for value in values {
                field(name, value).map_err(de::Error::custom)?;
            }
        }
        Ok(Self(fields))
    }
}

impl JsonSchema for HeaderFields {
    fn schema_name() -> Cow<'static, str> {
        "HeaderFields".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, Vec<String>>::json_schema(generator)
    }
}
