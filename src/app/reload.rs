//! The configuration while the gateway runs: it is read again when its files change or when somebody asks, and what has
//! changed is put in force. A configuration that is wrong is refused as a whole, and the one in force stays.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::callers::Callers;
use super::partitions::Partitions;
use super::parts::Pacers;
use super::{AppError, enrolment, parts};
use crate::config::metrics as names;
use crate::config::{Change, Config, ConfigErrors, Files, Seen};
use crate::error::{Classified, ErrorKind};
use crate::grpc::listener::tls::TlsReload;
use crate::runtime::supervisor::{TaskKind, Tasks};
use crate::store::Store;
use crate::store::seal::Sealer;
use crate::tenants::audit;
use crate::tenants::token::Tokens;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long changed files must stay as they are before they are read: whoever writes them may not be done.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Why a configuration is not put in force. The text is for the operator and names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is wrong, or changes what cannot change now.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A part cannot be made of it.
    #[error(transparent)]
    Part(#[from] AppError),
    /// The gateway has no files, or is stopping.
    #[error(
        "the gateway does not read its configuration again: it is stopping, or was started without files"
    )]
    NotReading,
}

/// Follows the files of a configuration, if it has any, until `tasks` stop.
pub(super) fn follow(files: Option<(Files, Seen)>, live: Live, tasks: &Tasks) -> Asker {
    // At most one request waits; a further one waits for its place.
    let (requests, asked) = mpsc::channel(1);
    if let Some((files, seen)) = files {
        let follower = Follower {
            files,
            seen,
            again: false,
            live,
        };
        let following = follower.run(asked, tasks.clone());
        tasks.spawn("configuration", TaskKind::Vital, following);
    }
    Asker { requests }
}

impl Classified for ReloadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(errors) => errors.kind(),
            Self::Part(error) => error.kind(),
            Self::NotReading => ErrorKind::Precondition,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        (self.kind() == ErrorKind::Unavailable).then_some(LOOK_EVERY)
    }

    fn public_text(&self) -> String {
        "the configuration was not put in force; ask the operator".into()
    }
}

/// Asks for the configuration to be read.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    requests: mpsc::Sender<Request>,
}

/// Somebody asks, and waits for what became of it.
type Request = oneshot::Sender<Result<(), ReloadError>>;

impl Asker {
    pub(super) async fn ask(&self) -> Result<(), ReloadError> {
        let (request, answer) = oneshot::channel();
        let asked = self.requests.send(request).await;
        asked.map_err(|_| ReloadError::NotReading)?;
        answer.await.unwrap_or(Err(ReloadError::NotReading))
    }
}

/// What can be set anew.
#[derive(Debug)]
pub(super) struct Live {
    /// What is in force.
    pub(super) config: Config,
    pub(super) store: Arc<dyn Store>,
    pub(super) partitions: Partitions,
    pub(super) callers: Callers,
    pub(super) tls: Option<TlsReload>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) tokens: Tokens,
    pub(super) pacers: Pacers,
}

/// Follows the files of a configuration.
struct Follower {
    files: Files,
    /// What was read last.
    seen: Seen,
    /// It could not be put in force for a reason that passes.
    again: bool,
    live: Live,
}

