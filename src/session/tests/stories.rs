//! What happens to a bot, told as it happens.

use super::*;

#[test]
fn a_first_login_dials_and_logs_in_by_signature() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.on(Input::Login(Some(one)), "Connect, Save");
    it.on(Input::Connected, "LogIn(one), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
    it.is("Online 0");
    assert_eq!((it.record.logins, it.record.resumes), (1, 0));
    assert!(it.record.desired && it.record.has_ticket);
}

#[test]
fn logins_on_the_way_join_the_one_in_flight() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.on(Input::Login(Some(one.clone())), "Connect, Save");
    it.on(Input::Login(None), "");
    it.on(Input::Login(Some(one.clone())), "");
    it.input(Input::Connected);
    it.on(Input::Login(None), "");
    it.on(refused_for_now(), "Close, Save, Answer(50001)");
    it.on(Input::Login(Some(one)), "");
    it.is("BackingOff 1");
}

#[test]
fn a_login_in_flight_keeps_a_new_signature_for_the_case_that_it_needs_one() {
    let mut it = Harness::manual();
    let (one, two) = (it.signature("one", DAY), it.signature("two", DAY));
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.on(Input::Login(Some(two)), "Save");
    it.on(refused_70001(), "Close, Save");
    it.is("BackingOff 0");
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(two), Save");
}

#[test]
fn online_a_login_answers_at_once_and_costs_nothing() {
    let mut it = Harness::manual().online();
    it.on(Input::Login(None), "Answer(0)");
    let one = it.record.signature.clone();
    it.on(Input::Login(one), "Answer(0)");
    let two = it.signature("two", 20 * DAY);
    it.on(Input::Login(Some(two)), "Save, Answer(0)");
    let ended = it.ended_signature("three");
    it.on(Input::Login(Some(ended)), "Answer(0)");
    it.is("Online 0");
    assert_eq!(it.record.logins, 1);
}

#[test]
fn a_drop_resumes_by_ticket() {
    let mut it = Harness::manual().online();
    it.on(lost(), "Close, Save, Changed");
    it.is("BackingOff 1");
    assert!(it.until_due() <= Duration::from_millis(500));
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
    assert_eq!((it.record.logins, it.record.resumes), (1, 1));
}

#[test]
fn two_drops_resume_twice_with_growing_delays_until_the_connection_proves_itself() {
    let mut it = Harness::manual().online();
    it.on(lost(), "Close, Save, Changed");
    it.due("next attempt", "Connect");
    it.on(lost(), "Close");
    it.is("BackingOff 2");
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
    it.is("Online 2");
    it.skip(4 * SECOND);
    it.on(Input::Traffic, "");
    it.is("Online 2");
    it.skip(SECOND);
    it.on(Input::Traffic, "");
    it.is("Online 0");
}

#[test]
fn an_upstream_that_accepts_and_closes_meets_growing_delays_and_no_signature() {
    let mut it = Harness::manual().online();
    it.input(lost());
    let mut longest = Duration::ZERO;
    for attempt in 1..=40 {
        it.is(&format!("BackingOff {attempt}"));
        longest = longest.max(it.until_due());
        it.due("next attempt", "Connect");
        it.on(Input::Connected, "LogIn(ticket)");
        it.input(Input::Accepted);
        it.input(Input::Traffic);
        it.input(lost());
    }
    assert!(
        longest > 30 * SECOND && longest <= 60 * SECOND,
        "{longest:?}"
    );
    assert_eq!(it.record.logins, 1);
}

#[test]
fn a_resume_refused_three_times_falls_back_to_the_signature() {
    let mut it = Harness::manual().online();
    it.input(lost());
    for expected in [
        "Close, Save, Answer(50001)",
        "Close, Save, Answer(50001)",
        "Close, ForgetTicket, Save, Answer(50001)",
    ] {
        it.due("next attempt", "Connect");
        it.on(Input::Connected, "LogIn(ticket)");
        it.on(refused_for_now(), expected);
    }
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(one), Save");
    it.is("LoggingIn 4 by signature");
}

#[test]
fn an_accepted_resume_forgets_the_refused_ones() {
    let mut it = Harness::manual().online();
    for _ in 0..3 {
        it.input(lost());
        for _ in 0..2 {
            it.due("next attempt", "Connect");
            it.on(Input::Connected, "LogIn(ticket)");
            it.input(refused_for_now());
        }
        it.due("next attempt", "Connect");
        it.on(Input::Connected, "LogIn(ticket)");
        it.input(Input::Accepted);
    }
}

