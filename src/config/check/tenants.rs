//! The rules of `[[tenants]]`.

use std::collections::HashMap;
use std::time::Duration;

use tokio_tungstenite::tungstenite::http::Uri;

use super::callers::{self, Known};
use super::{HOUR, LONGEST_AGE, SECOND, callback};
use crate::config::load::Sources;
use crate::config::options::{Issuer, TenantLog, TenantOptions};
use crate::config::section::element;
use crate::config::setting::{ByteSize, Setting};
use crate::config::{CommandList, Grpc, JwtIssuer, Limits, Tenant};
use crate::types::TenantId;

/// A page of catch-up is of 20 messages, an ordinary one of at most 12 KiB. With every character escaped by a second one and
/// some 600 bytes around each, a full page is 492 KiB. Escaped to six bytes each they are 1452 KiB, which is within the
/// four-fold that is still taken apart.
const LEAST_FRAME: ByteSize = ByteSize(512 << 10);

pub(super) fn tenants(
    options: Vec<TenantOptions>,
    grpc: &Grpc,
    jwt_issuers: &[JwtIssuer],
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Vec<Tenant> {
    if options.is_empty() {
        let remedy = "at least one is required: add [[tenants]] with id and sdk_app_id";
        sources.problems.report(&["tenants"], None, remedy);
    }
    let mut names = HashMap::new();
    let mut tenants = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let name = sources.named("tenants", "tenant", &options.id, place, &mut names);
        let tenant = tenant(&name, options, grpc, jwt_issuers, known, sources);
        if tenant.is_open() && !grpc.listen.ip().is_loopback() {
            let remedy = format!(
                "must be a loopback address such as 127.0.0.1:50051 while {name} is open: everybody could use it; or add \
                 [[tenants.api_keys]], [[tenants.client_certificates]] or [[tenants.jwt_subjects]] to it"
            );
            let callers = ["api_keys", "client_certificates", "jwt_subjects"];
            let callers = callers.map(|list| format!("{name}.{list}"));
            let keys = ["grpc.listen", &callers[0], &callers[1], &callers[2]];
            sources.refuse_because(&keys, &grpc.listen, remedy);
        }
        tenants.push(tenant);
    }
    tenants
}

fn tenant(
    name: &str,
    options: TenantOptions,
    grpc: &Grpc,
    jwt_issuers: &[JwtIssuer],
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Tenant {
    let key = |field: &str| format!("{name}.{field}");
    sources.within(&key("partitions"), &options.partitions, &1, &256);
    sources.within(&key("sdk_app_id"), &options.sdk_app_id, &1, &u32::MAX);
    let upstream_url = upstream_url(&key("upstream_url"), &options.upstream_url, sources);
    let lifetime = &options.signature_lifetime;
    let shortest = Duration::from_secs(30);
    sources.within(
        &key("signature_lifetime"),
        lifetime,
        &shortest,
        &LONGEST_AGE,
    );
    sources.within(&key("renew_at"), &options.renew_at, &0.1, &0.95);
    let (retake, spacing) = (&options.retake_delay, &options.login_spacing);
    sources.within(&key("retake_delay"), retake, &SECOND, &(HOUR * 24));
    sources.within(&key("login_spacing"), spacing, &Duration::ZERO, &HOUR);
    log(&key("log"), &options.log, sources);
    limits(&key("limits"), &options.limits, sources);
    let callback = options.callback;
    let callback = callback.map(|options| callback::callback(&key("callback"), options, sources));
    let has_secret_key = options.secret_key.is_some();
    let issuers = issuers(
        name,
        options.issuers,
        has_secret_key,
        callback.is_some(),
        sources,
    );
    let api_keys = callers::api_keys(name, options.api_keys, known, sources);
    let certificates = options.client_certificates;
    let certificates = callers::client_certificates(name, certificates, grpc, known, sources);
    let subjects = options.jwt_subjects;
    let subjects = callers::jwt_subjects(name, subjects, jwt_issuers, known, sources);
    Tenant {
        id: TenantId::new(&options.id),
        partitions: options.partitions,
        sdk_app_id: options.sdk_app_id,
        upstream_url,
        upstream_ca_pem: options
            .upstream_ca_file
            .and_then(|path| sources.certificates(&key("upstream_ca_file"), &path)),
        secret_key: options
            .secret_key
            .and_then(|place| sources.secret(&key("secret_key"), &place)),
        issuers,
        callback,
        signature_lifetime: options.signature_lifetime,
        renew_at: options.renew_at,
        kick_policy: options.kick_policy,
        retake_delay: options.retake_delay,
        login_spacing: options.login_spacing,
        invoke_commands: invoke_commands(&key("invoke_commands"), options.invoke_commands, sources),
        log: options.log,
        api_keys,
        client_certificates: certificates,
        jwt_subjects: subjects,
        limits: options.limits,
    }
}

fn limits(key: &str, limits: &Limits, sources: &mut Sources<'_>) {
    let key = |field: &str| format!("{key}.{field}");
    sources.within(&key("sessions"), &limits.sessions, &1, &10_000_000);
    let logins = &limits.logins_per_minute;
    sources.within(&key("logins_per_minute"), logins, &1, &10_000_000);
    let sends = &limits.sends_per_second;
    sources.within(&key("sends_per_second"), sends, &1, &1_000_000);
    let subscribers = &limits.subscribers;
    sources.within(&key("subscribers"), subscribers, &0, &1_000_000);
    if let Some(active) = &limits.daily_active_users {
        let most = 1_000_000_000;
        sources.within(&key("daily_active_users"), active, &1, &most);
    }
    let pending = &limits.pending_sends_per_session;
    sources.within(&key("pending_sends_per_session"), pending, &0, &10_000);
    let subscriptions = &limits.subscriptions;
    sources.within(&key("subscriptions"), subscriptions, &0, &1_000);
    let frame = &limits.upstream_frame_bytes;
    let (least, most) = (LEAST_FRAME, ByteSize::mib(64));
    sources.within(&key("upstream_frame_bytes"), frame, &least, &most);
}

fn log(key: &str, log: &TenantLog, sources: &mut Sources<'_>) {
    let key = |field: &str| format!("{key}.{field}");
    sources.within(&key("retain_age"), &log.retain_age, &SECOND, &LONGEST_AGE);
    let events = &log.retain_events;
    sources.within(&key("retain_events"), events, &1, &100_000_000);
    let (least, most) = (ByteSize(64 << 10), ByteSize(1 << 40));
    sources.within(&key("retain_bytes"), &log.retain_bytes, &least, &most);
    let expiry = &log.subscription_expiry;
    sources.within(&key("subscription_expiry"), expiry, &HOUR, &LONGEST_AGE);
}

impl Sources<'_> {
    /// What the reader has called an element of a list: one without an ID has a stand-in now.
    fn element(&self, list: &str, id: &str, place: usize) -> String {
        let by_place = element(list, None, place);
        if self.problems.has(&format!("{by_place}.id")) {
            by_place
        } else {
            element(list, Some(id), place)
        }
    }

    /// What messages call an element whose ID must be one, and no other's of the list. `what` says what the list is of.
    pub(super) fn named(
        &mut self,
        list: &str,
        what: &str,
        id: &String,
        place: usize,
        names: &mut HashMap<String, usize>,
    ) -> String {
        let name = self.element(list, id, place);
        let id_key = format!("{name}.id");
        if names.insert(name.clone(), place).is_some() {
            let remedy = format!("another {what} has this id already: choose another");
            self.refuse(&id_key, id, remedy);
        }
        self.identifier(&id_key, id);
        name
    }

    fn identifier(&mut self, key: &str, id: &String) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > 63 || id.starts_with('-') || !id.chars().all(allowed) {
            let remedy =
                "must be small letters, digits and dashes, at most 63, without a dash at the front";
            self.refuse(key, id, remedy);
        }
    }
}

