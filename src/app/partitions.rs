//! All partitions of this replica: their writers, the sessions above them, and who keeps their leases.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, info_span};

use super::parts;
use crate::cluster::ownership::{Keeper, Ownership, Reach};
use crate::config::Config;
use crate::events::canary;
use crate::events::hub::Hub;
use crate::events::log::{LogOptions, LogWriter};
use crate::events::upkeep::Kept;
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::Tenant;
use crate::store::seal::Sealer;
use crate::store::{Lease, Store};
use crate::types::PartitionId;

/// What holds partitions, and what looks after them.
pub(super) struct Partitions {
    pub(super) gateway: Gateway,
    /// Who keeps the leases; see [`keep_leases`].
    pub(super) keeper: Ownership,
    /// True once every partition of the tenants is held.
    pub(super) complete: watch::Receiver<bool>,
    /// The canary's.
    pub(super) canary: Partition,
    /// Those of the tenants.
    pub(super) kept: Vec<Kept>,
}

/// A partition with its writer.
pub(super) struct Partition {
    pub(super) partition: PartitionId,
    pub(super) lease: watch::Receiver<Option<Lease>>,
    pub(super) writer: LogWriter,
}

/// Starts writers, and gathers who keeps their leases.
struct Writers<'a> {
    store: &'a Arc<dyn Store>,
    hub: &'a Hub,
    tasks: &'a Tasks,
    fenced: mpsc::Sender<PartitionId>,
    keepers: HashMap<PartitionId, Keeper>,
}

impl Partitions {
    /// Starts the writers of all partitions, and prepares who keeps their leases.
    pub(super) fn start(
        config: &Config,
        tenants: Vec<Arc<Tenant>>,
        store: &Arc<dyn Store>,
        hub: &Hub,
        sealer: &Arc<Sealer>,
        tasks: &Tasks,
    ) -> Self {
        let of_tenants = tenants.iter().map(|tenant| usize::from(tenant.partitions));
        let count = of_tenants.sum::<usize>() + 1;
        // Each partition reports once for an epoch.
        let (fenced, fenced_reports) = mpsc::channel(count * 2);
        let mut writers = Writers {
            store,
            hub,
            tasks,
            fenced,
            keepers: HashMap::new(),
        };
        let canary = canary::partition(&config.replica_id);
        let canary = writers.start(canary, canary::log_options());
        let mut kept = Vec::new();
        let mut with_writers = Vec::new();
        for (tenant, config) in tenants.into_iter().zip(&config.tenants) {
            let options = parts::log_options(&config.log, sealer);
            let mut of_tenant = Vec::new();
            for number in 0..tenant.partitions {
                let partition = PartitionId {
                    tenant: tenant.id.clone(),
                    number,
                };
                let started = writers.start(partition, options.clone());
                of_tenant.push(started.writer);
                kept.push(Kept {
                    partition: started.partition,
                    lease: started.lease,
                    expiry: config.log.subscription_expiry,
                });
            }
            with_writers.push((tenant, of_tenant));
        }
        // Sessions stop before the writers do, by Gateway::stop.
        let gateway = Gateway::new(with_writers, Arc::clone(store), &Tasks::new());
        let (complete, completed) = watch::channel(false);
        let keeper = Ownership {
            store: Arc::clone(store),
            replica: config.replica_id.clone(),
            ttl: config.store.lease_ttl,
            gateway: gateway.clone(),
            partitions: writers.keepers,
            unsure: HashSet::new(),
            fenced: fenced_reports,
            complete,
            reach: Reach::default(),
        };
        Self {
            gateway,
            keeper,
            complete: completed,
            canary,
            kept,
        }
    }
}

impl Writers<'_> {
    fn start(&mut self, partition: PartitionId, options: LogOptions) -> Partition {
        let (keeper, lease) = watch::channel(None);
        let writer = LogWriter::start(
            partition.clone(),
            Arc::clone(self.store),
            lease.clone(),
            self.hub.clone(),
            self.fenced.clone(),
            options,
            self.tasks,
        );
        let keeper = Keeper::new(keeper, writer.written());
        self.keepers.insert(partition.clone(), keeper);
        Partition {
            partition,
            lease,
            writer,
        }
    }
}

/// Has the leases kept until `tasks` stop, and given back then.
pub(super) fn keep_leases(mut keeper: Ownership, tasks: &Tasks) {
    let stop = tasks.clone();
    let keeping = async move {
        keeper.run(&stop).await;
        keeper.release().await;
    };
    tasks.spawn(
        "ownership",
        TaskKind::Critical,
        keeping.instrument(info_span!("ownership")),
    );
}
