//! Parsing a request.

use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use super::accept::AcceptedManifests;
use super::entity_tags::EntityTags;
use super::fields::Fields;
use super::query::Query;
use super::route::Route;
use super::{MAXIMUM_TAGS, Namespace, Request, UPLOAD_OFFSET};
use crate::digest::Digest;
use crate::error::{Error, ErrorCode};
use crate::name::RepositoryName;
use crate::page::PageQuery;
use crate::percent;
use crate::range::RangeHeader;
use crate::reference::Reference;
use crate::tag::Tag;

impl Request {
    /// Parses a request from its method, its target (the path and, after a `?`, the query) and its fields.
    ///
    /// Parameters and fields that the endpoint does not know are ignored.
    ///
    /// # Errors
    /// [`ErrorCode::PathUnknown`] for a path that no endpoint has; [`ErrorCode::MethodNotAllowed`], with the field
    /// `Allow`, for a method that the path does not have; [`ErrorCode::NameInvalid`]; [`ErrorCode::DigestInvalid`],
    /// also for a reference with a colon, which is never a tag; for another malformed reference
    /// [`ErrorCode::ManifestInvalid`] on a push and [`ErrorCode::ManifestUnknown`] otherwise;
    /// [`ErrorCode::BlobUploadUnknown`] for a session that is not a UUID; [`ErrorCode::BlobUploadInvalid`] for a
    /// malformed `Content-Range`; [`ErrorCode::SizeInvalid`] for a malformed `Content-Length`;
    /// [`ErrorCode::TargetTooLong`] for more than [`MAXIMUM_TAGS`] tags; [`ErrorCode::Unsupported`] for a malformed
    /// query, and for `tag` in addition to a reference that is a tag.
    pub fn parse<F: Fields + ?Sized>(method: &str, target: &str, fields: &F) -> Result<Self, Error> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent::decode(path).ok_or_else(|| Error::from(ErrorCode::PathUnknown))?;
        let route = Route::of(&path)?;
        let mut methods = route.methods().split(", ");
        if method == "OPTIONS" || !methods.any(|allowed| allowed == method) {
            return Err(Error::from(ErrorCode::MethodNotAllowed).with_field("Allow", route.methods()));
        }
        let input = Input {
            method,
            query: Query::parse(query)?,
            fields,
        };
        match route {
            Route::Version => Ok(Self::Version),
            Route::Catalog => Ok(Self::ListRepositories { page: input.page()? }),
            Route::Tags { name } => Ok(Self::ListTags {
                repository: name.parse()?,
                page: input.page()?,
                namespace: input.namespace(),
            }),
            Route::Referrers { name, digest } => input.referrers(name.parse()?, digest.parse()?),
            Route::Blob { name, digest } => input.blob(name.parse()?, digest.parse()?),
            Route::Manifest { name, reference } => input.manifest(name.parse()?, reference),
            Route::Uploads { name } => input.uploads(name.parse()?),
            Route::Upload { name, id } => input.upload(name.parse()?, id),
            Route::Repository { name } => Ok(Self::DeleteRepository {
                repository: name.parse()?,
            }),
            Route::TagHistory { name } => Ok(Self::ListTagHistory {
                repository: name.parse()?,
                tag: parsed(input.query.given("tag")?)?,
                page: input.page()?,
            }),
            Route::RestoreTag { name } => {
                let repository = name.parse()?;
                let tag = parsed(input.query.given("tag")?)?;
                let tag = tag.ok_or_else(|| Error::new(ErrorCode::Unsupported, "name the tag with ?tag="))?;
                Ok(Self::RestoreTag {
                    repository,
                    tag,
                    digest: parsed(input.query.given("digest")?)?,
                })
            }
        }
    }
}

/// Everything besides the path. The method is one that the route has.
struct Input<'a, F: ?Sized> {
    method: &'a str,
    query: Query<'a>,
    fields: &'a F,
}