/// The URL without a slash at its end.
fn upstream_url(key: &str, given: &String, sources: &mut Sources<'_>) -> String {
    let normal = given.parse::<Uri>().ok().and_then(|uri| {
        let scheme = uri.scheme_str().filter(|s| matches!(*s, "ws" | "wss"))?;
        let authority = uri.authority()?;
        let plain = !authority.as_str().contains('@')
            && !authority.host().is_empty()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none();
        plain.then(|| format!("{scheme}://{authority}"))
    });
    normal.unwrap_or_else(|| {
        let remedy = "must be wss://HOST[:PORT] or ws://HOST[:PORT]; imgate adds the path itself";
        sources.refuse(key, given, remedy);
        String::new()
    })
}

fn invoke_commands(key: &str, given: Vec<String>, sources: &mut Sources<'_>) -> CommandList {
    CommandList::parse(&given).unwrap_or_else(|error| {
        sources.refuse(key, &given, error.to_string());
        CommandList::default()
    })
}

fn issuers(
    tenant: &str,
    given: Option<Vec<Issuer>>,
    has_secret_key: bool,
    has_callback: bool,
    sources: &mut Sources<'_>,
) -> Vec<Issuer> {
    let key = format!("{tenant}.issuers");
    let Some(issuers) = given else {
        let callback = has_callback.then_some(Issuer::Callback);
        let local = has_secret_key.then_some(Issuer::Local);
        let automatic = callback.into_iter().chain(local);
        return automatic.chain([Issuer::Manual]).collect();
    };
    let choice = "one or more of \"callback\", \"local\", \"manual\"";
    no_repeats(&key, &issuers, choice, sources);
    if issuers.contains(&Issuer::Callback) && !has_callback {
        let remedy = "\"callback\" needs the service that is called: add [tenants.callback] with url, or take it out";
        let keys = [key.as_str(), &format!("{tenant}.callback")];
        sources.refuse_because(&keys, &issuers, remedy);
    }
    if issuers.contains(&Issuer::Local) && !has_secret_key {
        let remedy = format!(
            "\"local\" needs the app's secret key: set {tenant}.secret_key = {{ file = \"PATH\" }}, or take it out"
        );
        let keys = [key.as_str(), &format!("{tenant}.secret_key")];
        sources.refuse_because(&keys, &issuers, remedy);
    }
    issuers
}

pub(super) fn no_repeats<T>(key: &str, list: &Vec<T>, choice: &str, sources: &mut Sources<'_>)
where
    T: Setting + Ord,
    Vec<T>: Setting,
{
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if list.is_empty() || sorted.len() != list.len() {
        let remedy = format!("must have {choice}, each at most once");
        sources.refuse(key, list, remedy);
    }
}
