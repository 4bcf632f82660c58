//! The operations port: `/metrics`, `/live` and `/ready` over plain HTTP.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::{error, info};

use super::readiness::{Readiness, Unmet};
use crate::runtime::supervisor::{TaskKind, Tasks};

/// How long open requests may go on after the stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What the handlers need.
#[derive(Clone)]
struct Seen {
    metrics: PrometheusHandle,
    readiness: Readiness,
}

/// The body of `/ready`.
#[derive(Debug, Serialize)]
struct ReadyBody {
    ready: bool,
    /// What does not hold; empty when ready.
    reasons: Vec<Unmet>,
}

/// Serves the operations port until `tasks` stop. Give it a group that stops last, so that a drain can be watched.
/// The group stops if serving ends by itself.
pub fn serve(
    tasks: &Tasks,
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
) {
    let app = Router::new()
        .route("/", get(index))
        .route("/metrics", get(render_metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .with_state(Seen { metrics, readiness });
    let stop = tasks.clone();
    let forced = tasks.clone();
    tasks.spawn("ops_server", TaskKind::Critical, async move {
        match listener.local_addr() {
            Ok(address) => info!(%address, "the operations port is listening"),
            Err(reason) => error!(%reason, "the operations port has no address"),
        }
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move { stop.stopping().await })
            .into_future();
        // A connection that sends nothing must not hold up the stop.
        let too_late = async {
            forced.stopping().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = serving => {
                if let Err(reason) = served {
                    error!(%reason, "the operations port has failed");
                }
            }
            () = too_late => {}
        }
    });
}

/// Says that the event loop turns. Nothing that is away makes it fail: a restart would not bring that back.
async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(seen): State<Seen>) -> impl IntoResponse {
    let reasons = seen.readiness.unmet_now();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ReadyBody { ready, reasons }))
}

async fn render_metrics(State(seen): State<Seen>) -> impl IntoResponse {
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], seen.metrics.render())
}

async fn index(State(seen): State<Seen>) -> Html<String> {
    let unmet = seen.readiness.unmet_now();
    let state = if unmet.is_empty() {
        "ready".to_owned()
    } else {
        let items: String = unmet
            .iter()
            .map(|Unmet { condition, reason }| {
                format!("<li>{}: {}</li>", condition.label(), escape(reason))
            })
            .collect();
        format!("not ready:<ul>{items}</ul>")
    };
    Html(format!(
        "<!doctype html><html lang=\"en\"><title>imgate</title><h1>imgate {version}</h1><p>This process is {state}</p>\
         <ul><li><a href=\"metrics\">/metrics</a> for Prometheus</li>\
         <li><a href=\"live\">/live</a> answers while the process does</li>\
         <li><a href=\"ready\">/ready</a> says whether it should get calls, and why not</li></ul></html>\n",
        version = env!("CARGO_PKG_VERSION"),
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
