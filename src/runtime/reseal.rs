//! Seals anew, in the background, what other keys than the active one have sealed.
//!
//! What is left to do is read from the store each time, record by record, so that it goes on where it was after a
//! restart, and what it says is true of what is stored. One record after the other is stored, and so many a second at
//! the most: whoever else writes is not kept waiting.
//!
//! What else the keys are used for: events of tenants that want them sealed, which only age out ([`sealed`]); and
//! cursors and page tokens, which callers hold, and which are good for as long as their key is there. What is remembered
//! of sends is not sealed and has no secrets.

mod progress;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::watch;
use tracing::{Instrument as _, info, info_span, warn};

use progress::Progress;

use crate::events::sealed::{self, OldEvents};
use crate::runtime::gateway::Gateway;
use crate::runtime::metrics as names;
use crate::runtime::record;
use crate::runtime::registry::TenantSessions;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::StoreError;
use crate::types::{AccountId, PartitionId};

pub use progress::{
    PartitionRotation, RotationReport, RotationState, RotationSummary, RotationWatch,
};

/// The least time between two records, so that there are no more than 200 a second.
const SPACING: Duration = Duration::from_millis(5);
/// How often a partition is gone through until what is left counts as failed.
const ROUNDS: usize = 3;
/// The pause while the store is away or full.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one record may take. A session that does not answer does not hold up the others.
const RECORD_WITHIN: Duration = Duration::from_secs(60);

/// The handle of the background task. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Resealing {
    requests: watch::Sender<u64>,
    progress: watch::Sender<Progress>,
}

struct Resealer {
    gateway: Gateway,
    progress: watch::Sender<Progress>,
}

impl Resealing {
    pub(super) fn new() -> Self {
        Self {
            requests: watch::channel(0).0,
            progress: watch::channel(Progress::default()).0,
        }
    }

    /// Starts the task; it ends when `tasks` are told to stop.
    pub(super) fn start(&self, gateway: Gateway, tasks: &Tasks) {
        let mut requests = self.requests.subscribe();
        let resealer = Resealer {
            gateway,
            progress: self.progress.clone(),
        };
        let stop = tasks.clone();
        let work = async move {
            while requests.changed().await.is_ok() {
                let number = *requests.borrow_and_update();
                resealer.pass(number).await;
            }
        };
        let until_stopped = async move {
            tokio::select! {
                biased;
                () = stop.stopping() => {}
                () = work => {}
            }
        };
        let span = info_span!("reseal");
        tasks.spawn("reseal", TaskKind::Work, until_stopped.instrument(span));
    }

    /// Asks for a pass that begins after this.
    pub(super) fn request(&self) -> u64 {
        let mut number = 0;
        self.requests.send_modify(|requests| {
            *requests += 1;
            number = *requests;
        });
        number
    }

    /// The store has lost something: maybe what an earlier pass has sealed anew. Without one there is nothing to look at.
    pub(super) fn look_again(&self) {
        if self.progress.borrow().number > 0 {
            self.request();
        }
    }

    /// Asks for one and watches it. The one that is under way began before, maybe with other keys.
    pub(super) fn watch(&self) -> RotationWatch {
        let progress = self.progress.subscribe();
        RotationWatch::new(self.request(), progress)
    }
}

impl Resealer {
    async fn pass(&self, number: u64) {
        let tenants = self.gateway.tenants();
        let Some(sealer) = tenants.first().map(|tenant| &tenant.tenant.sealer) else {
            self.progress.send_replace(Progress {
                number,
                finished: true,
                ..Progress::default()
            });
            return;
        };
        let all = tenants.iter().flat_map(|tenant| {
            (0..tenant.tenant.partitions).map(|number| PartitionId {
                tenant: tenant.tenant.id.clone(),
                number,
            })
        });
        self.progress.send_replace(Progress {
            number,
            active_key: sealer.active_key(),
            partitions: all
                .map(|place| (place, PartitionRotation::default()))
                .collect(),
            finished: false,
        });
        for tenant in &tenants {
            for number in 0..tenant.tenant.partitions {
                self.partition(tenant, number).await;
            }
        }
        self.progress
            .send_modify(|progress| progress.finished = true);
        let RotationSummary {
            active_key, sums, ..
        } = self.progress.borrow().summary();
        info!(
            active_key,
            resealed = sums.done,
            failed = sums.failed,
            old_events = sums.old_events,
            "the stored records are under the active key as far as they can be"
        );
    }

