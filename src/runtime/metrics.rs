//! The metrics of sessions. Labels are closed lists; an account is never one.

use std::future::Future;
use std::sync::Arc;

use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::session::state::Phase;

/// Sessions on this replica by state.
pub const SESSIONS: &str = "imgate_session_sessions";
/// Sessions here that connect, by what they wait for.
pub const CONNECTS: &str = "imgate_session_connects";
/// Upstream logins by credential and outcome.
pub const LOGINS: &str = "imgate_session_logins_total";
/// Signatures made or received after the first.
pub const RENEWALS: &str = "imgate_session_renewals_total";
/// Connections lost.
pub const CONNECTIONS_LOST: &str = "imgate_session_connections_lost_total";
/// Kicks by another login.
pub const KICKS: &str = "imgate_session_kicks_total";
/// Sessions that stopped until the bot acts.
pub const PARKED: &str = "imgate_session_parked_total";
/// Events that upstreams brought.
pub const EVENTS_IN: &str = "imgate_session_events_in_total";
/// Frames that could not be read.
pub const BAD_FRAMES: &str = "imgate_session_bad_frames_total";
/// Commands sent upstream for bots, by kind and outcome.
pub const COMMANDS: &str = "imgate_session_commands_total";
/// Sends that repeated a client message ID, by what became of them.
pub const REPEATED_SENDS: &str = "imgate_session_repeated_sends_total";
/// Events that were given up because the store was away for too long.
pub const NOTICES_DROPPED: &str = "imgate_session_notices_dropped_total";
/// Turns to connect that were given out, by who gave them.
pub const CONNECT_TURNS: &str = "imgate_session_connect_turns_total";
/// Records that could not be read.
pub const CORRUPT_RECORDS: &str = "imgate_session_corrupt_records_total";
/// Records sealed anew under the active key, by outcome.
pub const RESEALS: &str = "imgate_session_reseals_total";
/// Records that still are to be sealed anew.
pub const RESEALS_PENDING: &str = "imgate_session_reseals_pending";

/// Declares the metrics and starts them at zero.
pub fn describe_metrics() {
    describe_gauge!(SESSIONS, Unit::Count, "Sessions on this replica, by state");
    describe_gauge!(
        CONNECTS,
        Unit::Count,
        "Sessions that connect upstream, by what they wait for"
    );
    describe_counter!(
        LOGINS,
        Unit::Count,
        "Upstream logins, by credential and outcome"
    );
    describe_counter!(
        RENEWALS,
        Unit::Count,
        "Signatures after the first, by outcome"
    );
    describe_counter!(
        CONNECTIONS_LOST,
        Unit::Count,
        "Upstream connections lost or not made"
    );
    describe_counter!(KICKS, Unit::Count, "Sessions that another login kicked");
    describe_counter!(
        PARKED,
        Unit::Count,
        "Sessions that stopped until the bot acts"
    );
    describe_counter!(EVENTS_IN, Unit::Count, "Events that upstreams brought");
    describe_counter!(
        BAD_FRAMES,
        Unit::Count,
        "Upstream frames that could not be read"
    );
    describe_counter!(
        COMMANDS,
        Unit::Count,
        "Commands sent upstream for bots, by outcome"
    );
    describe_counter!(
        REPEATED_SENDS,
        Unit::Count,
        "Sends that repeated a client message ID, by outcome"
    );
    describe_counter!(
        NOTICES_DROPPED,
        Unit::Count,
        "Notices given up while the store was away"
    );
    describe_counter!(
        CORRUPT_RECORDS,
        Unit::Count,
        "Stored sessions that cannot be read"
    );
    describe_reseals();
    describe_counter!(
        CONNECT_TURNS,
        Unit::Count,
        "Turns to connect upstream, of the fleet's rate or of this replica's share while the store is away"
    );
    crate::runtime::issuer::metrics::describe_metrics();
    start_at_zero();
}

