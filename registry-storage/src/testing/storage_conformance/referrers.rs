//! Lists of referrers.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_core::referrers::referrers_index;
use registry_core::storage::{NewManifest, ReferrersRequest};
use registry_core::{Algorithm, Annotations, Digest, Storage};

use super::fixtures::{
    With as _, all_referrers, descriptor, digest, digest_by, manifest, page, repository, tag,
};
use super::random::Random;

/// Returns a manifest that refers to `subject`, with annotations of about `size` bytes.
fn referrer(subject: &Digest, number: usize, artifact_type: &str, size: usize) -> NewManifest {
    let new = manifest(&format!("referrer {number}")).with_subject(subject);
    let annotations = format!("{{ \"key\":\n\"{}\" }}", "v".repeat(size));
    let subject = new.subject.map(|(subject, mut descriptor)| {
        descriptor.artifact_type = Some(artifact_type.to_owned());
        descriptor.annotations = Annotations::from_json(annotations.into());
        (subject, descriptor)
    });
    NewManifest { subject, ..new }
}

/// A page has at most the requested number of bytes, unless it is a single descriptor, and a filter leaves its type.
///
/// Nothing is listed twice or left out, and annotations stay as they are.
pub async fn pages_by_size_and_type(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let subject = digest(b"subject");
    let mut random = Random::new(1);
    let types = ["a/b+c", "x/y"];
    let mut model = BTreeMap::new();
    for number in 0..40 {
        let new = referrer(&subject, number, types[random.below(2)], random.below(3000));
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        model.insert(new.manifest.digest.clone(), new.subject.unwrap().1);
    }
    for (size_limit, limit, artifact_type) in [
        (1, 100, None),
        (1, 100, Some(types[0])),
        (4000, 3, None),
        (4000, 100, Some(types[1])),
        (10_000, 7, Some(types[0])),
        (usize::MAX, 1, Some(types[0])),
        (usize::MAX, 100, None),
        (usize::MAX, 100, Some("a/b")),
    ] {
        let mut listed = Vec::new();
        let mut last = None;
        loop {
            let request = ReferrersRequest {
                last,
                limit,
                size_limit,
                artifact_type: artifact_type.map(str::to_owned),
            };
            let page = storage
                .list_referrers(&repository, &subject, request)
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            let length = |items| referrers_index(items).unwrap().concat().len();
            let bytes = length(&page.items) - length(&[]);
            assert!(
                bytes <= size_limit || page.items.len() == 1,
                "{bytes} of {size_limit}"
            );
            listed.extend(page.items);
            match page.next {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        let mut expected: Vec<_> = model.values().collect();
        expected.retain(|one| artifact_type.is_none() || one.artifact_type.as_deref() == artifact_type);
        listed.sort_by(|one, other| one.digest.cmp(&other.digest));
        assert!(
            listed.iter().eq(expected),
            "{size_limit}, {limit}, {artifact_type:?}"
        );
    }
}

/// A page does not end early because a large descriptor follows: most clients read only the first one. None is lost or
/// listed twice, wherever pages end, and whatever is added or removed between them.
pub async fn a_page_is_filled_though_a_large_descriptor_follows(storage: Arc<dyn Storage>) {
    const PAGE: usize = 100_000;
    let repository = repository("a");
    let subject = digest(b"subject");
    let mut random = Random::new(2);
    let mut expected = Vec::new();
    for number in 0..60 {
        let size = match number % 6 {
            0 => 70_000,
            1 => 20_000,
            _ => random.below(5000),
        };
        let new = referrer(&subject, number, "a/b", size);
        storage.put_manifest(&repository, new.clone()).await.unwrap();
        expected.push(new.manifest.digest);
    }
    let (mut listed, mut last) = (Vec::new(), None);
    let mut sizes = Vec::new();
    loop {
        let request = ReferrersRequest {
            last,
            limit: 1000,
            size_limit: PAGE,
            artifact_type: None,
        };
        let page = storage
            .list_referrers(&repository, &subject, request)
            .await
            .unwrap();
        sizes.push(referrers_index(&page.items).unwrap().concat().len());
        listed.extend(page.items.into_iter().map(|item| item.digest));
        last = page.next;
        if last.is_none() {
            break;
        }
        // Referrers that are pushed meanwhile are listed or not, and disturb nothing.
        if sizes.len() < 10 {
            let new = referrer(&subject, 1000 + sizes.len(), "a/b", random.below(80_000));
            storage.put_manifest(&repository, new).await.unwrap();
        }
    }
    let first = sizes[0];
    assert!(
        first > PAGE - PAGE / 16 - 1000,
        "{first} of {PAGE} bytes are on the first page"
    );
    let count = listed.len();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), count, "none is listed twice");
    assert!(
        expected.iter().all(|digest| listed.contains(digest)),
        "none is lost"
    );
}

/// A filter that matches nothing does not make a page read everything that was pushed.
pub async fn a_filter_that_matches_none_reads_a_few_pages(storage: Arc<dyn Storage>) {
    let repository = repository("a");
    let subject = digest(b"subject");
    for number in 0..40 {
        let new = referrer(&subject, number, "a/b", 10_000);
        storage.put_manifest(&repository, new).await.unwrap();
    }
    let mut last = None;
    for pages in 1.. {
        let request = ReferrersRequest {
            last,
            limit: 1000,
            size_limit: 20_000,
            artifact_type: Some("x/y".to_owned()),
        };
        let page = storage
            .list_referrers(&repository, &subject, request)
            .await
            .unwrap();
        assert!(page.items.is_empty());
        last = page.next;
        if last.is_none() {
            assert!(pages >= 5, "{pages} pages read 400 KB");
            break;
        }
    }
}

/// Referrers are listed in pages, in an order of the storage's own that is the same for all sizes of pages, with their
/// descriptors; the subject need not exist.
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
    let order = all_referrers(&*storage, &repository, &subject, 1000).await;
    let by_digest: BTreeMap<_, _> = order
        .iter()
        .map(|descriptor| (descriptor.digest.clone(), descriptor.clone()))
        .collect();
    assert_eq!(by_digest, model);
    assert_eq!(order.len(), model.len(), "each is listed once");
    for limit in [1, 4, 16, 17, 18] {
        let listed = all_referrers(&*storage, &repository, &subject, limit).await;
        assert_eq!(listed, order, "pages of {limit}");
    }
    let none = storage
        .list_referrers(&repository, &subject, page(None, 0).into())
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

/// A deleted referrer leaves the list and comes back with a push; a delete of the subject keeps the list.
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
            .delete_manifest(&repository, &one.manifest.digest, None, None)
            .await
            .unwrap();
        assert_eq!(
            all_referrers(&*storage, &repository, digest, 5).await,
            [descriptor(&two)]
        );
    }
    storage.delete_tag(&repository, &tag("two"), None).await.unwrap();
    assert_eq!(
        all_referrers(&*storage, &repository, digest, 5).await,
        [descriptor(&two)]
    );
    storage
        .delete_manifest(&repository, digest, None, None)
        .await
        .unwrap();
    assert_eq!(
        all_referrers(&*storage, &repository, digest, 5).await,
        [descriptor(&two)]
    );
}
