//! Random lives of a session: what must hold in all of them, and that they go as the reference says.
//!
//! The runner does not read the environment and keeps no files. A life that fails is printed: it is to be kept as
//! a named test that calls [`World::live`].

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm};

use super::model::{Model, Place};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Login(Option<Given>),
    RenewSignature(Given),
    Logout,
    Upstream(Word),
    /// What the issuer answers, or when it may be asked again, and whether it does not want to.
    Issuer(Result<Given, (Duration, bool)>),
    /// Time passes; timers fire. Whether the upstream answers heartbeats.
    Wait(Duration, bool),
    /// The next timer fires.
    Due,
    /// Everybody is of good will until nothing more happens by itself.
    Settle,
    /// The shell wakes without a cause.
    EarlyTimeout,
    WallJump(i64),
    /// The process dies, and another takes over after this long.
    Restart(Duration),
    Stop,
    LeaseLost,
    /// The operator sets who issues, when a signature is renewed, and what a kick leads to.
    Policy(Policy),
}

#[derive(Clone, Copy, Debug)]
enum Given {
    Fresh(Duration),
    Unreadable,
    Ended,
    InUse,
}

/// What comes from the socket, if there is one to come from.
#[derive(Clone, Copy, Debug)]
enum Word {
    Yes,
    No(Disposition),
    Traffic,
    Lost,
    Kick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    None,
    Dialling,
    Open,
}

/// The shell, the upstream and the issuer, and what they have seen.
#[derive(Debug)]
struct World {
    it: Harness,
    model: Model,
    socket: Socket,
    /// A login, or a logout, that the upstream owes an answer.
    login_out: bool,
    logout_out: bool,
    issue_out: bool,
    login_waits: bool,
    logout_waits: bool,
    last_signature_login: Option<Instant>,
    /// The wall clock went ahead since then, so a restart cannot know how long ago that was.
    jumped: bool,
    /// A logout was the bot's last word.
    told_to_leave: bool,
    kicked: bool,
    retakes: u32,
    names: u32,
    /// The delay of the last restart.
    restart_delay: Duration,
}

impl World {
    fn new(policy: Policy) -> Self {
        let it = Harness::new(policy);
        Self {
            model: Model::new(Arc::clone(&it.policy)),
            it,
            socket: Socket::None,
            login_out: false,
            logout_out: false,
            issue_out: false,
            login_waits: false,
            logout_waits: false,
            last_signature_login: None,
            jumped: false,
            told_to_leave: false,
            kicked: false,
            retakes: 0,
            names: 0,
            restart_delay: Duration::ZERO,
        }
    }

    /// Lives through the steps; panics where something is wrong.
    fn live(policy: Policy, steps: &[Step]) {
        let mut world = Self::new(policy);
        for step in steps {
            world.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Login(given) => {
                let given = given.and_then(|given| self.given(given));
                self.input(Input::Login(given));
            }
            Step::RenewSignature(given) => {
                if let Some(given) = self.given(*given) {
                    self.input(Input::RenewSignature(given));
                }
            }
            Step::Logout => self.input(Input::Logout),
            Step::Upstream(word) => self.upstream(*word),
            Step::Issuer(answer) => self.issuer(answer),
            Step::Wait(time, answering) => self.wait(*time, *answering),
            Step::Due => self.due(),
            Step::Settle => self.settle(),
            Step::EarlyTimeout => {
                let due = self.it.session.poll_timeout();
                if due.is_none_or(|(at, _)| at > self.it.now.at) {
                    let before = self.it.session.state().clone();
                    self.input(Input::Timeout);
                    assert_eq!(&before, self.it.session.state());
                    assert_eq!(due, self.it.session.poll_timeout());
                }
            }
            Step::WallJump(by) => {
                self.jumped |= *by > 0;
                self.it.now.wall = UnixMillis(self.it.now.wall.0.saturating_add_signed(*by));
            }
            Step::Restart(delay) => self.restart(*delay),
            Step::Stop => self.input(Input::Stop),
            Step::LeaseLost => self.input(Input::LeaseLost),
            Step::Policy(policy) => {
                self.it.policy = Arc::new(policy.clone());
                self.input(Input::Policy(Arc::clone(&self.it.policy)));
            }
        }
    }