fn start_at_zero() {
    for phase in Phase::ALL {
        gauge!(SESSIONS, "state" => phase.label()).set(0.0);
    }
    for stage in ["place", "turn", "dial"] {
        gauge!(CONNECTS, "stage" => stage).set(0.0);
    }
    for credential in ["signature", "ticket"] {
        for outcome in ["accepted", "refused"] {
            counter!(LOGINS, "credential" => credential, "outcome" => outcome).absolute(0);
        }
    }
    for source in ["fleet", "own_share"] {
        counter!(CONNECT_TURNS, "source" => source).absolute(0);
    }
    for outcome in ["ok", "failed"] {
        counter!(RENEWALS, "outcome" => outcome).absolute(0);
    }
    for outcome in ["ok", "refused", "unanswered"] {
        counter!(COMMANDS, "outcome" => outcome).absolute(0);
    }
    for outcome in ["joined", "answered", "sent_again", "unknown"] {
        counter!(REPEATED_SENDS, "outcome" => outcome).absolute(0);
    }
    let plain = [
        CONNECTIONS_LOST,
        KICKS,
        PARKED,
        EVENTS_IN,
        BAD_FRAMES,
        NOTICES_DROPPED,
        CORRUPT_RECORDS,
    ];
    for name in plain {
        counter!(name).absolute(0);
    }
}

fn describe_reseals() {
    describe_counter!(
        RESEALS,
        Unit::Count,
        "Records sealed anew under the active key, by outcome"
    );
    describe_gauge!(
        RESEALS_PENDING,
        Unit::Count,
        "Records here that are still under another key than the active one"
    );
    for outcome in ["ok", "failed"] {
        counter!(RESEALS, "outcome" => outcome).absolute(0);
    }
    gauge!(RESEALS_PENDING).set(0.0);
}

/// How many sessions there are in each state. Found once: a session that resumes moves three times.
#[derive(Debug)]
pub(super) struct SessionGauges([Gauge; Phase::ALL.len()]);

impl SessionGauges {
    pub(super) fn new() -> Arc<Self> {
        let gauge = |phase: Phase| gauge!(SESSIONS, "state" => phase.label());
        Arc::new(Self(Phase::ALL.map(gauge)))
    }

    fn add(&self, phase: Phase, count: f64) {
        let mut gauges = Phase::ALL.into_iter().zip(&self.0);
        if let Some((_, gauge)) = gauges.find(|(of, _)| *of == phase) {
            gauge.increment(count);
        }
    }
}

/// Counts one session in its present state; gone when dropped.
#[derive(Debug)]
pub(super) struct SessionGauge {
    gauges: Arc<SessionGauges>,
    phase: Phase,
}

impl SessionGauge {
    pub(super) fn new(gauges: Arc<SessionGauges>, phase: Phase) -> Self {
        gauges.add(phase, 1.0);
        Self { gauges, phase }
    }

    pub(super) fn move_to(&mut self, phase: Phase) {
        if phase != self.phase {
            self.gauges.add(self.phase, -1.0);
            self.gauges.add(phase, 1.0);
            self.phase = phase;
        }
    }
}

impl Drop for SessionGauge {
    fn drop(&mut self) {
        self.gauges.add(self.phase, -1.0);
    }
}

/// How many sessions wait at each stage of connecting.
#[derive(Debug)]
pub(super) struct ConnectGauges {
    pub(super) place: Gauge,
    pub(super) turn: Gauge,
    pub(super) dial: Gauge,
}

impl ConnectGauges {
    pub(super) fn new() -> Self {
        Self {
            place: gauge!(CONNECTS, "stage" => "place"),
            turn: gauge!(CONNECTS, "stage" => "turn"),
            dial: gauge!(CONNECTS, "stage" => "dial"),
        }
    }
}

/// Counts one at a gauge; gone when dropped.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn at(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Counts one at the gauge for as long as the future is waited for.
pub(super) async fn counted<F: Future>(gauge: &Gauge, waiting: F) -> F::Output {
    let _one = Counted::at(gauge.clone());
    waiting.await
}
