//! What is left in memory of traffic: ordinary events on every session, then one large frame on every session, then silence.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Bench;
use crate::gateway::UNPACED;
use crate::memory::settled;
use crate::messages::{FRIEND, IN_LARGE_FRAME, large_frame_to, text_to};
use crate::row::{Better, Of, Row};
use crate::stage::Stage;
use crate::upstream::{Wire, account};

/// Ordinary events on each session.
const EVENTS: usize = 20;
/// When memory is looked at, after the last event.
const LOOKS: [u64; 2] = [5, 30];

/// KiB per session: idle, and at each look.
struct Round {
    idle: f64,
    after: [f64; 2],
}

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let of_wire = |wire| {
        let rounds: Vec<_> = bench.rounds().map(|_| round(bench, wire)).collect();
        rows(wire, &rounds)
    };
    Wire::BOTH.into_iter().flat_map(of_wire).collect()
}

fn rows(wire: Wire, rounds: &[Round]) -> [Row; 2] {
    [(0, 1.15), (1, 1.5)].map(|(look, reach)| {
        let (wire, seconds) = (wire.label(), LOOKS[look]);
        let what = format!("memory per session {seconds} s after a burst, {wire}");
        let after = rounds.iter().map(|round| round.after[look]).collect();
        let idle = rounds.iter().map(|round| round.idle).collect();
        Row::new("burst", what, "KiB", after)
            .floor("idle", idle)
            .goal(Of::Ratio, Better::Less, reach, None)
    })
}

fn round(bench: &Bench, wire: Wire) -> Round {
    let count = bench.size(10_000, 20);
    let mut stage = Stage::start(bench, wire, UNPACED);
    let none = settled(bench, &stage.gateway.process);
    stage.raise(count);
    let per_session =
        |stage: &Stage<'_>| (stage.gateway.process.resident_kib() - none) / count as f64;
    settled(bench, &stage.gateway.process);
    let idle = per_session(&stage);

    let control = &mut stage.upstream.control;
    control.post("/account", &format!("{{\"user_id\":\"{FRIEND}\"}}"));
    let everybody = |number| (0..count).map(move |bot| text_to(&account(bot), number));
    control.post_all("/message", (0..EVENTS).flat_map(everybody));
    stage.gateway.until_events(EVENTS * count);
    stage
        .upstream
        .control
        .post_all("/push", (0..count).map(|bot| large_frame_to(&account(bot))));
    stage
        .gateway
        .until_events((EVENTS + IN_LARGE_FRAME) * count);
    let last = Instant::now();
    let after = LOOKS.map(|seconds| {
        let at = last + Duration::from_secs(bench.size(seconds, 1));
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        per_session(&stage)
    });
    Round { idle, after }
}
