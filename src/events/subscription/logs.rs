//! The logs of a tenant, as one subscription follows them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::events::hub::{Followed, Hub};
use crate::events::listeners::News;
use crate::types::{PartitionId, TenantId};

/// The partitions that hold what a subscriber may get, each with the fingerprints of its accounts there; where there are
/// none, it gets the events of all.
pub(in crate::events) type Homes = HashMap<u16, Arc<[u32]>>;

/// Follows logs for one subscription.
pub(super) struct Logs {
    pub(super) hub: Hub,
    pub(super) tenant: TenantId,
    pub(super) homes: Homes,
    /// Tells of all of them.
    pub(super) news: News,
}

impl Logs {
    pub(super) fn follow(&self, number: u16) -> Followed {
        let partition = PartitionId {
            tenant: self.tenant.clone(),
            number,
        };
        let accounts = self.homes.get(&number).cloned().unwrap_or_default();
        self.hub.follow(&partition, accounts, &self.news)
    }
}
