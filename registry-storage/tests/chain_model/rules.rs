//! The decisions as the model takes them: those of the protocol, but for the one rule that a mutation takes away.

use registry_storage::chain::{self, Collect, Confirm, Enter, Join, Offer, Publish, Recheck, Require, State};

/// A rule to take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A push takes a Condemned grant as it is.
    NoRescueOfGrant,
    /// An upload takes a Condemned blob as it is.
    NoRescueOfBlob,
    /// A Pending manifest does not hold its children.
    PendingManifestHoldsNothing,
    /// A Pending grant does not hold its blob.
    PendingGrantHoldsNothing,
    /// A record goes Dead though the cycle that condemned it was not sealed.
    UnsealedKill,
    /// The version of a record is made of its content.
    VersionOfContent,
    /// The bytes of an upload have the name of those that were there.
    SameBytesName,
    /// The sweeper reads blobs before sessions.
    SweepBlobsFirst,
    /// A session does not name its bytes.
    NoSession,
    /// A push does not read the manifest again after it wrote the tag.
    NoConfirm,
    /// A delete takes away the tags of every incarnation.
    NoIncarnation,
    /// An upload stores its grant when all is done.
    LateGrant,
    /// A mount stores its grant when all is done.
    LateMount,
    /// A push reads its children before it stores the manifest.
    ChildFirst,
    /// A session is not read again after its bytes were proposed.
    NoRecheck,
    /// That a session's bytes were proposed is remembered by the process only.
    NoProposed,
    /// An abort deletes the bytes.
    AbortDeletesBytes,
    /// A push does not join a Pending manifest, and is refused where its own is gone.
    NoJoin,
    /// A push whose manifest was deleted takes its tag back instead of pushing again.
    TakeBackFirst,
    /// A tag that was restored is not confirmed.
    NoConfirmOfRestored,
    /// An upload takes a blob for whole whose bytes are lost.
    NoLook,
    /// A grant that was visible is healed whatever was written since it was read.
    HealAnyVersion,
}

/// The rules of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) mutation: Option<Mutation>,
}

impl Rules {
    /// Tells whether this rule is taken away.
    pub(crate) fn lacks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The version of a record that is written now.
    pub(crate) fn version(&self, fresh: u8, state: State, value: u8, cycle: u8) -> u8 {
        if self.lacks(Mutation::VersionOfContent) {
            1 + state as u8 + 5 * (value % 8) + 40 * (cycle % 6)
        } else {
            fresh
        }
    }

    pub(crate) fn enter_manifest(&self, manifest: State) -> Enter {
        match chain::enter(manifest) {
            Enter::Join if self.lacks(Mutation::NoJoin) => Enter::Create,
            decision => decision,
        }
    }

    pub(crate) fn require_grant(&self, grant: State) -> Require {
        match chain::require(grant) {
            Require::Rescue if self.lacks(Mutation::NoRescueOfGrant) => Require::Ready,
            decision => decision,
        }
    }

    /// The step 3 of an upload or a mount, which `late` mutations do not make depend on what is stored.
    pub(crate) fn publish_grant(&self, grant: State, same: bool, late: Mutation) -> Publish {
        if self.lacks(late) {
            Publish::Write
        } else {
            chain::publish(grant, same)
        }
    }

    /// The step 3 where the grant was visible in step 1.
    pub(crate) fn heal(&self, grant: State, same: bool) -> Publish {
        chain::heal(grant, same || self.lacks(Mutation::HealAnyVersion))
    }

    /// The state of the blob for whoever looked at its bytes.
    pub(crate) fn counted(&self, blob: State, is_lost: bool) -> State {
        chain::counted(blob, is_lost && !self.lacks(Mutation::NoLook))
    }

    pub(crate) fn confirm(&self, manifest: State, same: bool) -> Confirm {
        chain::confirm(manifest, same)
    }

    /// `in_process` is what the process itself remembers of its proposal.
    pub(crate) fn offer(
        &self,
        blob: State,
        named: bool,
        open: bool,
        proposed: bool,
        in_process: bool,
    ) -> Offer {
        let open = open || self.lacks(Mutation::NoSession);
        let proposed = if self.lacks(Mutation::NoProposed) {
            in_process
        } else {
            proposed
        };
        match chain::offer(blob, named, open, proposed) {
            Offer::Rescue if self.lacks(Mutation::NoRescueOfBlob) => Offer::Use,
            decision => decision,
        }
    }

    pub(crate) fn join(&self, blob: State) -> Join {
        chain::join(blob)
    }

    pub(crate) fn recheck(&self, open: bool) -> Recheck {
        chain::recheck(open || self.lacks(Mutation::NoSession))
    }

    pub(crate) fn untag(&self, tag: Option<&u8>, incarnation: u8) -> bool {
        chain::names(tag, &incarnation) || (self.lacks(Mutation::NoIncarnation) && tag.is_some())
    }

    pub(crate) fn manifest_holds(&self, manifest: State) -> bool {
        manifest.holds_children()
            && !(manifest == State::Pending && self.lacks(Mutation::PendingManifestHoldsNothing))
    }

    pub(crate) fn grant_holds(&self, grant: State) -> bool {
        grant.holds_children() && !(grant == State::Pending && self.lacks(Mutation::PendingGrantHoldsNothing))
    }

    pub(crate) fn collect(&self, state: State, is_root: bool, is_sealed: bool, is_old: bool) -> Collect {
        chain::collect(chain::Candidate {
            state,
            is_root,
            is_sealed: is_sealed || self.lacks(Mutation::UnsealedKill),
            // Here each step is one of its own.
            is_certain: false,
            is_old,
        })
    }
}
