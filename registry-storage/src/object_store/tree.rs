//! The objects of the distribution registry, which has the same bucket and the same folder in it.

use registry_core::Digest;

/// The folder of its tree.
pub(crate) const TREE: &str = "docker/registry/v2";

/// Where it keeps content.
pub(super) fn data(digest: &Digest) -> String {
    let (algorithm, encoded) = digest.parts();
    let first: String = encoded.chars().take(2).collect();
    format!("{TREE}/blobs/{algorithm}/{first}/{encoded}/data")
}

#[cfg(all(feature = "filesystem", unix))]
mod access {
    use bytes::Bytes;
    use futures_core::Stream;
    use futures_util::stream;
    use object_store::GetOptions;
    use object_store::path::Path;
    use registry_core::{Error, Timestamp};

    use crate::backend::LIST_LIMIT;
    use crate::bytes_name::BytesName;
    use crate::object_store::ObjectStoreBackend;
    use crate::object_store::error::{convert, is_absent, is_other_type};

    /// An object in a listing.
    #[derive(Clone, Debug)]
    pub(crate) struct TreeObject {
        /// The key, without the root.
        pub(crate) key: String,
        pub(crate) size: u64,
        /// When it was written, by the clock of the bucket.
        pub(crate) written: Timestamp,
    }

    impl ObjectStoreBackend {
        /// Returns a key as the bucket has it.
        pub(crate) fn whole_key(&self, key: &str) -> String {
            format!("{}{key}", self.root)
        }

        /// Lists a page of the objects whose key begins with `prefix`, in the order of their keys; an empty one is the end.
        pub(crate) async fn list_tree(
            &self,
            prefix: &str,
            after: Option<&str>,
        ) -> Result<Vec<TreeObject>, Error> {
            let objects = self.list_objects(prefix, after, LIST_LIMIT).await?;
            let objects = objects.into_iter().map(|(key, object)| {
                let written = u64::try_from(object.last_modified.timestamp_millis());
                TreeObject {
                    key,
                    size: object.size,
                    written: Timestamp(written.unwrap_or(0)),
                }
            });
            Ok(objects.collect())
        }

        /// Lists all pages of [`list_tree`](Self::list_tree).
        pub(crate) fn tree_pages(
            &self,
            prefix: String,
        ) -> impl Stream<Item = Result<Vec<TreeObject>, Error>> + use<'_> {
            stream::try_unfold(None, move |after: Option<String>| {
                let prefix = prefix.clone();
                async move {
                    let page = self.list_tree(&prefix, after.as_deref()).await?;
                    Ok(page
                        .last()
                        .map(|last| last.key.clone())
                        .map(|last| (page, Some(last))))
                }
            })
        }

        /// Reads an object as a whole; `None` if it does not exist. The caller knows that it is small.
        pub(crate) async fn read_object(&self, key: &str) -> Result<Option<Bytes>, Error> {
            self.read_whole(&self.path(key)?).await
        }

        /// Reads bytes as a whole; `None` if they do not exist. The caller knows that they are few.
        pub(crate) async fn read_bytes(&self, name: &BytesName) -> Result<Option<Bytes>, Error> {
            self.read_whole(&self.bytes_path(name)?).await
        }

        async fn read_whole(&self, path: &Path) -> Result<Option<Bytes>, Error> {
            let request = async {
                let result = self.store.get_opts(path, GetOptions::default()).await?;
                result.bytes().await
            };
            match self.run(0, request).await {
                Ok(content) => Ok(Some(content)),
                Err(error) if is_absent(&error) => Ok(None),
                Err(error) => Err(convert(error)),
            }
        }

        /// Returns whether an object has exactly this content.
        pub(crate) async fn has_content(&self, key: &str, content: &[u8]) -> Result<bool, Error> {
            let path = self.path(key)?;
            let request = async {
                let result = self.store.get_opts(&path, GetOptions::default()).await?;
                // What is larger is not read.
                match result.meta.size == content.len() as u64 {
                    true => result.bytes().await.map(Some),
                    false => Ok(None),
                }
            };
            match self.run(content.len(), request).await {
                Ok(found) => Ok(found.is_some_and(|found| found == content)),
                Err(error) if is_absent(&error) => Ok(false),
                Err(error) => Err(convert(error)),
            }
        }

        /// Writes an object of the tree, over what is there. The caller knows that it is wrong: what has another type is deleted
        /// before, and the distribution registry wrote links to Azure as append blobs up to version 2.6, and again from 3.0 to 3.1.
        pub(crate) async fn put_tree_object(&self, key: &str, content: Bytes) -> Result<(), Error> {
            self.require_writer()?;
            let path = self.path(key)?;
            match self.put_once(&path, content.clone()).await {
                Err(error) if is_other_type(&error) => {
                    self.delete_object(&path).await?;
                    self.put_once(&path, content).await.map_err(convert)
                }
                written => written.map_err(convert),
            }
        }

        /// Deletes an object of the tree. It is no error if there is none.
        pub(crate) async fn delete_tree_object(&self, key: &str) -> Result<(), Error> {
            self.require_writer()?;
            self.delete_object(&self.path(key)?).await
        }
    }
}

#[cfg(all(feature = "filesystem", unix))]
pub(crate) use self::access::TreeObject;
