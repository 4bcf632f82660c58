//! What was done, by whom, and how it ended: structured lines on a log target of their own, [`TARGET`]. README.md,
//! "Audit", lists the fields, which stay as they are. Never a secret, never a message.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::info;

use super::auth::{Means, Operator, Principal};
use crate::types::{AccountId, TenantId};

/// The log target. `imgate::audit=off` in `log.level` turns it off.
pub const TARGET: &str = "imgate::audit";

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A caller had an account logged in.
    Login,
    /// A caller had it logged out.
    Logout,
    /// A caller brought a fresh signature.
    RenewSignature,
    /// A caller sent a raw upstream command.
    Invoke,
    /// A named subscription was made.
    MakeSubscription,
    /// One was deleted.
    DeleteSubscription,
    /// An operator had records sealed anew.
    RotateKeys,
    /// An operator had the data of a removed tenant deleted.
    PurgeTenant,
    /// The configuration was read anew.
    ReloadConfiguration,
    /// The gateway got a fresh signature, or did not, from an issuer.
    Renew,
    /// The gateway took an account back after a kick, or could not.
    Retake,
    /// The gateway stopped a session until its bot acts.
    Park,
}

impl Action {
    /// The name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::RenewSignature => "renew_signature",
            Self::Invoke => "invoke",
            Self::MakeSubscription => "make_subscription",
            Self::DeleteSubscription => "delete_subscription",
            Self::RotateKeys => "rotate_keys",
            Self::PurgeTenant => "purge_tenant",
            Self::ReloadConfiguration => "reload_configuration",
            Self::Renew => "renew",
            Self::Retake => "retake",
            Self::Park => "park",
        }
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A caller of a tenant, by an API key of this ID.
    ApiKey(Arc<str>),
    /// One by a name of its client certificate, of this ID.
    Certificate(Arc<str>),
    /// One by the subject of a JWT, of this ID.
    Jwt(Arc<str>),
    /// A caller of an open tenant.
    Open,
    /// An operator, by a key of this ID.
    Operator(Arc<str>),
    /// The gateway by itself.
    Gateway,
}

impl By {
    fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::ApiKey(id) => ("api_key", Some(id)),
            Self::Certificate(id) => ("certificate", Some(id)),
            Self::Jwt(id) => ("jwt", Some(id)),
            Self::Open => ("open", None),
            Self::Operator(id) => ("operator", Some(id)),
            Self::Gateway => ("gateway", None),
        }
    }
}

impl From<&Principal> for By {
    fn from(caller: &Principal) -> Self {
        let id = Arc::clone(&caller.key_id);
        match caller.means {
            Means::ApiKey => Self::ApiKey(id),
            Means::Certificate => Self::Certificate(id),
            Means::Jwt => Self::Jwt(id),
            Means::Nothing => Self::Open,
        }
    }
}

impl From<&Operator> for By {
    fn from(operator: &Operator) -> Self {
        Self::Operator(Arc::clone(&operator.id))
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// What the gateway says: the name of a gRPC code.
    pub code: &'a str,
    /// What the upstream says, if it was asked: 0 is success.
    pub upstream_code: Option<i32>,
    /// The reason of a refusal, one of a closed list.
    pub reason: Option<&'a str>,
}

impl Outcome<'_> {
    /// It was done.
    pub const OK: Self = Self {
        code: "OK",
        upstream_code: None,
        reason: None,
    };
}

/// Something that is being done. It is written once, when it has ended or, with the outcome CANCELLED, when nobody
/// waits for its end any more.
#[derive(Debug)]
#[must_use = "it is written when it has ended"]
pub struct Event {
    action: Action,
    by: By,
    tenant: Option<TenantId>,
    account: Option<AccountId>,
    object: Option<String>,
    peer: Option<SocketAddr>,
    written: bool,
}

impl Event {
    /// Begins one.
    pub const fn new(action: Action, by: By) -> Self {
        Self {
            action,
            by,
            tenant: None,
            account: None,
            object: None,
            peer: None,
            written: false,
        }
    }

    /// Of which tenant it is.
    pub fn tenant(mut self, tenant: &TenantId) -> Self {
        self.tenant = Some(tenant.clone());
        self
    }

    /// To which account it is done.
    pub fn account(mut self, account: Option<&AccountId>) -> Self {
        self.account = account.cloned();
        self
    }

    /// To what else: the name of a subscription or of a command.
    pub fn object(mut self, name: impl Into<String>) -> Self {
        self.object = Some(name.into());
        self
    }

    /// From where the caller calls.
    pub const fn peer(mut self, peer: Option<SocketAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// It has ended.
    pub fn ended(mut self, outcome: Outcome<'_>) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome<'_>) {
        self.written = true;
        let (caller_kind, caller_id) = self.by.parts();
        info!(
            target: TARGET,
            action = self.action.name(),
            tenant = self.tenant.as_ref().map(TenantId::as_str),
            account = self.account.as_ref().map(AccountId::as_str),
            object = self.object.as_deref(),
            caller_kind,
            caller_id,
            peer = self.peer.map(tracing::field::display),
            outcome = outcome.code,
            upstream_code = outcome.upstream_code,
            reason = outcome.reason,
            "audit"
        );
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.written {
            self.write(Outcome {
                code: "CANCELLED",
                ..Outcome::default()
            });
        }
    }
}

/// The configuration was read anew, and holds from now on; or it was refused as a whole.
pub fn configuration_reloaded(accepted: bool) {
    let outcome = Outcome {
        code: if accepted { "OK" } else { "INVALID_ARGUMENT" },
        ..Outcome::default()
    };
    Event::new(Action::ReloadConfiguration, By::Gateway).ended(outcome);
}
