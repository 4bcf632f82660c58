//! Every cell of state and input. A cell that a table does not list changes nothing and asks for nothing.

use std::fmt::Write as _;

use super::*;

/// The states, and what within them matters to what an input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    LoggedOut,
    Connecting,
    ConnectingWithTicket,
    LoggingIn,
    Resuming,
    /// Accepted a moment ago.
    Fresh,
    Proven,
    /// Online with the next signature in hand.
    ProvenWithNext,
    /// Online, and the signature has ended by the clock.
    ProvenButEnded,
    BackingOff,
    RenewingSignature,
    LoggingOut,
    /// Logging out, and a login has come meanwhile.
    LoggingOutAndIn,
    Kicked,
    Retaking,
    Refused,
    GivenUp,
    Closed,
}

impl Spot {
    const ALL: [Self; 18] = [
        Self::LoggedOut,
        Self::Connecting,
        Self::ConnectingWithTicket,
        Self::LoggingIn,
        Self::Resuming,
        Self::Fresh,
        Self::Proven,
        Self::ProvenWithNext,
        Self::ProvenButEnded,
        Self::BackingOff,
        Self::RenewingSignature,
        Self::LoggingOut,
        Self::LoggingOutAndIn,
        Self::Kicked,
        Self::Retaking,
        Self::Refused,
        Self::GivenUp,
        Self::Closed,
    ];

    /// The inputs that lead here.
    fn reach(self, can_issue: bool) -> Harness {
        let kick = if self == Self::Retaking {
            KickPolicy::Retake { delay: 30 * SECOND }
        } else {
            KickPolicy::Yield
        };
        let mut it = Harness::new(Policy {
            can_issue,
            kick,
            ..Policy::default()
        });
        match self {
            Self::LoggedOut => {}
            Self::Connecting | Self::LoggingIn | Self::Fresh | Self::Refused => it.dial(),
            Self::ConnectingWithTicket
            | Self::Resuming
            | Self::Proven
            | Self::ProvenWithNext
            | Self::ProvenButEnded
            | Self::BackingOff
            | Self::RenewingSignature
            | Self::LoggingOut
            | Self::LoggingOutAndIn
            | Self::Kicked
            | Self::Retaking
            | Self::GivenUp
            | Self::Closed => it = it.online(),
        }
        let then = match self {
            Self::LoggedOut | Self::Connecting | Self::Proven => vec![],
            Self::LoggingIn => vec![Input::Connected],
            Self::Fresh => vec![Input::Connected, Input::Accepted],
            Self::Refused => vec![
                Input::Connected,
                Input::Refused(refusal(70009, Disposition::Park)),
            ],
            Self::ProvenWithNext => {
                vec![Input::RenewSignature(it.signature("next", 20 * DAY))]
            }
            Self::ProvenButEnded => {
                it.skip(10 * DAY);
                // The heartbeat is asked for and answered, then nothing else is due.
                vec![Input::Timeout, Input::Traffic]
            }
            Self::BackingOff | Self::ConnectingWithTicket | Self::Resuming => vec![lost()],
            Self::RenewingSignature | Self::GivenUp => vec![expired_70001()],
            Self::LoggingOut => vec![Input::Logout],
            Self::LoggingOutAndIn => vec![Input::Logout, Input::Login(None)],
            Self::Kicked | Self::Retaking => vec![kicked()],
            Self::Closed => vec![Input::LeaseLost],
        };
        for input in then {
            it.input(input);
        }
        if matches!(self, Self::ConnectingWithTicket | Self::Resuming) {
            it.due("next attempt", "Connect");
        }
        if self == Self::Resuming {
            it.input(Input::Connected);
        }
        if self == Self::GivenUp {
            it.skip(DAY);
            it.input(Input::Timeout);
        }
        it
    }
}

impl Harness {
    fn dial(&mut self) {
        let one = self.signature("one", 10 * DAY);
        self.input(Input::Login(Some(one)));
    }

