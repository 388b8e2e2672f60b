//! Whether clients are sent to the bucket for blobs.

use std::net::IpAddr;

use ipnet::IpNet;
use registry_storage::ObjectStoreBackend;
use reqwest::Url;

use crate::config::sections::storage::Storage;
use crate::failure::Failure;

/// Who is sent to the bucket, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirects {
    /// The smallest blob, in bytes.
    pub(crate) from_size: u64,
    /// The networks of the clients; `None` for all.
    pub(crate) networks: Option<Vec<IpNet>>,
}

impl Redirects {
    /// Decides whether clients are sent to a bucket. If so, and if not although it was not disabled, the log says it.
    pub(crate) async fn decide(storage: &Storage, backend: &ObjectStoreBackend) -> Option<Self> {
        let redirect = &storage.redirect;
        if redirect.disable == Some(true) {
            return None;
        }
        let origin = match backend.signed_origin().await {
            Ok(Some(origin)) => origin,
            Ok(None) => {
                tracing::warn!(
                    "content comes from this server: the key of the bucket signs no URLs for clients, which takes the key of a \
                     service account, or of an Azure account or client"
                );
                return None;
            }
            Err(error) => {
                tracing::warn!(
                    error = %Failure::new("no URL can be signed for clients").because(error),
                    "content comes from this server; a restart tries it again"
                );
                return None;
            }
        };
        if !is_wanted(storage)
            && let Some(why) = useless_to_clients(&origin, storage)
        {
            tracing::info!(
                "content comes from this server: {origin} {why}; to send clients there for it, say \
                 `storage.redirect.disable: false`, and to send them to another address of the bucket, \
                 `storage.s3.redirectendpoint`"
            );
            return None;
        }
        tracing::info!("clients are sent to {origin} for blobs; `storage.redirect` says who, and for which");
        Some(Self {
            from_size: redirect.minimum_size.0,
            networks: redirect
                .networks
                .as_ref()
                .map(|networks| networks.iter().map(|range| range.0).collect()),
        })
    }
}

/// Returns whether the configuration says where, or who, is sent to the bucket, and so that somebody is.
fn is_wanted(storage: &Storage) -> bool {
    let redirect = &storage.redirect;
    let names_address = storage
        .s3
        .as_ref()
        .is_some_and(|s3| s3.redirect_endpoint.is_some());
    redirect.disable == Some(false) || redirect.networks.is_some() || names_address
}

/// Returns why clients could not use the bucket's address, or should not, as far as the address shows it.
fn useless_to_clients(origin: &str, storage: &Storage) -> Option<&'static str> {
    let url = Url::parse(origin).ok()?;
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = host.parse().ok();
    let is_verified = !storage.s3.as_ref().is_some_and(|s3| s3.skip_verify)
        && !storage.azure.as_ref().is_some_and(|azure| azure.skip_verify);
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        Some("is on this machine")
    } else if url.scheme() != "https" {
        Some("is without TLS, so everybody in between could read the content")
    } else if address.is_none() && !host.contains('.') {
        Some("is a name of a local network")
    } else if !is_verified {
        Some("has a certificate that is not verified (`skipverify`), and clients would")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Bucket;
    use crate::config::tests_support::loaded;

    /// Decides for a bucket of S3 with these keys, after those of the storage.
    async fn decide(storage: &str, s3: &str) -> Option<Redirects> {
        let text = format!(
            "version: 0.1\nstorage:\n{storage}  s3:\n    bucket: images\n    region: eu-west-1\n    accesskey: a\n    \
             secretkey: b\n{s3}"
        );
        let storage = loaded(&text, &[]).configuration.storage;
        let backend = Bucket::of(&storage).unwrap().open().unwrap();
        Redirects::decide(&storage, &backend).await
    }

    #[tokio::test]
    async fn clients_are_sent_to_addresses_that_they_can_use_and_to_any_that_is_asked_for() {
        for (endpoint, expected) in [
            ("", true),
            ("https://s3.example", true),
            ("https://192.0.2.1:9000", true),
            ("https://[2001:db8::1]", true),
            ("http://s3.example", false),
            ("https://localhost:9000", false),
            ("https://127.0.0.1:9000", false),
            ("https://[::1]:9000", false),
            ("https://minio:9000", false),
        ] {
            let keys = match endpoint {
                "" => String::new(),
                endpoint => format!("    regionendpoint: '{endpoint}'\n"),
            };
            assert_eq!(decide("", &keys).await.is_some(), expected, "{endpoint}");
            let disabled = decide("  redirect: {disable: true}\n", &keys).await;
            assert_eq!(disabled, None, "{endpoint}");
            for wanted in ["{disable: false}", "{networks: [10.0.0.0/8]}"] {
                let wanted = decide(&format!("  redirect: {wanted}\n"), &keys).await;
                assert!(wanted.is_some(), "{endpoint}");
            }
            let keys = format!("{keys}    redirectendpoint: http://cdn\n");
            assert!(decide("", &keys).await.is_some(), "{endpoint}");
        }
        assert_eq!(decide("", "    skipverify: true\n").await, None);
    }

    #[tokio::test]
    async fn who_and_what_is_as_configured() {
        let redirect = "  redirect: {networks: [10.0.0.0/8, 192.0.2.1], minimumsize: 64KiB}\n";
        let expected = Redirects {
            from_size: 65_536,
            networks: Some(vec![
                "10.0.0.0/8".parse().unwrap(),
                "192.0.2.1/32".parse().unwrap(),
            ]),
        };
        assert_eq!(decide(redirect, "").await, Some(expected));
        let everybody = Redirects {
            from_size: 0,
            networks: None,
        };
        assert_eq!(decide("", "").await, Some(everybody));
    }
}
