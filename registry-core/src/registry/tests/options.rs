use super::*;
use crate::storage::ChildKind;

#[test]
fn pages_are_as_long_as_the_operator_allows() {
    let mut registry = registry(Tiny {
        names: ["a", "b", "c", "d"].map(String::from).into(),
        largest_page: 100,
        ..Tiny::default()
    });
    registry.options.tags_page_limit = 3;
    registry.options.catalog_page_limit = 2;
    let tags = get(&registry, "/v2/a/tags/list?n=100");
    assert_eq!(
        tags.field("link"),
        Some("</v2/a/tags/list?n=100&last=c>; rel=\"next\"")
    );
    let catalog = get(&registry, "/v2/_catalog?n=100");
    assert_eq!(
        catalog.field("link"),
        Some("</v2/_catalog?n=100&last=b>; rel=\"next\"")
    );
    assert_eq!(
        get(&registry, "/v2/_catalog?n=1").field("link"),
        Some("</v2/_catalog?n=1&last=a>; rel=\"next\"")
    );
}

#[test]
fn a_sparse_index_needs_none_of_its_manifests_and_keeps_those_that_are_there() {
    let digest = hello();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":5}}]}}"#,
        MediaType::OCI_MANIFEST
    );
    let image = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{digest}","size":5}},"layers":[]}}"#
    );
    let index: &'static str = String::leak(index);
    let image: &'static str = String::leak(image);
    let mut registry = registry(Tiny::default());
    registry.options.allow_sparse_indexes = true;
    for (text, media_type) in [(index, MediaType::OCI_INDEX), (image, MediaType::OCI_MANIFEST)] {
        send(
            &registry,
            "PUT",
            "/v2/a/manifests/v1",
            &[("content-type", media_type)],
            &[text.as_bytes()],
        );
    }
    let pushed = registry.storage.pushed.lock().unwrap();
    let [index, image] = &**pushed else {
        panic!("{pushed:?}")
    };
    assert!(index.children.is_empty());
    assert_eq!(index.optional_children[0].digest, digest);
    assert_eq!(index.optional_children[0].kind, ChildKind::Manifest);
    assert_eq!(
        image.children[0].digest, digest,
        "an image still needs its content"
    );
    assert!(image.optional_children.is_empty());
}
