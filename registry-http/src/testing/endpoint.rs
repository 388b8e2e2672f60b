//! The endpoints of a registry.

use registry_core::Request;

/// Defines [`RegistryEndpoint`] from the variants of [`Request`].
macro_rules! endpoints {
    ($($name:ident = $text:literal;)*) => {
        /// The endpoint of a request: a variant of [`Request`] without its fields.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RegistryEndpoint {
            $(#[doc = $text] $name,)*
        }

        impl RegistryEndpoint {
            /// Returns the endpoint of a request.
            #[must_use]
            pub const fn of(request: &Request) -> Self {
                match request { $(Request::$name { .. } => Self::$name,)* }
            }
        }
    };
}

endpoints! {
    Version = "`GET /v2/`";
    GetBlob = "`GET /v2/<name>/blobs/<digest>`";
    HeadBlob = "`HEAD /v2/<name>/blobs/<digest>`";
    GetManifest = "`GET /v2/<name>/manifests/<reference>`";
    HeadManifest = "`HEAD /v2/<name>/manifests/<reference>`";
    StartUpload = "`POST /v2/<name>/blobs/uploads/`";
    UploadBlob = "`POST /v2/<name>/blobs/uploads/?digest=<digest>`";
    AppendUpload = "`PATCH <location>`";
    FinishUpload = "`PUT <location>?digest=<digest>`";
    PutManifest = "`PUT /v2/<name>/manifests/<reference>`";
    ListTags = "`GET /v2/<name>/tags/list`";
    DeleteManifest = "`DELETE /v2/<name>/manifests/<reference>`";
    DeleteBlob = "`DELETE /v2/<name>/blobs/<digest>`";
    ListTagHistory = "`GET /v2/<name>/_registry/tags/history`";
    RestoreTag = "`POST /v2/<name>/_registry/tags/restore?tag=<tag>`";
    DeleteRepository = "`DELETE /v2/<name>/_registry/repository`";
    MountBlob = "`POST /v2/<name>/blobs/uploads/?mount=<digest>`";
    ListReferrers = "`GET /v2/<name>/referrers/<digest>`";
    UploadStatus = "`GET <location>`";
    CancelUpload = "`DELETE <location>`";
    ListRepositories = "`GET /v2/_catalog`";
}
