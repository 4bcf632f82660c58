//! `imgate.v1.EventService`.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream;
use tonic::{Code, Request, Response, Status};

use super::deadline::Deadline;
use super::metrics::Call;
use super::status::DeadlinePassed;
use super::{caller, convert};
use crate::events::service::{Events, TenantLogs};
use crate::events::subscription::Subscription;
use crate::proto::v1;
use crate::proto::v1::event_service_server::EventService;
use crate::runtime::handle::Gateway;
use crate::tenants::auth::Principal;
use crate::tenants::quotas::Subscriber;

/// Serves events.
#[derive(Clone, Debug)]
pub(super) struct EventsApi {
    pub(super) events: Events,
    pub(super) gateway: Gateway,
}

type Answer = Result<v1::SubscribeResponse, Status>;

/// A subscription on its way to its subscriber. Each batch is made when the one before has gone out.
struct Delivering {
    subscription: Subscription,
    deadline: Deadline,
    call: Option<Call>,
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
        let call = extensions.get::<Call>().cloned();
        let (caller, request) = caller(request)?;
        let options = convert::subscribe(request)?;
        let subscriber = self.gateway.subscribe(&caller.tenant)?;
        let subscription = self.events.subscribe(&logs(caller), options).await?;
        let delivering = Delivering {
            subscription,
            deadline: deadline.unwrap_or(Deadline(None)),
            call,
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

impl Delivering {
    /// The next answer; an error is the last.
    async fn next(&mut self) -> Option<Answer> {
        if self.ended {
            return None;
        }
        let answer = tokio::select! {
            biased;
            () = self.deadline.passed() => Err(Status::from(DeadlinePassed::GivenUp)),
            delivery = self.subscription.next() => delivery.map_err(Status::from),
        };
        if let Err(status) = &answer {
            self.ended = true;
            self.answered(status.code());
        }
        Some(answer.map(|delivery| v1::SubscribeResponse {
            events: delivery.events,
            cursor: delivery.cursor,
            subscription_made: delivery.made,
        }))
    }

    fn answered(&self, code: Code) {
        if let Some(call) = &self.call {
            call.answered(code);
        }
    }
}