    async fn partition(&self, tenant: &Arc<TenantSessions>, number: u16) {
        let place = PartitionId {
            tenant: tenant.tenant.id.clone(),
            number,
        };
        self.note(&place, |rotation| rotation.state = RotationState::UnderWay);
        let rotated = self.records(tenant, &place).await;
        let events = self.old_events(tenant, &place).await;
        let state = match rotated.and_then(|state| Ok((state, events?))) {
            Ok((state, events)) => {
                let age = tenant.retain_age(number);
                self.note(&place, |rotation| {
                    rotation.old_events = events.events;
                    rotation.old_events_until = events.youngest.map(|at| at.plus(age));
                });
                state
            }
            Err(error) => {
                warn!(partition = %place, %error, "the partition cannot be read, and is not sealed anew");
                RotationState::Failed
            }
        };
        self.note(&place, |rotation| rotation.state = state);
    }

    /// Goes through the records of a partition until none is left, or until that is of no use.
    async fn records(
        &self,
        tenant: &Arc<TenantSessions>,
        place: &PartitionId,
    ) -> Result<RotationState, StoreError> {
        let mut done = 0;
        for round in 0..=ROUNDS {
            let old = self.old_records(tenant, place).await?;
            let left = u64::try_from(old.len()).unwrap_or(u64::MAX);
            self.note(place, |rotation| rotation.total = done + left);
            if old.is_empty() {
                gauge!(names::RESEALS_PENDING).set(0.0);
                return Ok(RotationState::Done);
            }
            if !tenant.holds(place.number) {
                return Ok(RotationState::Elsewhere);
            }
            if round == ROUNDS {
                self.note(place, |rotation| rotation.failed = left);
                counter!(names::RESEALS, "outcome" => "failed").increment(left);
                break;
            }
            for account in old {
                gauge!(names::RESEALS_PENDING).set(self.left(place) as f64);
                if self.record(tenant, &account).await {
                    done += 1;
                    counter!(names::RESEALS, "outcome" => "ok").increment(1);
                    self.note(place, |rotation| rotation.done = done);
                }
            }
        }
        Ok(RotationState::Failed)
    }

    /// Seals one record anew. True if that is stored.
    async fn record(&self, tenant: &Arc<TenantSessions>, account: &AccountId) -> bool {
        tokio::time::sleep(SPACING).await;
        // While the store is away nothing is given up, and nothing is put before what waits already.
        while tenant.accept().is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        let resealed = tenant.reseal(account, self.gateway.store());
        let reason = match tokio::time::timeout(RECORD_WITHIN, resealed).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it is not stored in time".to_owned(),
        };
        warn!(tenant = %tenant.tenant.id, %account, reason, "a record is not sealed anew");
        false
    }

    /// The accounts of a partition whose records are under other keys.
    async fn old_records(
        &self,
        tenant: &Arc<TenantSessions>,
        place: &PartitionId,
    ) -> Result<Vec<AccountId>, StoreError> {
        let stored = answered(|| self.gateway.store().sessions(place)).await?;
        let records = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        self.note(place, |rotation| rotation.records = records);
        let sealer = &tenant.tenant.sealer;
        let old = stored
            .into_iter()
            .filter(|stored| record::needs_reseal(sealer, &stored.record));
        Ok(old.map(|stored| stored.account).collect())
    }

    async fn old_events(
        &self,
        tenant: &Arc<TenantSessions>,
        place: &PartitionId,
    ) -> Result<OldEvents, StoreError> {
        let (store, sealer) = (self.gateway.store(), &tenant.tenant.sealer);
        answered(|| sealed::old_events(store, sealer, place)).await
    }

    /// How many records of a partition are to be done yet.
    fn left(&self, place: &PartitionId) -> u64 {
        let progress = self.progress.borrow();
        let rotation = progress.partitions.get(place);
        rotation.map_or(0, |rotation| rotation.total.saturating_sub(rotation.done))
    }

    fn note(&self, place: &PartitionId, change: impl FnOnce(&mut PartitionRotation)) {
        self.progress.send_modify(|progress| {
            if let Some(rotation) = progress.partitions.get_mut(place) {
                change(rotation);
            }
        });
    }
}

/// The store's answer, waited for while it is away.
async fn answered<T, F>(ask: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match ask().await {
            Err(StoreError::Unavailable(_) | StoreError::Full(_)) => {
                tokio::time::sleep(PAUSE).await;
            }
            answer @ (Ok(_) | Err(StoreError::Fenced { .. } | StoreError::Corrupt { .. })) => {
                return answer;
            }
        }
    }
}
