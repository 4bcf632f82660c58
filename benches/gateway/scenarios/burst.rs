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
/// Frames that are on their way at a time.
const LOT: usize = 250;
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

    stage
        .upstream
        .control
        .post("/account", &format!("{{\"user_id\":\"{FRIEND}\"}}"));
    let everybody = |number| (0..count).map(move |bot| text_to(&account(bot), number));
    let texts = (0..EVENTS).flat_map(everybody);
    push(&mut stage, "/message", texts, 0, 1);
    let frames = (0..count).map(|bot| large_frame_to(&account(bot)));
    push(&mut stage, "/push", frames, EVENTS * count, IN_LARGE_FRAME);
    let last = Instant::now();
    let after = LOOKS.map(|seconds| {
        let at = last + Duration::from_secs(bench.size(seconds, 1));
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        per_session(&stage)
    });
    Round { idle, after }
}

/// Has the upstream push frames of so many events each, lot by lot, as fast as the gateway takes them. `came` is how many
/// events have come before.
fn push(
    stage: &mut Stage<'_>,
    path: &str,
    frames: impl Iterator<Item = String>,
    mut came: usize,
    events: usize,
) {
    let mut frames = frames.peekable();
    while frames.peek().is_some() {
        let lot: Vec<_> = frames.by_ref().take(LOT).collect();
        came += lot.len() * events;
        stage.upstream.control.post_all(path, lot);
        stage.gateway.until_events(came);
    }
}
