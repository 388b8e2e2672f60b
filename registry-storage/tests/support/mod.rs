//! What several tests of stores share.

pub(crate) mod images;
pub(crate) mod tamper;