    fn given(&mut self, given: Given) -> Option<Signature> {
        self.names += 1;
        let name = format!("s{}", self.names);
        match given {
            Given::Fresh(life) => Some(self.it.signature(&name, life)),
            Given::Unreadable => Some(Signature {
                text: Secret::new(name),
                life: None,
            }),
            Given::Ended => Some(self.it.ended_signature(&name)),
            Given::InUse => self.it.session.durable().signature.clone(),
        }
    }

    fn upstream(&mut self, word: Word) {
        let input = match (self.socket, word) {
            (Socket::None, _) => return,
            (_, Word::Lost) => lost(),
            (Socket::Dialling, Word::Yes) => {
                self.socket = Socket::Open;
                Input::Connected
            }
            (Socket::Dialling, _) => return,
            (Socket::Open, Word::Kick) => kicked(),
            (Socket::Open, Word::Traffic) => Input::Traffic,
            (Socket::Open, Word::Yes) if self.login_out => {
                self.login_out = false;
                Input::Accepted
            }
            (Socket::Open, Word::Yes) if self.logout_out => Input::LoggedOut,
            (Socket::Open, Word::Yes) => Input::Traffic,
            (Socket::Open, Word::No(disposition)) if self.login_out => {
                Input::Refused(refusal(70000, disposition))
            }
            (Socket::Open, Word::No(Disposition::ForgetTicket)) => expired_20002(),
            (Socket::Open, Word::No(_)) => expired_70001(),
        };
        self.input(input);
    }

    fn issuer(&mut self, answer: &Result<Given, (Duration, bool)>) {
        if !self.issue_out {
            return;
        }
        let input = match answer {
            Ok(given) => self.given(*given).map(Input::Renewed),
            Err((_, true)) => Some(issuer_refuses()),
            Err((retry_after, false)) => Some(issuer_failed(*retry_after)),
        };
        if let Some(input) = input {
            self.issue_out = false;
            self.input(input);
        }
    }

    fn wait(&mut self, time: Duration, answering: bool) {
        let target = self.it.now.at + time;
        while let Some((at, _)) = self.it.session.poll_timeout()
            && at <= target
        {
            self.it.skip(at.saturating_duration_since(self.it.now.at));
            self.fire();
            if answering && self.socket == Socket::Open {
                self.input(Input::Traffic);
            }
        }
        self.it
            .skip(target.saturating_duration_since(self.it.now.at));
    }

    fn due(&mut self) {
        if let Some((at, _)) = self.it.session.poll_timeout() {
            self.it.skip(at.saturating_duration_since(self.it.now.at));
            self.fire();
        }
    }

    fn settle(&mut self) {
        for _ in 0..12 {
            let waits = matches!(
                self.it.session.state(),
                State::BackingOff { .. } | State::Parked { .. }
            );
            if self.socket == Socket::Dialling || self.login_out || self.logout_out {
                self.upstream(Word::Yes);
            } else if self.issue_out {
                self.issuer(&Ok(Given::Fresh(10 * DAY)));
            } else if waits {
                self.due();
            }
        }
    }

    /// A timer fires, and does not have to fire again and again.
    fn fire(&mut self) {
        for _ in 0..4 {
            self.input(Input::Timeout);
            let due = self.it.session.poll_timeout();
            if due.is_none_or(|(at, _)| at > self.it.now.at) {
                return;
            }
        }
        panic!("a timer that does not go away: {:?}", self.it.session);
    }

