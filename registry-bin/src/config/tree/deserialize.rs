//! Reads a type from a tree. Errors have the path and origin of the value.

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Entry, Node, Value};
use crate::config::problem::{Problem, alternatives};
use crate::config::values::shown;

impl Node {
    /// Reads a value of a type.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub(crate) fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, Problem> {
        T::deserialize(self).map_err(|problem| problem.at(&self.origin))
    }

    fn expected(&self, wanted: &str) -> Problem {
        let found = match &self.value {
            _ if self.is_null() => "nothing",
            // Not the text itself: in place of keys, it may be a password.
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) if wanted == "text" => "keys below it; put it in quotes",
            Value::Map(_) => "keys below it",
        };
        Problem::new(format!("takes {wanted}, but has {found}")).at(&self.origin)
    }

    fn scalar(&self, wanted: &str) -> Result<&str, Problem> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Ok(text),
            _ => Err(self.expected(wanted)),
        }
    }

    fn visit_entries<'de, V: Visitor<'de>>(
        &'de self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let entries = match &self.value {
            Value::Map(entries) => entries.as_slice(),
            _ if self.is_null() => &[],
            _ => return Err(self.expected("keys below it")),
        };
        let entries = Entries {
            entries: entries.iter(),
            fields,
            current: None,
        };
        visitor
            .visit_map(entries)
            .map_err(|problem: Problem| problem.at(&self.origin))
    }

    fn number<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, Problem> {
        let text = self.scalar(wanted)?;
        text.parse()
            .map_err(|_| Problem::new(format!("takes {wanted}, but has {}", shown(text))).at(&self.origin))
    }
}

/// Reads a boolean of YAML 1.1, which distribution uses for its files.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

macro_rules! numbers {
    ($($method:ident, $visit:ident, $wanted:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            visitor.$visit(self.number($wanted)?).map_err(|problem: Problem| problem.at(&self.origin))
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let result = match &self.value {
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
            Value::Scalar { .. } if self.is_null() => visitor.visit_unit(),
            Value::Scalar { text, plain: true } => {
                if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse::<i64>() {
                    visitor.visit_i64(number)
                } else if let (Ok(number), true) = (
                    text.parse::<f64>(),
                    text.starts_with(|c: char| c.is_ascii_digit() || c == '-'),
                ) {
                    visitor.visit_f64(number)
                } else if matches!(text.as_str(), "true" | "false") {
                    visitor.visit_bool(text == "true")
                } else {
                    visitor.visit_borrowed_str(text)
                }
            }
            Value::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
        };
        result.map_err(|problem: Problem| problem.at(&self.origin))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let wanted = "`true` or `false`";
        let text = self.scalar(wanted)?;
        let truth = boolean(text).ok_or_else(|| {
            Problem::new(format!("takes {wanted}, but has {}", shown(text))).at(&self.origin)
        })?;
        visitor.visit_bool(truth)
    }

    numbers! {
        deserialize_i64, visit_i64, "a whole number";
        deserialize_u16, visit_u16, "a whole number from 0 to 65535";
        deserialize_u32, visit_u32, "a whole number from 0 to 4294967295";
        deserialize_u64, visit_u64, "a whole number, 0 or more";
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor
            .visit_borrowed_str(self.scalar("text")?)
            .map_err(|problem: Problem| problem.at(&self.origin))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.is_null() || self.is_empty() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|problem: Problem| problem.at(&self.origin))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let items = match &self.value {
            Value::List(items) => items.as_slice(),
            _ if self.is_null() => &[],
            _ => return Err(self.expected("a list")),
        };
        let items = Items {
            items: items.iter(),
            index: 0,
        };
        visitor
            .visit_seq(items)
            .map_err(|problem: Problem| problem.at(&self.origin))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.visit_entries(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.visit_entries(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let word = self.scalar(&alternatives(variants))?;
        // As in distribution, case is ignored.
        let word = variants
            .iter()
            .find(|variant| variant.eq_ignore_ascii_case(word))
            .unwrap_or(&word);
        visitor
            .visit_enum(Choice(word))
            .map_err(|problem: Problem| problem.at(&self.origin))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item)
            .map(Some)
            .map_err(|problem| problem.at(&item.origin).below_index(index))
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    /// The allowed keys, for a type with named fields.
    fields: Option<&'static [&'static str]>,
    current: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        // As in Go, a known key without a value counts as absent.
        let is_absent = |entry: &&Entry| {
            entry.node.is_null()
                && self
                    .fields
                    .is_some_and(|fields| fields.contains(&entry.key.as_str()))
        };
        let Some(entry) = self.entries.by_ref().find(|entry| !is_absent(entry)) else {
            return Ok(None);
        };
        self.current = Some(entry);
        seed.deserialize(entry.key.as_str().into_deserializer())
            .map(Some)
            .map_err(|problem: Problem| problem.at(&entry.key_origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(&entry.node)
            .map_err(|problem| problem.at(&entry.node.origin).below(&entry.key))
    }
}

/// One of several words.
struct Choice<'de>(&'de str);

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Problem> {
        seed.deserialize(self.0.into_deserializer())
            .map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Problem> {
        Err(Problem::new("takes a single word"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Problem> {
        Err(Problem::new("takes a single word"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Problem> {
        Err(Problem::new("takes a single word"))
    }
}