    /// Every input, by name. "Due" is a timeout at the moment that the machine named.
    fn inputs(&self) -> Vec<(&'static str, Input)> {
        let refused = |code, disposition| Input::Refused(refusal(code, disposition));
        vec![
            ("Login()", Input::Login(None)),
            ("Login(two)", Input::Login(Some(self.signature("two", DAY)))),
            (
                "Login(ended)",
                Input::Login(Some(self.ended_signature("old"))),
            ),
            (
                "RenewSignature(two)",
                Input::RenewSignature(self.signature("two", DAY)),
            ),
            (
                "RenewSignature(ended)",
                Input::RenewSignature(self.ended_signature("old")),
            ),
            ("Logout", Input::Logout),
            ("Connected", Input::Connected),
            ("Accepted", Input::Accepted),
            ("Refused(renew)", refused(70001, Disposition::Renew)),
            (
                "Refused(forget ticket)",
                refused(20002, Disposition::ForgetTicket),
            ),
            ("Refused(retry)", refused(50001, Disposition::Retry)),
            (
                "Refused(throttle)",
                refused(70050, Disposition::Throttle(60 * SECOND)),
            ),
            ("Refused(park)", refused(70009, Disposition::Park)),
            ("Refused(kicked)", refused(1002, Disposition::Kicked)),
            ("LoggedOut", Input::LoggedOut),
            ("Traffic", Input::Traffic),
            ("Lost", lost()),
            ("Expired(renew)", expired_70001()),
            ("Expired(forget ticket)", expired_20002()),
            ("Kicked", kicked()),
            ("Renewed(two)", Input::Renewed(self.signature("two", DAY))),
            (
                "Renewed(ended)",
                Input::Renewed(self.ended_signature("old")),
            ),
            ("RenewalFailed", issuer_failed(Duration::ZERO)),
            ("RenewalFailed(refused)", issuer_refuses()),
            ("Policy(manual)", Input::Policy(Arc::default())),
            (
                "Policy(issuer)",
                Input::Policy(Arc::new(Policy {
                    can_issue: true,
                    ..Policy::default()
                })),
            ),
            ("Timeout", Input::Timeout),
            ("Due", Input::Timeout),
            ("Stop", Input::Stop),
            ("LeaseLost", Input::LeaseLost),
        ]
    }
}

/// The cells of one spot, one a line: state, input, state after it, effects.
fn cells(spot: Spot, can_issue: bool) -> Vec<String> {
    let mut cells = Vec::new();
    for (name, _) in spot.reach(can_issue).inputs() {
        let mut it = spot.reach(can_issue);
        let inputs = it.inputs();
        let (_, input) = inputs.into_iter().find(|(of, _)| *of == name).unwrap();
        if name == "Due" {
            if it.session.poll_timeout().is_none() {
                continue;
            }
            it.skip(it.until_due());
        }
        let before = it.state();
        let effects = it.input(input);
        let nothing = effects.is_empty() && it.state() == before;
        let effects = if nothing { NOTHING } else { &effects };
        let cell = format!("{spot:?} | {name:<22} | {:<24} | {effects}", it.state());
        cells.push(cell.trim_end().to_owned());
    }
    cells
}