    fn restart(&mut self, delay: Duration) {
        self.it.restart(delay);
        self.model.restart(self.it.now, &self.it.record, delay);
        self.restart_delay = delay;
        self.socket = Socket::None;
        self.login_out = false;
        self.logout_out = false;
        self.issue_out = false;
        self.login_waits = false;
        self.logout_waits = false;
        if self.jumped {
            self.last_signature_login = None;
        }
        self.compare();
    }

    /// Hands the machine and the reference an input, and judges what the machine does.
    fn input(&mut self, input: Input) {
        let now = self.it.now;
        let before = self.it.session.state().clone();
        let signature_before = self.it.session.durable().signature.clone();
        let mut effects = Vec::new();
        self.it.session.handle(now, input.clone(), &mut effects);
        if effects.contains(&Effect::Save) {
            self.it.record = self.it.session.durable().clone();
        }
        self.bookkeeping_of_bot(&input, &before);
        for effect in &effects {
            self.run(effect);
        }
        if effects.contains(&Effect::Connect) {
            let fresh = self.it.session.durable().signature != signature_before;
            self.may_dial(&input, &before, fresh);
        }
        self.may_do_at_all(&input, &before, &effects);
        self.model.issuing = self.issue_out;
        let expected = self.model.step(now, &input);
        let did: Vec<String> = effects.iter().filter_map(in_the_models_words).collect();
        assert_eq!(did, expected, "{input:?} in {before:?}");
        if self.model.place == Place::Waiting && self.model.until.is_none() {
            self.model.until = self.it.session.poll_timeout().map(|(at, _)| at);
        }
        self.compare();
        self.lives_on();
    }

    fn bookkeeping_of_bot(&mut self, input: &Input, before: &State) {
        let closed = *before == State::Closed;
        if let (Input::Login(_), false) = (input, closed) {
            self.login_waits = true;
            self.told_to_leave = false;
            self.kicked = false;
            self.retakes = 0;
        }
        if let (Input::Logout, false) = (input, closed) {
            self.logout_waits = true;
            self.told_to_leave = true;
        }
    }

    /// Runs an effect as the shell does: what the shell could not do is wrong.
    fn run(&mut self, effect: &Effect) {
        let state = self.it.session.state();
        match effect {
            Effect::Connect => {
                assert_eq!(self.socket, Socket::None, "a second socket");
                self.socket = Socket::Dialling;
            }
            Effect::LogIn(credential) => {
                assert_eq!(self.socket, Socket::Open);
                assert!(!self.login_out, "a second login in flight");
                self.login_out = true;
                if let Credential::Signature(_) = credential {
                    let last = self.last_signature_login.replace(self.it.now.at);
                    self.jumped = false;
                    let spacing = self.it.policy.login_spacing;
                    assert!(last.is_none_or(|last| self.it.now.at >= last + spacing));
                }
            }
            Effect::LogOut => {
                assert_eq!(self.socket, Socket::Open);
                self.logout_out = true;
            }
            Effect::Heartbeat => assert_eq!(self.socket, Socket::Open),
            Effect::CloseSocket => {
                self.socket = Socket::None;
                self.login_out = false;
                self.logout_out = false;
            }
            Effect::RenewSignature { .. } => {
                assert!(self.it.policy.can_issue && !self.issue_out, "asked twice");
                self.issue_out = true;
            }
            Effect::ForgetRenewal => {
                assert!(self.issue_out);
                self.issue_out = false;
            }
            Effect::AnswerLogin(answer) => {
                let online = matches!(state, State::Online { .. });
                assert_eq!(*answer == LoginAnswer::success(), online, "{answer:?}");
                self.login_waits = false;
            }
            Effect::AnswerLogout => self.logout_waits = false,
            Effect::Tell(Notice::Kicked { .. }) => self.kicked = true,
            Effect::Tell(Notice::Changed | Notice::SignatureExpired { .. })
            | Effect::ForgetTicket
            | Effect::Save => {}
        }
    }

