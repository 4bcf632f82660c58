//! The running gateway: finds or starts the session that a call is for, and puts the call to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::connectors::tencent::usersig::UserSig;
use crate::connectors::{OutgoingMessage, invoke};
use crate::error::Classified as _;
use crate::events::log::{LogOptions, LogWriter};
use crate::proto::v1;
use crate::runtime::handle::{CallError, HeldPartition, Invoked, Outcome, Sent};
use crate::runtime::purge::{self, PurgeError};
use crate::runtime::record;
use crate::runtime::registry::{Registry, TenantSessions};
use crate::runtime::reseal::{Resealing, RotationWatch};
use crate::runtime::session_actor::{Command, Mailbox};
use crate::runtime::supervisor::Tasks;
use crate::runtime::tenant::{Settings, Tenant};
use crate::store::{Store, StoreError, StoredSend, StoredSession};
use crate::tenants::quotas::{Exceeded, Subscriber};
use crate::types::{PartitionId, Secret, SessionKey, TenantId, WallClock};

/// How often a call is put to a session whose task ends just then.
const ATTEMPTS: usize = 4;
/// The running gateway, as the API sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    registry: Arc<ArcSwap<Registry>>,
    store: Arc<dyn Store>,
    sessions: Tasks,
    resealing: Resealing,
}

impl Gateway {
    /// The gateway of these tenants, each with the writers of its partitions in order.
    pub fn new(
        tenants: Vec<(Arc<Tenant>, Vec<LogWriter>)>,
        store: Arc<dyn Store>,
        tasks: &Tasks,
    ) -> Self {
        let gateway = Self {
            registry: Arc::default(),
            store,
            sessions: tasks.child(),
            resealing: Resealing::new(),
        };
        for (tenant, writers) in tenants {
            gateway.add(tenant, writers);
        }
        gateway.resealing.start(gateway.clone(), &gateway.sessions);
        gateway
    }

    /// Takes calls for one tenant more, whose partitions have these writers, in order.
    pub fn add(&self, tenant: Arc<Tenant>, writers: Vec<LogWriter>) {
        let sessions = Arc::new(TenantSessions::new(tenant, writers));
        self.registry.rcu(|registry| {
            let mut registry = Registry::clone(registry);
            registry.insert(sessions.tenant.id.clone(), Arc::clone(&sessions));
            registry
        });
    }

    /// Sets how a tenant's sessions behave from now on, and how its log is written.
    pub fn set(&self, tenant: &TenantId, settings: Settings, log: &LogOptions) {
        if let Ok(sessions) = self.tenant(tenant) {
            sessions.set(settings, log);
        }
    }

    /// Takes no more calls for a tenant, logs its sessions out upstream, and lets its partitions go. A session that is not
    /// logged out `within` this time, as while the store is away, is closed, and comes back when the tenant does.
    pub async fn remove(&self, tenant: &TenantId, within: Duration) {
        let Ok(sessions) = self.tenant(tenant) else {
            return;
        };
        self.registry.rcu(|registry| {
            let mut registry = Registry::clone(registry);
            registry.remove(tenant);
            registry
        });
        let logged_out = sessions.log_out_all();
        if tokio::time::timeout(within, logged_out).await.is_err() {
            warn!(%tenant, "not every session of the removed tenant could be logged out; the rest is closed");
        }
        sessions.let_all_go().await;
        sessions.tenant.settings().pacer.forget(tenant);
    }

    /// Keeps an account logged in; answers when the login in flight, or the present state, has an outcome.
    /// Dropping the future leaves the login going.
    pub async fn login(
        &self,
        key: &SessionKey,
        signature: Option<Secret<String>>,
    ) -> Result<(Outcome, v1::Session), CallError> {
        let sessions = self.tenant(&key.tenant)?;
        let signature = signature.map(record::signature);
        let mut counted = false;
        for _ in 0..ATTEMPTS {
            // Before anything that costs more than a look.
            if !counted && sessions.begins_login(&key.account)? {
                sessions.tenant.quotas.log_in()?;
                counted = true;
            }
            let mailbox = self.for_login(&sessions, key, signature.is_some()).await?;
            let (reply, answer) = oneshot::channel();
            let login = Box::new(Command::Login(signature.clone(), reply));
            if mailbox.send(login).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
        }
        Err(CallError::Stopping)
    }

    /// Logs an account out and keeps it out. Says so only when that is stored, and so not while the store is away.
    pub async fn logout(&self, key: &SessionKey) -> Result<v1::Session, CallError> {
        self.can_store(&*self.tenant(&key.tenant)?).await?;
        // A record that cannot be read cannot be written either: a later start might find it desired.
        let at_rest = |view: v1::Session| (!view.desired).then_some(view);
        self.ask(key, Command::Logout, at_rest).await
    }