impl Follower {
    /// Reads the files when they change, and when somebody asks, until `tasks` stop.
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, tasks: Tasks) {
        loop {
            let look = async {
                tokio::time::sleep(LOOK_EVERY).await;
                self.changed_and_settled().await
            };
            let request = tokio::select! {
                biased;
                () = tasks.stopping() => return,
                Some(request) = asked.recv() => Some(request),
                changed = look => {
                    if !changed {
                        continue;
                    }
                    None
                }
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                reloaded = self.reload() => if let Some(request) = request {
                    // Whoever asked may not wait for the answer.
                    let _gone = request.send(reloaded);
                }
            }
        }
    }

    async fn changed_and_settled(&self) -> bool {
        if is_current(&self.seen).await {
            return self.again;
        }
        loop {
            let (_, seen) = read(&self.files).await;
            tokio::time::sleep(SETTLED_AFTER).await;
            if is_current(&seen).await {
                // It may have changed back.
                return seen != self.seen;
            }
        }
    }

    async fn reload(&mut self) -> Result<(), ReloadError> {
        let (loaded, seen) = read(&self.files).await;
        self.seen = seen;
        let put_in_force = match loaded {
            Ok(config) => self.live.set(config).await,
            Err(errors) => Err(errors.into()),
        };
        self.again = put_in_force
            .as_ref()
            .is_err_and(|refusal| refusal.kind() == ErrorKind::Unavailable);
        let outcome = match &put_in_force {
            Ok(true) => "applied",
            Ok(false) => "unchanged",
            Err(refusal) => {
                error!(%refusal, "the configuration is refused; the one in force stays");
                "refused"
            }
        };
        if !matches!(put_in_force, Ok(false)) {
            audit::configuration_reloaded(put_in_force.is_ok());
        }
        counter!(names::RELOADS, "outcome" => outcome).increment(1);
        gauge!(names::IN_FORCE).set(if put_in_force.is_ok() { 1.0 } else { 0.0 });
        put_in_force.map(|_| ())
    }
}

impl Live {
    /// Puts a configuration in force, as a whole or not at all. True if that changed anything.
    async fn set(&mut self, next: Config) -> Result<bool, ReloadError> {
        let change = self.config.change_to(&next)?;
        if change.is_empty() {
            return Ok(false);
        }
        let Change {
            added,
            changed,
            removed,
            seal,
            tls,
            callers: _,
        } = change;
        // Everything that can fail comes first.
        let callers = self.callers.prepare(&next).map_err(AppError::from)?;
        let replacement = match (&self.tls, tls) {
            (Some(reload), Some(tls)) => {
                let prepared = reload.prepare(&parts::tls(&tls));
                Some(prepared.map_err(|error| AppError::Server(error.into()))?)
            }
            // It neither comes nor goes.
            (Some(_) | None, _) => None,
        };
        let mut newcomers = Vec::new();
        for tenant in added {
            enrolment::enrol(&self.store, &tenant).await?;
            let runtime = parts::runtime_tenant(&next, &tenant, &self.sealer, &self.pacers)?;
            newcomers.push((tenant, runtime));
        }
        let mut settings = Vec::new();
        for tenant in changed {
            let set = parts::settings(&next, &tenant, &self.pacers)?;
            settings.push((tenant, set));
        }
        if let Some(keys) = &seal {
            parts::replace_secrets(&self.sealer, &self.tokens, keys).map_err(AppError::from)?;
            info!(active = keys.active, "the sealing keys are set anew");
            // What the others have sealed is sealed anew while they are there.
            self.partitions.gateway().reseal_soon();
        }
        for warning in next.warnings() {
            warn!("{warning}");
        }
        self.config = next;
        if let Some(replacement) = replacement {
            replacement.put_in_force();
        }
        self.pacers.set_rate(self.config.pacing.connects_per_second);
        for (tenant, runtime) in newcomers {
            info!(tenant = %tenant.id, "a tenant is taken in");
            self.partitions.add(&tenant, runtime).await;
        }
        for (tenant, set) in settings {
            info!(tenant = %tenant.id, "a tenant's configuration is set anew");
            let log = parts::log_options(&tenant.log, &self.sealer);
            self.partitions.gateway().set(&tenant.id, set, &log);
            self.partitions
                .set_expiry(&tenant.id, tenant.log.subscription_expiry);
        }
        // Nobody may call for a tenant any more that goes.
        self.callers.put(callers);
        for tenant in removed {
            warn!(%tenant, "a tenant is removed: its sessions are logged out, its data is kept");
            self.partitions.remove(&tenant).await;
        }
        Ok(true)
    }
}

async fn read(files: &Files) -> (Result<Config, ConfigErrors>, Seen) {
    let files = files.clone();
    blocking(move || files.load()).await
}

async fn is_current(seen: &Seen) -> bool {
    let seen = seen.clone();
    blocking(move || seen.is_current()).await
}

/// Reads files on a thread that may wait for them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It is not cancelled, and a panic is passed on as if it were here.
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