#[test]
fn a_login_without_an_answer_is_given_up() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    assert_eq!(it.until_due(), 30 * SECOND);
    it.due("login unanswered", "Close");
    it.is("BackingOff 1");
}

#[test]
fn an_ended_signature_at_login_is_renewed_by_the_issuer_and_logged_in_once() {
    let mut it = Harness::issuing();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.on(refused_70001(), "Close, Issue(Refused 1), Save, Changed");
    it.on(Input::Login(None), "");
    it.skip(SECOND);
    let two = it.signature("two", DAY);
    it.on(Input::Renewed(two), "Save, Changed");
    it.is("BackingOff 0");
    // The upstream's least distance between two logins.
    assert_eq!(it.until_due(), 14 * SECOND);
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(two), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
}

#[test]
fn an_ended_signature_at_login_is_the_bots_to_renew_without_an_issuer() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one.clone())));
    it.input(Input::Connected);
    let told = "Close, Save, SignatureExpired(70001), Changed, Answer(70001)";
    it.on(refused_70001(), told);
    it.is("RenewingSignature");
    it.on(Input::Login(None), "Answer(70001)");
    it.on(Input::Login(Some(one)), "Answer(70001)");
    it.skip(20 * SECOND);
    let two = it.signature("two", DAY);
    it.on(Input::Login(Some(two)), "Connect, Save, Changed");
    it.on(Input::Connected, "LogIn(two), Save");
}

#[test]
fn an_ended_ticket_with_a_live_signature_logs_in_with_that() {
    let mut it = Harness::issuing().online();
    it.input(lost());
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
    it.on(refused_20002(), "Close, ForgetTicket, Save");
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(one), Save");
}

#[test]
fn an_ended_ticket_while_online_logs_in_with_the_live_signature() {
    let mut it = Harness::issuing().online();
    it.on(expired_20002(), "Close, ForgetTicket, Save, Changed");
    it.is("BackingOff 1");
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(one), Save");
}

#[test]
fn an_end_while_online_with_the_next_signature_in_hand_is_one_login() {
    let mut it = Harness::issuing().online();
    let two = it.signature("two", 10 * DAY);
    it.on(Input::RenewSignature(two), "Save");
    it.on(
        expired_70001(),
        "Close, ForgetTicket, Connect, Save, Changed",
    );
    it.on(Input::Connected, "LogIn(two), Save");
    it.input(Input::Accepted);
    assert_eq!(it.record.logins, 2);
    assert_eq!(it.record.next_signature, None);
}

#[test]
fn an_end_while_online_without_an_issuer_tells_the_bot_and_waits_for_it() {
    let mut it = Harness::manual().online();
    let told = "Close, ForgetTicket, Save, SignatureExpired(70001), Changed, Answer(70001)";
    it.on(expired_70001(), told);
    assert_eq!(it.until_due(), DAY);
    let two = it.signature("two", DAY);
    it.on(Input::RenewSignature(two), "Connect, Save, Changed");
    it.on(Input::Connected, "LogIn(two), Save");
}

#[test]
fn a_signature_that_nobody_brings_parks_the_session_and_the_next_one_unparks_it() {
    let mut it = Harness::manual().online();
    it.input(expired_70001());
    it.due("signature given up", "Save, Changed, Answer(70001)");
    it.is("Parked Signature");
    let two = it.signature("two", DAY);
    it.on(Input::RenewSignature(two), "Connect, Save");
}

/// Sees that the connection stays alive until `until` says that something else is due.
#[track_caller]
fn live_until(it: &mut Harness, until: &str) {
    loop {
        let (at, why) = it.session.poll_timeout().expect("a timer");
        if why == until {
            return;
        }
        assert_eq!(why, "heartbeat");
        it.skip(at.saturating_duration_since(it.now.at));
        assert_eq!(it.input(Input::Traffic), "");
    }
}

#[test]
fn a_signature_is_fetched_ahead_of_time_and_used_only_when_the_old_one_ends() {
    let mut it = Harness::issuing();
    let one = it.signature("one", Duration::from_secs(1000));
    let made = it.now.at;
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.input(Input::Accepted);
    live_until(&mut it, "fetch the next signature");
    it.due("fetch the next signature", "Issue(Expiring 1)");
    let share = (it.now.at - made).as_secs_f64() / 1000.0;
    assert!((0.76..=0.84).contains(&share), "{share}");
    let two = it.signature("two", Duration::from_secs(1000));
    it.on(Input::Renewed(two), "Save");
    it.is("Online 0");
    live_until(&mut it, "signature ends");
    it.due(
        "signature ends",
        "Close, ForgetTicket, Connect, Save, Changed",
    );
    assert_eq!(it.now.at - made, Duration::from_secs(1000));
    it.on(Input::Connected, "LogIn(two), Save");
    it.input(Input::Accepted);
    assert_eq!(it.record.logins, 2);
}

