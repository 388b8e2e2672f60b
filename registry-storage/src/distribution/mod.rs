//! The folders of the distribution registry (`registry:2`, `registry:3`): adopting and writing them, so that a server
//! can move here and back.
//!
//! [`adopt()`] gives a [`Store`](crate::Store) on a disk the content of a [`Tree`] on the same file system, without
//! copying it: the bytes get a second name. [`survey`] only reads. [`export()`] writes the content of any store as a
//! tree.

mod adopt;
mod amount;
mod blobs;
mod defect;
mod export;
mod layout;
mod linkable;
mod look;
mod manifest;
mod plain;
mod record;
mod report;
mod seen;
mod survey;
mod target;
mod tree;
mod window;

pub use self::adopt::{
    AdoptError, AdoptOptions, Adoption, adopt, adoption, has_news, is_unadopted, update, wrote_here,
};
pub use self::defect::{BrokenLink, Defect, DefectKind};
pub use self::export::{ExportError, ExportOptions, ExportReport, export};
pub use self::linkable::check_links;
pub use self::report::{AdoptReport, Observer};
pub use self::survey::{Survey, survey, survey_into};
pub use self::tree::{Link, RepositoryLinks, TagLink, Tree};