    /// Hands a session a fresh signature. As with a logout, not while the store is away.
    pub async fn renew_signature(
        &self,
        key: &SessionKey,
        signature: Secret<String>,
    ) -> Result<v1::Session, CallError> {
        let sessions = self.tenant(&key.tenant)?;
        check_signature(&sessions.tenant, key, signature.expose())?;
        let signature = record::signature(signature);
        self.can_store(&sessions).await?;
        self.ask(
            key,
            |reply| Command::RenewSignature(signature.clone(), reply),
            |_| None,
        )
        .await
    }

    /// One session.
    pub fn session(&self, key: &SessionKey) -> Result<v1::Session, CallError> {
        self.tenant(&key.tenant)?
            .view(&key.account)?
            .ok_or(CallError::UnknownAccount)
    }

    /// At most `limit` sessions of a tenant with accounts after `after`, in order.
    pub fn sessions(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<v1::Session>, CallError> {
        self.tenant(tenant)?.views(after, limit)
    }

    /// Sends a message; waits for a session that is reconnecting. After `deadline` it is not sent any more. One with a
    /// client message ID is sent once, and answered alike, however often it is asked for within 10 minutes.
    pub async fn send(
        &self,
        key: &SessionKey,
        message: OutgoingMessage,
        deadline: Instant,
    ) -> Result<Sent, CallError> {
        self.tenant(&key.tenant)?.tenant.quotas.send()?;
        self.ask(
            key,
            |reply| Command::Send(message.clone(), deadline, reply),
            |_| None,
        )
        .await
    }

    /// Sends a raw command that the tenant may send, and answers its raw body.
    pub async fn invoke(
        &self,
        key: &SessionKey,
        command: String,
        body_json: String,
    ) -> Result<Invoked, CallError> {
        if invoke::is_reserved(&command) {
            return Err(CallError::Invalid {
                field: "command",
                remedy: "the gateway itself logs in and out: call Login or Logout".into(),
            });
        }
        let sessions = self.tenant(&key.tenant)?;
        let settings = sessions.tenant.settings();
        if !settings.invoke_commands.has(&command) {
            return Err(CallError::CommandNotAllowed(command));
        }
        sessions.tenant.quotas.send()?;
        let ask = |reply| Command::Invoke(command.clone(), body_json.clone(), reply);
        self.ask(key, ask, |_| None).await
    }

    /// Counts a stream of Subscribe until the answer is dropped. A tenant that has no sessions here has no limit here.
    pub fn subscribe(&self, tenant: &TenantId) -> Result<Option<Subscriber>, Exceeded> {
        let sessions = self.tenant(tenant).ok();
        sessions
            .map(|sessions| sessions.tenant.quotas.subscribe())
            .transpose()
    }

    /// Removes all that the store has of a tenant that was removed from the configuration. Answers how many partitions
    /// that was.
    pub async fn purge(&self, tenant: &TenantId) -> Result<u16, PurgeError> {
        if self.tenant(tenant).is_ok() {
            return Err(PurgeError::Declared);
        }
        purge::purge(&*self.store, tenant).await
    }

    /// Begins to hold a partition, with what is stored of its sessions and of their sends.
    pub fn adopt(
        &self,
        partition: &PartitionId,
        stored: Vec<StoredSession>,
        sends: Vec<StoredSend>,
    ) {
        if let Ok(sessions) = self.tenant(&partition.tenant) {
            let old_seals = sessions.adopt(partition.number, stored, sends, &self.sessions);
            if old_seals {
                self.resealing.request();
            }
        }
    }

    /// Has the record of every session of a partition stored again, for the store has lost it. False if there is more
    /// to be stored than is taken now.
    pub fn save_all(&self, partition: &PartitionId) -> bool {
        match self.tenant(&partition.tenant) {
            Ok(sessions) => {
                self.resealing.look_again();
                sessions.save_all(partition.number)
            }
            Err(_) => true,
        }
    }

    /// Another replica owns the partition: its sessions close at once and store nothing more.
    pub async fn lose(&self, partition: &PartitionId) {
        if let Ok(sessions) = self.tenant(&partition.tenant) {
            sessions.let_go(partition.number, true).await;
        }
    }

    /// Whether what sessions have to store is stored soon.
    pub fn accepts(&self) -> Result<(), StoreError> {
        self.registry
            .load()
            .values()
            .try_for_each(|sessions| sessions.accept())
    }

    /// Closes all sessions without logging them out, and waits until what they have is stored.
    pub async fn stop(&self) {
        self.sessions.stop();
        for sessions in self.registry.load_full().values() {
            sessions.let_all_go().await;
        }
    }

    /// Seals anew, in the background, what other keys than the active one have sealed. It goes on when nobody watches.
    pub fn reseal(&self) -> RotationWatch {
        self.resealing.watch()
    }

    /// The same, and nobody watches.
    pub fn reseal_soon(&self) {
        self.resealing.request();
    }

    /// The partitions that are held here, of one tenant or of all, in order.
    pub async fn partitions(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<HeldPartition>, CallError> {
        let mut tenants = match tenant {
            Some(tenant) => vec![self.tenant(tenant)?],
            None => self.tenants(),
        };
        tenants.sort_by(|one, other| one.tenant.id.cmp(&other.tenant.id));
        let leases = tenants.iter().flat_map(|tenant| tenant.leases());
        let mut held = Vec::new();
        for lease in leases {
            let bounds = self.store.log_bounds(&lease.partition).await?;
            held.push(HeldPartition {
                lease,
                last_sequence: bounds.last_sequence,
            });
        }
        Ok(held)
    }

    /// The mailbox of a session that is to be logged in, brought to life if need be.
    async fn for_login(
        &self,
        sessions: &Arc<TenantSessions>,
        key: &SessionKey,
        brings_signature: bool,
    ) -> Result<Mailbox, CallError> {
        if self.sessions.is_stopping() {
            return Err(CallError::Stopping);
        }
        let view = sessions.view(&key.account)?;
        if let Some(mailbox) = sessions.running(&key.account) {
            let is_online = |view: &v1::Session| view.state() == v1::SessionState::Online;
            let online = view.as_ref().is_some_and(is_online);
            if !online || brings_signature {
                // A login whose outcome cannot be stored would be forgotten by the next restart, and a signature
                // that is to be kept would have its caller wait until the store is back.
                self.can_store(sessions).await?;
            }
            return Ok(mailbox);
        }
        if sessions.is_full() {
            return Err(sessions.too_many_sessions());
        }
        if view.is_none() {
            self.can_store(sessions).await?;
            // Whoever holds the partition knows of every account that has a record; it may have got one meanwhile.
            if sessions.view(&key.account)?.is_none() {
                return sessions.start(&key.account, None, Vec::new());
            }
        }
        sessions.accept()?;
        let partition = key.partition(sessions.tenant.partitions);
        let stored = self.store.session(&partition, &key.account).await?;
        let mut sends = Vec::new();
        if sessions.has_sends_at_rest(&key.account) {
            sends = self.store.sends(&partition).await?;
            sends.retain(|send| send.account == key.account);
        }
        sessions.start(&key.account, stored.as_deref(), sends)
    }

    /// Whether a call that is to be stored before it is answered can be: else it would wait until its deadline.
    async fn can_store(&self, sessions: &TenantSessions) -> Result<(), CallError> {
        sessions.accept()?;
        Ok(self.store.ping().await?)
    }

    /// Asks a running session. One that is not running answers what `at_rest` makes of its view, if anything.
    async fn ask<T>(
        &self,
        key: &SessionKey,
        command: impl Fn(oneshot::Sender<Result<T, CallError>>) -> Command,
        at_rest: impl Fn(v1::Session) -> Option<T>,
    ) -> Result<T, CallError> {
        let sessions = self.tenant(&key.tenant)?;
        for _ in 0..ATTEMPTS {
            if self.sessions.is_stopping() {
                return Err(CallError::Stopping);
            }
            let view = sessions
                .view(&key.account)?
                .ok_or(CallError::UnknownAccount)?;
            let Some(mailbox) = sessions.running(&key.account) else {
                let refused = CallError::NotLoggedIn(if view.desired {
                    view.desc.clone()
                } else {
                    "logged out".into()
                });
                return at_rest(view).ok_or(refused);
            };
            let (reply, answer) = oneshot::channel();
            if mailbox.send(Box::new(command(reply))).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
        }
        Err(CallError::Stopping)
    }

    /// The sessions of every tenant.
    pub(super) fn tenants(&self) -> Vec<Arc<TenantSessions>> {
        self.registry.load().values().cloned().collect()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantSessions>, CallError> {
        let registry = self.registry.load();
        registry
            .get(tenant)
            .cloned()
            .ok_or(CallError::UnknownAccount)
    }
}

/// A signature that the bot brings for later must be one that can be used then.
fn check_signature(tenant: &Tenant, key: &SessionKey, text: &str) -> Result<(), CallError> {
    let refuse = |remedy: String| CallError::Invalid {
        field: "signature",
        remedy,
    };
    let parsed = UserSig::parse(text).map_err(|error| refuse(error.public_text()))?;
    if parsed.account != key.account.as_str() {
        return Err(refuse("is made for another account".into()));
    }
    if parsed.sdk_app_id != tenant.sdk_app_id {
        return Err(refuse(format!("is made for app {}", parsed.sdk_app_id)));
    }
    if parsed.expires_at() <= WallClock.now() {
        return Err(refuse("has already expired: make a fresh one".into()));
    }
    Ok(())
}
