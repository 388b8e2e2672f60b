//! `storage.redirect`: whether clients are sent to the bucket for content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problems::Problems;
use crate::config::values::{AddressRange, ByteSize};

/// Whether clients are sent to the bucket for blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redirect {
    /// Content comes from this server, and no client is sent to the bucket. With `false`, with `networks` or with `storage.s3.redirectendpoint`, clients are sent there in any case; without any of them unless the bucket's address is of no use to them: without TLS, with a certificate that is not verified (`skipverify`), on this machine, or a name without a dot.
    pub(crate) disable: Option<bool>,
    /// Send only clients with these addresses to the bucket, such as `10.0.0.0/8`; all others get content from this server.
    pub(crate) networks: Option<Vec<AddressRange>>,
    /// Send smaller blobs from this server, to save their clients a round trip. Blobs of up to 16 KiB always are.
    #[serde(rename = "minimumsize")]
    pub(crate) minimum_size: ByteSize,
}

impl Redirect {
    /// Checks the values.
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        if self.networks.as_ref().is_some_and(Vec::is_empty) {
            problems.add(
                "storage.redirect.networks",
                "names no network; name some, or say `disable: true` if no client is to be sent to the bucket",
            );
        }
    }
}