#[test]
fn without_an_issuer_the_bot_is_told_before_and_at_the_end_and_the_session_stays() {
    let mut it = Harness::manual();
    let one = it.signature("one", Duration::from_secs(1000));
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.input(Input::Accepted);
    live_until(&mut it, "fetch the next signature");
    it.due("fetch the next signature", "SignatureExpired(0)");
    live_until(&mut it, "signature ends");
    it.due("signature ends", "SignatureExpired(6206)");
    it.is("Online 0");
    let two = it.signature("two", Duration::from_secs(1000));
    it.on(
        Input::RenewSignature(two),
        "Close, ForgetTicket, Connect, Save, Changed",
    );
}

#[test]
fn a_renewal_answered_late_is_kept_for_its_moment_or_dropped_after_a_logout() {
    let mut it = Harness::issuing().online();
    it.on(
        expired_70001(),
        "Close, ForgetTicket, Issue(Expired 1), Save, Changed",
    );
    let (two, three) = (it.signature("two", DAY), it.signature("three", DAY));
    it.on(Input::RenewSignature(two), "Connect, Save, Changed");
    it.on(Input::Renewed(three.clone()), "Save");
    assert_eq!(it.record.next_signature, Some(three.clone()));
    it.input(Input::Connected);
    it.input(Input::Accepted);
    it.input(expired_70001());

    let mut it = Harness::issuing().online();
    it.input(expired_70001());
    it.on(
        Input::Logout,
        "ForgetRenewal, Save, Changed, Answer(ended), AnswerLogout",
    );
    it.on(Input::Renewed(three), "");
    it.is("LoggedOut");
}

#[test]
fn a_renewal_that_is_out_is_not_asked_for_twice() {
    let mut it = Harness::issuing().online();
    it.input(expired_70001());
    let two = it.signature("two", DAY);
    it.on(Input::RenewSignature(two), "Connect, Save, Changed");
    it.input(Input::Connected);
    it.on(refused_70001(), "Close, Save, Changed");
    it.is("RenewingSignature");
    let three = it.signature("three", DAY);
    it.on(Input::Renewed(three), "Save, Changed");
    it.due("next attempt", "Connect");
}

#[test]
fn an_issuer_that_fails_is_asked_again_ever_later_until_the_session_parks() {
    let mut it = Harness::issuing();
    it.on(Input::Login(None), "Issue(FirstLogin 1), Save");
    let mut longest = Duration::ZERO;
    let mut asked = 1;
    loop {
        let effects = it.input(issuer_failed(Duration::ZERO));
        let first = "Save, SignatureExpired(0), Changed, Answer(issuer away)";
        let later = "Answer(issuer away)";
        assert_eq!(effects, if asked == 1 { first } else { later });
        longest = longest.max(it.until_due());
        let (at, why) = it.session.poll_timeout().unwrap();
        it.skip(at - it.now.at);
        let effects = it.input(Input::Timeout);
        if why == "signature given up" {
            assert_eq!(effects, "Save, Changed, Answer(no signature)");
            break;
        }
        asked += 1;
        assert!(asked < 10_000, "never parked");
        assert!(effects.ends_with(&format!(" {asked})")), "{effects}");
    }
    assert!(
        longest > 200 * SECOND && longest <= 300 * SECOND,
        "{longest:?}"
    );
    it.is("Parked Signature");
}

