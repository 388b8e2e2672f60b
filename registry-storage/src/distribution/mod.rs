//! The folders of the distribution registry (`registry:2`, `registry:3`): adopting and writing them, so that a server
//! can move here and back.
//!
//! [`Maintenance::adopt`](crate::Maintenance::adopt) gives a store on a disk the content of a [`Tree`] on the same file
//! system, without copying it: the bytes get a second name. [`survey`] only reads.
//! [`adopt_in_place`] gives a store in a bucket the content of the tree in the same folder of the bucket, without copying it
//! either: the bytes are named where they are.
//! [`Maintenance::export_distribution`](crate::Maintenance::export_distribution) writes the content of any store as a
//! tree in a folder, and [`export_in_place`] that of a store in a bucket as the tree beside it.

mod adopt;
mod amount;
mod blobs;
mod bucket;
mod defect;
mod error;
mod export;
mod folder;
mod layout;
mod linkable;
mod look;
mod manifest;
mod named;
mod options;
mod plain;
mod record;
mod report;
mod run;
mod scanned;
mod seen;
mod source;
mod survey;
mod target;
mod tree;
mod window;

pub use self::adopt::{Adoption, adoption, has_news, update};
pub(crate) use self::adopt::{adopt, note_export};
pub use self::bucket::{
    ExportInPlaceError, ExportInPlaceReport, ReleaseError, ReleaseReport, adopt_in_place, export_in_place,
    find_news, has_tree, release, survey_in_place, update_in_place,
};
pub use self::defect::{BrokenLink, Defect, DefectKind};
pub use self::error::AdoptError;
pub(crate) use self::export::export;
pub use self::export::{ExportError, ExportReport};
pub use self::linkable::check_links;
pub use self::options::{AdoptOptions, ExportOptions};
pub use self::report::AdoptReport;
pub use self::survey::{Survey, survey, survey_into};
pub use self::tree::{Link, RepositoryLinks, TagLink, Tree};
