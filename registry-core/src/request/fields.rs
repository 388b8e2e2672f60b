//! The fields of a message's header, in the form that the transport has them.

use alloc::borrow::Cow;
use alloc::string::String;

/// Looks up fields by name, in any case.
pub trait Fields {
    /// Returns the value of a field; several lines of one field are joined with `, ` (RFC 9110, section 5.3). A field
    /// whose value is not UTF-8 counts as absent.
    fn field(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl<F: Fields + ?Sized> Fields for &F {
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        (**self).field(name)
    }
}

/// A list of lines, names and values.
impl<N: AsRef<str>, V: AsRef<str>> Fields for [(N, V)] {
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self
            .iter()
            .filter(|(line, _)| line.as_ref().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_ref());
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| {
            let mut joined: String = joined.into_owned();
            joined.push_str(", ");
            joined.push_str(value);
            Cow::Owned(joined)
        }))
    }
}
