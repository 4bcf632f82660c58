//! What the operator is shown.

use super::{Page, next_page_token, timestamp};
use crate::proto::v1;
use crate::proto::v1::rotate_keys_response::Report;
use crate::runtime::handle::{
    CallError, Gateway, HeldPartition, PartitionRotation, RotationReport, RotationState,
};
use crate::tenants::token::Tokens;
use crate::types::{PartitionId, TenantId};

/// A page of a tenant's sessions, and the token of the next one; empty on the last.
pub(in crate::grpc) fn sessions_page(
    gateway: &Gateway,
    tokens: &Tokens,
    tenant: &TenantId,
    page: &Page,
) -> Result<(Vec<v1::Session>, String), CallError> {
    // One more than asked for tells whether there is another page.
    let mut sessions = gateway.sessions(tenant, page.after.as_deref(), page.size + 1)?;
    let more = sessions.len() > page.size;
    sessions.truncate(page.size);
    let last = sessions.last().filter(|_| more);
    let token = last.map(|last| next_page_token(tokens, tenant, &last.account));
    Ok((sessions, token.unwrap_or_default()))
}

/// A partition that is held here.
pub(in crate::grpc) fn partition(held: HeldPartition) -> v1::Partition {
    let PartitionId { tenant, number } = held.lease.partition;
    v1::Partition {
        tenant: tenant.to_string(),
        number: number.into(),
        owner: held.lease.owner.to_string(),
        epoch: held.lease.epoch.0,
        last_sequence: held.last_sequence,
    }
}

/// What a rotation tells.
pub(in crate::grpc) fn rotation(report: RotationReport) -> v1::RotateKeysResponse {
    let report = match report {
        RotationReport::Partition(partition, rotation) => {
            Report::Partition(of_partition(&partition, &rotation))
        }
        RotationReport::Summary(summary) => {
            let sums = &summary.sums;
            Report::Summary(v1::RotationSummary {
                complete: summary.is_complete(),
                active_key: summary.active_key.clone(),
                partitions: summary.partitions,
                partitions_elsewhere: summary.elsewhere,
                partitions_failed: summary.partitions_failed,
                records: sums.records,
                total: sums.total,
                done: sums.done,
                failed: sums.failed,
                old_events: sums.old_events,
                old_events_until: sums.old_events_until.map(timestamp),
            })
        }
    };
    v1::RotateKeysResponse {
        report: Some(report),
    }
}

fn of_partition(partition: &PartitionId, rotation: &PartitionRotation) -> v1::PartitionRotation {
    let state = match rotation.state {
        RotationState::Waiting => v1::RotationState::Waiting,
        RotationState::UnderWay => v1::RotationState::UnderWay,
        RotationState::Done => v1::RotationState::Done,
        RotationState::Elsewhere => v1::RotationState::Elsewhere,
        RotationState::Failed => v1::RotationState::Failed,
    };
    v1::PartitionRotation {
        tenant: partition.tenant.to_string(),
        number: partition.number.into(),
        state: state.into(),
        records: rotation.records,
        total: rotation.total,
        done: rotation.done,
        failed: rotation.failed,
        old_events: rotation.old_events,
        old_events_until: rotation.old_events_until.map(timestamp),
    }
}
