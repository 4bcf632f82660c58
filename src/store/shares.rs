//! Who shares a subscription and who has which partition of it, for the stores of one process: in memory only, for
//! no member outlives the process.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{MemberId, PartitionId, TenantId};

/// Members and claims, each until a moment of `tokio::time::Instant`.
#[derive(Debug, Default)]
pub(super) struct Shares {
    members: HashMap<(TenantId, String), BTreeMap<MemberId, Instant>>,
    claims: HashMap<(PartitionId, String), (MemberId, Instant)>,
}

impl Shares {
    /// [`super::Store::attend`].
    pub(super) fn attend(
        &mut self,
        tenant: &TenantId,
        subscription: &str,
        member: &MemberId,
        ttl: Option<Duration>,
    ) -> Vec<MemberId> {
        let key = (tenant.clone(), subscription.to_owned());
        let members = self.members.entry(key.clone()).or_default();
        match ttl {
            Some(ttl) => members.insert(member.clone(), Instant::now() + ttl),
            None => members.remove(member),
        };
        let now = Instant::now();
        members.retain(|_, until| *until > now);
        if members.is_empty() {
            self.members.remove(&key);
        }
        self.members(tenant, subscription)
    }

    /// [`super::Store::members`].
    pub(super) fn members(&self, tenant: &TenantId, subscription: &str) -> Vec<MemberId> {
        let now = Instant::now();
        let key = (tenant.clone(), subscription.to_owned());
        let members = self.members.get(&key).into_iter().flatten();
        members
            .filter(|(_, until)| **until > now)
            .map(|(member, _)| member.clone())
            .collect()
    }

    /// [`super::Store::claim_share`].
    pub(super) fn claim(
        &mut self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
        ttl: Duration,
    ) -> bool {
        let now = Instant::now();
        self.claims.retain(|_, (_, until)| *until > now);
        let key = (partition.clone(), subscription.to_owned());
        let held = self.claims.get(&key);
        let free = held.is_none_or(|(holder, _)| holder == member);
        if free {
            self.claims.insert(key, (member.clone(), now + ttl));
        }
        free
    }

    /// [`super::Store::release_share`].
    pub(super) fn release(
        &mut self,
        partition: &PartitionId,
        subscription: &str,
        member: &MemberId,
    ) {
        let key = (partition.clone(), subscription.to_owned());
        if self
            .claims
            .get(&key)
            .is_some_and(|(holder, _)| holder == member)
        {
            self.claims.remove(&key);
        }
    }

    /// Drops who has a partition of a subscription that is no more.
    pub(super) fn forget(&mut self, partition: &PartitionId, subscription: &str) {
        self.claims
            .remove(&(partition.clone(), subscription.to_owned()));
    }
}
