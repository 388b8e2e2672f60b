//! What a store must keep, and the error of one that does not.

use std::fmt;

use object_store::Error as StoreError;
use registry_core::Error;

use super::super::answer::Answer;
use super::super::error::convert;

/// What the storage protocol needs of a store, each tried by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promise {
    /// The store answers within the time that a registry has.
    Answers,
    /// An object is created only if there is none.
    Create,
    /// An object is replaced only if it has the version that was read.
    Update,
    /// Of two writers that create one object at once, one at most succeeds.
    OneCreator,
    /// Of two writers that replace one version of an object at once, one at most succeeds.
    OneUpdater,
    /// Content that comes back with another nonce has another version.
    Versions,
    /// An object is deleted only if it has the version that was read, which is of use and not needed.
    ConditionalDelete,
    /// A read sees what was written and deleted just before.
    Reads,
    /// A listing shows what was written and deleted just before.
    Listings,
    /// Keys are listed in the order of their bytes.
    Order,
    /// A listing continues after any key, and with the store's own token.
    Pages,
    /// An upload in parts becomes what its list of parts names, also if a part was sent twice.
    Parts,
}

impl Promise {
    /// Returns the name of its probe.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Create => "create",
            Self::Update => "update",
            Self::OneCreator => "one-creator",
            Self::OneUpdater => "one-updater",
            Self::Versions => "versions",
            Self::ConditionalDelete => "conditional-delete",
            Self::Reads => "reads",
            Self::Listings => "listings",
            Self::Order => "order",
            Self::Pages => "pages",
            Self::Parts => "parts",
        }
    }

    /// Returns whether it is about conditional writes, and not about what any writer needs.
    pub(super) const fn is_about_conditions(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Update | Self::OneCreator | Self::OneUpdater
        )
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a store is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// It does not keep a promise.
    #[error(
        "the store fails the probe {promise:?}: {found}. A registry would lose data on it; use another store \
         (docs/stores.md names some)",
        promise = promise.name()
    )]
    #[non_exhaustive]
    Broken {
        /// The promise.
        promise: Promise,
        /// What the store did.
        found: String,
    },
    /// A request was not answered, or answered with an error, so nothing is known of the promise. The store may be down,
    /// or the key may lack a right.
    #[error("a request of the probe {:?} failed", .0.name())]
    Unanswered(Promise, #[source] Error),
}

impl ProbeError {
    pub(super) fn broken(promise: Promise, found: impl Into<String>) -> Self {
        Self::Broken {
            promise,
            found: found.into(),
        }
    }

    /// Sorts the error of a request. 501 is an answer: the store will never do it.
    pub(super) fn of(promise: Promise, error: StoreError) -> Self {
        let what = match promise {
            Promise::Create | Promise::OneCreator => "`If-None-Match: *`",
            Promise::Update | Promise::OneUpdater | Promise::Versions => "`If-Match`",
            _ => return Self::Unanswered(promise, convert(error)),
        };
        if Answer::of(&error).is_some_and(|answer| answer.status == 501) {
            let found = format!("it does not implement conditional writes ({what} is answered with 501)");
            return Self::broken(promise, found);
        }
        Self::Unanswered(promise, convert(error))
    }
}
