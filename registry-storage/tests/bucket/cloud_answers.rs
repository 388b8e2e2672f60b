//! What Google Cloud Storage and Azure Blob Storage answer, told apart as what S3 answers is.

use registry_core::{ErrorCode, Timestamp};
use registry_storage::testing::S3Double;
use registry_storage::testing::s3::S3Fault;
use registry_storage::{
    AzureCredentials, AzureOptions, Backend as _, BytesName, GcsCredentials, Key, ObjectStoreBackend,
};

/// A client of Azure whose service is the double, which answers any request with its fault.
fn azure(double: &S3Double) -> ObjectStoreBackend {
    let mut options = AzureOptions::default();
    options.account = Some("double".into());
    options.credentials = AzureCredentials::Key("a2V5".into());
    options.endpoint = Some(double.url().into());
    ObjectStoreBackend::azure("bucket", "p", &options).unwrap()
}

/// The same of Google, without a login.
fn gcs(double: &S3Double) -> ObjectStoreBackend {
    let key = format!(
        r#"{{"gcs_base_url":"{}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#,
        double.url()
    );
    ObjectStoreBackend::gcs("bucket", "p", &GcsCredentials::Key(key)).unwrap()
}

#[tokio::test]
async fn only_the_code_of_an_object_is_absence() {
    let double = S3Double::start().await.unwrap();
    let key = Key::from_stored("uploads/a");
    let name = BytesName::random(Timestamp(0));
    for (backend, absent, outages) in [
        (
            azure(&double),
            "BlobNotFound",
            ["ContainerNotFound", "ResourceNotFound"],
        ),
        (gcs(&double), "NoSuchKey", ["NoSuchBucket", ""]),
    ] {
        let answer = |code| {
            let fault = S3Fault::Answer(404, code);
            double.faults().fault_from_now_on(Some(fault));
        };
        answer(absent);
        assert_eq!(backend.get(&key).await.unwrap(), None);
        assert_eq!(backend.bytes_size(&name).await.unwrap(), None);
        for code in outages {
            answer(code);
            for error in [
                backend.get(&key).await.unwrap_err(),
                backend.sizes(std::slice::from_ref(&key)).await.unwrap_err(),
                backend.bytes_size(&name).await.unwrap_err(),
                backend.delete_bytes(&name).await.unwrap_err(),
                backend.list(&key, None, 10).await.unwrap_err(),
            ] {
                assert_eq!(error.code(), ErrorCode::Unavailable, "{code}: {error:?}");
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(
                    cause.contains(format!("the store answered 404 {code}").trim_end()),
                    "{cause}"
                );
                assert!(cause.len() < 400 && !cause.contains('<'), "{cause}");
            }
        }
    }
}
