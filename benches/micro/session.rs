//! The state machine of a session, and its record, which is stored with each of its events.

use std::hint::black_box;
use std::sync::Arc;

use imgate::runtime::record;
use imgate::session::Session;
use imgate::session::effect::Effect;
use imgate::session::input::Input;
use imgate::session::policy::Policy;

use crate::conversation::Talk;
use crate::inputs::{Pushes, now, sealer, session_key, signature};
use crate::{Case, Operation};

/// Pushes after which a session's record is as large as it usually is.
const READ: usize = 256;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("session/life of a login", life),
        Case::new("session/traffic", traffic),
        Case::new("record/encode", encode_record).by_cpu(),
        Case::new("record/decode", decode_record).by_cpu(),
    ]
}

/// From the first login to the logout.
fn life() -> Operation {
    let (policy, now, mut effects) = (Arc::new(Policy::default()), now(), Vec::new());
    let signature = signature();
    Box::new(move || {
        let mut session = Session::new(Arc::clone(&policy), 7);
        for input in [
            Input::Login(Some(signature.clone())),
            Input::Connected,
            Input::Accepted,
            Input::Traffic,
            Input::Logout,
            Input::LoggedOut,
        ] {
            session.handle(now, input, &mut effects);
            black_box(session.poll_timeout());
            black_box(&effects);
            effects.clear();
        }
    })
}

fn online() -> Session {
    let (now, mut effects) = (now(), Vec::new());
    let mut session = Session::new(Arc::default(), 7);
    for input in [
        Input::Login(Some(signature())),
        Input::Connected,
        Input::Accepted,
    ] {
        session.handle(now, input, &mut effects);
    }
    assert!(effects.contains(&Effect::Save));
    session
}

/// What every frame of an online session does.
fn traffic() -> Operation {
    let (mut session, now, mut effects) = (online(), now(), Vec::new());
    Box::new(move || {
        session.handle(now, black_box(Input::Traffic), &mut effects);
        black_box(session.poll_timeout());
        assert!(effects.is_empty());
    })
}

/// A conversation that has read.
fn talk() -> Talk {
    let (mut talk, mut pushes) = (Talk::online(), Pushes::of(1));
    for _ in 0..READ {
        talk.receive(pushes.next());
    }
    talk
}

fn encode_record() -> Operation {
    let (sealer, key, session, talk) = (sealer(), session_key(), online(), talk());
    Box::new(move || {
        black_box(record::encode(&sealer, &key, &session, &talk.protocol).unwrap());
    })
}

fn decode_record() -> Operation {
    let (sealer, key) = (sealer(), session_key());
    let bytes = record::encode(&sealer, &key, &online(), &talk().protocol).unwrap();
    Box::new(move || {
        black_box(record::decode(&sealer, &key, black_box(&bytes)).unwrap());
    })
}
