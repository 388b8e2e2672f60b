//! What the distribution registry writes into the tree in a bucket after it was adopted.

use registry_storage::distribution::{AdoptOptions, adopt_in_place, find_news, release};

use crate::in_bucket::{Bucket, adopt, images};

#[tokio::test]
async fn a_look_finds_what_came_since() {
    let bucket = Bucket::of(&images()).await;
    let store = bucket.store();
    assert_eq!(find_news(&store).await.unwrap(), None);
    adopt(&store).await;
    assert_eq!(find_news(&store).await.unwrap(), None);
    // The same image once more is nothing new.
    bucket.put_all(&images());
    assert_eq!(find_news(&store).await.unwrap(), None);
    bucket.push_to_old("app/new", "v1", 9);
    let (link, _) = find_news(&store).await.unwrap().unwrap();
    assert!(
        link.starts_with("root/docker/registry/v2/repositories/app/new/_layers/"),
        "{link}"
    );
    let again = AdoptOptions::new().again(true);
    adopt_in_place(&store, &again, &()).await.unwrap();
    assert_eq!(find_news(&store).await.unwrap(), None);
    release(&store, false, &()).await.unwrap();
    bucket.push_to_old("app/new", "v2", 10);
    assert_eq!(
        find_news(&store).await.unwrap(),
        None,
        "nothing of it can be adopted"
    );
}
