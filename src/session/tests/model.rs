//! The reference that the machine is compared with: the same rules told a second time, without jitter, pacing,
//! storing and telling. Moments that only the machine can know (drawn at random) are read from it.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Out,
    Dialling,
    LoggingIn,
    Resuming,
    Online,
    Waiting,
    Renewing,
    Leaving,
    Parked(ParkReason),
    Gone,
}

impl Place {
    pub(super) fn of(state: &State) -> Self {
        match state {
            State::LoggedOut => Self::Out,
            State::Connecting { .. } => Self::Dialling,
            State::LoggingIn {
                resuming: false, ..
            } => Self::LoggingIn,
            State::LoggingIn { resuming: true, .. } => Self::Resuming,
            State::Online { .. } => Self::Online,
            State::BackingOff { .. } => Self::Waiting,
            State::RenewingSignature { .. } => Self::Renewing,
            State::LoggingOut { .. } => Self::Leaving,
            State::Parked { reason, .. } => Self::Parked(*reason),
            State::Closed => Self::Gone,
        }
    }
}

#[derive(Debug)]
pub(super) struct Model {
    policy: Arc<Policy>,
    pub(super) place: Place,
    pub(super) attempt: u32,
    pub(super) desired: bool,
    ticket: bool,
    in_use: Option<Signature>,
    ends_at: Option<Instant>,
    dead: bool,
    next: Option<Signature>,
    refused: u32,
    refused_resumes: u32,
    retaken: bool,
    not_before: Option<Instant>,
    /// When the place is left by itself.
    pub(super) until: Option<Instant>,
    accepted_at: Option<Instant>,
    heard_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// The issuer's last answer was none.
    failing: bool,
    /// How often in a row it was.
    tries: u32,
    /// Whether it is being asked after the present step; the machine alone paces that.
    pub(super) issuing: bool,
    does: Vec<String>,
    says: Option<&'static str>,
}

