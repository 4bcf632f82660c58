//! Fingerprints of the messages seen lately, in the order of their coming.

use std::collections::{HashSet, VecDeque};

/// Up to so many are looked through one by one, which takes less than a set does and costs a session no memory.
const FEW: usize = 512;

/// Each is in it once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recent {
    /// Oldest first.
    order: VecDeque<u64>,
    /// The same, where they are more than a few.
    set: HashSet<u64>,
}

impl Recent {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn contains(&self, fingerprint: u64) -> bool {
        if self.set.is_empty() {
            self.order.contains(&fingerprint)
        } else {
            self.set.contains(&fingerprint)
        }
    }

    /// Puts one in before the newest `newer`. False if it is there.
    pub(super) fn insert_before(&mut self, newer: usize, fingerprint: u64) -> bool {
        if self.contains(fingerprint) {
            return false;
        }
        let place = self.order.len().saturating_sub(newer);
        self.order.insert(place, fingerprint);
        if !self.set.is_empty() {
            self.set.insert(fingerprint);
        } else if self.order.len() > FEW {
            self.set.extend(&self.order);
        }
        true
    }

    /// Forgets all but the newest `most`.
    pub(super) fn keep_newest(&mut self, most: usize) {
        let surplus = self.order.len().saturating_sub(most);
        for fingerprint in self.order.drain(..surplus) {
            self.set.remove(&fingerprint);
        }
        if self.order.len() <= FEW && self.set.capacity() > 0 {
            self.set = HashSet::new();
        }
    }

    /// The newest `most`, oldest first.
    pub(super) fn newest(&self, most: usize) -> impl Iterator<Item = u64> {
        self.order
            .range(self.order.len().saturating_sub(most)..)
            .copied()
    }
}

/// From a record, in which each is once. Were it not so, a message might come twice.
impl FromIterator<u64> for Recent {
    fn from_iter<I: IntoIterator<Item = u64>>(fingerprints: I) -> Self {
        let order: VecDeque<u64> = fingerprints.into_iter().collect();
        let mut set = HashSet::new();
        if order.len() > FEW {
            set.extend(&order);
        }
        Self { order, set }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_and_many_are_known_alike(
            steps in vec((0..3 * FEW as u64, 0..FEW, prop::option::weighted(0.01, 0..2 * FEW)), 1..4 * FEW),
        ) {
            let (mut recent, mut model) = (Recent::default(), Vec::new());
            for (fingerprint, newer, keep) in steps {
                let is_new = !model.contains(&fingerprint);
                prop_assert_eq!(recent.contains(fingerprint), !is_new);
                prop_assert_eq!(recent.insert_before(newer, fingerprint), is_new);
                if is_new {
                    model.insert(model.len().saturating_sub(newer), fingerprint);
                }
                if let Some(most) = keep {
                    recent.keep_newest(most);
                    model.drain(..model.len().saturating_sub(most));
                }
            }
            prop_assert_eq!(recent.len(), model.len());
            prop_assert!(recent.newest(model.len()).eq(model.iter().copied()));
            prop_assert_eq!(recent.set.is_empty(), model.len() <= FEW);
        }
    }
}
