//! Which member of a shared subscription is to have which partitions. Pure: all replicas come to the same split.
//!
//! Every pair of a member and a partition has a weight, a hash of both. The heaviest pair that is still possible is
//! taken again and again, until each partition has its member: a member may have as many as everybody, and some may
//! have one more where the number does not go evenly. Since weights do not change, most partitions stay where they
//! are when a member comes or goes.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::MemberId;

/// The partitions that are to be `me`'s when `partitions` are split among `members`; none if `me` is not one of them.
/// Both lists without repetition; their order does not matter.
///
/// Replicas of different versions work together while they are upgraded, so the outcome may never change.
pub(super) fn share_of(me: &MemberId, members: &[MemberId], partitions: &[u16]) -> BTreeSet<u16> {
    let split = split(members, partitions).into_iter();
    split
        .filter_map(|(partition, member)| (member == me).then_some(partition))
        .collect()
}

/// Whose each partition is to be.
fn split<'a>(members: &'a [MemberId], partitions: &[u16]) -> BTreeMap<u16, &'a MemberId> {
    let Some(everybody) = partitions.len().checked_div(members.len()) else {
        return BTreeMap::new();
    };
    let mut one_more = partitions.len() % members.len();
    let mut loads = vec![0_usize; members.len()];
    let mut owners = BTreeMap::new();
    for (_, member, index, partition) in pairs(members, partitions) {
        let Some(load) = loads.get_mut(index) else {
            continue;
        };
        let beyond = *load == everybody;
        let has_room = *load < everybody || (beyond && one_more > 0);
        if has_room && !owners.contains_key(&partition) {
            *load += 1;
            one_more -= usize::from(beyond);
            owners.insert(partition, member);
        }
    }
    owners
}

/// All pairs with their weights, the heaviest first: weight, member, the member's index, partition.
fn pairs<'a>(members: &'a [MemberId], partitions: &[u16]) -> Vec<(u64, &'a MemberId, usize, u16)> {
    let mut pairs = Vec::with_capacity(members.len() * partitions.len());
    for (index, member) in members.iter().enumerate() {
        let seed = fnv(member.as_str().as_bytes());
        for &partition in partitions {
            let weight = mix(seed ^ mix(u64::from(partition)));
            pairs.push((weight, member, index, partition));
        }
    }
    // Equal weights are decided by what is the same everywhere.
    pairs.sort_unstable_by(|a, b| (b.0, b.1, b.3).cmp(&(a.0, a.1, a.3)));
    pairs
}

/// FNV-1a: the same on every machine and in every version.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads a number over all 64 bits (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(names: &[&str]) -> Vec<MemberId> {
        names.iter().map(MemberId::new).collect()
    }

    fn numbers(count: u16) -> Vec<u16> {
        (0..count).collect()
    }

    /// Who has each of `count` partitions.
    fn shown(names: &[&str], count: u16) -> String {
        let members = members(names);
        let split = split(&members, &numbers(count));
        let owners: Vec<&str> = split.values().map(|member| member.as_str()).collect();
        owners.join("")
    }

    /// What replicas of two versions must agree on. A changed table is a changed protocol.
    #[test]
    fn the_split_is_the_same_in_every_version() {
        for (names, count, expected) in [
            (&[][..], 8, ""),
            (&["a"], 8, "aaaaaaaa"),
            (&["a", "b"], 8, "bbbabaaa"),
            (&["a", "b", "c"], 8, "bcbcbaac"),
            (&["a", "b", "c", "d"], 8, "bcdcbaad"),
            (&["a", "b", "c", "d"], 2, "bc"),
            (&["a", "b", "c"], 0, ""),
        ] {
            assert_eq!(shown(names, count), expected, "{names:?} {count}");
        }
    }

    #[test]
    fn who_is_not_a_member_has_nothing() {
        let members = members(&["a", "b"]);
        let mine = |me| share_of(&MemberId::new(me), &members, &numbers(8)).len();
        assert_eq!((mine("a"), mine("b"), mine("c")), (4, 4, 0));
    }

    #[test]
    fn only_the_partitions_that_are_given_are_split() {
        let members = members(&["a", "b"]);
        let of = |me| share_of(&MemberId::new(me), &members, &[3, 200, 9]);
        let (a, b) = (of("a"), of("b"));
        assert!(a.is_disjoint(&b));
        assert_eq!(&a | &b, BTreeSet::from([3, 9, 200]));
    }

    /// Partitions that change hands, beside those that the one who joined must get.
    fn moved(before: &[MemberId], after: &[MemberId], count: u16) -> usize {
        let (before, after) = (
            split(before, &numbers(count)),
            split(after, &numbers(count)),
        );
        let changed = before
            .iter()
            .filter(|(number, owner)| after[*number] != **owner);
        changed.count()
    }

    /// On the average over many sets of members, little more moves than must.
    #[test]
    fn a_join_moves_little() {
        for (count, size, most) in [(8, 1, 1.0), (8, 2, 1.6), (64, 3, 1.3), (256, 7, 1.4)] {
            let (mut total, runs) = (0, 40);
            for run in 0..runs {
                let name = |n: usize| MemberId::new(format!("{run}-{n}"));
                let all: Vec<MemberId> = (0..=size).map(name).collect();
                total += moved(&all[..size], &all, count);
            }
            let least = usize::from(count) / (size + 1) * runs;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let ratio = total as f64 / least as f64;
            assert!(ratio <= most, "{count} over {size}: {ratio}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_partition_has_one_member_and_the_split_is_even(
            names in prop::collection::btree_set("[a-z0-9]{1,16}", 1..40),
            partitions in prop::collection::btree_set(any::<u16>(), 0..300),
        ) {
            let members: Vec<MemberId> = names.iter().map(MemberId::new).collect();
            let partitions: Vec<u16> = partitions.into_iter().collect();
            let mut all = Vec::new();
            let least = partitions.len() / members.len();
            for member in &members {
                let share = share_of(member, &members, &partitions);
                prop_assert!(share.len() == least || share.len() == least + 1);
                all.extend(share);
            }
            all.sort_unstable();
            prop_assert_eq!(all, partitions);
        }

        #[test]
        fn the_order_of_the_lists_does_not_matter(
            (mut members, shuffled) in prop::collection::vec("[a-f0-9]{8}", 1..12)
                .prop_flat_map(|names| {
                    let set: BTreeSet<String> = names.into_iter().collect();
                    let names: Vec<String> = set.into_iter().collect();
                    (Just(names.clone()), Just(names).prop_shuffle())
                }),
        ) {
            members.sort();
            let ids = |names: &[String]| names.iter().map(MemberId::new).collect::<Vec<_>>();
            let (members, shuffled) = (ids(&members), ids(&shuffled));
            let backwards: Vec<u16> = (0..32).rev().collect();
            prop_assert_eq!(split(&members, &numbers(32)), split(&shuffled, &backwards));
        }

        /// One who joins, or who left when read backwards: bounded for every set of members.
        #[test]
        fn a_join_or_a_leave_moves_few(
            names in prop::collection::btree_set("[a-f0-9]{32}", 2..12),
            at in any::<prop::sample::Index>(),
            count in 1_u16..300,
        ) {
            let all: Vec<MemberId> = names.iter().map(MemberId::new).collect();
            let mut fewer = all.clone();
            fewer.remove(at.index(all.len()));
            let share = usize::from(count).div_ceil(all.len());
            prop_assert!(moved(&fewer, &all, count) <= share * 3 / 2 + all.len());
        }
    }
}
