//! The exploration, breadth first, of all states that a scenario reaches.

use crate::rules::{Mutation, Rules};
use crate::scenario::Scenario;
use crate::state::Model;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash as _, Hasher};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How many states were looked at.
    pub(crate) states: usize,
    /// The first state in which an invariant does not hold, and which.
    pub(crate) violation: Option<(&'static str, Model)>,
}

/// Explores all states of a scenario, or those up to the first violation.
pub(crate) fn explore(scenario: &Scenario, rules: &Rules) -> Outcome {
    search(scenario, rules, |_, _| {})
}

/// Explores again up to the violation, and says the steps that lead to it.
pub(crate) fn trace(scenario: &Scenario, rules: &Rules) -> String {
    let mut parents = HashMap::new();
    let outcome = search(scenario, rules, |parent, child| {
        parents.insert(fingerprint(child), *parent);
    });
    let Some((violation, last)) = outcome.violation else {
        return "no violation".into();
    };
    let mut lines = Vec::new();
    let mut child = last;
    while let Some(parent) = parents.get(&fingerprint(&child)) {
        let moved = child.processes.iter().zip(&parent.processes);
        let moved = moved.filter(|(after, before)| after != before);
        let moved: Vec<_> = moved
            .map(|(after, before)| format!("{before:?}\n -> {after:?}"))
            .collect();
        lines.push(format!("{}\n    {:?}", moved.join("\n"), child.world));
        child = *parent;
    }
    lines.reverse();
    format!("{violation}:\n{}", lines.join("\n"))
}

fn search(scenario: &Scenario, rules: &Rules, mut found: impl FnMut(&Model, &Model)) -> Outcome {
    let first = scenario.model(rules);
    let mut seen: HashSet<u128, BuildHasherDefault<Identity>> = HashSet::default();
    let mut queue = VecDeque::from([first]);
    seen.insert(fingerprint(&first));
    let mut states = 0;
    while let Some(model) = queue.pop_front() {
        states += 1;
        if let Some(violation) = model.violation(scenario.strict) {
            return Outcome {
                states,
                violation: Some((violation, model)),
            };
        }
        for (index, process) in model.processes.iter().enumerate() {
            process.steps(&model.world, rules, &mut |world, process| {
                let mut next = model;
                next.world = world;
                next.processes[index] = process;
                if rules.lacks(Mutation::VersionOfContent) {
                    next.world.next_version = 0;
                } else {
                    next.rename();
                }
                if seen.insert(fingerprint(&next)) {
                    found(&model, &next);
                    queue.push_back(next);
                }
            });
        }
    }
    Outcome {
        states,
        violation: None,
    }
}

fn fingerprint(model: &Model) -> u128 {
    let mut fingerprint = Fingerprint::default();
    model.hash(&mut fingerprint);
    fingerprint.wide()
}

/// A hash of 128 bits that is good enough to tell tens of millions of states apart.
#[derive(Debug)]
struct Fingerprint {
    low: u64,
    high: u64,
    pending: u64,
    filled: u32,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            low: 0x243f_6a88_85a3_08d3,
            high: 0x1319_8a2e_0370_7344,
            pending: 0,
            filled: 0,
        }
    }
}

impl Fingerprint {
    const fn mix(&mut self) {
        self.low = (self.low ^ self.pending).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.low ^= self.low >> 29;
        self.high = (self.high.rotate_left(23) ^ self.pending).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.high ^= self.high >> 32;
        self.pending = 0;
        self.filled = 0;
    }

    fn wide(mut self) -> u128 {
        self.mix();
        self.mix();
        (u128::from(self.high) << 64) | u128::from(self.low)
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.pending |= u64::from(byte) << (8 * self.filled);
        self.filled += 1;
        if self.filled == 8 {
            self.mix();
        }
    }

    /// The discriminants of the model's enums, which are below 256.
    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant as u8);
    }

    fn finish(&self) -> u64 {
        self.low
    }
}

/// Takes the fingerprint itself for the hash.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
