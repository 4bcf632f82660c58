//! Has the store note who logged in by signature, a little later and never on the way of a login, and shows what tenants
//! use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{Instrument as _, info_span, warn};

use crate::runtime::handle::Gateway;
use crate::runtime::registry::TenantSessions;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::{Store, StoreError};
use crate::tenants::metrics::{DAILY_ACTIVE_FAILURES, Series, Usage};
use crate::tenants::quotas::{Noted, Quotas};
use crate::types::{Day, TenantId, WallClock};

/// How often what waits is noted.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How often the store is asked how many there are, and what tenants use is shown.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The most accounts that are noted at once.
const AT_ONCE: usize = 500;
/// How long noting may take when the program stops.
const LAST: Duration = Duration::from_secs(1);

struct Keeper {
    store: Arc<dyn Store>,
    gateway: Gateway,
    series: Series,
}

/// Starts it; it ends when `tasks` are told to stop, with what waits noted if the store takes it at once.
pub fn start(gateway: Gateway, store: Arc<dyn Store>, tasks: &Tasks) {
    let mut keeper = Keeper {
        store,
        gateway,
        series: Series::default(),
    };
    let stop = tasks.clone();
    let keeping = async move {
        let mut turns = tokio::time::interval(NOTE_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = Instant::now();
        loop {
            let turn = async {
                turns.tick().await;
                let look = look_at <= Instant::now();
                if look {
                    look_at = Instant::now() + LOOK_EVERY;
                }
                keeper.pass(look).await;
            };
            tokio::select! {
                biased;
                () = stop.stopping() => break,
                () = turn => {}
            }
        }
        // What is not noted now is lost with the process.
        let _late = tokio::time::timeout(LAST, keeper.pass(false)).await;
    };
    let span = info_span!("usage");
    tasks.spawn("usage", TaskKind::Work, keeping.instrument(span));
}

impl Keeper {
    /// Notes what waits; when it is time for a `look`, asks also of tenants of which nothing waits.
    async fn pass(&mut self, look: bool) {
        let tenants = self.gateway.tenants();
        for sessions in &tenants {
            let tenant = &sessions.tenant;
            if let Err(error) = self.note(&tenant.quotas, look).await {
                counter!(DAILY_ACTIVE_FAILURES, "reason" => "store").increment(1);
                warn!(tenant = %tenant.id, %error, "active accounts are not noted now; they will be later");
                // The tenants share a store.
                break;
            }
        }
        if look {
            let today = WallClock.now().day();
            let usage = |sessions: &Arc<TenantSessions>| {
                let tenant = &sessions.tenant;
                let daily = tenant.quotas.daily_active(today);
                let usage = Usage {
                    sessions: sessions.running_count(),
                    subscribers: tenant.quotas.subscribers(),
                    daily_active: daily.used,
                    daily_active_limit: daily.limit.unwrap_or_default(),
                };
                (tenant.id.clone(), usage)
            };
            let all: BTreeMap<TenantId, Usage> = tenants.iter().map(usage).collect();
            self.series.show(&all);
        }
    }

    async fn note(&self, quotas: &Quotas, look: bool) -> Result<(), StoreError> {
        let mut asked = false;
        while let Some(waiting) = quotas.to_note(AT_ONCE) {
            let mut noting = Noting {
                quotas,
                waiting: Some(waiting),
            };
            if let Some(noted) = &noting.waiting {
                let (day, accounts) = (noted.day, &noted.accounts);
                let count = self
                    .store
                    .note_active(quotas.tenant(), day, accounts)
                    .await?;
                known(quotas, day, count);
                quotas.noted(noted);
                asked |= day == WallClock.now().day();
            }
            noting.waiting = None;
        }
        if look && !asked {
            let today = WallClock.now().day();
            let count = self.store.note_active(quotas.tenant(), today, &[]).await?;
            known(quotas, today, count);
        }
        Ok(())
    }
}

/// Accounts on their way to the store. Those that do not come through wait again, whatever ended it.
struct Noting<'a> {
    quotas: &'a Quotas,
    waiting: Option<Noted>,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.quotas.not_noted(waiting);
        }
    }
}

fn known(quotas: &Quotas, day: Day, count: u64) {
    if quotas.active_known(day, count, WallClock.now().day()) {
        warn!(
            tenant = %quotas.tenant(),
            count,
            limit = quotas.limits().daily_active_users,
            "the tenant comes near limits.daily_active_users"
        );
    }
}
