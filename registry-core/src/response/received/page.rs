//! Pages of lists.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Location, Malformed, ReceivedResponse, Requested, ResponseError};
use crate::descriptor::Descriptor;
use crate::manifest::parse_annotations;
use crate::name::RepositoryName;
use crate::request::Fields;
use crate::response::history;
use crate::storage::TagValue;
use crate::tag::Tag;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedPage<T> {
    /// The items in the registry's order.
    pub items: Vec<T>,
    /// The URL of the next page, also if this one has no items. `None` after the last page.
    ///
    /// It may lead to another host, like a redirect. That of this registry is parsed by
    /// [`Request::parse`](crate::Request::parse), from [`Location::target`].
    pub next: Option<Location>,
}

impl<F: Fields> ReceivedResponse<'_, F> {
    /// Parses the answer to [`Request::ListTags`](crate::Request::ListTags). Names that are no tags are left out; `null` is
    /// an empty list.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`].
    pub fn tags(&self) -> Result<ReceivedPage<Tag>, ResponseError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow, deserialize_with = "null_as_empty")]
            tags: Vec<Cow<'a, str>>,
        }
        let document: Document<'_> = self.list()?;
        Ok(self.page(parse_all(document.tags)))
    }

    /// Parses the answer to [`Request::ListRepositories`](crate::Request::ListRepositories). Names that are of no
    /// repository are left out; `null` is an empty list.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`].
    pub fn repositories(&self) -> Result<ReceivedPage<RepositoryName>, ResponseError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow, deserialize_with = "null_as_empty")]
            repositories: Vec<Cow<'a, str>>,
        }
        let document: Document<'_> = self.list()?;
        Ok(self.page(parse_all(document.repositories)))
    }

    /// Parses the answer to [`Request::ListReferrers`](crate::Request::ListReferrers) with this `artifact_type`. If the
    /// registry does not filter by it (`OCI-Filters-Applied`), it is done here. Descriptors without a valid digest or media
    /// type are left out; `null` is an empty list.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`]. 404 means that the registry has no lists of referrers, so that clients keep
    /// them under tags (distribution-spec, "Referrers Tag Schema").
    pub fn referrers(&self, artifact_type: Option<&str>) -> Result<ReceivedPage<Descriptor>, ResponseError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow, deserialize_with = "null_as_empty")]
            manifests: Vec<Entry<'a>>,
        }
        let document: Document<'_> = self.list()?;
        let descriptors = document.manifests.into_iter().filter_map(Entry::descriptor);
        let applied = self.field("OCI-Filters-Applied").unwrap_or_default();
        let is_filtered = (applied.split(',')).any(|filter| filter.trim_ascii() == "artifactType");
        let wanted = artifact_type.filter(|_| !is_filtered);
        let is_wanted = |descriptor: &Descriptor| {
            wanted.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
        };
        Ok(self.page(descriptors.filter(is_wanted).collect()))
    }

    /// Parses the answer to [`Request::ListTagHistory`](crate::Request::ListTagHistory). It does not say who pushed what.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::Body`].
    pub fn tag_history(&self) -> Result<ReceivedPage<TagValue>, ResponseError> {
        self.expect(&[200], Requested::Repository)?;
        let body = Some(self.body).filter(|body| body.len() <= Self::MAXIMUM_LIST_BYTES);
        let values = body.and_then(history::read);
        Ok(self.page(values.ok_or(ResponseError::Malformed(Malformed::Body))?))
    }

    fn list<'de, T: Deserialize<'de>>(&'de self) -> Result<T, ResponseError> {
        self.expect(&[200], Requested::Repository)?;
        let body = Some(self.body).filter(|body| body.len() <= Self::MAXIMUM_LIST_BYTES);
        let document = body.and_then(|body| serde_json::from_slice(body).ok());
        document.ok_or(ResponseError::Malformed(Malformed::Body))
    }

    fn page<T>(&self, items: Vec<T>) -> ReceivedPage<T> {
        let link = self.field("Link");
        ReceivedPage {
            items,
            next: link.and_then(|link| next_page(&link)),
        }
    }
}

/// A descriptor in a list of referrers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Option<Cow<'a, str>>,
    #[serde(default)]
    size: u64,
    #[serde(borrow)]
    artifact_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

impl Entry<'_> {
    fn descriptor(self) -> Option<Descriptor> {
        let annotations = self.annotations.map(|text| parse_annotations(text.get()).ok());
        Some(Descriptor {
            media_type: self.media_type?.parse().ok()?,
            digest: self.digest?.parse().ok()?,
            size: self.size,
            artifact_type: self.artifact_type.map(String::from),
            annotations: annotations.flatten().unwrap_or_default(),
        })
    }
}

/// Go writes an empty list as `null`.
fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn parse_all<T: FromStr>(texts: Vec<Cow<'_, str>>) -> Vec<T> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Returns the URL of the link to the next page in a field `Link` (RFC 8288): the first with the relation `next`, or
/// without any relation.
fn next_page(field: &str) -> Option<Location> {
    let mut rest = field;
    while let Some((_, link)) = rest.split_once('<') {
        let (url, after) = link.split_once('>')?;
        let parameters = until_comma(after);
        rest = after.get(parameters.len()..).unwrap_or_default();
        if is_next(parameters) {
            return Location::parse(url);
        }
    }
    None
}

/// Returns whether the parameters of a link have the relation `next`, or none.
fn is_next(parameters: &str) -> bool {
    let mut relations = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_once('=')?;
        name.trim_ascii_end().eq_ignore_ascii_case("rel").then_some(value)
    });
    relations.next().is_none_or(|relations| {
        let relations =
            relations.trim_matches(|character: char| character == '"' || character.is_ascii_whitespace());
        relations
            .split_ascii_whitespace()
            .any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

/// Returns the text up to the comma that ends a link; one in quotes does not.
fn until_comma(text: &str) -> &str {
    let mut is_quoted = false;
    let end = text.find(|character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or(text)
}
