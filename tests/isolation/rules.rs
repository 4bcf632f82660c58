//! The rule of each method: how it is asked for something of another tenant's, and alike for something that there is not.

use std::time::Duration;

use imgate::connectors::tencent::usersig;
use imgate::proto::v1;
use imgate::types::{Secret, WallClock};
use prost::Message;
use tokio::time::Instant;

use crate::raw::{Answer, Raw};

/// The account of the victim, and one of the same length that nobody has.
pub(crate) const VICTIM: &str = "victims-bot-7361";
pub(crate) const NOBODY: &str = "nobodys-bot-7361";
/// Its subscription, and one that nobody has.
const SUBSCRIPTION: &str = "victims-reader-1";
const NO_SUBSCRIPTION: &str = "nobodys-reader-1";
/// What of the victim may be in no answer.
pub(crate) const MARKERS: [&str; 4] = [VICTIM, SUBSCRIPTION, "for-the-victim", "sent-by-victim"];
/// How long the victim may wait for its own message.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the victim has been given.
pub(crate) struct Theirs {
    cursor: String,
    page_token: String,
    subscriptions: v1::ListSubscriptionsResponse,
}

/// Two requests that differ in nothing but in whether there is what they name.
pub(crate) struct Probe {
    pub(crate) what: &'static str,
    pub(crate) foreign: Vec<u8>,
    pub(crate) absent: Vec<u8>,
    /// What the first names, and the second.
    names: Option<(&'static str, &'static str)>,
    /// The answers hold moments, as those of a stream that has begun do.
    only_kind: bool,
}

pub(crate) type Rule = fn(&Theirs) -> Vec<Probe>;

/// Each method with its rule.
pub(crate) const ALL: &[(&str, Rule)] = &[
    ("SessionService/Login", |_| {
        let login = |account: &str, signature: String| v1::LoginRequest {
            account: account.into(),
            signature,
        };
        vec![
            account(|account| login(account, String::new()).encode_to_vec()),
            account(|account| login(account, signature(account)).encode_to_vec()),
        ]
    }),
    ("SessionService/Logout", |_| {
        vec![account(|account| {
            v1::LogoutRequest {
                account: account.into(),
            }
            .encode_to_vec()
        })]
    }),
    ("SessionService/RenewSignature", |_| {
        vec![account(|account| {
            v1::RenewSignatureRequest {
                account: account.into(),
                signature: signature(account),
            }
            .encode_to_vec()
        })]
    }),
    ("SessionService/GetSession", |_| {
        vec![account(|account| {
            v1::GetSessionRequest {
                account: account.into(),
            }
            .encode_to_vec()
        })]
    }),
    ("SessionService/ListSessions", |theirs| {
        let page = |page_token: &str| {
            v1::ListSessionsRequest {
                page_size: 1000,
                page_token: page_token.into(),
            }
            .encode_to_vec()
        };
        let own = page("");
        vec![
            Probe::token("a page token", &theirs.page_token, page),
            Probe::same("its own", own),
        ]
    }),
    // Before the attacker makes some of the same names.
    ("EventService/ListSubscriptions", |_| {
        vec![Probe::same("its own", Vec::new())]
    }),
    ("EventService/Subscribe", |theirs| {
        use v1::subscribe_request::Start;
        let from = |start: Start| v1::SubscribeRequest {
            start: Some(start),
            ..v1::SubscribeRequest::default()
        };
        vec![
            Probe::token("a cursor", &theirs.cursor, |cursor| {
                from(Start::Cursor(cursor.into())).encode_to_vec()
            }),
            account(|account| {
                v1::SubscribeRequest {
                    accounts: vec![account.into()],
                    ..from(Start::At(v1::StartAt::Earliest.into()))
                }
                .encode_to_vec()
            })
            .only_kind(),
            subscription(|name| from(Start::Subscription(name.into())).encode_to_vec()).only_kind(),
        ]
    }),
    ("EventService/Acknowledge", |theirs| {
        let acknowledge = |name: &str, cursor: &str| {
            v1::AcknowledgeRequest {
                subscription: name.into(),
                cursor: cursor.into(),
            }
            .encode_to_vec()
        };
        // By now both names are subscriptions of the attacker's own: a foreign cursor is all that is left to try.
        vec![Probe::token("a cursor", &theirs.cursor, |cursor| {
            acknowledge(SUBSCRIPTION, cursor)
        })]
    }),
    ("EventService/DeleteSubscription", |_| {
        let delete = |name: &str| {
            v1::DeleteSubscriptionRequest {
                subscription: name.into(),
            }
            .encode_to_vec()
        };
        // The first time the attacker's own of that name, the second time there is none.
        vec![subscription(delete), subscription(delete)]
    }),
    ("MessageService/Send", |_| {
        vec![account(|account| {
            v1::SendRequest {
                account: account.into(),
                conversation: Some(v1::send_request::Conversation::To("own".into())),
                client_message_id: "sent-by-attacker".into(),
                elements: vec![text("hello")],
                ..v1::SendRequest::default()
            }
            .encode_to_vec()
        })]
    }),
    ("MessageService/Invoke", |_| {
        vec![account(|account| {
            v1::InvokeRequest {
                account: account.into(),
                command: "im_group.get_group_info".into(),
                body_json: "{}".into(),
            }
            .encode_to_vec()
        })]
    }),
    ("AdminService/ListReplicas", |_| operators(Vec::new())),
    ("AdminService/ListPartitions", |_| {
        operators(v1::ListPartitionsRequest::default().encode_to_vec())
    }),
    ("AdminService/ListTenantSessions", |_| {
        let victim = v1::ListTenantSessionsRequest {
            tenant: "victim".into(),
            ..v1::ListTenantSessionsRequest::default()
        };
        operators(victim.encode_to_vec())
    }),
    ("AdminService/RotateKeys", |_| operators(Vec::new())),
    ("AdminService/PurgeTenant", |_| {
        let victim = v1::PurgeTenantRequest {
            tenant: "victim".into(),
        };
        operators(victim.encode_to_vec())
    }),
    ("AdminService/Drain", |_| operators(Vec::new())),
    ("AdminService/Relogin", |_| {
        let victim = v1::ReloginRequest {
            tenant: "victim".into(),
            account: VICTIM.into(),
        };
        operators(victim.encode_to_vec())
    }),
];

