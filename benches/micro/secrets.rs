//! Signatures, cursors, what is sealed, and who calls.

use std::hint::black_box;
use std::time::Duration;

use imgate::connectors::tencent::usersig::{self, UserSig};
use imgate::events::cursor::{Cursor, Mark};
use imgate::events::entry::Print;
use imgate::store::seal::SealedFor;
use imgate::store::{LogId, Position};
use imgate::tenants::auth::{Credentials, Scope};
use imgate::tenants::directory::{ApiKey, Callers, Directory, Tenant};
use imgate::tenants::keys::{Key, KeyDigest};
use imgate::tenants::token::Tokens;
use imgate::types::Secret;

use crate::inputs::{ACCOUNT, APP, key, now, sealer, session_key, tenant};
use crate::{Case, Operation};

/// As many partitions as a tenant has by default.
const PARTITIONS: u16 = 8;
/// What a session has to hide: two signatures and a ticket, about.
const SECRETS: usize = 600;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("usersig/mint", mint).by_cpu(),
        Case::new("usersig/parse", parse).by_cpu(),
        Case::new("usersig/verify", verify).by_cpu(),
        Case::new("cursor/encode", encode_cursor).by_cpu(),
        Case::new("cursor/decode", decode_cursor).by_cpu(),
        Case::new("seal/seal", seal).by_cpu(),
        Case::new("seal/open", open).by_cpu(),
        Case::new("caller/by API key", authenticate).by_cpu(),
    ]
}

fn app_key() -> Secret<String> {
    Secret::new("5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e".into())
}

fn signature() -> Secret<String> {
    let month = Duration::from_secs(30 * 24 * 3600);
    usersig::mint(APP, &app_key(), ACCOUNT, now().wall, month, None)
}

fn mint() -> Operation {
    Box::new(|| {
        black_box(signature());
    })
}

fn parse() -> Operation {
    let text = signature();
    Box::new(move || {
        black_box(UserSig::parse(black_box(text.expose())).unwrap());
    })
}

fn verify() -> Operation {
    let (signature, key) = (UserSig::parse(signature().expose()).unwrap(), app_key());
    Box::new(move || assert!(black_box(&signature).verify(&key)))
}

fn cursor() -> Cursor {
    let mark = |number: u16| Mark {
        position: Position {
            log: LogId(0x9e37_79b9_7f4a_7c15),
            sequence: 1_000_000 + u64::from(number),
        },
        print: Some(Print(0xdead_beef)),
    };
    Cursor {
        marks: (0..PARTITIONS)
            .map(|number| (number, mark(number)))
            .collect(),
    }
}

/// One goes with every batch.
fn encode_cursor() -> Operation {
    let (tokens, tenant, cursor) = (Tokens::new(&key(), []), tenant(), cursor());
    Box::new(move || {
        black_box(cursor.encode(&tokens, &tenant));
    })
}

fn decode_cursor() -> Operation {
    let (tokens, tenant) = (Tokens::new(&key(), []), tenant());
    let text = cursor().encode(&tokens, &tenant);
    Box::new(move || {
        black_box(Cursor::decode(&tokens, &tenant, black_box(&text)).unwrap());
    })
}

fn seal() -> Operation {
    let (sealer, whose, plain) = (sealer(), session_key(), vec![b'x'; SECRETS]);
    Box::new(move || {
        let belongs = SealedFor {
            tenant: &whose.tenant,
            account: &whose.account,
            kind: "session secrets",
        };
        black_box(sealer.seal(&belongs, black_box(&plain)).unwrap());
    })
}

fn open() -> Operation {
    let (sealer, whose) = (sealer(), session_key());
    let belongs = SealedFor {
        tenant: &whose.tenant,
        account: &whose.account,
        kind: "session secrets",
    };
    let sealed = sealer.seal(&belongs, &[b'x'; SECRETS]).unwrap();
    Box::new(move || {
        let belongs = SealedFor {
            tenant: &whose.tenant,
            account: &whose.account,
            kind: "session secrets",
        };
        black_box(sealer.open(&belongs, black_box(&sealed)).unwrap());
    })
}

/// What every call begins with.
fn authenticate() -> Operation {
    let bearer = "acme-0123456789abcdef0123456789abcdef";
    let directory = Directory::new(vec![Tenant {
        id: tenant(),
        partitions: PARTITIONS,
        max_subscriptions: 100,
        callers: Callers {
            keys: vec![ApiKey {
                key: Key::new("main".into(), KeyDigest::of(bearer)),
                scopes: Scope::ALL.to_vec(),
            }],
            ..Callers::default()
        },
        open: false,
    }]);
    let (directory, now) = (directory.unwrap(), now().wall);
    let authorization = format!("Bearer {bearer}");
    Box::new(move || {
        let credentials = Credentials {
            authorization: Some(black_box(&authorization)),
            ..Credentials::default()
        };
        black_box(directory.authenticate(now, credentials).unwrap());
    })
}
