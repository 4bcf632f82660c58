//! The control port: HTTP with JSON bodies, to make trouble and to see what has happened.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::error;

use super::load::LoadOutcome;
use super::operate::ControlError;
use super::world::World;
use crate::runtime::supervisor::Tasks;
use crate::types::WallClock;

/// Serves the control port until the tasks are stopped.
pub(super) async fn serve(listener: TcpListener, world: Arc<World>, tasks: Tasks) {
    let stopping = async move { tasks.stopping().await };
    let served = axum::serve(listener, router(world)).with_graceful_shutdown(stopping);
    if let Err(error) = served.await {
        error!(%error, "the control port has failed");
    }
}

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/stats", get(stats))
        .route("/account", post(account))
        .route("/kick", post(kick))
        .route("/expire", post(expire))
        .route("/drop", post(drop_connections))
        .route("/stall", post(stall))
        .route("/refuse", post(refuse))
        .route("/message", post(message))
        .route("/group", post(group))
        .route("/overload", post(overload))
        .route("/push", post(push))
        .route("/raw", post(raw))
        .route("/load", post(load))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(world)
}

type Answer = Result<Value, ControlError>;

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UnknownUser(_) | Self::UnknownGroup(_) => StatusCode::NOT_FOUND,
            Self::NotOnline(_) | Self::QueueFull(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        reply(status, &json!({ "error": self.to_string() }))
    }
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let json = (header::CONTENT_TYPE, "application/json");
    (status, [json], body.to_string()).into_response()
}

/// Runs a request: reads its body, does it, and answers.
fn run<T: DeserializeOwned>(body: &[u8], act: impl FnOnce(T) -> Answer) -> Response {
    match parse(body).and_then(act) {
        Ok(answer) => reply(StatusCode::OK, &answer),
        Err(error) => error.into_response(),
    }
}

/// Reads a request's body; none is the same as `{}`.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let body = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        body
    };
    serde_json::from_slice(body)
        .map_err(|error| ControlError::Invalid(format!("the body is not as it should be: {error}")))
}

fn done() -> Value {
    json!({ "ok": true })
}

async fn unknown(method: Method, uri: Uri) -> Response {
    let text = format!(
        "no {method} {}; there is GET /stats, and POST /account /kick /expire /drop /stall /refuse /message /group \
         /overload /push /raw",
        uri.path()
    );
    reply(StatusCode::NOT_FOUND, &json!({ "error": text }))
}

async fn stats(State(world): State<Arc<World>>) -> Response {
    let stats = world.stats(WallClock.now());
    match serde_json::to_value(stats) {
        Ok(stats) => reply(StatusCode::OK, &stats),
        Err(error) => ControlError::Invalid(error.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    user_id: String,
}

async fn account(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: User| {
        world.import(&asked.user_id).map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kick {
    user_id: String,
    #[serde(default = "one_kick")]
    kick_type: u8,
}

const fn one_kick() -> u8 {
    1
}

async fn kick(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Kick| {
        world.kick(&asked.user_id, asked.kick_type).map(|()| done())
    })
}

async fn expire(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: User| {
        world
            .expire(&asked.user_id, WallClock.now())
            .map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drop {
    #[serde(default)]
    user_id: Option<String>,
}

async fn drop_connections(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Drop| {
        let count = world.drop_connections(asked.user_id.as_deref())?;
        Ok(json!({ "ok": true, "dropped": count }))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stall {
    user_id: String,
    seconds: f64,
}

async fn stall(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Stall| {
        let duration = Duration::try_from_secs_f64(asked.seconds)
            .map_err(|error| ControlError::Invalid(format!("seconds: {error}")))?;
        world.stall(&asked.user_id, duration).map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    #[serde(default)]
    user_id: Option<String>,
    code: u32,
    #[serde(default = "once")]
    times: u32,
}

const fn once() -> u32 {
    1
}

async fn refuse(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Refuse| {
        let user_id = asked.user_id.as_deref();
        world
            .refuse(user_id, asked.code, asked.times)
            .map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendText {
    from: String,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    group: Option<String>,
    text: String,
}

async fn message(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: SendText| {
        let now = WallClock.now();
        match (&asked.to, &asked.group) {
            (Some(to), None) => world.message(&asked.from, to, &asked.text, now)?,
            (None, Some(group)) => world.group_message(&asked.from, group, &asked.text, now)?,
            (Some(_), Some(_)) | (None, None) => {
                let text = "give one of `to` and `group`";
                return Err(ControlError::Invalid(text.to_owned()));
            }
        }
        Ok(done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetGroup {
    group: String,
    members: Vec<String>,
}

async fn group(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: SetGroup| {
        let now = WallClock.now();
        world
            .set_group(&asked.group, &asked.members, now)
            .map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overload {
    user_id: String,
    command: String,
    seconds: u64,
}

async fn overload(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Overload| {
        world
            .overload(&asked.user_id, &asked.command, asked.seconds)
            .map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    user_id: String,
    servcmd: String,
    body: Box<RawValue>,
}

async fn push(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Push| {
        let body = asked.body.get().to_owned();
        world
            .push(&asked.user_id, &asked.servcmd, body)
            .map(|()| done())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    user_id: String,
    hex: String,
}

async fn raw(State(world): State<Arc<World>>, body: Bytes) -> Response {
    run(&body, |asked: Raw| {
        let bytes = from_hex(&asked.hex).ok_or_else(|| {
            ControlError::Invalid(String::from("hex must be pairs of hex digits"))
        })?;
        world.raw(&asked.user_id, &bytes).map(|()| done())
    })
}

async fn load(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let outcome = match parse(&body) {
        Ok(options) => world.load(options).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(LoadOutcome { pushed, seconds }) => reply(
            StatusCode::OK,
            &json!({ "pushed": pushed, "seconds": seconds }),
        ),
        Err(error) => error.into_response(),
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_whole_or_not_at_all() {
        assert_eq!(from_hex("00fF7a"), Some(vec![0, 0xff, 0x7a]));
        assert_eq!(from_hex(""), Some(vec![]));
        for bad in ["0", "0g", "é0"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