#[test]
fn an_issuers_wish_to_be_left_alone_is_honoured_but_not_without_bound() {
    let mut it = Harness::issuing();
    it.input(Input::Login(None));
    it.input(issuer_failed(100 * SECOND));
    // All that are told the same come back at moments of their own.
    let mut waits = Vec::new();
    for seed in 0..20 {
        let mut other = Harness::issuing();
        other.session = Session::new(Arc::clone(&other.policy), seed);
        other.input(Input::Login(None));
        other.input(issuer_failed(100 * SECOND));
        waits.push(other.until_due());
    }
    waits.push(it.until_due());
    let honoured = 100 * SECOND..101 * SECOND;
    assert!(
        waits.iter().all(|wait| honoured.contains(wait)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");

    it.on(Input::Timeout, "");
    it.due("ask the issuer again", "Issue(FirstLogin 2)");
    it.input(issuer_failed(Duration::MAX));
    let bounded = 3000 * SECOND..=3002 * SECOND;
    assert!(bounded.contains(&it.until_due()), "{:?}", it.until_due());
}

#[test]
fn a_first_login_hears_at_once_that_the_issuer_fails_and_goes_on() {
    let mut it = Harness::issuing();
    it.on(Input::Login(None), "Issue(FirstLogin 1), Save");
    it.on(Input::Login(None), "");
    let failed = it.input(issuer_failed(30 * SECOND));
    assert_eq!(
        failed,
        "Save, SignatureExpired(0), Changed, Answer(issuer away)"
    );
    // Between two attempts nobody is kept waiting, and nobody makes them come sooner.
    it.skip(20 * SECOND);
    let mut effects = Vec::new();
    it.session.handle(it.now, Input::Login(None), &mut effects);
    let [
        Effect::AnswerLogin(LoginAnswer::IssuerUnavailable {
            reason,
            retry_after,
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*reason, "away");
    assert!(
        (10 * SECOND..=11 * SECOND).contains(retry_after),
        "{retry_after:?}"
    );
    it.due("ask the issuer again", "Issue(FirstLogin 2)");
    it.on(Input::Login(None), "");
    let one = it.signature("one", DAY);
    it.on(Input::Renewed(one), "Connect, Save, Changed");
    it.on(Input::Connected, "LogIn(one), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
}

#[test]
fn a_first_login_that_the_issuer_refuses_has_ended() {
    let mut it = Harness::issuing();
    it.input(Input::Login(None));
    it.on(issuer_refuses(), "Save, Changed, Answer(issuer refuses)");
    it.is("LoggedOut");
    assert!(!it.record.desired);
    it.restart(Duration::ZERO);
    it.is("LoggedOut");
}

#[test]
fn a_renewal_that_the_issuer_refuses_is_asked_for_again() {
    let mut it = Harness::issuing().online();
    it.input(expired_70001());
    it.on(
        issuer_refuses(),
        "SignatureExpired(70001), Answer(issuer away)",
    );
    it.is("RenewingSignature");
    it.due("ask the issuer again", "Issue(Expired 2)");
}

#[test]
fn a_bot_is_asked_once_ahead_of_time_and_once_at_the_end_where_the_issuer_fails() {
    let mut it = Harness::issuing().online();
    let renewal = |it: &mut Harness| {
        while it.session.poll_timeout().unwrap().1 == "heartbeat" {
            it.skip(it.until_due());
            it.input(Input::Timeout);
            it.input(Input::Traffic);
        }
    };
    renewal(&mut it);
    it.due("fetch the next signature", "Issue(Expiring 1)");
    it.on(issuer_failed(DAY), "SignatureExpired(0)");
    renewal(&mut it);
    it.due("fetch the next signature", "Issue(Expiring 2)");
    it.on(issuer_failed(Duration::MAX), "");
    let ends = it
        .session
        .durable()
        .signature
        .clone()
        .unwrap()
        .life
        .unwrap();
    it.skip(ends.expires_at.since(it.now.wall));
    let effects = it.input(Input::Timeout);
    let told = effects.matches("SignatureExpired(6206)").count();
    assert_eq!(told, 1, "{effects}");
    it.is("Online 0");

    // A tenant that does not want its bots asked.
    let mut quiet = Harness::new(Policy {
        can_issue: true,
        asks_bot: false,
        ..Policy::default()
    })
    .online();
    quiet.input(expired_70001());
    quiet.on(issuer_failed(Duration::ZERO), "Answer(issuer away)");
}

#[test]
fn a_logout_takes_the_question_back_and_the_next_login_asks_anew() {
    let mut it = Harness::issuing().online();
    it.input(expired_70001());
    it.on(
        Input::Logout,
        "ForgetRenewal, Save, Changed, Answer(ended), AnswerLogout",
    );
    it.on(Input::Login(None), "Issue(Refused 1), Save, Changed");
}

#[test]
fn fresh_signatures_that_are_refused_again_and_again_are_paced_and_then_parked() {
    let mut it = Harness::issuing();
    it.input(Input::Login(None));
    let mut logins = 0;
    let mut asked_at = it.now.at;
    while it.state() == "RenewingSignature" {
        if logins > 1 {
            assert!(it.now.at - asked_at >= Duration::from_millis(100));
        }
        asked_at = it.now.at;
        it.skip(20 * SECOND);
        let next = it.signature(&format!("s{logins}"), DAY);
        assert!(it.input(Input::Renewed(next)).starts_with("Connect, Save"));
        assert!(it.input(Input::Connected).starts_with("LogIn(s"));
        logins += 1;
        assert!(logins <= 6, "never parked");
        it.input(refused_70001());
        // The second and later ones wait before the issuer is asked again.
        if logins > 1 && it.state() == "RenewingSignature" {
            let (at, why) = it.session.poll_timeout().unwrap();
            assert_eq!(why, "ask the issuer again");
            it.skip(at - it.now.at);
            assert!(it.input(Input::Timeout).starts_with("Issue("));
        }
    }
    assert_eq!(logins, 6);
    it.is("Parked Signature");
    assert_eq!(it.session.poll_timeout(), None);
}

#[test]
fn a_kick_parks_and_only_a_login_leads_back() {
    let mut it = Harness::issuing().online();
    it.on(
        kicked(),
        "Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)",
    );
    it.is("Parked Kicked");
    assert_eq!(it.session.poll_timeout(), None);
    let two = it.signature("two", DAY);
    it.on(Input::RenewSignature(two), "Save");
    it.on(Input::Timeout, "");
    it.is("Parked Kicked");
    it.on(Input::Login(None), "Connect, Save");
    it.on(Input::Connected, "LogIn(two), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
}

#[test]
fn a_kick_is_taken_back_once_and_the_second_one_parks() {
    let mut it = Harness::new(Policy {
        kick: KickPolicy::Retake { delay: 30 * SECOND },
        ..Policy::default()
    })
    .online();
    it.on(
        kicked(),
        "Close, ForgetTicket, Save, Kicked(retaking), Changed, Answer(6208)",
    );
    assert_eq!(it.until_due(), 30 * SECOND);
    it.due("retake after a kick", "Connect, Save");
    it.on(Input::Connected, "LogIn(one), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
    it.on(
        kicked(),
        "Close, ForgetTicket, Save, Kicked(yielding), Changed, Answer(6208)",
    );
    assert_eq!(it.session.poll_timeout(), None);
    // A bot's own login begins anew.
    it.skip(20 * SECOND);
    it.on(Input::Login(None), "Connect, Save");
    it.input(Input::Connected);
    it.input(Input::Accepted);
    it.input(kicked());
    it.is("Parked Kicked retaking");
}

#[test]
fn a_kick_stays_a_kick_over_a_restart() {
    for kick in [KickPolicy::Yield, KickPolicy::Retake { delay: SECOND }] {
        let mut it = Harness::new(Policy {
            kick,
            ..Policy::default()
        })
        .online();
        it.input(kicked());
        it.restart(SECOND);
        it.is("Parked Kicked");
        assert_eq!(it.session.poll_timeout(), None);
    }
}

#[test]
fn a_kick_during_the_login_and_a_kick_as_its_answer_park_too() {
    for input in [kicked(), Input::Refused(refusal(1002, Disposition::Kicked))] {
        let mut it = Harness::manual();
        let one = it.signature("one", DAY);
        it.input(Input::Login(Some(one)));
        it.input(Input::Connected);
        it.on(
            input,
            "Close, Save, Kicked(yielding), Changed, Answer(6208)",
        );
    }
}

#[test]
fn a_permanent_refusal_parks_until_the_next_login() {
    let mut it = Harness::issuing();
    let (one, two) = (it.signature("one", DAY), it.signature("two", DAY));
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.on(
        Input::Refused(refusal(70009, Disposition::Park)),
        "Close, Save, Changed, Answer(70009)",
    );
    it.is("Parked Refused");
    it.on(Input::RenewSignature(two), "Save");
    it.is("Parked Refused");
    it.restart(SECOND);
    it.is("Parked Refused");
    it.skip(15 * SECOND);
    it.on(Input::Login(None), "Connect, Save");
    it.on(Input::Connected, "LogIn(two), Save");
}

#[test]
fn a_restored_session_comes_back_by_ticket_after_its_delay() {
    let mut it = Harness::manual().online();
    it.restart(7 * SECOND);
    it.is("BackingOff 0");
    assert_eq!(it.until_due(), 7 * SECOND);
    it.on(Input::Login(None), "");
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
}

#[test]
fn counters_of_a_record_do_not_overflow() {
    let mut it = Harness::manual().online();
    it.record.resumes = u64::MAX;
    it.restart(SECOND);
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
    assert_eq!(it.record.resumes, u64::MAX);
}

#[test]
fn what_was_logged_out_stays_out() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.restart(SECOND);
    it.is("LoggedOut");
    assert_eq!(it.session.poll_timeout(), None);
    it.on(Input::Timeout, "");
}

#[test]
fn a_logout_while_online_is_a_word_to_the_upstream_first() {
    let mut it = Harness::manual().online();
    it.on(Input::Logout, "LogOut, Save, Changed, Answer(ended)");
    assert!(!it.record.desired);
    it.on(Input::Logout, "Answer(ended)");
    it.on(Input::LoggedOut, "Close, ForgetTicket, Save, AnswerLogout");
    it.is("LoggedOut");
    it.on(Input::Logout, "Answer(ended), AnswerLogout");
}

#[test]
fn a_logout_that_the_upstream_does_not_answer_ends_by_itself() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.due(
        "logout unanswered",
        "Close, ForgetTicket, Save, AnswerLogout",
    );
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.on(lost(), "Close, ForgetTicket, Save, AnswerLogout");
    it.is("LoggedOut");
}

#[test]
fn a_logout_on_the_way_hangs_up() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.on(
        Input::Logout,
        "Close, Save, Changed, Answer(ended), AnswerLogout",
    );
    it.input(Input::Login(None));
    it.input(Input::Connected);
    it.on(
        Input::Logout,
        "Close, Save, Changed, Answer(ended), AnswerLogout",
    );
    it.on(Input::Accepted, "");
    it.is("LoggedOut");
}

#[test]
fn a_login_while_the_logout_runs_follows_it() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    let two = it.signature("two", DAY);
    it.on(Input::Login(Some(two)), "Save");
    it.is("LoggingOut");
    it.on(
        Input::LoggedOut,
        "Close, ForgetTicket, Connect, Save, AnswerLogout",
    );
    it.on(Input::Connected, "LogIn(two), Save");
    it.on(Input::Accepted, "Save, Changed, Answer(0)");
}

#[test]
fn two_logins_by_signature_keep_their_distance() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.skip(SECOND);
    it.on(lost(), "Close");
    it.skip(5 * SECOND);
    it.on(Input::Timeout, "");
    it.is("BackingOff 1");
    assert_eq!(it.until_due(), 9 * SECOND);
    it.due("next attempt", "Connect");
}

#[test]
fn silence_is_broken_by_a_heartbeat_and_deafness_ends_the_connection() {
    let mut it = Harness::manual().online();
    assert_eq!(it.until_due(), 10 * SECOND);
    it.due("heartbeat", "Heartbeat");
    it.skip(SECOND);
    it.on(Input::Traffic, "");
    it.due("heartbeat", "Heartbeat");
    assert_eq!(it.until_due(), 3 * SECOND);
    it.due("heartbeat", "Close, Save, Changed");
    it.is("BackingOff 1");
}

#[test]
fn a_throttle_is_honoured_but_not_without_bound() {
    for (asked, least, most) in [(60, 60, 61), (1_000_000, 600, 601)] {
        let mut it = Harness::manual();
        let one = it.signature("one", DAY);
        it.input(Input::Login(Some(one)));
        it.input(Input::Connected);
        let throttle = Disposition::Throttle(Duration::from_secs(asked));
        it.on(
            Input::Refused(refusal(70050, throttle)),
            "Close, Save, Answer(70050)",
        );
        let wait = it.until_due().as_secs();
        assert!((least..=most).contains(&wait), "{wait}");
    }
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    for jump in [0, 400 * 86_400_000] {
        let mut it = Harness::issuing().online();
        let before = it.session.poll_timeout();
        it.now.wall = UnixMillis(jump);
        it.on(Input::Timeout, "");
        assert_eq!(it.session.poll_timeout(), before);
        it.input(lost());
        it.due("next attempt", "Connect");
        it.on(Input::Connected, "LogIn(ticket)");
        it.input(Input::Accepted);
        assert_eq!(it.record.logins, 1);
    }
}

#[test]
fn a_lost_lease_closes_the_socket_and_nothing_else_ever() {
    let mut it = Harness::issuing().online();
    it.on(Input::LeaseLost, "Close");
    it.is("Closed");
    for input in [
        Input::Login(None),
        Input::Logout,
        Input::Traffic,
        Input::Timeout,
        Input::Stop,
        lost(),
    ] {
        it.on(input, "");
    }
    assert_eq!(it.session.poll_timeout(), None);
}

#[test]
fn a_stop_lets_go_without_a_logout_and_the_session_comes_back_elsewhere() {
    let mut it = Harness::manual().online();
    it.on(Input::Stop, "Close, Answer(ended)");
    it.restart(SECOND);
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(ticket)");
}

#[test]
fn without_a_signature_or_an_issuer_nothing_changes() {
    let mut it = Harness::manual();
    it.on(Input::Login(None), "Answer(no signature)");
    it.is("LoggedOut");
    assert_eq!(it.record, Durable::default());
    assert!(!it.session.durable().desired);
}

#[test]
fn a_signature_that_has_ended_already_is_not_tried() {
    let mut it = Harness::manual();
    let ended = it.ended_signature("one");
    it.on(
        Input::Login(Some(ended)),
        "Save, SignatureExpired(6206), Changed, Answer(6206)",
    );
    it.is("RenewingSignature");

    let mut it = Harness::issuing();
    let ended = it.ended_signature("one");
    it.on(Input::Login(Some(ended)), "Issue(Expired 1), Save, Changed");
    let two = it.signature("two", DAY);
    it.on(Input::Renewed(two), "Connect, Save, Changed");
}

#[test]
fn the_distance_between_logins_is_kept_over_a_crash_in_the_middle_of_one() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.skip(SECOND);
    it.restart(SECOND);
    it.due("next attempt", "");
    it.is("BackingOff 0");
    assert_eq!(it.until_due(), 13 * SECOND);
    it.due("next attempt", "Connect");
}

#[test]
fn a_wall_clock_set_back_over_a_restart_costs_one_distance_at_most() {
    let mut it = Harness::manual();
    let one = it.signature("one", DAY);
    it.input(Input::Login(Some(one)));
    it.input(Input::Connected);
    it.now.wall = UnixMillis(it.now.wall.0 - 3_600_000);
    it.restart(Duration::ZERO);
    it.due("next attempt", "");
    assert_eq!(it.until_due(), 15 * SECOND);
}

#[test]
fn an_issuer_that_brings_ended_signatures_is_asked_ever_later_and_nothing_is_dialled() {
    let mut it = Harness::issuing();
    it.input(Input::Login(None));
    let mut longest = Duration::ZERO;
    for asked in 2..20 {
        let ended = it.ended_signature("old");
        let effects = it.input(Input::Renewed(ended));
        assert!(effects.ends_with("Answer(issuer away)"), "{effects}");
        it.is("RenewingSignature");
        longest = longest.max(it.until_due());
        it.due(
            "ask the issuer again",
            &format!("Issue(FirstLogin {asked})"),
        );
    }
    assert!(longest > 100 * SECOND, "{longest:?}");
}

#[test]
fn an_issuer_that_repeats_itself_is_asked_again_later() {
    let mut it = Harness::issuing().online();
    let one = it.record.signature.clone().unwrap();
    it.input(expired_70001());
    // It may have been made within the second of the first.
    it.on(Input::Renewed(one.clone()), "");
    assert!(it.until_due() > SECOND);
    it.due("ask the issuer again", "Issue(Expired 2)");
    it.on(
        Input::Renewed(one),
        "SignatureExpired(70001), Answer(issuer away)",
    );
    it.due("ask the issuer again", "Issue(Expired 3)");
    let two = it.signature("two", DAY);
    it.on(Input::Renewed(two), "Connect, Save, Changed");
}

#[test]
fn an_ended_or_known_signature_from_the_bot_does_no_harm() {
    let mut it = Harness::manual();
    let one = it.signature("one", 60 * SECOND);
    it.input(Input::Login(Some(one.clone())));
    it.input(Input::Connected);
    it.input(Input::Accepted);
    it.on(Input::RenewSignature(one.clone()), "");
    it.skip(61 * SECOND);
    it.input(Input::Traffic);
    it.on(Input::Timeout, "SignatureExpired(6206)");
    it.on(Input::RenewSignature(one.clone()), "");
    it.is("Online 0");
    it.input(expired_70001());
    it.on(Input::RenewSignature(one), "");
    it.is("RenewingSignature");
}

#[test]
fn a_restored_session_without_any_signature_is_not_answered_as_a_success() {
    let mut it = Harness::manual();
    it.record.desired = true;
    it.restart(SECOND);
    it.on(Input::Login(None), "");
    it.due(
        "next attempt",
        "Save, SignatureExpired(0), Changed, Answer(no signature)",
    );
    it.on(Input::Login(None), "Answer(no signature)");
}

#[test]
fn a_login_while_the_logout_runs_can_be_taken_back() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.on(Input::Login(None), "Save");
    it.on(Input::Logout, "Save, Answer(ended)");
    it.on(Input::LoggedOut, "Close, ForgetTicket, Save, AnswerLogout");
    it.is("LoggedOut");
}

