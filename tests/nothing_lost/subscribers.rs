//! Subscribers, each with habits of its own, and what each has been given.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use imgate::proto::v1;
use imgate::proto::v1::event_service_client::EventServiceClient;
use imgate::proto::v1::subscribe_request::Start;
use imgate::runtime::supervisor::{TaskKind, Tasks};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::books::{Place, Record, Wish};
use crate::ledger::Ledger;
use crate::schedule::millis;
use crate::world::{self, LOOK, World, pause};

/// The one that goes away only when the gateway does.
pub(crate) const STEADY: &str = "steady";

/// What is shared by all who keep the books.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) began: Instant,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ledger: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

/// What a subscriber does of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    pub(crate) name: &'static str,
    pub(crate) wish: Wish,
    pub(crate) kinds: Vec<v1::EventKind>,
    pub(crate) batch: i32,
    /// It goes away after so many milliseconds, again and again.
    pub(crate) leaves: Option<Range<u64>>,
    /// It may come back with an older cursor than the last.
    pub(crate) goes_back: bool,
    /// It stops reading now and then, for so many milliseconds.
    pub(crate) stalls: Option<Range<u64>>,
    /// It comes back by the name of its subscription, and acknowledges now and then.
    pub(crate) named: bool,
    /// It begins so late.
    pub(crate) begins: Duration,
}

/// The subscribers of a run.
pub(crate) fn all(bots: &[String], late: Duration) -> Vec<Habits> {
    let only = |accounts: &[String], late| Wish {
        accounts: accounts.to_vec(),
        late,
    };
    vec![
        Habits {
            name: STEADY,
            batch: 1000,
            ..Habits::default()
        },
        Habits {
            name: "fickle",
            kinds: vec![v1::EventKind::Message],
            batch: 100,
            leaves: Some(20..2000),
            goes_back: true,
            ..Habits::default()
        },
        Habits {
            name: "staller",
            leaves: Some(5000..20_000),
            stalls: Some(500..4000),
            ..Habits::default()
        },
        Habits {
            name: "named",
            batch: 200,
            leaves: Some(300..4000),
            named: true,
            ..Habits::default()
        },
        Habits {
            name: "choosy",
            wish: only(&bots[..bots.len() / 4], false),
            batch: 10,
            leaves: Some(2000..6000),
            ..Habits::default()
        },
        Habits {
            name: "late",
            wish: only(&[], true),
            leaves: Some(1000..5000),
            begins: late,
            ..Habits::default()
        },
    ]
}

/// A subscriber, to look at from outside.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) name: &'static str,
    pub(crate) record: Arc<Mutex<Record>>,
    /// How many streams it has had.
    streams: Arc<Mutex<u64>>,
}

impl Subscriber {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    pub(crate) fn streams(&self) -> u64 {
        *self.streams.lock().unwrap()
    }
}

/// Lets one read until `tasks` are stopped. While `calm` is false it has its habits.
pub(crate) fn start(
    habits: Habits,
    world: &World,
    rng: StdRng,
    desk: Desk,
    calm: watch::Receiver<bool>,
    tasks: &Tasks,
) -> Subscriber {
    let (place, partitions) = (world.place(), world.settings.partitions);
    let record = Record::new(habits.name, habits.wish.clone(), partitions);
    let subscriber = Subscriber {
        name: habits.name,
        record: Arc::new(Mutex::new(record)),
        streams: Arc::default(),
    };
    let reader = Reader {
        subscriber: subscriber.clone(),
        habits,
        rng,
        desk,
        calm,
        earlier: Vec::new(),
        acknowledged: Place::default(),
        losses: 0,
    };
    let stop = tasks.clone();
    tasks.spawn("subscriber", TaskKind::Work, async move {
        tokio::select! {
            () = reader.read(place) => {}
            () = stop.stopping() => {}
        }
    });
    subscriber
}

struct Reader {
    subscriber: Subscriber,
    habits: Habits,
    rng: StdRng,
    desk: Desk,
    calm: watch::Receiver<bool>,
    /// Places that it may go back to, the oldest first.
    earlier: Vec<Place>,
    /// Where its named subscription is known to stand at the least.
    acknowledged: Place,
    /// How many losses of the store there had been when its named subscription was there last.
    losses: usize,
}

