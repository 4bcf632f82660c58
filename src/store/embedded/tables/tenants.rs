//! Which tenants have data, by what it is laid out, and its end.

use redb::{ReadTransaction, ReadableTable as _, TableDefinition};

use super::{Row, Step, Tables, place, row, written};
use crate::store::{Lease, StoreError, TenantLayout};
use crate::types::TenantId;

/// Tenant to its number of partitions and its upstream app.
pub(super) const TENANTS: TableDefinition<'_, &str, (u16, u32)> = TableDefinition::new("tenants");

impl Tables<'_> {
    /// [`crate::store::Store::enrol`].
    pub(in super::super) fn enrol(
        &mut self,
        tenant: &TenantId,
        layout: TenantLayout,
    ) -> Step<TenantLayout> {
        let noted = self.tenants.get(tenant.as_str())?;
        if let Some(noted) = noted.map(|noted| noted.value()) {
            return Ok(layout_of(noted));
        }
        let value = (layout.partitions, layout.sdk_app_id);
        self.tenants.insert(tenant.as_str(), value)?;
        Ok(layout)
    }

    /// [`crate::store::Store::strike`].
    pub(in super::super) fn strike(&mut self, tenant: &TenantId) -> Step<()> {
        self.tenants.remove(tenant.as_str())?;
        self.forget_active(tenant)
    }

    /// [`crate::store::Store::purge`].
    pub(in super::super) fn purge(&mut self, lease: &Lease) -> Step<Result<(), StoreError>> {
        let partition = &lease.partition;
        let row = row(&self.partitions, partition)?;
        if let Err(refusal) = row.check_fence(lease) {
            return Ok(Err(refusal));
        }
        let kept = Row {
            epoch: row.epoch,
            ..Row::default()
        };
        self.set_row(partition, kept)?;
        let place = place(partition);
        self.extents.remove(place)?;
        self.batches.remove(place)?;
        let (tenant, number) = place;
        let named = (tenant, number, "")..(tenant, number + 1, "");
        self.sessions.retain_in(named.clone(), |_, _| false)?;
        self.additions.retain_in(named.clone(), |_, _| false)?;
        self.subscriptions.retain_in(named.clone(), |_, _| false)?;
        self.uses.retain_in(named, |_, _| false)?;
        let sent = (tenant, number, "", "")..(tenant, number + 1, "", "");
        self.sends.retain_in(sent, |_, _| false)?;
        self.log
            .retain_in((tenant, number, 0)..=(tenant, number, u64::MAX), |_, _| {
                false
            })?;
        Ok(Ok(()))
    }
}

/// [`crate::store::Store::enrolled`].
pub(in super::super) fn enrolled(
    transaction: &ReadTransaction,
) -> Step<Vec<(TenantId, TenantLayout)>> {
    let Some(tenants) = written(transaction.open_table(TENANTS))? else {
        return Ok(Vec::new());
    };
    let mut enrolled = Vec::new();
    for entry in tenants.iter()? {
        let (tenant, layout) = entry?;
        enrolled.push((TenantId::new(tenant.value()), layout_of(layout.value())));
    }
    Ok(enrolled)
}

const fn layout_of((partitions, sdk_app_id): (u16, u32)) -> TenantLayout {
    TenantLayout {
        partitions,
        sdk_app_id,
    }
}
