//! The bucket of a run: the strict double, which fails at random, or any server that speaks S3.

use std::collections::BTreeMap;

use registry_storage::{Backend as _, ObjectStoreBackend, S3Options};

use crate::support::bucket::BucketServer;

/// How many names of bytes are listed at once.
const PAGE: usize = 1000;

/// A bucket for one run.
pub(crate) enum Store {
    Double(BucketServer),
    Any(Box<AnyBucket>),
}

/// The bucket of the variables, and a folder of its own in it.
pub(crate) struct AnyBucket {
    environment: Vec<(&'static str, String)>,
    bucket: String,
    folder: String,
    backend: ObjectStoreBackend,
    runtime: tokio::runtime::Runtime,
}

impl Store {
    pub(crate) fn double() -> Self {
        Self::Double(BucketServer::start())
    }

    /// The bucket `S3_TEST_BUCKET` at `S3_TEST_ENDPOINT`, with the access key of the variables `AWS_…`. What a run leaves there stays.
    pub(crate) fn of_variables() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
        let (endpoint, bucket) = (variable("S3_TEST_ENDPOINT"), variable("S3_TEST_BUCKET"));
        let key = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let folder = format!("chaos/{}", uuid::Uuid::new_v4());
        let runtime = tokio::runtime::Runtime::new().expect("a thread can be started");
        let mut options = S3Options::default();
        options.endpoint = Some(endpoint.clone());
        options.region = Some("us-east-1".into());
        options.access_key = Some(key.clone());
        let backend = {
            let _entered = runtime.enter();
            ObjectStoreBackend::s3(&bucket, &folder, &options).expect("the variables name a bucket")
        };
        Self::Any(Box::new(AnyBucket {
            environment: vec![
                ("AWS_ENDPOINT", endpoint),
                ("AWS_REGION", "us-east-1".into()),
                ("AWS_ACCESS_KEY_ID", key.0),
                ("AWS_SECRET_ACCESS_KEY", key.1),
            ],
            bucket,
            folder,
            backend,
            runtime,
        }))
    }

    /// Returns the variables with which a server finds it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Double(bucket) => bucket.environment().to_vec(),
            Self::Any(any) => any
                .environment
                .iter()
                .map(|(name, value)| (*name, &**value))
                .collect(),
        }
    }

    /// Returns the keys of `storage.s3`, with deletes on condition or without if that can be chosen.
    pub(crate) fn section(&self, deletes_on_condition: bool) -> String {
        match self {
            Self::Double(_) => format!(
                "{{bucket: bucket, rootdirectory: registry, conditionaldeletes: {deletes_on_condition}}}"
            ),
            Self::Any(any) => format!("{{bucket: {}, rootdirectory: {}}}", any.bucket, any.folder),
        }
    }

    /// Has this many of a hundred requests fail, if it is the double.
    pub(crate) fn fail(&self, seed: u64, percent: usize) {
        if let Self::Double(bucket) = self {
            bucket.faults().at_random(seed, percent);
        }
    }

    /// Forgets what was asked of it, which would fill the memory.
    pub(crate) fn forget_requests(&self) {
        if let Self::Double(bucket) = self {
            drop(bucket.faults().take_seen());
        }
    }

    /// Returns how many blobs have objects of their own.
    pub(crate) fn byte_strings(&self) -> usize {
        match self {
            Self::Double(bucket) => bucket.keys_below("registry/bytes/").len(),
            Self::Any(any) => any.runtime.block_on(async {
                let (mut count, mut after) = (0, None);
                loop {
                    let page = any.backend.list_bytes(after.as_ref(), PAGE).await;
                    let page = page.expect("the bucket can be listed");
                    count += page.len();
                    match page.into_iter().last() {
                        Some(last) => after = Some(last),
                        None => return count,
                    }
                }
            }),
        }
    }

    /// Returns how many parts its open uploads have, if it is the double.
    pub(crate) fn parts_of_open_uploads(&self) -> usize {
        match self {
            Self::Double(bucket) => bucket.parts_of_open_uploads(),
            Self::Any(_) => 0,
        }
    }

    /// Returns how many objects each folder of the registry has, if it is the double.
    pub(crate) fn folders(&self) -> BTreeMap<String, usize> {
        let mut folders = BTreeMap::new();
        if let Self::Double(bucket) = self {
            for key in bucket.keys_below("registry/") {
                let folder = key.split('/').nth(1).unwrap_or_default().to_owned();
                *folders.entry(folder).or_default() += 1;
            }
        }
        folders
    }
}