impl Theirs {
    /// What the victim is given in its ordinary use.
    pub(crate) async fn gather(victim: &Raw) -> Self {
        let named = v1::SubscribeRequest {
            start: Some(v1::subscribe_request::Start::Subscription(
                SUBSCRIPTION.into(),
            )),
            ..v1::SubscribeRequest::default()
        };
        let answer = victim
            .ask("EventService/Subscribe", named.encode_to_vec())
            .await;
        let first = v1::SubscribeResponse::decode(&*answer.messages[0]).unwrap();
        let send = v1::SendRequest {
            account: VICTIM.into(),
            conversation: Some(v1::send_request::Conversation::To("human".into())),
            client_message_id: "sent-by-victim".into(),
            elements: vec![text("sent-by-victim")],
            ..v1::SendRequest::default()
        };
        let sent = victim
            .ask("MessageService/Send", send.encode_to_vec())
            .await;
        let sent = v1::SendResponse::decode(&*sent.messages[0]).unwrap();
        assert_eq!(sent.code, 0, "{}", sent.desc);
        let page_token = page_token(victim).await;
        Self {
            cursor: first.cursor,
            page_token,
            subscriptions: subscriptions(victim).await,
        }
    }
}

/// The victim's subscription is where it was.
pub(crate) async fn untouched(victim: &Raw, theirs: &Theirs) {
    let before = &theirs.subscriptions.subscriptions;
    let now = subscriptions(victim).await.subscriptions;
    let names = |list: &[v1::Subscription]| {
        let names = list.iter().map(|subscription| subscription.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(before), names(&now));
    // It was not moved: all that came since is still to be read.
    assert!(now[0].lag_events > before[0].lag_events);
}

async fn subscriptions(of: &Raw) -> v1::ListSubscriptionsResponse {
    let answer = of.ask("EventService/ListSubscriptions", Vec::new()).await;
    v1::ListSubscriptionsResponse::decode(&*answer.messages[0]).unwrap()
}

/// A page token that the victim was given.
async fn page_token(victim: &Raw) -> String {
    for account in ["victims-second-1", VICTIM] {
        let login = v1::LoginRequest {
            account: account.into(),
            signature: String::new(),
        };
        victim
            .ask("SessionService/Login", login.encode_to_vec())
            .await;
    }
    let request = v1::ListSessionsRequest {
        page_size: 1,
        page_token: String::new(),
    };
    let answer = victim
        .ask("SessionService/ListSessions", request.encode_to_vec())
        .await;
    let page = v1::ListSessionsResponse::decode(&*answer.messages[0]).unwrap();
    assert!(!page.next_page_token.is_empty());
    page.next_page_token
}

/// All that the caller's tenant has.
pub(crate) fn from_the_beginning() -> Vec<u8> {
    v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::At(
            v1::StartAt::Earliest.into(),
        )),
        ..v1::SubscribeRequest::default()
    }
    .encode_to_vec()
}

