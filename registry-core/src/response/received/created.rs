//! What a push created.

use alloc::vec::Vec;

use super::{CREATED, Location, Malformed, ReceivedResponse, Requested, ResponseError, UploadSession};
use crate::digest::Digest;
use crate::request::Fields;
use crate::tag::Tag;

/// A blob or a manifest that a push created, or that existed already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Created {
    /// Where it can be pulled. `None` if the registry does not state it: it is where the specification has it.
    pub location: Option<Location>,
    /// The registry's digest for it, otherwise the digest that it was pushed with.
    pub digest: Digest,
    /// The manifest that it refers to (`OCI-Subject`). `None` for a manifest with a subject means that the registry keeps
    /// no list of referrers, so that the client keeps one under a tag (distribution-spec, "Referrers Tag Schema").
    pub subject: Option<Digest>,
    /// Which of the tags of the parameter `tag` were written (`OCI-Tag`). The others have to be pushed separately.
    pub tags: Vec<Tag>,
}

/// The answer to a `POST` that names the digest of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostedBlob {
    /// The blob is in the repository.
    Created(Created),
    /// The blob has to be uploaded, to this session; a body that was sent has not been taken.
    Upload(UploadSession),
}

impl<F: Fields> ReceivedResponse<'_, F> {
    /// Parses the answer to the request that ends the upload of the blob `digest`, which [`UploadSession::finish`] builds.
    /// 200 and 204 are accepted like 201.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::OtherDigest`] if the registry states another digest of the same algorithm.
    pub fn blob_created(&self, digest: &Digest) -> Result<Created, ResponseError> {
        self.expect(CREATED, Requested::Upload)?;
        Ok(self.created(digest)?)
    }

    /// Parses the answer to [`Request::MountBlob`](crate::Request::MountBlob) or
    /// [`Request::UploadBlob`](crate::Request::UploadBlob) of the blob `digest`. 200 and 204 are accepted like 201.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::OtherDigest`] if the registry states another digest of the same algorithm.
    pub fn blob_posted(&self, digest: &Digest) -> Result<PostedBlob, ResponseError> {
        if self.status == 202 {
            return self.upload_started().map(PostedBlob::Upload);
        }
        self.expect(CREATED, Requested::Repository)?;
        Ok(PostedBlob::Created(self.created(digest)?))
    }

    /// Parses the answer to [`Request::PutManifest`](crate::Request::PutManifest) of a manifest whose bytes have the digest
    /// `digest`. 200 and 204 are accepted like 201.
    ///
    /// # Errors
    /// [`ResponseError`]; [`Malformed::OtherDigest`] if the registry states another digest of the same algorithm.
    pub fn manifest_created(&self, digest: &Digest) -> Result<Created, ResponseError> {
        self.expect(CREATED, Requested::Repository)?;
        let subject = self.field("OCI-Subject");
        let tags = self.field("OCI-Tag").unwrap_or_default();
        Ok(Created {
            subject: subject.and_then(|subject| subject.trim_ascii().parse().ok()),
            tags: (tags.split(','))
                .filter_map(|tag| tag.trim_ascii().parse().ok())
                .collect(),
            ..self.created(digest)?
        })
    }

    fn created(&self, digest: &Digest) -> Result<Created, Malformed> {
        Ok(Created {
            location: self.location(),
            digest: self.digest_of(digest)?,
            subject: None,
            tags: Vec::new(),
        })
    }
}