impl Model {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            place: Place::Out,
            attempt: 0,
            desired: false,
            ticket: false,
            in_use: None,
            ends_at: None,
            dead: false,
            next: None,
            refused: 0,
            refused_resumes: 0,
            retaken: false,
            not_before: None,
            until: None,
            accepted_at: None,
            heard_at: None,
            asked_at: None,
            failing: false,
            tries: 0,
            issuing: false,
            does: Vec::new(),
            says: None,
        }
    }

    /// Another process takes the session up.
    pub(super) fn restart(&mut self, now: Now, record: &Durable, delay: Duration) {
        let mut fresh = Self::new(Arc::clone(&self.policy));
        fresh.desired = record.desired;
        fresh.retaken = record.retaken;
        fresh.ticket = record.has_ticket && record.desired;
        fresh.next.clone_from(&record.next_signature);
        fresh.not_before = record.last_login.map(|last| {
            let spacing = fresh.policy.login_spacing;
            now.at + spacing.saturating_sub(now.wall.since(last))
        });
        fresh.place = match (record.desired, record.parked) {
            (false, _) => Place::Out,
            (true, Some(reason)) => Place::Parked(reason),
            (true, None) => Place::Waiting,
        };
        fresh.until = (fresh.place == Place::Waiting).then_some(now.at + delay);
        if let Some(signature) = record.signature.clone() {
            fresh.take_up(now, signature);
            if record.signature_refused {
                (fresh.dead, fresh.ends_at) = (true, None);
            }
            fresh.next.clone_from(&record.next_signature);
        }
        *self = fresh;
    }

    /// What the machine is to do and say, in order.
    pub(super) fn step(&mut self, now: Now, input: &Input) -> Vec<String> {
        if self.place == Place::Gone {
            if let Input::Policy(policy) = input {
                // For the next process.
                self.policy = Arc::clone(policy);
            }
            return Vec::new();
        }
        let mut logout = false;
        match input {
            Input::Login(given) => self.login(now, given.clone()),
            Input::RenewSignature(given) if given.has_expired(now.wall) => {}
            Input::RenewSignature(given) => {
                self.refused = 0;
                self.refused_resumes = 0;
                self.bring(now, given.clone());
            }
            Input::Renewed(given) => {
                let (ended, again) = (given.has_expired(now.wall), self.uses(given));
                if !ended && !again {
                    (self.failing, self.tries) = (false, 0);
                    self.bring(now, given.clone());
                } else {
                    self.failing |= ended || self.tries > 0;
                    if (ended || self.tries > 0) && self.place == Place::Renewing {
                        self.says = Some("Answer(failed)");
                    }
                    self.tries += 1;
                }
            }
            Input::RenewalFailed(failure) => {
                self.failing = true;
                self.tries += 1;
                if self.place == Place::Renewing {
                    self.says = Some("Answer(failed)");
                    if failure.refused && self.in_use.is_none() {
                        self.desired = false;
                        self.place = Place::Out;
                        self.until = None;
                    }
                }
            }
            Input::Logout => logout = self.logout(now),
            Input::Connected => self.connected(now),
            Input::Accepted => self.accepted(now),
            Input::Refused(refusal) => self.refused(now, refusal.disposition),
            Input::LoggedOut => logout = self.left(now),
            Input::Lost(_) if self.place == Place::Leaving => logout = self.left(now),
            Input::Lost(_) => self.lost(),
            Input::Traffic => self.heard(now),
            Input::Expired(refusal) => self.expired(now, refusal.disposition),
            Input::Kicked { .. } => {
                if matches!(
                    self.place,
                    Place::Online | Place::LoggingIn | Place::Resuming
                ) {
                    self.does("Close");
                    self.kicked(now);
                }
            }
            Input::Policy(policy) => self.policy_set(policy),
            Input::Timeout => logout = self.timeout(now),
            Input::Stop => {
                self.does("Close");
                self.says = Some("Answer(ended)");
                logout = self.place == Place::Leaving;
                self.place = Place::Gone;
            }
            Input::LeaseLost => {
                self.does("Close");
                self.place = Place::Gone;
            }
        }
        let mut does = std::mem::take(&mut self.does);
        does.extend(self.says.take().map(str::to_owned));
        does.extend(logout.then(|| "AnswerLogout".to_owned()));
        does
    }

    fn policy_set(&mut self, policy: &Arc<Policy>) {
        let nobody_issues = self.policy.can_issue && !policy.can_issue;
        self.failing &= self.policy.can_issue == policy.can_issue;
        self.policy = Arc::clone(policy);
        if nobody_issues && self.place == Place::Renewing {
            self.says = Some("Answer(failed)");
        }
        if policy.kick == KickPolicy::Yield && matches!(self.place, Place::Parked(_)) {
            self.until = None;
        }
    }

    fn does(&mut self, effect: &str) {
        self.does.push(effect.to_owned());
    }

    fn uses(&self, signature: &Signature) -> bool {
        self.in_use.as_ref().map(|own| &own.text) == Some(&signature.text)
    }

    fn take_up(&mut self, now: Now, signature: Signature) {
        self.dead = signature.has_expired(now.wall);
        self.ends_at = signature
            .life
            .filter(|_| !self.dead)
            .map(|life| now.at + life.expires_at.since(now.wall));
        self.in_use = Some(signature);
        self.next = None;
    }

    fn can_log_in(&mut self, now: Now) -> bool {
        self.dead |= self.ends_at.is_some_and(|at| at <= now.at);
        if self.in_use.is_some() && !self.dead {
            return true;
        }
        match self.next.take() {
            Some(next) if !next.has_expired(now.wall) => {
                self.take_up(now, next);
                true
            }
            Some(_) | None => false,
        }
    }

    fn dial(&mut self, now: Now, attempt: u32) {
        self.attempt = attempt;
        match self.not_before {
            Some(at) if !self.ticket && now.at < at => {
                self.place = Place::Waiting;
                self.until = Some(at);
            }
            Some(_) | None => {
                self.place = Place::Dialling;
                self.does("Connect");
            }
        }
    }

    fn dial_or_renew(&mut self, now: Now, attempt: u32) {
        if self.ticket || self.can_log_in(now) {
            self.dial(now, attempt);
        } else {
            self.renew(now);
        }
    }

    fn renew(&mut self, now: Now) {
        self.dead = true;
        self.ends_at = None;
        if self.can_log_in(now) {
            self.dial(now, 0);
            return;
        }
        self.place = Place::Renewing;
        self.attempt = 0;
        self.until = Some(now.at + self.policy.renewal_patience);
        self.say_if_the_bot_is_needed();
    }

    fn say_if_the_bot_is_needed(&mut self) {
        if !self.policy.can_issue || (self.failing && !self.issuing) {
            self.says = Some("Answer(failed)");
        }
    }

    fn wait(&mut self) {
        self.attempt += 1;
        self.place = Place::Waiting;
        // Drawn at random: read from the machine.
        self.until = None;
    }

    fn park(&mut self, reason: ParkReason) {
        self.ticket = false;
        self.attempt = 0;
        self.place = Place::Parked(reason);
        self.until = None;
        self.says = Some("Answer(failed)");
    }

    fn kicked(&mut self, now: Now) {
        self.park(ParkReason::Kicked);
        if let (KickPolicy::Retake { delay }, false) = (self.policy.kick, self.retaken) {
            self.retaken = true;
            self.until = Some(now.at + delay);
        }
    }

    fn bring(&mut self, now: Now, signature: Signature) {
        match self.place {
            Place::Renewing | Place::Parked(ParkReason::Signature) => {
                self.take_up(now, signature);
                self.dial(now, 0);
            }
            Place::Online if self.dead => {
                self.take_up(now, signature);
                self.does("Close");
                self.ticket = false;
                self.dial(now, 0);
            }
            Place::Online
            | Place::Dialling
            | Place::LoggingIn
            | Place::Resuming
            | Place::Waiting => {
                if !self.uses(&signature) {
                    self.next = Some(signature);
                }
            }
            Place::Parked(_) => self.take_up(now, signature),
            Place::Leaving if self.desired => self.take_up(now, signature),
            Place::Leaving | Place::Out | Place::Gone => {}
        }
    }

    fn login(&mut self, now: Now, given: Option<Signature>) {
        let given = given.filter(|given| !self.uses(given));
        let live = given.clone().filter(|given| !given.has_expired(now.wall));
        let possible = given.is_some() || self.in_use.is_some() || self.policy.can_issue;
        match self.place {
            Place::Out | Place::Parked(_) | Place::Leaving if !possible => {
                self.says = Some("Answer(failed)");
            }
            Place::Out | Place::Parked(_) => {
                if let Some(given) = given {
                    self.take_up(now, given);
                }
                self.begin(now);
            }
            Place::Leaving => {
                self.desired = true;
                if let Some(given) = given {
                    self.take_up(now, given);
                }
            }
            Place::Renewing if live.is_none() => self.say_if_the_bot_is_needed(),
            Place::Renewing
            | Place::Online
            | Place::Dialling
            | Place::LoggingIn
            | Place::Resuming
            | Place::Waiting => {
                if self.place == Place::Renewing {
                    self.refused = 0;
                    self.refused_resumes = 0;
                }
                if let Some(live) = live {
                    self.bring(now, live);
                }
                if self.place == Place::Online {
                    self.says = Some("Answer(0)");
                }
            }
            Place::Gone => {}
        }
    }

    fn begin(&mut self, now: Now) {
        self.desired = true;
        self.retaken = false;
        self.refused = 0;
        self.refused_resumes = 0;
        self.until = None;
        self.dial_or_renew(now, 0);
    }

    fn logout(&mut self, now: Now) -> bool {
        self.desired = false;
        self.says = Some("Answer(ended)");
        match self.place {
            Place::Leaving => return false,
            Place::Online => {
                self.does("LogOut");
                self.place = Place::Leaving;
                self.attempt = 0;
                self.until = Some(now.at + self.policy.logout_timeout);
                return false;
            }
            Place::Dialling | Place::LoggingIn | Place::Resuming => self.does("Close"),
            Place::Out | Place::Waiting | Place::Renewing | Place::Parked(_) | Place::Gone => {}
        }
        self.place = Place::Out;
        self.attempt = 0;
        self.ticket = false;
        self.until = None;
        true
    }

    fn left(&mut self, now: Now) -> bool {
        if self.place != Place::Leaving {
            return false;
        }
        self.does("Close");
        self.ticket = false;
        self.place = Place::Out;
        if self.desired {
            self.begin(now);
        }
        true
    }

    fn connected(&mut self, now: Now) {
        if self.place != Place::Dialling {
            return;
        }
        if self.ticket {
            self.place = Place::Resuming;
            self.does("LogIn(ticket)");
        } else if self.can_log_in(now) {
            self.place = Place::LoggingIn;
            self.not_before = Some(now.at + self.policy.login_spacing);
            let text = self.in_use.as_ref().unwrap().text.expose().clone();
            self.does(&format!("LogIn({text})"));
        } else {
            self.does("Close");
            self.renew(now);
        }
        self.asked_at = Some(now.at);
    }

    fn accepted(&mut self, now: Now) {
        if matches!(self.place, Place::LoggingIn | Place::Resuming) {
            self.place = Place::Online;
            self.ticket = true;
            self.refused_resumes = 0;
            self.accepted_at = Some(now.at);
            self.heard_at = Some(now.at);
            self.asked_at = None;
            self.says = Some("Answer(0)");
        }
    }

    fn refused(&mut self, now: Now, disposition: Disposition) {
        let resuming = self.place == Place::Resuming;
        if !resuming && self.place != Place::LoggingIn {
            return;
        }
        self.does("Close");
        match disposition {
            Disposition::ForgetTicket if resuming => {
                self.ticket = false;
                self.wait();
            }
            Disposition::Renew | Disposition::ForgetTicket => self.signature_refused(now),
            Disposition::Retry | Disposition::Throttle(_) => {
                self.refused_resumes += u32::from(resuming);
                if resuming && self.refused_resumes >= self.policy.max_refused_resumes {
                    self.ticket = false;
                }
                self.wait();
                self.says = Some("Answer(failed)");
            }
            Disposition::Park => self.park(ParkReason::Refused),
            Disposition::Kicked => self.kicked(now),
        }
    }

    fn signature_refused(&mut self, now: Now) {
        self.ticket = false;
        self.refused += 1;
        if self.refused > self.policy.max_refused_signatures {
            self.park(ParkReason::Signature);
        } else {
            self.renew(now);
        }
    }

    fn lost(&mut self) {
        if matches!(
            self.place,
            Place::Dialling | Place::LoggingIn | Place::Resuming | Place::Online
        ) {
            self.does("Close");
            self.wait();
        }
    }

    fn heard(&mut self, now: Now) {
        if self.place == Place::Online {
            self.heard_at = Some(now.at);
            self.asked_at = None;
            if self.is_proven(now) {
                self.attempt = 0;
                self.refused = 0;
            }
        }
    }

    fn is_proven(&self, now: Now) -> bool {
        self.accepted_at
            .is_some_and(|at| now.at >= at + self.policy.proven_after)
    }

    fn expired(&mut self, now: Now, disposition: Disposition) {
        if self.place != Place::Online {
            return;
        }
        self.heard(now);
        self.does("Close");
        self.ticket = false;
        if disposition == Disposition::ForgetTicket && self.can_log_in(now) {
            self.wait();
        } else if self.is_proven(now) {
            self.renew(now);
        } else {
            self.signature_refused(now);
        }
    }

    fn timeout(&mut self, now: Now) -> bool {
        let due = self.until.is_some_and(|at| now.at >= at);
        match self.place {
            Place::Waiting if due => self.dial_or_renew(now, self.attempt),
            Place::Renewing if due => self.park(ParkReason::Signature),
            Place::Parked(_) if due => {
                self.until = None;
                self.dial_or_renew(now, 0);
            }
            Place::Leaving => return due && self.left(now),
            Place::LoggingIn | Place::Resuming => {
                let sent_at = self.asked_at.unwrap();
                if now.at >= sent_at + self.policy.login_timeout {
                    self.lost();
                }
            }
            Place::Online => self.timeout_online(now),
            Place::Waiting
            | Place::Renewing
            | Place::Parked(_)
            | Place::Out
            | Place::Dialling
            | Place::Gone => {}
        }
        false
    }

    fn timeout_online(&mut self, now: Now) {
        let keepalive = self.policy.keepalive;
        match self.asked_at {
            Some(at) if now.at >= at + keepalive.answer_timeout => return self.lost(),
            None if now.at >= self.heard_at.unwrap() + keepalive.idle => {
                self.does("Heartbeat");
                self.asked_at = Some(now.at);
            }
            Some(_) | None => {}
        }
        if self.ends_at.is_some_and(|at| at <= now.at) {
            self.ends_at = None;
            self.dead = true;
            if self.can_log_in(now) {
                self.does("Close");
                self.ticket = false;
                self.dial(now, 0);
            }
        }
    }
}
