//! The medium, which may lose the bytes of the blob.

use crate::state::World;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Medium {
    is_done: bool,
}

impl Medium {
    pub(crate) fn steps(mut self, world: &World, emit: &mut dyn FnMut(World, Self)) {
        let bit = 1 << world.blob.value;
        if !self.is_done && world.blob.state.is_visible() && world.bytes & bit != 0 {
            let mut next = *world;
            next.bytes &= !bit;
            next.lost |= bit;
            self.is_done = true;
            emit(next, self);
        }
    }
}