/// Whether a text comes in a subscription from the beginning.
pub(crate) async fn reads_until(of: &Raw, text: &str) -> bool {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let answer = of.ask("EventService/Subscribe", from_the_beginning()).await;
        if answer.contains(text) {
            return true;
        }
    }
    false
}

fn text(text: &str) -> v1::Element {
    v1::Element {
        kind: Some(v1::element::Kind::Text(v1::TextElement {
            text: text.into(),
        })),
    }
}

/// A signature that the upstream would take.
fn signature(account: &str) -> String {
    let key = Secret::new("the app's secret key".to_owned());
    let life = Duration::from_secs(3600);
    let now = WallClock.now();
    usersig::mint(1_400_000_001, &key, account, now, life, None)
        .expose()
        .clone()
}

/// What only an operator may call: a tenant learns nothing by it, whatever it names.
fn operators(request: Vec<u8>) -> Vec<Probe> {
    vec![Probe {
        absent: Vec::new(),
        ..Probe::same("what is the operator's", request)
    }]
}

fn account(request: impl Fn(&str) -> Vec<u8>) -> Probe {
    Probe {
        names: Some((VICTIM, NOBODY)),
        ..Probe::named("an account", VICTIM, |name| request(name)).against(request(NOBODY))
    }
}

fn subscription(request: impl Fn(&str) -> Vec<u8>) -> Probe {
    Probe {
        names: Some((SUBSCRIPTION, NO_SUBSCRIPTION)),
        ..Probe::named("a subscription", SUBSCRIPTION, |name| request(name))
            .against(request(NO_SUBSCRIPTION))
    }
}

impl Probe {
    /// Something with a name.
    pub(crate) fn named(what: &'static str, name: &str, request: impl Fn(&str) -> Vec<u8>) -> Self {
        Self {
            what,
            foreign: request(name),
            absent: request(NOBODY),
            names: Some((VICTIM, NOBODY)),
            only_kind: false,
        }
    }

    /// A token of another tenant's, against one that is made up.
    fn token(what: &'static str, theirs: &str, request: impl Fn(&str) -> Vec<u8>) -> Self {
        let mut made_up = theirs.to_owned();
        let last = made_up.pop().expect("a token");
        made_up.push(if last == 'A' { 'Q' } else { 'A' });
        Self {
            what,
            foreign: request(theirs),
            absent: request(&made_up),
            names: None,
            only_kind: false,
        }
    }

    /// What names nothing of anybody's.
    fn same(what: &'static str, request: Vec<u8>) -> Self {
        Self {
            what,
            foreign: request.clone(),
            absent: request,
            names: None,
            only_kind: false,
        }
    }

    fn against(self, absent: Vec<u8>) -> Self {
        Self { absent, ..self }
    }

    fn only_kind(self) -> Self {
        Self {
            only_kind: true,
            ..self
        }
    }

    /// Whether the request itself names it, so that the answer may.
    pub(crate) fn names(&self, marker: &str) -> bool {
        self.names.is_some_and(|(foreign, _)| foreign == marker)
    }

    /// An answer as far as it may be compared: without the name that was asked for, and without moments.
    pub(crate) fn unnamed(&self, answer: &Answer) -> Answer {
        let mut answer = match self.names {
            Some((foreign, absent)) => answer.renamed(foreign, absent),
            None => answer.clone(),
        };
        if self.only_kind {
            for message in &mut answer.messages {
                message.clear();
            }
        }
        answer
    }
}
