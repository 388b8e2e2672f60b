//! Constraints on `storage`.

use registry_storage::LocationError;

use super::Problems;
use crate::bucket::s3_options;
use crate::config::sections::storage::{AzureCredentialKind, Storage};
use crate::config::values::is_secret;

/// Messages say where is stored, so secrets are refused in its place.
fn check_places(storage: &Storage, problems: &mut Problems<'_>) {
    let (s3, gcs, azure) = (&storage.s3, &storage.gcs, &storage.azure);
    let buckets = [
        ("storage.s3.bucket", s3.as_ref().map(|s3| &s3.bucket)),
        ("storage.gcs.bucket", gcs.as_ref().map(|gcs| &gcs.bucket)),
        (
            "storage.azure.container",
            azure.as_ref().map(|azure| &azure.container),
        ),
        (
            "storage.s3.rootdirectory",
            s3.as_ref().and_then(|s3| s3.root.as_ref()),
        ),
        (
            "storage.gcs.rootdirectory",
            gcs.as_ref().and_then(|gcs| gcs.root.as_ref()),
        ),
        (
            "storage.azure.rootdirectory",
            azure.as_ref().and_then(|azure| azure.root.as_ref()),
        ),
    ];
    for (key, name) in buckets {
        if name.is_some_and(|name| is_secret(name)) {
            problems.add(key, "this looks like a key, a token or a password; write the name of the bucket, or of the folder in it");
        }
    }
}

pub(super) fn check(storage: &Storage, problems: &mut Problems<'_>) {
    let bucket = "name the bucket";
    check_places(storage, problems);
    if let Some(filesystem) = &storage.filesystem {
        let missing = filesystem.root.as_os_str().is_empty();
        problems.required("storage.filesystem.rootdirectory", missing, "name a folder");
    }
    if let Some(s3) = &storage.s3 {
        problems.required("storage.s3.bucket", s3.bucket.is_empty(), bucket);
        if s3.access_key.is_some() != s3.secret_key.is_some() {
            problems.add(
                "storage.s3",
                "`accesskey` and `secretkey` go together; give both, or none to take what the environment has",
            );
        }
        if let (false, Err(wrong)) = (s3.bucket.is_empty(), s3_options(s3).check(&s3.bucket)) {
            let (key, remedy) = match wrong {
                LocationError::Bucket(_) => ("storage.s3.bucket", "takes letters, digits, `-`, `.` and `_`"),
                LocationError::Region(_) => (
                    "storage.s3.region",
                    "takes the name of a region, such as eu-central-1",
                ),
                LocationError::Endpoint => (
                    "storage.s3.regionendpoint",
                    "takes an address without a user, a password or a query; the access key is `accesskey` and `secretkey`",
                ),
                _ => (
                    "storage.s3.regionendpoint",
                    "takes an address: https://HOST, or https://HOST:PORT",
                ),
            };
            problems.add(key, remedy);
        }
        if s3.key_id.is_some() && !s3.encrypt {
            problems.add(
                "storage.s3.keyid",
                "has no effect without `encrypt: true`; add that or remove the key",
            );
        }
    }
    if let Some(gcs) = &storage.gcs {
        problems.required("storage.gcs.bucket", gcs.bucket.is_empty(), bucket);
    }
    if let Some(azure) = &storage.azure {
        problems.required(
            "storage.azure.container",
            azure.container.is_empty(),
            "name the container",
        );
        let login = &azure.credentials;
        let is_client = login.kind == Some(AzureCredentialKind::ClientSecret);
        if is_client && (login.client.is_none() || login.tenant.is_none() || login.secret.is_none()) {
            problems.add(
                "storage.azure.credentials",
                "a client logs in by `clientid`, `tenantid` and `secret`; give all three",
            );
        }
    }
    let purging = &storage.maintenance.upload_purging;
    if purging.most_open == 0 {
        problems.add(
            "storage.maintenance.uploadpurging.maxopen",
            "is 0, which would let nobody push; write for example 10000, or say `readonly` to take no pushes",
        );
    }
    let interval = purging.interval;
    if interval.is_some_and(|interval| interval.0.is_zero()) {
        problems.add(
            "storage.maintenance.uploadpurging.interval",
            "must be more than 0; write for example 24h",
        );
    }
}