#[track_caller]
fn compare(actual: &[String], table: &str) {
    let listed: Vec<String> = table
        .lines()
        .filter(|line| line.contains('|'))
        .map(squeeze)
        .collect();
    let mut wrong = String::new();
    for line in actual
        .iter()
        .filter(|line| !listed.contains(&squeeze(line)))
    {
        writeln!(wrong, "happens but is not listed: {line}").unwrap();
    }
    let actual: Vec<String> = actual.iter().map(|line| squeeze(line)).collect();
    for line in listed.iter().filter(|line| !actual.contains(line)) {
        writeln!(wrong, "listed but does not happen: {line}").unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_tenant_that_brings_its_signatures() {
    let actual: Vec<String> = Spot::ALL
        .into_iter()
        .flat_map(|spot| cells(spot, false))
        .filter(|cell| !cell.ends_with(NOTHING))
        .collect();
    compare(&actual, MANUAL);
}

/// Only the cells that an issuer changes.
#[test]
fn a_tenant_with_an_issuer() {
    let actual: Vec<String> = Spot::ALL
        .into_iter()
        .flat_map(|spot| {
            let manual = cells(spot, false);
            let mut issued = cells(spot, true);
            issued.retain(|cell| !manual.contains(cell));
            issued
        })
        .collect();
    compare(&actual, ISSUED);
}

const NOTHING: &str = "nothing";

const MANUAL: &str = "
LoggedOut | Login()                | LoggedOut                | Answer(no signature)
LoggedOut | Login(two)             | Connecting 0             | Connect, Save
LoggedOut | Login(ended)           | RenewingSignature        | Save, SignatureExpired(6206), Changed, Answer(6206)
LoggedOut | Logout                 | LoggedOut                | Answer(ended), AnswerLogout
LoggedOut | Stop                   | Closed                   | Close, Answer(ended)
LoggedOut | LeaseLost              | Closed                   | Close

Connecting | Login(two)             | Connecting 0             | Save
Connecting | RenewSignature(two)    | Connecting 0             | Save
Connecting | Logout                 | LoggedOut                | Close, Save, Changed, Answer(ended), AnswerLogout
Connecting | Connected              | LoggingIn 0 by signature | LogIn(one), Save
Connecting | Lost                   | BackingOff 1             | Close
Connecting | Renewed(two)           | Connecting 0             | Save
Connecting | Stop                   | Closed                   | Close, Answer(ended)
Connecting | LeaseLost              | Closed                   | Close

ConnectingWithTicket | Login(two)             | Connecting 1             | Save
ConnectingWithTicket | RenewSignature(two)    | Connecting 1             | Save
ConnectingWithTicket | Logout                 | LoggedOut                | Close, ForgetTicket, Save, Changed, Answer(ended), AnswerLogout
ConnectingWithTicket | Connected              | LoggingIn 1 by ticket    | LogIn(ticket)
ConnectingWithTicket | Lost                   | BackingOff 2             | Close
ConnectingWithTicket | Renewed(two)           | Connecting 1             | Save
ConnectingWithTicket | Stop                   | Closed                   | Close, Answer(ended)
ConnectingWithTicket | LeaseLost              | Closed                   | Close

LoggingIn | Login(two)             | LoggingIn 0 by signature | Save
LoggingIn | RenewSignature(two)    | LoggingIn 0 by signature | Save
LoggingIn | Logout                 | LoggedOut                | Close, Save, Changed, Answer(ended), AnswerLogout
LoggingIn | Accepted               | Online 0                 | Save, Changed, Answer(0)
LoggingIn | Refused(renew)         | RenewingSignature        | Close, Save, SignatureExpired(70001), Changed, Answer(70001)
LoggingIn | Refused(forget ticket) | RenewingSignature        | Close, Save, SignatureExpired(20002), Changed, Answer(20002)
LoggingIn | Refused(retry)         | BackingOff 1             | Close, Save, Answer(50001)
LoggingIn | Refused(throttle)      | BackingOff 1             | Close, Save, Answer(70050)
LoggingIn | Refused(park)          | Parked Refused           | Close, Save, Changed, Answer(70009)
LoggingIn | Refused(kicked)        | Parked Kicked            | Close, Save, Kicked(yielding), Changed, Answer(6208)
LoggingIn | Lost                   | BackingOff 1             | Close
LoggingIn | Kicked                 | Parked Kicked            | Close, Save, Kicked(yielding), Changed, Answer(6208)
LoggingIn | Renewed(two)           | LoggingIn 0 by signature | Save
LoggingIn | Due                    | BackingOff 1             | Close
LoggingIn | Stop                   | Closed                   | Close, Answer(ended)
LoggingIn | LeaseLost              | Closed                   | Close

Resuming | Login(two)             | LoggingIn 1 by ticket    | Save
Resuming | RenewSignature(two)    | LoggingIn 1 by ticket    | Save
Resuming | Logout                 | LoggedOut                | Close, ForgetTicket, Save, Changed, Answer(ended), AnswerLogout
Resuming | Accepted               | Online 1                 | Save, Changed, Answer(0)
Resuming | Refused(renew)         | RenewingSignature        | Close, ForgetTicket, Save, SignatureExpired(70001), Changed, Answer(70001)
Resuming | Refused(forget ticket) | BackingOff 2             | Close, ForgetTicket, Save
Resuming | Refused(retry)         | BackingOff 2             | Close, Save, Answer(50001)
Resuming | Refused(throttle)      | BackingOff 2             | Close, Save, Answer(70050)
Resuming | Refused(park)          | Parked Refused           | Close, ForgetTicket, Save, Changed, Answer(70009)
Resuming | Refused(kicked)        | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
Resuming | Lost                   | BackingOff 2             | Close
Resuming | Kicked                 | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
Resuming | Renewed(two)           | LoggingIn 1 by ticket    | Save
Resuming | Due                    | BackingOff 2             | Close
Resuming | Stop                   | Closed                   | Close, Answer(ended)
Resuming | LeaseLost              | Closed                   | Close

Fresh | Login()                | Online 0                 | Answer(0)
Fresh | Login(two)             | Online 0                 | Save, Answer(0)
Fresh | Login(ended)           | Online 0                 | Answer(0)
Fresh | RenewSignature(two)    | Online 0                 | Save
Fresh | Logout                 | LoggingOut               | LogOut, Save, Changed, Answer(ended)
Fresh | Lost                   | BackingOff 1             | Close, Save, Changed
Fresh | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Save, SignatureExpired(70001), Changed, Answer(70001)
Fresh | Expired(forget ticket) | BackingOff 1             | Close, ForgetTicket, Save, Changed
Fresh | Kicked                 | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
Fresh | Renewed(two)           | Online 0                 | Save
Fresh | Due                    | Online 0                 | Heartbeat
Fresh | Stop                   | Closed                   | Close, Answer(ended)
Fresh | LeaseLost              | Closed                   | Close

Proven | Login()                | Online 0                 | Answer(0)
Proven | Login(two)             | Online 0                 | Save, Answer(0)
Proven | Login(ended)           | Online 0                 | Answer(0)
Proven | RenewSignature(two)    | Online 0                 | Save
Proven | Logout                 | LoggingOut               | LogOut, Save, Changed, Answer(ended)
Proven | Lost                   | BackingOff 1             | Close, Save, Changed
Proven | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Save, SignatureExpired(70001), Changed, Answer(70001)
Proven | Expired(forget ticket) | BackingOff 1             | Close, ForgetTicket, Save, Changed
Proven | Kicked                 | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
Proven | Renewed(two)           | Online 0                 | Save
Proven | Due                    | Online 0                 | Heartbeat
Proven | Stop                   | Closed                   | Close, Answer(ended)
Proven | LeaseLost              | Closed                   | Close

ProvenWithNext | Login()                | Online 0                 | Answer(0)
ProvenWithNext | Login(two)             | Online 0                 | Save, Answer(0)
ProvenWithNext | Login(ended)           | Online 0                 | Answer(0)
ProvenWithNext | RenewSignature(two)    | Online 0                 | Save
ProvenWithNext | Logout                 | LoggingOut               | LogOut, Save, Changed, Answer(ended)
ProvenWithNext | Lost                   | BackingOff 1             | Close, Save, Changed
ProvenWithNext | Expired(renew)         | Connecting 0             | Close, ForgetTicket, Connect, Save, Changed
ProvenWithNext | Expired(forget ticket) | BackingOff 1             | Close, ForgetTicket, Save, Changed
ProvenWithNext | Kicked                 | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
ProvenWithNext | Renewed(two)           | Online 0                 | Save
ProvenWithNext | Due                    | Online 0                 | Heartbeat
ProvenWithNext | Stop                   | Closed                   | Close, Answer(ended)
ProvenWithNext | LeaseLost              | Closed                   | Close

ProvenButEnded | Login()                | Online 0                 | Answer(0)
ProvenButEnded | Login(two)             | Connecting 0             | Close, ForgetTicket, Connect, Save, Changed
ProvenButEnded | Login(ended)           | Online 0                 | Answer(0)
ProvenButEnded | RenewSignature(two)    | Connecting 0             | Close, ForgetTicket, Connect, Save, Changed
ProvenButEnded | Logout                 | LoggingOut               | LogOut, Save, Changed, Answer(ended)
ProvenButEnded | Lost                   | BackingOff 1             | Close, Save, Changed
ProvenButEnded | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Save, SignatureExpired(70001), Changed, Answer(70001)
ProvenButEnded | Expired(forget ticket) | RenewingSignature        | Close, ForgetTicket, Save, SignatureExpired(20002), Changed, Answer(20002)
ProvenButEnded | Kicked                 | Parked Kicked            | Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)
ProvenButEnded | Renewed(two)           | Connecting 0             | Close, ForgetTicket, Connect, Save, Changed
ProvenButEnded | Due                    | Online 0                 | Heartbeat
ProvenButEnded | Stop                   | Closed                   | Close, Answer(ended)
ProvenButEnded | LeaseLost              | Closed                   | Close

BackingOff | Login(two)             | BackingOff 1             | Save
BackingOff | RenewSignature(two)    | BackingOff 1             | Save
BackingOff | Logout                 | LoggedOut                | ForgetTicket, Save, Changed, Answer(ended), AnswerLogout
BackingOff | Renewed(two)           | BackingOff 1             | Save
BackingOff | Due                    | Connecting 1             | Connect
BackingOff | Stop                   | Closed                   | Close, Answer(ended)
BackingOff | LeaseLost              | Closed                   | Close

RenewingSignature | Login()                | RenewingSignature        | Answer(70001)
RenewingSignature | Login(two)             | Connecting 0             | Connect, Save, Changed
RenewingSignature | Login(ended)           | RenewingSignature        | Answer(70001)
RenewingSignature | RenewSignature(two)    | Connecting 0             | Connect, Save, Changed
RenewingSignature | Logout                 | LoggedOut                | Save, Changed, Answer(ended), AnswerLogout
RenewingSignature | Renewed(two)           | Connecting 0             | Connect, Save, Changed
RenewingSignature | Policy(issuer)         | RenewingSignature        | Issue(Expired 1)
RenewingSignature | Due                    | Parked Signature         | Save, Changed, Answer(70001)
RenewingSignature | Stop                   | Closed                   | Close, Answer(ended)
RenewingSignature | LeaseLost              | Closed                   | Close

LoggingOut | Login()                | LoggingOut               | Save
LoggingOut | Login(two)             | LoggingOut               | Save
LoggingOut | Login(ended)           | LoggingOut               | Save
LoggingOut | Logout                 | LoggingOut               | Answer(ended)
LoggingOut | LoggedOut              | LoggedOut                | Close, ForgetTicket, Save, AnswerLogout
LoggingOut | Lost                   | LoggedOut                | Close, ForgetTicket, Save, AnswerLogout
LoggingOut | Due                    | LoggedOut                | Close, ForgetTicket, Save, AnswerLogout
LoggingOut | Stop                   | Closed                   | Close, Answer(ended), AnswerLogout
LoggingOut | LeaseLost              | Closed                   | Close

LoggingOutAndIn | Login()                | LoggingOut               | Save
LoggingOutAndIn | Login(two)             | LoggingOut               | Save
LoggingOutAndIn | Login(ended)           | LoggingOut               | Save
LoggingOutAndIn | RenewSignature(two)    | LoggingOut               | Save
LoggingOutAndIn | Logout                 | LoggingOut               | Save, Answer(ended)
LoggingOutAndIn | LoggedOut              | Connecting 0             | Close, ForgetTicket, Connect, Save, AnswerLogout
LoggingOutAndIn | Lost                   | Connecting 0             | Close, ForgetTicket, Connect, Save, AnswerLogout
LoggingOutAndIn | Renewed(two)           | LoggingOut               | Save
LoggingOutAndIn | Due                    | Connecting 0             | Close, ForgetTicket, Connect, Save, AnswerLogout
LoggingOutAndIn | Stop                   | Closed                   | Close, Answer(ended), AnswerLogout
LoggingOutAndIn | LeaseLost              | Closed                   | Close

Kicked | Login()                | Connecting 0             | Connect, Save
Kicked | Login(two)             | Connecting 0             | Connect, Save
Kicked | Login(ended)           | RenewingSignature        | Save, SignatureExpired(6206), Changed, Answer(6206)
Kicked | RenewSignature(two)    | Parked Kicked            | Save
Kicked | Logout                 | LoggedOut                | Save, Changed, Answer(ended), AnswerLogout
Kicked | Renewed(two)           | Parked Kicked            | Save
Kicked | Stop                   | Closed                   | Close, Answer(ended)
Kicked | LeaseLost              | Closed                   | Close

Retaking | Login()                | Connecting 0             | Connect, Save
Retaking | Login(two)             | Connecting 0             | Connect, Save
Retaking | Login(ended)           | RenewingSignature        | Save, SignatureExpired(6206), Changed, Answer(6206)
Retaking | RenewSignature(two)    | Parked Kicked retaking   | Save
Retaking | Logout                 | LoggedOut                | Save, Changed, Answer(ended), AnswerLogout
Retaking | Renewed(two)           | Parked Kicked retaking   | Save
Retaking | Policy(manual)         | Parked Kicked            |
Retaking | Policy(issuer)         | Parked Kicked            |
Retaking | Due                    | Connecting 0             | Connect, Save
Retaking | Stop                   | Closed                   | Close, Answer(ended)
Retaking | LeaseLost              | Closed                   | Close

Refused | Login()                | BackingOff 0             | Save
Refused | Login(two)             | BackingOff 0             | Save
Refused | Login(ended)           | RenewingSignature        | Save, SignatureExpired(6206), Changed, Answer(6206)
Refused | RenewSignature(two)    | Parked Refused           | Save
Refused | Logout                 | LoggedOut                | Save, Changed, Answer(ended), AnswerLogout
Refused | Renewed(two)           | Parked Refused           | Save
Refused | Stop                   | Closed                   | Close, Answer(ended)
Refused | LeaseLost              | Closed                   | Close

GivenUp | Login()                | RenewingSignature        | Save, SignatureExpired(70001), Changed, Answer(70001)
GivenUp | Login(two)             | Connecting 0             | Connect, Save
GivenUp | Login(ended)           | RenewingSignature        | Save, SignatureExpired(6206), Changed, Answer(6206)
GivenUp | RenewSignature(two)    | Connecting 0             | Connect, Save
GivenUp | Logout                 | LoggedOut                | Save, Changed, Answer(ended), AnswerLogout
GivenUp | Renewed(two)           | Connecting 0             | Connect, Save
GivenUp | Stop                   | Closed                   | Close, Answer(ended)
GivenUp | LeaseLost              | Closed                   | Close
";

const ISSUED: &str = "
LoggedOut | Login()                | RenewingSignature        | Issue(FirstLogin 1), Save
LoggedOut | Login(ended)           | RenewingSignature        | Issue(Expired 1), Save, Changed

LoggingIn | Refused(renew)         | RenewingSignature        | Close, Issue(Refused 1), Save, Changed
LoggingIn | Refused(forget ticket) | RenewingSignature        | Close, Issue(Refused 1), Save, Changed

Resuming | Refused(renew)         | RenewingSignature        | Close, ForgetTicket, Issue(Refused 1), Save, Changed

Fresh | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Issue(Refused 1), Save, Changed

Proven | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Issue(Expired 1), Save, Changed

ProvenButEnded | Logout                 | LoggingOut               | ForgetRenewal, LogOut, Save, Changed, Answer(ended)
ProvenButEnded | Renewed(ended)         | Online 0                 | SignatureExpired(6206)
ProvenButEnded | RenewalFailed          | Online 0                 | SignatureExpired(6206)
ProvenButEnded | RenewalFailed(refused) | Online 0                 | SignatureExpired(6206)
ProvenButEnded | Policy(manual)         | Online 0                 | ForgetRenewal, SignatureExpired(6206)
ProvenButEnded | Expired(renew)         | RenewingSignature        | Close, ForgetTicket, Save, Changed
ProvenButEnded | Expired(forget ticket) | RenewingSignature        | Close, ForgetTicket, Save, Changed

RenewingSignature | Login()                | RenewingSignature        | nothing
RenewingSignature | Login(ended)           | RenewingSignature        | nothing
RenewingSignature | Logout                 | LoggedOut                | ForgetRenewal, Save, Changed, Answer(ended), AnswerLogout
RenewingSignature | Renewed(ended)         | RenewingSignature        | SignatureExpired(70001), Answer(issuer away)
RenewingSignature | RenewalFailed          | RenewingSignature        | SignatureExpired(70001), Answer(issuer away)
RenewingSignature | RenewalFailed(refused) | RenewingSignature        | SignatureExpired(70001), Answer(issuer away)
RenewingSignature | Policy(manual)         | RenewingSignature        | ForgetRenewal, SignatureExpired(70001), Answer(70001)
RenewingSignature | Policy(issuer)         | RenewingSignature        | nothing

Kicked | Login(ended)           | RenewingSignature        | Issue(Expired 1), Save, Changed

Retaking | Login(ended)           | RenewingSignature        | Issue(Expired 1), Save, Changed

Refused | Login(ended)           | RenewingSignature        | Issue(Expired 1), Save, Changed

GivenUp | Login()                | RenewingSignature        | Save, Changed
GivenUp | Login(ended)           | RenewingSignature        | Save, Changed
GivenUp | Logout                 | LoggedOut                | ForgetRenewal, Save, Changed, Answer(ended), AnswerLogout
GivenUp | Policy(manual)         | Parked Signature         | ForgetRenewal
";
