//! Lists of referrers.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_core::{Algorithm, Storage};

use super::fixtures::{
    With as _, all_referrers, descriptor, digest, digest_by, manifest, page, repository, tag,
};

/// Referrers are listed in the order of their digests, in pages, with their descriptors; the subject need not exist.
pub async fn order_and_pages(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let subject = digest(b"subject");
    assert!(
        all_referrers(&*storage, &repository, &subject, 5)
            .await
            .is_empty()
    );
    let mut model = BTreeMap::new();
    for number in 0..17 {
        let mut new = manifest(&format!("referrer {number}"));
        if number % 5 == 0 {
            new.manifest.digest = digest_by(Algorithm::Sha512, &new.manifest.bytes);
        }
        let new = new.with_subject(&subject);
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        storage
            .put_manifest(&repository, new.clone().with_tag(&tag("again")))
            .await
            .unwrap();
        model.insert(new.manifest.digest.clone(), descriptor(&new));
    }
    for limit in [1, 4, 16, 17, 18, 1000] {
        let listed = all_referrers(&*storage, &repository, &subject, limit).await;
        assert!(listed.iter().eq(model.values()), "pages of {limit}");
    }
    let none = storage
        .list_referrers(&repository, &subject, page(None, 0))
        .await
        .unwrap();
    assert!(none.items.is_empty() && none.next.is_none());
}

/// A list belongs to one subject in one repository.
pub async fn lists_are_separate(storage: Arc<dyn Storage>) {
    let (a, b) = (repository("a"), repository("b"));
    let subject = manifest("subject");
    let digest = &subject.manifest.digest;
    storage.put_manifest(&a, subject.clone()).await.unwrap();
    let referrer = manifest("referrer").with_subject(digest);
    storage.put_manifest(&a, referrer.clone()).await.unwrap();
    assert_eq!(
        all_referrers(&*storage, &a, digest, 5).await,
        [descriptor(&referrer)]
    );
    assert!(all_referrers(&*storage, &b, digest, 5).await.is_empty());
    assert!(
        all_referrers(&*storage, &a, &referrer.manifest.digest, 5)
            .await
            .is_empty()
    );
}

/// A deleted referrer leaves the list and comes back with a push; the delete of the subject leaves the list.
pub async fn delete_and_push_again(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let subject = manifest("subject");
    let digest = &subject.manifest.digest;
    storage.put_manifest(&repository, subject.clone()).await.unwrap();
    let (one, two) = (
        manifest("one").with_subject(digest),
        manifest("two").with_subject(digest),
    );
    storage
        .put_manifest(&repository, two.clone().with_tag(&tag("two")))
        .await
        .unwrap();
    for _ in 0..3 {
        storage.put_manifest(&repository, one.clone()).await.unwrap();
        assert_eq!(all_referrers(&*storage, &repository, digest, 1).await.len(), 2);
        storage
            .delete_manifest(&repository, &one.manifest.digest, None)
            .await
            .unwrap();
        assert_eq!(
            all_referrers(&*storage, &repository, digest, 5).await,
            [descriptor(&two)]
        );
    }
    storage.delete_tag(&repository, &tag("two")).await.unwrap();
    assert_eq!(
        all_referrers(&*storage, &repository, digest, 5).await,
        [descriptor(&two)]
    );
    storage.delete_manifest(&repository, digest, None).await.unwrap();
    assert_eq!(
        all_referrers(&*storage, &repository, digest, 5).await,
        [descriptor(&two)]
    );
}
