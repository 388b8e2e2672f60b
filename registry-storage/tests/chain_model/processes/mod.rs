//! The processes. Each takes one step at a time: an access to the store, and what it decides from the answer.

mod collector;
mod deleter;
mod medium;
mod mounter;
mod sweeper;
mod uploader;
mod writer;

pub(crate) use self::collector::Collector;
pub(crate) use self::deleter::{BlobDeleter, Canceller, Deleter, Target};
pub(crate) use self::medium::Medium;
pub(crate) use self::mounter::Mounter;
pub(crate) use self::sweeper::Sweeper;
pub(crate) use self::uploader::Uploader;
pub(crate) use self::writer::Writer;

use crate::rules::Rules;
use crate::state::{Incarnation, Renaming, World};

/// A process and what it remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    /// No process.
    #[default]
    None,
    Writer(Writer),
    Uploader(Uploader),
    Collector(Collector),
    Deleter(Deleter),
    Sweeper(Sweeper),
    BlobDeleter(BlobDeleter),
    Mounter(Mounter),
    Canceller(Canceller),
    Medium(Medium),
}

impl Process {
    /// Emits what the shared records and the process are after each step that it may take.
    pub(crate) fn steps(self, world: &World, rules: &Rules, emit: &mut dyn FnMut(World, Self)) {
        match self {
            Self::None => {}
            Self::Writer(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Writer(p))),
            Self::Uploader(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Uploader(p))),
            Self::Collector(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Collector(p))),
            Self::Deleter(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Deleter(p))),
            Self::Sweeper(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Sweeper(p))),
            Self::BlobDeleter(process) => {
                process.steps(world, rules, &mut |w, p| emit(w, Self::BlobDeleter(p)));
            }
            Self::Mounter(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Mounter(p))),
            Self::Canceller(process) => process.steps(world, rules, &mut |w, p| emit(w, Self::Canceller(p))),
            Self::Medium(process) => process.steps(world, &mut |w, p| emit(w, Self::Medium(p))),
        }
    }

    /// Renames the versions and incarnations that the process remembers.
    pub(crate) const fn rename(&mut self, versions: &mut Renaming, incarnations: &mut Renaming) {
        match self {
            Self::Writer(process) => process.rename(versions, incarnations),
            Self::Uploader(process) => process.rename(versions),
            Self::Collector(process) => process.rename(versions, incarnations),
            Self::Deleter(process) => process.rename(versions, incarnations),
            Self::Mounter(process) => process.rename(versions),
            Self::None | Self::Sweeper(_) | Self::BlobDeleter(_) | Self::Canceller(_) | Self::Medium(_) => {}
        }
    }

    /// Tells whether it neither pushes nor deletes a manifest just now.
    pub(crate) const fn is_settled(&self) -> bool {
        match self {
            Self::Writer(process) => process.is_done(),
            Self::Deleter(process) => process.is_settled(),
            _ => true,
        }
    }

    /// The incarnation for which a push was answered 201 and its tag was not replaced by then.
    pub(crate) const fn acknowledged(&self) -> Option<Incarnation> {
        match self {
            Self::Writer(process) => process.acknowledged(),
            _ => None,
        }
    }

    /// Tells whether an upload that began after bytes were lost was answered 201 and left its repository with them.
    pub(crate) const fn is_deceived(&self, world: &World) -> bool {
        matches!(self, Self::Uploader(process) if process.is_deceived(world))
    }

    /// Tells whether a push was refused though nothing that it needs is missing.
    pub(crate) const fn is_refused_for_no_reason(&self) -> bool {
        matches!(self, Self::Writer(process) if process.is_refused_for_no_reason())
    }
}
