//! Random fates of sends, against an upstream that knows a double for five minutes: no message is sent twice, and
//! whoever is told of an outcome is told of the message that receivers have.

use proptest::prelude::*;

use super::*;

const IDS: [&str; 3] = ["a", "b", "c"];
/// How long the upstream knows a double.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// How long a frame may be on its way.
const WAY: Duration = Duration::from_secs(9);
/// Of a frame that nobody waits for any more.
const NOBODY: RequestId = RequestId(u64::MAX);

#[derive(Clone, Debug)]
enum Op {
    Ask(usize, u16),
    Wait(u16),
    /// What waits for the store is stored.
    Store,
    /// What waits for the store is given up, as when what is stored there cannot be read.
    StoreFails,
    /// The upstream gets a frame, and takes or refuses the message; the answer comes, or is lost.
    Arrive {
        which: usize,
        taken: bool,
        answered: bool,
    },
    /// A frame is lost.
    Lose(usize),
    /// The session gives up to wait for an answer.
    GiveUp(usize),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..IDS.len(), 1..400_u16).prop_map(|(id, within)| Op::Ask(id, within)),
        3 => prop_oneof![0..9_u16, 0..400_u16].prop_map(Op::Wait),
        6 => Just(Op::Store),
        1 => Just(Op::StoreFails),
        6 => (any::<usize>(), prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(which, taken, answered)| Op::Arrive { which, taken, answered }),
        1 => any::<usize>().prop_map(Op::Lose),
        2 => any::<usize>().prop_map(Op::GiveUp),
        1 => Just(Op::Crash),
    ]
}

/// A message that the upstream took.
#[derive(Debug)]
struct Taken {
    at: UnixMillis,
    /// When it was first asked for.
    asked: UnixMillis,
    message_id: String,
}

struct Frame {
    id: &'static str,
    request: RequestId,
    client_time: u64,
    /// Until when it may go out, after drops.
    until: std::time::Instant,
    /// It went out before on a connection that has ended.
    in_doubt: bool,
}

struct Life {
    talk: Talk,
    frames: Vec<Frame>,
    /// Requests that are waited for.
    open: Vec<RequestId>,
    callers: Vec<(&'static str, Waiting)>,
    taken: BTreeMap<&'static str, Vec<Taken>>,
}

impl Life {
    fn run(&mut self, op: &Op) {
        match op {
            Op::Ask(id, within) => {
                let within = u32::from(*within) * SECOND;
                let waiting = self.talk.send_text(IDS[*id], "hi", within);
                self.callers.push((IDS[*id], waiting));
            }
            Op::Wait(seconds) => self.talk.wait(u32::from(*seconds) * SECOND),
            Op::Store => self.talk.store(),
            Op::StoreFails => self.talk.lose_writes(),
            Op::Arrive {
                which,
                taken,
                answered,
            } => self.arrive(*which, *taken, *answered),
            Op::Lose(which) if !self.frames.is_empty() => {
                // It goes out again on the next connection.
                let which = which % self.frames.len();
                self.frames[which].in_doubt = true;
            }
            Op::GiveUp(which) if !self.open.is_empty() => {
                let request = self.open.remove(which % self.open.len());
                self.orphan(|frame| frame.request == request);
                self.talk.sends.unanswered(request);
                self.talk.steps();
            }
            Op::Lose(_) | Op::GiveUp(_) => {}
            Op::Crash => {
                self.talk.restart();
                self.orphan(|_| true);
                self.open.clear();
            }
        }
        self.collect();
    }

    /// Nobody waits for these frames any more; they may be on their way yet.
    fn orphan(&mut self, which: impl Fn(&Frame) -> bool) {
        for frame in self.frames.iter_mut().filter(|frame| which(frame)) {
            frame.until = frame.until.min(self.talk.now.at);
            frame.request = NOBODY;
        }
    }

    /// Takes over what went out, and listens to the answers.
    fn collect(&mut self) {
        for (request, client_time, left) in std::mem::take(&mut self.talk.frames) {
            let pending = &self.talk.sends.pending[&request];
            let id = IDS
                .into_iter()
                .find(|id| *id == pending.client_message_id)
                .unwrap();
            self.open.push(request);
            self.frames.push(Frame {
                id,
                request,
                client_time,
                until: self.talk.now.at + left,
                in_doubt: false,
            });
        }
        for (request, left) in std::mem::take(&mut self.talk.extended) {
            let mut frames = self.frames.iter_mut();
            if let Some(frame) = frames.find(|frame| frame.request == request && !left.is_zero()) {
                frame.until = frame.until.max(self.talk.now.at + left);
            }
        }
        let taken = &self.taken;
        self.callers
            .retain_mut(|(id, waiting)| match waiting.try_recv() {
                Ok(Ok(sent)) if sent.outcome.code == 0 => {
                    let all = taken.get(id).map_or(&[][..], Vec::as_slice);
                    assert!(
                        all.iter().any(|taken| taken.message_id == sent.message_id),
                        "{id} is told {sent:?} of {all:?}"
                    );
                    false
                }
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => false,
                Err(oneshot::error::TryRecvError::Empty) => true,
            });
    }

    fn arrive(&mut self, which: usize, taken: bool, answered: bool) {
        let now = self.talk.now;
        self.frames.retain(|frame| frame.until + WAY > now.at);
        if self.frames.is_empty() {
            return;
        }
        let which = which % self.frames.len();
        let frame = &mut self.frames[which];
        let all = self.taken.entry(frame.id).or_default();
        let known = all
            .last()
            .filter(|last| now.wall.since(last.at) < KNOWN_FOR)
            .map(|last| last.message_id.clone());
        let answer = match known {
            // The same message as before: the answer is made of what was sent.
            Some(_) => accepted(&format!("{}-{}", frame.id, frame.client_time)),
            None if taken => {
                let message_id = format!("{}-{}", frame.id, frame.client_time);
                all.push(Taken {
                    at: now.wall,
                    asked: UnixMillis::from_secs(frame.client_time),
                    message_id: message_id.clone(),
                });
                accepted(&message_id)
            }
            None => refused(),
        };
        if !answered && frame.until > now.at {
            // It goes out again on the next connection.
            frame.in_doubt = true;
            return;
        }
        let frame = self.frames.remove(which);
        let open = self.open.iter().position(|open| *open == frame.request);
        if answered && let Some(open) = open {
            self.open.remove(open);
            let in_doubt = frame.in_doubt;
            let answer = Answer { in_doubt, ..answer };
            self.talk.answer(frame.request, answer);
        }
    }

    fn check(&self) {
        for (id, all) in &self.taken {
            for pair in all.windows(2) {
                let apart = pair[1].at.since(pair[0].asked);
                assert!(
                    apart >= Duration::from_secs(600),
                    "{id} was sent twice: {all:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_is_sent_twice_and_every_outcome_told_is_true(ops in prop::collection::vec(op(), 1..80)) {
        let mut life = Life {
            talk: Talk::new(),
            frames: Vec::new(),
            open: Vec::new(),
            callers: Vec::new(),
            taken: BTreeMap::new(),
        };
        for op in &ops {
            life.run(op);
            life.check();
        }
    }
}
