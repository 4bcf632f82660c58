//! All partitions of this replica: their writers, the sessions above them, and who keeps their leases. Tenants come and
//! go while the others live on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, info_span};

use super::parts::Pacers;
use super::{AppError, parts};
use crate::cluster::ownership::{Change, Keeper, Ownership, Reach};
use crate::config::{self, Config};
use crate::events::canary::{self, Canary};
use crate::events::hub::Hub;
use crate::events::log::{LogOptions, LogWriter};
use crate::events::service::Events;
use crate::events::upkeep::Kept;
use crate::runtime::handle::Gateway;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::runtime::tenant::Tenant;
use crate::store::seal::Sealer;
use crate::store::{Lease, Store};
use crate::types::{PartitionId, TenantId};

/// How many reports of refused leases may wait for the keeper. Full: the writer that reports, which writes nothing more
/// until then, waits.
const FENCED: usize = 1024;
/// How long the sessions of a tenant that is removed may take to log out.
const LOG_OUT_WITHIN: Duration = Duration::from_secs(30);

/// Who keeps the lease of a partition, and tells its writer.
type Keepers = HashMap<PartitionId, Keeper>;

/// What holds partitions.
#[derive(Debug)]
pub(super) struct Partitions {
    store: Arc<dyn Store>,
    hub: Hub,
    sealer: Arc<Sealer>,
    tasks: Tasks,
    gateway: Gateway,
    fenced: mpsc::Sender<PartitionId>,
    ownership: mpsc::Sender<Change>,
    /// Those of the tenants, for the upkeep of their subscriptions.
    kept: watch::Sender<Vec<Kept>>,
}

/// What looks after the partitions that there are at the start.
pub(super) struct Started {
    /// Who keeps the leases; see [`keep_leases`].
    pub(super) keeper: Ownership,
    /// True once every partition of the tenants is held.
    pub(super) complete: watch::Receiver<bool>,
    /// The canary's.
    pub(super) canary: Partition,
    /// Those of the tenants, as they come and go.
    pub(super) kept: watch::Receiver<Vec<Kept>>,
}

/// A partition with its writer.
pub(super) struct Partition {
    pub(super) partition: PartitionId,
    pub(super) lease: watch::Receiver<Option<Lease>>,
    pub(super) writer: LogWriter,
}

impl Partition {
    /// The canary that goes through it.
    pub(super) fn canary(self, events: Events, every: Duration) -> Canary {
        Canary {
            partition: self.partition,
            lease: self.lease,
            writer: self.writer,
            events,
            every,
        }
    }
}

impl Partitions {
    /// Starts the writers of all partitions, and prepares who keeps their leases.
    pub(super) fn start(
        config: &Config,
        store: &Arc<dyn Store>,
        hub: &Hub,
        sealer: &Arc<Sealer>,
        pacers: &Pacers,
        tasks: &Tasks,
    ) -> Result<(Self, Started), AppError> {
        let (fenced, fenced_reports) = mpsc::channel(FENCED);
        let (ownership, changes) = mpsc::channel(1);
        let (kept, keep_up) = watch::channel(Vec::new());
        let partitions = Self {
            store: Arc::clone(store),
            hub: hub.clone(),
            sealer: Arc::clone(sealer),
            tasks: tasks.clone(),
            // Sessions stop before the writers do, by Gateway::stop.
            gateway: Gateway::new(Vec::new(), Arc::clone(store), &Tasks::new()),
            fenced,
            ownership,
            kept,
        };
        let mut keepers = Keepers::new();
        let canary = canary::partition(&config.replica_id);
        let canary = partitions.writer(canary, canary::log_options(), &mut keepers);
        for tenant in &config.tenants {
            let runtime = parts::runtime_tenant(config, tenant, sealer, pacers)?;
            keepers.extend(partitions.open(tenant, runtime));
        }
        let (complete, completed) = watch::channel(false);
        let keeper = Ownership {
            store: Arc::clone(store),
            replica: config.replica_id.clone(),
            ttl: config.store.lease_ttl,
            gateway: partitions.gateway.clone(),
            partitions: keepers,
            unsure: HashSet::new(),
            fenced: fenced_reports,
            changes,
            complete,
            reach: Reach::default(),
        };
        let started = Started {
            keeper,
            complete: completed,
            canary,
            kept: keep_up,
        };
        Ok((partitions, started))
    }

    /// The sessions of all tenants.
    pub(super) const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Takes a tenant in. `runtime` is what [`parts::runtime_tenant`] made of its configuration.
    pub(super) async fn add(&self, tenant: &config::Tenant, runtime: Arc<Tenant>) {
        let keepers = self.open(tenant, runtime);
        // Nobody listens while the program stops, and then nobody needs the partitions.
        let _stopping = self.ownership.send(Change::Hold(keepers)).await;
    }

    /// Logs a tenant's sessions out and gives its partitions back. What is stored of it stays.
    pub(super) async fn remove(&self, tenant: &TenantId) {
        self.gateway.remove(tenant, LOG_OUT_WITHIN).await;
        let mut gone = Vec::new();
        self.kept.send_modify(|kept| {
            let of_tenant = kept.extract_if(.., |kept| kept.partition.tenant == *tenant);
            gone.extend(of_tenant.map(|kept| kept.partition));
        });
        let (done, given_back) = oneshot::channel();
        let _stopping = self.ownership.send(Change::LetGo(gone, done)).await;
        // The answer is that there will be none.
        let _dropped = given_back.await;
    }

    /// Forgets the subscriptions of a tenant after another time without use.
    pub(super) fn set_expiry(&self, tenant: &TenantId, expiry: Duration) {
        self.kept.send_modify(|kept| {
            for kept in kept
                .iter_mut()
                .filter(|kept| kept.partition.tenant == *tenant)
            {
                kept.expiry = expiry;
            }
        });
    }

    /// Starts the writers of a tenant's partitions, and the sessions above them; answers who is to keep the leases.
    fn open(&self, tenant: &config::Tenant, runtime: Arc<Tenant>) -> Keepers {
        let options = parts::log_options(&tenant.log, &self.sealer);
        let (mut keepers, mut writers, mut more) = (Keepers::new(), Vec::new(), Vec::new());
        for number in 0..runtime.partitions {
            let partition = PartitionId {
                tenant: runtime.id.clone(),
                number,
            };
            let started = self.writer(partition, options.clone(), &mut keepers);
            writers.push(started.writer);
            more.push(Kept {
                partition: started.partition,
                lease: started.lease,
                expiry: tenant.log.subscription_expiry,
            });
        }
        self.gateway.add(runtime, writers);
        self.kept.send_modify(|kept| kept.append(&mut more));
        keepers
    }

    fn writer(
        &self,
        partition: PartitionId,
        options: LogOptions,
        keepers: &mut Keepers,
    ) -> Partition {
        let (keeper, lease) = watch::channel(None);
        let writer = LogWriter::start(
            partition.clone(),
            Arc::clone(&self.store),
            lease.clone(),
            self.hub.clone(),
            self.fenced.clone(),
            options,
            &self.tasks,
        );
        keepers.insert(partition.clone(), Keeper::new(keeper, writer.written()));
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