#[test]
fn a_login_while_the_logout_runs_begins_anew() {
    let mut it = Harness::new(Policy {
        kick: KickPolicy::Retake { delay: SECOND },
        ..Policy::default()
    })
    .online();
    it.input(kicked());
    it.due("retake after a kick", "Connect, Save");
    it.input(Input::Connected);
    it.input(Input::Accepted);
    it.input(Input::Logout);
    it.on(Input::Login(None), "Save");
    let two = it.signature("two", DAY);
    it.on(Input::RenewSignature(two), "Save");
    it.input(Input::LoggedOut);
    it.due("next attempt", "Connect");
    it.on(Input::Connected, "LogIn(two), Save");
    it.input(Input::Accepted);
    it.input(kicked());
    it.is("Parked Kicked retaking");
}

#[test]
fn an_upstream_that_accepts_and_ends_each_signature_at_once_is_paced_and_parks() {
    let mut it = Harness::issuing();
    it.input(Input::Login(None));
    let mut logins = 0;
    while it.state() == "RenewingSignature" {
        it.skip(20 * SECOND);
        let next = it.signature(&format!("s{logins}"), DAY);
        assert!(it.input(Input::Renewed(next)).starts_with("Connect, Save"));
        it.input(Input::Connected);
        it.input(Input::Accepted);
        logins += 1;
        assert!(logins <= 6, "never parked");
        it.input(expired_70001());
        if logins > 1 && it.state() == "RenewingSignature" {
            it.due("ask the issuer again", "Issue(Refused 1)");
        }
    }
    assert_eq!(logins, 6);
    it.is("Parked Signature");
}

