//! What is kept of what was moved or deleted, and bringing it back.
//!
//! [`keep`] writes it before the tag or the manifest itself changes, so a crash in between leaves an entry for what is still
//! there, which readers pass over. The collector counts what a kept manifest names as named ([`named`]), which only
//! lengthens its grace, and removes the entries whose time is over ([`forget`]), or for which quotas have no room ([`fit`]). Nothing else relies on them: a [`restore`] is an
//! ordinary push of the kept bytes, which is refused if content that it needs is gone.

mod fit;
mod forget;
mod history;
mod keep;
mod named;
mod plan;
mod restore;

pub use self::forget::DeletedCount;
pub(super) use self::forget::Forget;
pub(super) use self::keep::Keep;