    /// Only after a back-off, on a command, or for a fresh signature.
    fn may_dial(&mut self, input: &Input, before: &State, fresh: bool) {
        let now = self.it.now.at;
        let backed_off = matches!(before, State::BackingOff { until, .. } if *until <= now);
        let retaken = matches!(before, State::Parked { retake_at: Some(at), .. } if *at <= now);
        let command = matches!(input, Input::Login(_) | Input::RenewSignature(_));
        let after_logout = matches!(before, State::LoggingOut { .. });
        assert!(
            backed_off || retaken || command || after_logout || fresh,
            "{input:?} in {before:?}"
        );
        if std::mem::take(&mut self.kicked) {
            self.retakes += 1;
            let allowed = match self.it.policy.kick {
                KickPolicy::Yield => 0,
                KickPolicy::Retake { .. } => 1,
            };
            assert!(self.retakes <= allowed, "{input:?} in {before:?}");
        }
    }

    /// Nothing after the lease is lost, and nothing but the leaving after a logout.
    fn may_do_at_all(&self, input: &Input, before: &State, effects: &[Effect]) {
        if *before == State::Closed {
            assert_eq!(effects, []);
        }
        if *input == Input::LeaseLost && *before != State::Closed {
            assert_eq!(effects, [Effect::CloseSocket]);
        }
        if self.told_to_leave {
            assert!(effects.iter().all(|effect| matches!(
                effect,
                Effect::LogOut
                    | Effect::CloseSocket
                    | Effect::ForgetRenewal
                    | Effect::ForgetTicket
                    | Effect::Save
                    | Effect::Tell(Notice::Changed)
                    | Effect::AnswerLogin(_)
                    | Effect::AnswerLogout
            )));
        }
    }

    /// The machine stands where the reference does, and what must outlive it is stored.
    fn compare(&self) {
        let session = &self.it.session;
        assert_eq!(Place::of(session.state()), self.model.place);
        if self.model.place == Place::Gone {
            return;
        }
        assert_eq!(session.attempt(), self.model.attempt);
        let (held, stored) = (session.durable(), &self.it.record);
        assert_eq!(held.desired, self.model.desired);
        assert_eq!(held.desired, stored.desired);
        assert_eq!(held.parked, stored.parked);
        assert_eq!(held.signature, stored.signature);
        assert_eq!(held.last_login, stored.last_login);
        assert_eq!(held.retaken, stored.retaken);
        // A record that says logged out has no use for the ticket.
        assert!(!held.desired || held.has_ticket == stored.has_ticket);
        let parked = matches!(session.state(), State::Parked { .. });
        assert_eq!(held.parked.is_some(), parked);
    }

    /// Whoever waits is answered in the end, nothing wanted stands still, and no wait is without bound.
    fn lives_on(&self) {
        let state = self.it.session.state();
        let due = self.it.session.poll_timeout();
        let owed = self.socket == Socket::Dialling || self.issue_out;
        let stopped = matches!(
            state,
            State::Parked { .. } | State::Closed | State::LoggedOut
        );
        assert!(stopped || due.is_some() || owed, "stands still: {state:?}");
        if *state == State::Closed {
            return;
        }
        let desired = self.it.session.durable().desired;
        let out = matches!(state, State::LoggedOut);
        let leaving = matches!(state, State::LoggingOut { .. });
        assert!(if desired { !out } else { out || leaving }, "{state:?}");
        if self.login_waits {
            assert!(!stopped && desired, "nobody answers the login: {state:?}");
            let for_bot = matches!(state, State::RenewingSignature { .. });
            assert!(!for_bot || self.it.session.awaits_issuer(), "{state:?}");
        }
        assert!(!self.logout_waits || matches!(state, State::LoggingOut { .. }));
        if let (State::BackingOff { until, .. }, policy) = (state, &self.it.policy) {
            let longest = (policy.backoff.max * 11).max(self.restart_delay);
            assert!(*until <= self.it.now.at + longest, "{state:?}");
        }
        if let (State::RenewingSignature { give_up_at }, Some((at, _))) = (state, due) {
            assert!(at <= *give_up_at && *give_up_at <= self.it.now.at + DAY);
        }
    }
}

