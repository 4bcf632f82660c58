//! The follower between a store that tells and one that does not.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::stream;
use tokio::sync::mpsc;

use super::*;
use crate::events::hub::Followed;
use crate::events::listeners::{News, Told};
use crate::events::testing::partition;
use crate::store::LogId;

/// What the store answers, one after the other; it does not answer when there is no more.
type Answers = Arc<Mutex<VecDeque<Result<Growth, StoreError>>>>;

struct World {
    hub: Hub,
    answers: Answers,
    asked: mpsc::Receiver<Instant>,
    news: News,
    followed: Followed,
    tasks: Tasks,
}

fn end(sequence: u64) -> (PartitionId, Position) {
    let log = LogId(7);
    (partition(0), Position { log, sequence })
}

/// Growth that is told one by one, and does not end before the sender does.
fn live() -> (mpsc::Sender<(PartitionId, Position)>, Growth) {
    let (sender, told) = mpsc::channel(10);
    let told = stream::unfold(told, |mut told| async {
        let next = told.recv().await?;
        Some((next, told))
    });
    (sender, told.boxed())
}

fn refusal() -> Result<Growth, StoreError> {
    Err(StoreError::Unavailable("told to be away".into()))
}

fn world(answers: impl IntoIterator<Item = Result<Growth, StoreError>>) -> World {
    let (hub, tasks) = (Hub::new(), Tasks::new());
    let news = News::default();
    let followed = hub.follow(&partition(0), [].into(), &news);
    let answers: Answers = Arc::new(Mutex::new(answers.into_iter().collect()));
    let (ask, asked) = mpsc::channel(1000);
    let store = Arc::clone(&answers);
    let open = move || {
        let answer = store.lock().unwrap().pop_front();
        let ask = ask.clone();
        async move {
            ask.try_send(Instant::now()).unwrap();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
        .boxed()
    };
    let (stop, listening) = (tasks.clone(), hub.clone());
    tasks.spawn("log follower", TaskKind::Critical, async move {
        tokio::select! {
            () = follow(open, &listening) => {}
            () = stop.stopping() => {}
        }
    });
    World {
        hub,
        answers,
        asked,
        news,
        followed,
        tasks,
    }
}

impl World {
    /// Waits until there is news, and takes note of it.
    async fn hear(&self) {
        self.news.changed().await;
        assert_eq!(self.followed.listener.ask(), Told::after(0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_tells_reaches_the_subscribers() {
    let (sender, growth) = live();
    let world = world([Ok(growth)]);
    // They look once when it begins.
    world.hear().await;
    for sequence in 1..=3 {
        sender.send(end(sequence)).await.unwrap();
        world.hear().await;
    }
    // What nobody follows is passed over.
    let (mut other, position) = end(4);
    other.number = 1;
    sender.send((other, position)).await.unwrap();
    sender.send(end(4)).await.unwrap();
    world.hear().await;
    assert!(world.news.changed().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn when_it_ends_it_is_asked_again_and_everybody_looks() {
    let (sender, growth) = live();
    let (again, then) = live();
    let world = world([Ok(growth), refusal(), refusal(), Ok(then)]);
    world.hear().await;
    let broke = Instant::now();
    drop(sender);
    // Nothing is new before the store tells again.
    world.hear().await;
    assert_eq!(world.asked.len(), 4);
    assert!(broke.elapsed() <= 3 * RETRY_MAX);
    again.send(end(1)).await.unwrap();
    world.hear().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ends_at_once_is_not_asked_all_the_time() {
    let nothing = || Ok(stream::empty().boxed());
    let answers: Vec<_> = std::iter::repeat_with(nothing).take(200).collect();
    let mut world = world(answers);
    tokio::time::sleep(60 * RETRY_MAX).await;
    let mut asked = Vec::new();
    while let Ok(at) = world.asked.try_recv() {
        asked.push(at);
    }
    assert!((60..140).contains(&asked.len()), "{}", asked.len());
    assert_eq!(
        asked.len(),
        200 - world.answers.lock().unwrap().len(),
        "each was answered"
    );
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_it_is_told_to() {
    let (_sender, growth) = live();
    let world = world([Ok(growth)]);
    tokio::task::yield_now().await;
    world.tasks.stop();
    world.tasks.ended().await;
}

#[tokio::test(start_paused = true)]
async fn it_listens_only_while_others_write_what_is_followed() {
    let (sender, growth) = live();
    let (again, then) = live();
    let mut world = world([Ok(growth), Ok(then)]);
    world.hear().await;
    assert!(world.asked.recv().await.is_some());
    let own = world.hub.write(&partition(0));
    world.hear().await;
    sender.closed().await;
    tokio::time::sleep(60 * RETRY_MAX).await;
    assert!(world.asked.try_recv().is_err());
    drop(own);
    // What grew in between is looked for.
    world.hear().await;
    again.send(end(1)).await.unwrap();
    world.hear().await;
}
