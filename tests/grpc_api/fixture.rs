//! A served API over a store in memory, and clients of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use imgate::events::hub::Hub;
use imgate::events::log::{Append, LogOptions, LogWriter};
use imgate::events::service::Events;
use imgate::grpc::listener::tls::TlsReload;
use imgate::grpc::server::{self, Api, Health, Limits, Running, ServerError, ServerOptions};
use imgate::proto::v1;
use imgate::runtime::handle::Gateway;
use imgate::runtime::supervisor::Tasks;
use imgate::store::memory::MemoryStore;
use imgate::store::seal::{KeyRing, Sealer};
use imgate::store::{Claim, Store};
use imgate::tenants::auth::Scope;
use imgate::tenants::directory::{ApiKey, Callers, Contents, Directory, Tenant};
use imgate::tenants::keys::{Key, KeyDigest};
use imgate::tenants::token::Tokens;
use imgate::types::{AccountId, Epoch, PartitionId, ReplicaId, Secret, SessionKey, TenantId};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Partitions of each tenant.
const PARTITIONS: u16 = 2;
/// Named subscriptions that each may have.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 3;
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) hub: Hub,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    pub(crate) directory: Directory,
    pub(crate) tls: Option<TlsReload>,
}

/// A tenant with a key `<tenant>-key` for everything and one `<tenant>-<scope>` for each scope.
pub(crate) fn tenant(id: &str) -> Tenant {
    let key = |name: &str, scopes: &[Scope]| ApiKey {
        key: Key::new(name.into(), KeyDigest::of(&format!("{id}-{name}"))),
        scopes: scopes.into(),
    };
    let mut keys = vec![key("key", &Scope::ALL)];
    keys.extend(Scope::ALL.map(|scope| key(scope.name(), &[scope])));
    Tenant {
        id: TenantId::new(id),
        partitions: PARTITIONS,
        max_subscriptions: MAX_SUBSCRIPTIONS,
        callers: Callers {
            keys,
            ..Callers::default()
        },
        open: false,
    }
}

pub(crate) fn open_tenant(id: &str) -> Tenant {
    Tenant {
        callers: Callers::default(),
        open: true,
        ..tenant(id)
    }
}

/// Serves the tenants `acme` and `other`.
pub(crate) async fn served() -> Served {
    served_with(Limits::default()).await
}

/// The same, with these bounds of connections.
pub(crate) async fn served_with(limits: Limits) -> Served {
    let tenants = vec![tenant("acme"), tenant("other")];
    let options = ServerOptions {
        limits,
        ..ServerOptions::default()
    };
    start("127.0.0.1:0", tenants, options).await.unwrap()
}

pub(crate) async fn start(
    address: &str,
    callers: impl Into<Contents>,
    options: ServerOptions,
) -> Result<Served, ServerError> {
    let directory = Directory::new(callers).unwrap();
    let (store, hub, tasks) = (Arc::new(MemoryStore::new()), Hub::new(), Tasks::new());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let key = Secret::new("07".repeat(32));
    let sealer = Sealer::new(KeyRing::parse("k1", [("k1", &key)]).unwrap());
    let tokens = Tokens::new(&Secret::new([7; 32]), []);
    let api = Api {
        gateway: Gateway::new(Vec::new(), store.clone(), &tasks),
        events: Events::new(
            store.clone(),
            Arc::new(sealer),
            tokens.clone(),
            hub.clone(),
            tasks.clone(),
        ),
        directory: directory.clone(),
        tokens,
    };
    let Running { health, tls } = server::start(listener, api, options, &tasks).await?;
    health.set_serving(true).await;
    Ok(Served {
        address,
        store,
        hub,
        tasks,
        health,
        directory,
        tls,
    })
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Served {
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn connect(&self, key: &str) -> Clients {
        clients(self.channel().await, Some(key))
    }

    /// Appends a message for an account of `acme`, as its session would.
    pub(crate) async fn append(&self, account: &str, text: &str) {
        let account = AccountId::new(account);
        let key = SessionKey {
            tenant: TenantId::new("acme"),
            account: account.clone(),
        };
        let partition = key.partition(PARTITIONS);
        let event = v1::Event {
            account: account.as_str().into(),
            kind: Some(v1::event::Kind::Message(v1::Message {
                id: text.into(),
                ..v1::Message::default()
            })),
            ..v1::Event::default()
        };
        let (done, outcome) = oneshot::channel();
        let append = Append {
            account,
            record: None,
            sends: Vec::new(),
            events: vec![event.encode_to_vec()],
            done,
        };
        let writer = self.writer(partition).await;
        writer.append(append).await;
        outcome.await.unwrap().unwrap();
    }

    async fn writer(&self, partition: PartitionId) -> LogWriter {
        let owner = ReplicaId::new("r1");
        let claim = self
            .store
            .claim(&partition, &owner, PATIENCE, Some(Epoch(0)));
        let Claim::Granted(lease) = claim.await.unwrap() else {
            panic!("no lease");
        };
        // One writer per append: it ends with its handle, and the lease is its own.
        let (_, lease) = watch::channel(Some(lease));
        let (fenced, _) = mpsc::channel(1);
        LogWriter::start(
            partition,
            self.store.clone(),
            lease,
            self.hub.clone(),
            fenced,
            LogOptions::default(),
            &self.tasks,
        )
    }
}

type Keyed = InterceptedService<Channel, Bearer>;

/// Clients of all services with one key.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) sessions: v1::session_service_client::SessionServiceClient<Keyed>,
    pub(crate) events: v1::event_service_client::EventServiceClient<Keyed>,
    pub(crate) messages: v1::message_service_client::MessageServiceClient<Keyed>,
    pub(crate) admin: v1::admin_service_client::AdminServiceClient<Keyed>,
}

pub(crate) fn clients(channel: Channel, key: Option<&str>) -> Clients {
    let key = Bearer(key.map(Arc::from));
    Clients {
        sessions: v1::session_service_client::SessionServiceClient::with_interceptor(
            channel.clone(),
            key.clone(),
        ),
        admin: v1::admin_service_client::AdminServiceClient::with_interceptor(
            channel.clone(),
            key.clone(),
        ),
        events: v1::event_service_client::EventServiceClient::with_interceptor(
            channel.clone(),
            key.clone(),
        ),
        messages: v1::message_service_client::MessageServiceClient::with_interceptor(channel, key),
    }
}

#[derive(Clone)]
pub(crate) struct Bearer(Option<Arc<str>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {key}"))
                .map_err(|error| Status::internal(error.to_string()))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// What a refusal says: its code, its reason and the field.
pub(crate) fn refusal<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
) -> (Code, String, String) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(info.domain, "imgate");
    let field = info.metadata.get("field").cloned().unwrap_or_default();
    check_bad_request(&details, &field);
    (status.code(), info.reason.clone(), field)
}

/// The field is named twice, the second time with the remedy.
fn check_bad_request(details: &ErrorDetails, field: &str) {
    let violations = details.bad_request().map(|bad| &bad.field_violations);
    match violations.and_then(|violations| violations.first()) {
        Some(violation) => {
            assert_eq!(violation.field, field);
            assert!(!violation.description.is_empty());
        }
        None => assert_eq!(field, ""),
    }
}