#[test]
fn an_upstream_that_accepts_and_ends_each_ticket_at_once_meets_growing_delays() {
    let mut it = Harness::issuing().online();
    let mut longest = Duration::ZERO;
    for attempt in 1..=40 {
        it.input(expired_20002());
        it.is(&format!("BackingOff {attempt}"));
        longest = longest.max(it.until_due());
        while it.state() != format!("Connecting {attempt}") {
            it.skip(it.until_due());
            it.input(Input::Timeout);
        }
        it.on(Input::Connected, "LogIn(one), Save");
        it.input(Input::Accepted);
        it.skip(SECOND);
        it.input(Input::Traffic);
    }
    assert!(longest > 30 * SECOND, "{longest:?}");
}

#[test]
fn a_login_after_a_logout_that_a_crash_cut_short_does_not_use_the_ticket() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.restart(SECOND);
    it.is("LoggedOut");
    it.on(Input::Login(None), "Connect, Save");
    it.on(Input::Connected, "LogIn(one), Save");
}

#[test]
fn a_stop_in_the_middle_of_a_logout_answers_it() {
    let mut it = Harness::manual().online();
    it.input(Input::Logout);
    it.on(Input::Stop, "Close, Answer(ended), AnswerLogout");
    it.restart(SECOND);
    it.is("LoggedOut");
}