impl<F: Fields + ?Sized> Input<'_, F> {
    fn blob(&self, repository: RepositoryName, digest: Digest) -> Result<Request, Error> {
        Ok(match self.method {
            "DELETE" => Request::DeleteBlob { repository, digest },
            "HEAD" => Request::HeadBlob {
                repository,
                digest,
                if_none_match: self.if_none_match(),
                namespace: self.namespace(),
            },
            _ => Request::GetBlob {
                range: self.range(&digest),
                repository,
                digest,
                if_none_match: self.if_none_match(),
                namespace: self.namespace(),
            },
        })
    }

    fn manifest(&self, repository: RepositoryName, reference: &str) -> Result<Request, Error> {
        if self.method == "PUT" {
            return self.put_manifest(repository, reference.parse()?);
        }
        let reference = Reference::from_str(reference).map_err(|error| match error.code() {
            ErrorCode::DigestInvalid => error,
            _ => Error::new(ErrorCode::ManifestUnknown, "no manifest has a tag of this form"),
        })?;
        Ok(match self.method {
            "DELETE" => Request::DeleteManifest {
                repository,
                reference,
                if_match: self.if_match(),
            },
            "HEAD" => Request::HeadManifest {
                repository,
                reference,
                accepted: self.accepted(),
                if_none_match: self.if_none_match(),
                namespace: self.namespace(),
            },
            _ => Request::GetManifest {
                repository,
                reference,
                accepted: self.accepted(),
                if_none_match: self.if_none_match(),
                namespace: self.namespace(),
            },
        })
    }

    fn put_manifest(&self, repository: RepositoryName, reference: Reference) -> Result<Request, Error> {
        let tags = self.tags()?;
        if matches!(reference, Reference::Tag(_)) && !tags.is_empty() {
            return Err(Error::new(
                ErrorCode::Unsupported,
                "the parameter tag goes with a push by digest",
            ));
        }
        Ok(Request::PutManifest {
            repository,
            reference,
            tags,
            media_type: parsed(self.fields.field("Content-Type"))?,
            length: self.length()?,
            if_match: self.if_match(),
            if_none_match: self.if_none_match(),
        })
    }

    fn uploads(&self, repository: RepositoryName) -> Result<Request, Error> {
        // If a mount is not possible, an upload starts, also if the source is not a valid name: containerify sends
        // `from=base:v3`.
        let mount = self.query.first("mount").and_then(|digest| digest.parse().ok());
        let from = parsed(self.query.first("from"));
        if let (Some(digest), Ok(from)) = (mount, from) {
            return Ok(Request::MountBlob {
                repository,
                digest,
                from,
            });
        }
        Ok(match self.query.first("digest") {
            Some(digest) => Request::UploadBlob {
                repository,
                digest: digest.parse()?,
                length: self.length()?,
            },
            None => Request::StartUpload {
                repository,
                algorithm: parsed(self.query.first("digest-algorithm"))?,
            },
        })
    }

    fn upload(&self, repository: RepositoryName, id: &str) -> Result<Request, Error> {
        let id = id.parse()?;
        Ok(match self.method {
            "PATCH" => Request::AppendUpload {
                repository,
                id,
                offset: self.offset()?,
                range: parsed(self.fields.field("Content-Range"))?,
                length: self.length()?,
            },
            "PUT" => Request::FinishUpload {
                repository,
                id,
                digest: parsed(self.query.first("digest"))?.ok_or_else(|| {
                    Error::new(
                        ErrorCode::DigestInvalid,
                        "an upload is closed with the parameter digest",
                    )
                })?,
                offset: self.offset()?,
                range: parsed(self.fields.field("Content-Range"))?,
                length: self.length()?,
            },
            "DELETE" => Request::CancelUpload { repository, id },
            _ => Request::UploadStatus { repository, id },
        })
    }

    /// Returns the session's offset when the client got the URL.
    fn offset(&self) -> Result<Option<u64>, Error> {
        let Some(text) = self.query.first(UPLOAD_OFFSET) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Error::new(
                ErrorCode::BlobUploadInvalid,
                "an upload goes on at the Location of the last answer, as it stands there",
            )
        })
    }

    fn referrers(&self, repository: RepositoryName, subject: Digest) -> Result<Request, Error> {
        // A media type contains no space: a space was a plus sign that was decoded on the way.
        let artifact_type = self.query.first("artifactType");
        Ok(Request::ListReferrers {
            repository,
            subject,
            artifact_type: artifact_type.map(|kind| kind.replace(' ', "+")),
            page: self.page()?,
            namespace: self.namespace(),
        })
    }

    fn page(&self) -> Result<PageQuery, Error> {
        Ok(PageQuery {
            limit: self.query.first("n").map(PageQuery::parse_limit).transpose()?,
            last: self.query.first("last").map(String::from),
        })
    }

    fn tags(&self) -> Result<Vec<Tag>, Error> {
        if self.query.all("tag").nth(MAXIMUM_TAGS).is_some() {
            return Err(Error::new(
                ErrorCode::TargetTooLong,
                "a push has at most 64 parameters tag; push again with the others",
            ));
        }
        self.query.all("tag").map(str::parse).collect()
    }

    /// Returns the ranges to send. `If-Range` requests the whole unless it names this content; a date never does,
    /// because no date of content is sent.
    fn range(&self, digest: &Digest) -> Option<RangeHeader> {
        let is_same = self.fields.field("If-Range").is_none_or(|condition| {
            let tag = condition.trim_ascii();
            tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(digest.as_str())
        });
        let field = self.fields.field("Range").filter(|_| is_same)?;
        RangeHeader::parse(&field)
    }

    fn length(&self) -> Result<Option<u64>, Error> {
        let field = self.fields.field("Content-Length");
        let number = field.map(|text| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number)
        });
        match number {
            Some(None) => Err(Error::new(
                ErrorCode::SizeInvalid,
                "Content-Length is a number of bytes",
            )),
            Some(length) => Ok(length),
            None => Ok(None),
        }
    }

    fn if_match(&self) -> Option<EntityTags> {
        let field = self.fields.field("If-Match")?;
        Some(EntityTags::parse(&field, false))
    }

    fn if_none_match(&self) -> Option<EntityTags> {
        let field = self.fields.field("If-None-Match")?;
        Some(EntityTags::parse(&field, true))
    }

    fn accepted(&self) -> AcceptedManifests {
        let field = self.fields.field("Accept");
        field.map_or(AcceptedManifests::Any, |field| AcceptedManifests::parse(&field))
    }

    /// Returns `ns`. It may be ignored, so a value that is not a host is.
    fn namespace(&self) -> Option<Namespace> {
        self.query.first("ns")?.parse().ok()
    }
}

/// Parses an optional text.
fn parsed<T: FromStr>(text: Option<impl AsRef<str>>) -> Result<Option<T>, T::Err> {
    text.map(|text| text.as_ref().parse()).transpose()
}
