//! `imgate.v1.EventService`.

use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{self, Stream};
use tonic::{Code, Request, Response, Status};

use super::deadline::Deadline;
use super::listener::Retired;
use super::metrics::Call;
use super::standing::Standing;
use super::status::{ConnectionRetired, DeadlinePassed};
use super::{audit, caller, convert, peer};
use crate::events::encoded::Encoded;
use crate::events::service::{Events, TenantLogs};
use crate::events::subscription::Subscription;
use crate::proto::encoded::event_service_server::EventService;
use crate::proto::{encoded, v1};
use crate::runtime::handle::Gateway;
use crate::tenants::audit::{Action, By, Event, Outcome};
use crate::tenants::auth::{AuthError, Principal};
use crate::tenants::quotas::Subscriber;

/// Serves events.
#[derive(Clone, Debug)]
pub(super) struct EventsApi {
    pub(super) events: Events,
    pub(super) gateway: Gateway,
}

type Answer = Result<encoded::SubscribeResponse, Status>;

/// A subscription on its way to its subscriber. Each batch is made when the one before has gone out.
struct Delivering {
    subscription: Subscription,
    deadline: Deadline,
    /// Of its connection.
    retired: Retired,
    /// Resolves when its caller may not read any more.
    lost: BoxFuture<'static, AuthError>,
    call: Option<Call>,
    /// Says who has made it, once it is.
    maker: Option<Maker>,
    ended: bool,
    /// Counts for as long as the stream is there.
    _subscriber: Option<Subscriber>,
}

#[tonic::async_trait]
impl EventService for EventsApi {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let extensions = request.extensions();
        let deadline = extensions.get::<Deadline>().copied();
        let retired = Retired::of(extensions);
        let lost = match extensions.get::<Standing>() {
            Some(standing) => standing.clone().lost().boxed(),
            None => future::pending().boxed(),
        };
        let call = extensions.get::<Call>().cloned();
        let maker = Maker::of(&request);
        let (caller, request) = caller(request)?;
        let options = convert::subscribe(request)?;
        let subscriber = self.gateway.subscribe(&caller.tenant)?;
        let subscription = self.events.subscribe(&logs(caller), options).await?;
        let delivering = Delivering {
            subscription,
            deadline: deadline.unwrap_or(Deadline(None)),
            retired,
            lost,
            call,
            maker,
            ended: false,
            _subscriber: subscriber,
        };
        let answers = stream::unfold(delivering, |mut delivering| async move {
            let answer = delivering.next().await?;
            Some((answer, delivering))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        let (caller, request) = caller(request)?;
        let name = convert::subscription(request.subscription)?;
        self.events
            .acknowledge(&logs(caller), &name, &request.cursor)
            .await?;
        Ok(Response::new(v1::AcknowledgeResponse {}))
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        let (caller, _) = caller(request)?;
        let subscriptions = self.events.subscriptions(&logs(caller)).await?;
        Ok(Response::new(v1::ListSubscriptionsResponse {
            subscriptions: subscriptions
                .into_iter()
                .map(convert::subscription_status)
                .collect(),
        }))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        let event = audit::begin(Action::DeleteSubscription, &request, "");
        let event = audit::object(event, &request.get_ref().subscription);
        let answer = self.do_delete_subscription(request).await;
        audit::answered(event, &answer, |_| None);
        answer
    }
}

impl EventsApi {
    async fn do_delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        let (caller, request) = caller(request)?;
        let name = convert::subscription(request.subscription)?;
        self.events
            .delete_subscription(&logs(caller), &name)
            .await?;
        Ok(Response::new(v1::DeleteSubscriptionResponse {}))
    }
}

/// The logs that a caller may read.
fn logs(caller: Principal) -> TenantLogs {
    TenantLogs {
        tenant: caller.tenant,
        partitions: caller.partitions,
        max_subscriptions: caller.max_subscriptions,
    }
}

/// Who will have made a named subscription, if there is none.
struct Maker {
    caller: Principal,
    name: String,
    peer: Option<SocketAddr>,
}

impl Maker {
    fn of(request: &Request<v1::SubscribeRequest>) -> Option<Self> {
        match &request.get_ref().start {
            Some(v1::subscribe_request::Start::Subscription(name)) => Some(Self {
                caller: request.extensions().get::<Principal>()?.clone(),
                name: name.clone(),
                peer: peer::address(request.extensions()),
            }),
            Some(v1::subscribe_request::Start::Cursor(_) | v1::subscribe_request::Start::At(_))
            | None => None,
        }
    }

    fn made(&self) {
        let event = Event::new(Action::MakeSubscription, By::from(&self.caller));
        let event = event.tenant(&self.caller.tenant).object(&self.name);
        event.peer(self.peer).ended(Outcome::OK);
    }
}

impl Delivering {
    /// The next answer; an error is the last.
    async fn next(&mut self) -> Option<Answer> {
        if self.ended {
            return None;
        }
        let answer = tokio::select! {
            biased;
            () = self.deadline.passed() => Err(Status::from(DeadlinePassed::GivenUp)),
            () = self.retired.over() => Err(Status::from(ConnectionRetired)),
            error = &mut self.lost => Err(Status::from(error)),
            delivery = self.subscription.next() => delivery.map_err(Status::from),
        };
        if let Err(status) = &answer {
            self.ended = true;
            self.answered(status.code());
        }
        if answer.as_ref().is_ok_and(|delivery| delivery.made)
            && let Some(maker) = &self.maker
        {
            maker.made();
        }
        Some(answer.map(|delivery| {
            encoded::SubscribeResponse {
                events: delivery
                    .events
                    .into_iter()
                    .map(Encoded::into_bytes)
                    .collect(),
                cursor: delivery.cursor,
                subscription_made: delivery.made,
            }
        }))
    }

    fn answered(&self, code: Code) {
        if let Some(call) = &self.call {
            call.answered(code);
        }
    }
}