#[test]
fn a_policy_that_is_set_anew_holds_from_then_on() {
    let with = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        Input::Policy(Arc::new(policy))
    };
    // An issuer that comes is asked at once by who waits for a signature, and one that goes leaves the bot to be asked.
    let mut it = Harness::manual().online();
    it.input(expired_70001());
    assert_eq!(it.state(), "RenewingSignature");
    it.on(with(|policy| policy.can_issue = true), "Issue(Expired 1)");
    it.on(with(|_| {}), "ForgetRenewal, Answer(70001)");
    let mut it = Harness::issuing().online();
    it.input(expired_70001());
    it.on(
        with(|_| {}),
        "ForgetRenewal, SignatureExpired(70001), Answer(70001)",
    );

    // Online, the next renewal moves.
    let mut it = Harness::issuing().online();
    it.on(
        with(|policy| (policy.can_issue, policy.renew_at) = (true, 0.1)),
        "",
    );
    it.skip(2 * DAY);
    it.on(Input::Traffic, "");
    it.on(Input::Timeout, "Issue(Expiring 1)");

    // A kick that was to be taken back is not.
    let mut it = Harness::new(Policy {
        kick: KickPolicy::Retake { delay: 30 * SECOND },
        ..Policy::default()
    })
    .online();
    it.input(kicked());
    assert!(it.session.poll_timeout().is_some());
    it.on(with(|_| {}), "");
    assert_eq!(it.session.poll_timeout(), None);
}