impl Reader {
    async fn read(mut self, mut place: watch::Receiver<Option<world::Place>>) {
        pause(self.habits.begins).await;
        loop {
            let Ok(at) = place.wait_for(Option::is_some).await.map(|at| *at) else {
                return;
            };
            if let Some(at) = at {
                self.choose_place();
                if let Err(status) = self.stream(at.grpc).await {
                    self.judge(&status);
                }
            }
            pause(LOOK).await;
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.subscriber.record.lock().unwrap()
    }

    fn is_calm(&self) -> bool {
        *self.calm.borrow()
    }

    /// Goes back to where it comes back to.
    fn choose_place(&mut self) {
        let place = if self.habits.named {
            Some(self.acknowledged.clone())
        } else if self.habits.goes_back && !self.earlier.is_empty() {
            let index = self.rng.random_range(0..self.earlier.len());
            self.earlier.truncate(index + 1);
            self.earlier.last().cloned()
        } else {
            None
        };
        if let Some(place) = place {
            self.record().place = place;
        }
    }

    fn request(&self) -> v1::SubscribeRequest {
        let cursor = self.record().place.cursor.clone();
        let at = if self.habits.wish.late {
            v1::StartAt::Earliest
        } else {
            v1::StartAt::Latest
        };
        let start = match cursor {
            _ if self.habits.named => Start::Subscription(self.habits.name.to_owned()),
            Some(cursor) => Start::Cursor(cursor),
            None => Start::At(at.into()),
        };
        v1::SubscribeRequest {
            start: Some(start),
            accounts: self.habits.wish.accounts.clone(),
            kinds: self.habits.kinds.iter().map(|&kind| kind.into()).collect(),
            max_batch_size: self.habits.batch,
            heartbeat: Some(Duration::from_secs(1).try_into().unwrap()),
            ..v1::SubscribeRequest::default()
        }
    }

    /// Reads one stream, until it ends or this one has had enough of it.
    async fn stream(&mut self, address: SocketAddr) -> Result<(), Status> {
        let (request, losses) = (self.request(), self.desk.ledger().losses());
        let mut client = EventServiceClient::new(world::connect(address).await?);
        let mut stream = client.subscribe(request).await?.into_inner();
        *self.subscriber.streams.lock().unwrap() += 1;
        let mut asked = Some(losses);
        let leaves = self.habits.leaves.clone();
        let leaves = leaves.map(|range| Instant::now() + millis(&mut self.rng, range));
        loop {
            let leave = leaves.filter(|_| !self.is_calm());
            let leaving = async {
                match leave {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let response = tokio::select! {
                response = stream.message() => response?,
                () = leaving => return Ok(()),
            };
            let Some(response) = response else {
                return Err(Status::unknown("a stream without end has ended"));
            };
            if !self.enter(response, asked.take()) || !self.acknowledge(&mut client).await {
                return Ok(());
            }
            self.stall().await;
        }
    }

    /// Enters a response. The first of a stream comes with how many losses there had been when it was asked for. False if it
    /// cannot be told whether the stream began before the last of them: then another stream is asked for.
    fn enter(&mut self, response: v1::SubscribeResponse, asked: Option<usize>) -> bool {
        let place = {
            let ledger = self.desk.ledger();
            let mut record = self.subscriber.record.lock().unwrap();
            let begins = record.place.cursor.is_none();
            let unsure = asked.is_some_and(|losses| losses < ledger.losses());
            if unsure && begins {
                return false;
            }
            if begins {
                record.begin(&ledger);
            }
            let anew = response.subscription_made && !begins;
            if anew {
                record.begin_anew(&ledger);
            }
            record.enter(response, &ledger, self.desk.now());
            if anew {
                self.losses = ledger.losses();
                self.acknowledged = record.place.clone();
            }
            record.place.clone()
        };
        if self.habits.goes_back {
            self.earlier.push(place);
            if self.earlier.len() > 4 {
                self.earlier.remove(0);
            }
        }
        true
    }

    /// Acknowledges now and then. False if its name is lost, which is made anew when it comes back.
    async fn acknowledge(&mut self, client: &mut EventServiceClient<Channel>) -> bool {
        if !self.habits.named || self.rng.random_bool(0.7) {
            return true;
        }
        let place = self.record().place.clone();
        let request = v1::AcknowledgeRequest {
            subscription: self.habits.name.to_owned(),
            cursor: place.cursor.clone().unwrap_or_default(),
        };
        match client.acknowledge(request).await {
            Ok(_) => self.acknowledged = place,
            Err(status) => {
                let losses = self.desk.ledger().losses();
                if status.code() == Code::NotFound && self.losses < losses {
                    return false;
                }
                self.judge(&status);
            }
        }
        true
    }

    async fn stall(&mut self) {
        let Some(range) = self.habits.stalls.clone() else {
            return;
        };
        if !self.is_calm() && self.rng.random_bool(0.05) {
            pause(millis(&mut self.rng, range)).await;
        }
    }

    /// Troubles end streams; what the gateway refuses for good does not belong to them.
    fn judge(&self, status: &Status) {
        match status.code() {
            Code::Ok
            | Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded => {}
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => {
                self.record().fault(format_args!(
                    "refused: {:?}, {}",
                    status.code(),
                    status.message()
                ));
            }
        }
    }
}