/// What the reference has a word for.
fn in_the_models_words(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Save
        | Effect::Tell(_)
        | Effect::ForgetTicket
        | Effect::RenewSignature { .. }
        | Effect::ForgetRenewal => None,
        Effect::AnswerLogin(answer) => Some(match answer {
            LoginAnswer::Upstream { code: 0, .. } => "Answer(0)".into(),
            LoginAnswer::Upstream { .. }
            | LoginAnswer::SignatureRequired
            | LoginAnswer::IssuerUnavailable { .. }
            | LoginAnswer::IssuerRefused { .. } => "Answer(failed)".into(),
            LoginAnswer::Ended => "Answer(ended)".into(),
        }),
        Effect::Connect
        | Effect::LogIn(_)
        | Effect::LogOut
        | Effect::CloseSocket
        | Effect::Heartbeat
        | Effect::AnswerLogout => Some(show_effect(effect)),
    }
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        3 => seconds(1..4000).prop_map(Given::Fresh),
        3 => Just(Given::Fresh(10 * DAY)),
        2 => Just(Given::Unreadable),
        1 => Just(Given::Ended),
        1 => Just(Given::InUse),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        12 => Just(Word::Yes),
        3 => Just(Word::Traffic),
        3 => Just(Word::Lost),
        1 => Just(Word::Kick),
        2 => Just(Word::No(Disposition::Renew)),
        2 => Just(Word::No(Disposition::ForgetTicket)),
        2 => Just(Word::No(Disposition::Retry)),
        1 => seconds(1..2000).prop_map(|time| Word::No(Disposition::Throttle(time))),
        1 => Just(Word::No(Disposition::Park)),
        1 => Just(Word::No(Disposition::Kicked)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::option::of(given()).prop_map(Step::Login),
        3 => given().prop_map(Step::RenewSignature),
        3 => Just(Step::Logout),
        40 => word().prop_map(Step::Upstream),
        8 => given().prop_map(|given| Step::Issuer(Ok(given))),
        3 => seconds(0..4000).prop_map(|time| Step::Issuer(Err((time, false)))),
        1 => Just(Step::Issuer(Err((Duration::MAX, false)))),
        1 => Just(Step::Issuer(Err((Duration::ZERO, true)))),
        6 => (seconds(0..60), any::<bool>()).prop_map(|(time, yes)| Step::Wait(time, yes)),
        2 => (seconds(0..4000), any::<bool>()).prop_map(|(time, yes)| Step::Wait(time, yes)),
        20 => Just(Step::Due),
        10 => Just(Step::Settle),
        2 => Just(Step::EarlyTimeout),
        1 => (-100_000_000i64..100_000_000).prop_map(Step::WallJump),
        3 => seconds(0..30).prop_map(Step::Restart),
        1 => Just(Step::Stop),
        1 => Just(Step::LeaseLost),
        2 => (policy(), 1u32..9).prop_map(|(policy, tenths)| {
            let renew_at = f64::from(tenths) / 10.0;
            Step::Policy(Policy { renew_at, ..policy })
        }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let chances = (any::<bool>(), any::<bool>(), any::<bool>(), 1u32..4);
    chances.prop_map(|(can_issue, asks_bot, retake, bound)| Policy {
        can_issue,
        asks_bot,
        max_refused_signatures: bound,
        max_refused_resumes: bound,
        kick: if retake {
            KickPolicy::Retake { delay: 30 * SECOND }
        } else {
            KickPolicy::Yield
        },
        ..Policy::default()
    })
}

proptest! {
    #![proptest_config(Config {
        cases: 1000,
        max_shrink_iters: 4096,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        ..Config::default()
    })]

    #[test]
    fn every_life_keeps_the_guarantees(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        World::live(policy, &steps);
    }
}
