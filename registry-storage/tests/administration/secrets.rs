//! Secrets that the processes of a store share.

use std::sync::Arc;

use registry_storage::check::CheckOptions;
use registry_storage::filesystem::FilesystemBackend;
use registry_storage::testing::{Observed, S3Double};
use registry_storage::{Key, Maintenance, SecretName, Store};

use crate::support::tamper::put_raw;

const NAME: SecretName = SecretName::TokenKeys;

/// Two processes of one store agree, and neither overwrites what it has not read.
async fn agree(one: &dyn Maintenance, other: &dyn Maintenance) {
    assert!(one.secret(NAME).await.unwrap().is_none());
    let writes = [one, other].map(|store| store.write_secret(NAME, "first".into(), None));
    let [written, also] = futures_util::future::join_all(writes).await.try_into().unwrap();
    assert!(written.unwrap() != also.unwrap(), "one of them wins");
    let [read, known] = [one, other].map(|store| store.secret(NAME));
    let (read, known) = (read.await.unwrap().unwrap(), known.await.unwrap().unwrap());
    assert_eq!((&*read.value, &*known.value), (&b"first"[..], &b"first"[..]));
    assert!(
        one.write_secret(NAME, "second".into(), Some(&read))
            .await
            .unwrap()
    );
    assert!(
        !other
            .write_secret(NAME, "third".into(), Some(&known))
            .await
            .unwrap()
    );
    assert!(!other.write_secret(NAME, "third".into(), None).await.unwrap());
    assert_eq!(other.secret(NAME).await.unwrap().unwrap().value, "second");
    assert!(one.secret(SecretName::Catalog).await.unwrap().is_none());
    assert!(!format!("{read:?}").contains("first"));
}

#[tokio::test]
async fn processes_agree_about_a_secret_on_every_backend() {
    let double = S3Double::start().await.unwrap();
    let [one, other] = [(); 2].map(|()| Store::new(double.backend("a").unwrap()));
    agree(&one, &other).await;
    assert!(double.objects().contains_key("a/secrets/token-keys"));
    let folder = tempfile::tempdir().unwrap();
    let one = Arc::new(Store::new(FilesystemBackend::open(folder.path()).await.unwrap()));
    agree(&*one, &*Arc::clone(&one)).await;
    one.close().await.unwrap();
}

#[tokio::test]
async fn a_check_knows_secrets_and_a_repair_makes_room_for_new_ones() {
    let double = S3Double::start().await.unwrap();
    let store = Store::new(double.backend("a").unwrap());
    store.write_secret(NAME, "first".into(), None).await.unwrap();
    let observed = Observed::default();
    let report = store.check(&CheckOptions::new(), &observed).await.unwrap();
    assert!(report.is_sound() && report.records == 1, "{report:?}");
    assert_eq!(observed.into_records(), []);

    put_raw(&store, &Key::secret(NAME), "nonsense".into()).await;
    store.secret(NAME).await.unwrap_err();
    let observed = Observed::default();
    let options = CheckOptions::new().repair(true).settle(std::time::Duration::ZERO);
    store.check(&options, &observed).await.unwrap();
    let found = observed.into_records();
    assert!(
        found[0].to_string().contains("a repair ends all tokens"),
        "{found:?}"
    );
    assert!(store.secret(NAME).await.unwrap().is_none());
    assert!(store.write_secret(NAME, "second".into(), None).await.unwrap());
}
