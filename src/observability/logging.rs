//! The log: lines of text or JSON on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing::Level;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};
use crate::error::{Classified, ErrorKind};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directive is none.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("the log: {0}")]
    Installed(#[from] TryInitError),
}

impl Classified for LoggingError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Level(_) => ErrorKind::InvalidInput,
            Self::Installed(_) => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        "the gateway's log cannot be set up; ask the operator".into()
    }
}

/// Sends everything that the process logs from now on to standard error. Once in a process.
pub fn install(log: &Log) -> Result<(), LoggingError> {
    let colour = std::io::stderr().is_terminal();
    subscriber(log, colour, std::io::stderr)?.try_init()?;
    Ok(())
}

type AnySubscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(log: &Log, colour: bool, writer: W) -> Result<AnySubscriber, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        .with_writer(writer);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_logged));
    Ok(match log.format {
        LogFormat::Text => Box::new(registry.with(lines)),
        LogFormat::Json => {
            Box::new(registry.with(lines.json().flatten_event(true).with_span_list(false)))
        }
    })
}

/// What a library says at the finest level is left out, whatever `log.level` says: one writes down whole frames of the
/// upstream's, with the credentials in them.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let own = target == "imgate" || target.starts_with("imgate::");
    own || *metadata.level() <= Level::DEBUG
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut lines = self
                .0
                .lock()
                .map_err(|_| std::io::Error::other("poisoned"))?;
            lines.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let log = Log {
            format,
            level: "warn,imgate::observability=info".to_owned(),
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("session", tenant = "acme").entered();
            tracing::info!(attempt = 2, "connecting");
            tracing::debug!("too fine");
            tracing::info!(target: "other", "too far");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_objects_with_their_span() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "connecting");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["span"]["tenant"], "acme");
    }

    #[test]
    fn libraries_are_not_heard_at_the_finest_level() {
        let log = Log {
            format: LogFormat::Text,
            level: "trace".to_owned(),
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!("ours");
            tracing::debug!(target: "tungstenite", "theirs");
            tracing::trace!(target: "tungstenite::protocol", "the frame");
            tracing::trace!(target: "imgatelike", "no namesake");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ours") && text.contains("theirs"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    /// What is logged by `work`, at this level, as JSON.
    fn audited(level: &str, work: impl FnOnce()) -> Vec<serde_json::Value> {
        let log = Log {
            format: LogFormat::Json,
            level: level.to_owned(),
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for line in &mut lines {
            let time = line.as_object_mut().unwrap().remove("timestamp");
            assert!(time.unwrap().as_str().unwrap().ends_with('Z'));
        }
        lines
    }

    #[test]
    fn the_audit_has_a_form_that_stays() {
        use crate::tenants::audit::{Action, By, Event, Outcome, configuration_reloaded};
        use crate::types::{AccountId, TenantId};

        let everything = || {
            let (tenant, account) = (TenantId::new("acme"), AccountId::new("bot1"));
            let event = Event::new(Action::Invoke, By::ApiKey("bot-fleet".into()));
            let event = event.tenant(&tenant).account(Some(&account));
            let event = event
                .object("openim.x")
                .peer(Some("10.0.0.7:50312".parse().unwrap()));
            event.ended(Outcome {
                code: "OK",
                upstream_code: Some(-1),
                reason: Some("WHY"),
            });
            // Nobody waited for its end.
            drop(Event::new(Action::Login, By::Open).tenant(&tenant));
            Event::new(Action::RotateKeys, By::Operator("ops".into())).ended(Outcome::OK);
            configuration_reloaded(false);
        };
        let expected = serde_json::json!([
            {
                "level": "INFO", "target": "imgate::audit", "message": "audit",
                "action": "invoke", "tenant": "acme", "account": "bot1", "object": "openim.x",
                "caller_kind": "api_key", "caller_id": "bot-fleet", "peer": "10.0.0.7:50312",
                "outcome": "OK", "upstream_code": -1, "reason": "WHY",
            },
            {
                "level": "INFO", "target": "imgate::audit", "message": "audit",
                "action": "login", "tenant": "acme", "caller_kind": "open", "outcome": "CANCELLED",
            },
            {
                "level": "INFO", "target": "imgate::audit", "message": "audit",
                "action": "rotate_keys", "caller_kind": "operator", "caller_id": "ops", "outcome": "OK",
            },
            {
                "level": "INFO", "target": "imgate::audit", "message": "audit",
                "action": "reload_configuration", "caller_kind": "gateway", "outcome": "INVALID_ARGUMENT",
            },
        ]);
        assert_eq!(
            serde_json::Value::from(audited("info", everything)),
            expected
        );
        assert_eq!(audited("warn,imgate::audit=info", everything).len(), 4);
        assert!(audited("info,imgate::audit=off", everything).is_empty());
    }

    #[test]
    fn text_lines_are_for_people() {
        let text = logged(LogFormat::Text);
        assert!(
            text.contains("connecting") && text.ends_with('\n'),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
