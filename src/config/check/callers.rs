//! The rules of those who call: keys, client certificates, JWTs and their issuers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Duration;

use tokio_tungstenite::tungstenite::http::Uri;

use super::tenants::no_repeats;
use super::{HOUR, SECOND};
use crate::config::load::Sources;
use crate::config::options::{
    ApiKeyOptions, ClientCertificateOptions, JwtIssuerOptions, JwtSubjectOptions, OperatorOptions,
    Scope,
};
use crate::config::setting::{KeySha256, Setting as _};
use crate::config::{ApiKey, ClientCertificate, Grpc, JwtIssuer, JwtKeys, JwtSubject, Key};
use crate::types::UnixMillis;

/// What callers of all tenants, and operators, must not have in common, each with the key of the file that has it.
#[derive(Debug, Default)]
pub(super) struct Known {
    digests: HashMap<String, String>,
    prefixes: BTreeMap<String, String>,
    certificates: HashMap<String, String>,
    /// By issuer and subject.
    subjects: HashMap<(String, String), String>,
}

/// The options that tenants' and operators' keys have alike.
struct KeyForm {
    id: String,
    sha256: KeySha256,
    prefix: Option<String>,
    not_before: Option<UnixMillis>,
    not_after: Option<UnixMillis>,
}

pub(super) fn operators(
    options: Vec<OperatorOptions>,
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Vec<Key> {
    let mut names = HashMap::new();
    let mut keys = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let name = sources.named("operators", "operator", &options.id, place, &mut names);
        let OperatorOptions {
            id,
            sha256,
            prefix,
            not_before,
            not_after,
        } = options;
        let form = KeyForm {
            id,
            sha256,
            prefix,
            not_before,
            not_after,
        };
        keys.push(key(&name, form, known, sources));
    }
    keys
}

pub(super) fn api_keys(
    tenant: &str,
    options: Vec<ApiKeyOptions>,
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Vec<ApiKey> {
    let list = format!("{tenant}.api_keys");
    let mut names = HashMap::new();
    let mut keys = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let name = sources.named(&list, "key of the tenant", &options.id, place, &mut names);
        let ApiKeyOptions {
            id,
            sha256,
            scopes,
            prefix,
            not_before,
            not_after,
        } = options;
        let form = KeyForm {
            id,
            sha256,
            prefix,
            not_before,
            not_after,
        };
        let key = key(&name, form, known, sources);
        check_scopes(&name, &scopes, sources);
        keys.push(ApiKey { key, scopes });
    }
    keys
}

fn key(name: &str, form: KeyForm, known: &mut Known, sources: &mut Sources<'_>) -> Key {
    let path = format!("{name}.sha256");
    let sha256 = form.sha256.0.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        // It may be the key itself, so it is not shown.
        let remedy =
            "must be the 64 hexadecimal digits of `printf %s KEY | sha256sum`, not the key itself";
        sources.problems.report(&[&path], None, remedy);
    } else if let Some(other) = known.digests.insert(sha256.clone(), path.clone()) {
        let remedy =
            format!("is the same as {other}: a key must be of one tenant or one operator only");
        sources.problems.report(&[&path, &other], None, remedy);
    }
    if let Some(prefix) = &form.prefix {
        check_prefix(&format!("{name}.prefix"), prefix, known, sources);
    }
    if let (Some(not_before), Some(not_after)) = (form.not_before, form.not_after)
        && not_before >= not_after
    {
        let (first, last) = (format!("{name}.not_before"), format!("{name}.not_after"));
        let remedy = format!("must be later than {first}");
        sources.refuse_because(&[&last, &first], &not_after, remedy);
    }
    Key {
        id: form.id,
        sha256,
        prefix: form.prefix,
        not_before: form.not_before,
        not_after: form.not_after,
    }
}

fn check_prefix(path: &str, prefix: &String, known: &mut Known, sources: &mut Sources<'_>) {
    if !(8..=32).contains(&prefix.len()) || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        // Who has put the key here is not to find it in a log.
        let remedy =
            "must be the key's first 8 to 32 characters, visible ones of ASCII, not the key itself";
        sources.problems.report(&[path], None, remedy);
        return;
    }
    // What begins alike stands side by side, as long as no two of them do.
    let prefixes = &known.prefixes;
    let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
    let longer = prefixes.range::<str, _>(from).next();
    let longer = longer.filter(|(other, _)| other.starts_with(prefix.as_str()));
    let until = (Bound::Unbounded, Bound::Excluded(prefix.as_str()));
    let shorter = prefixes.range::<str, _>(until).next_back();
    let shorter = shorter.filter(|(other, _)| prefix.starts_with(other.as_str()));
    if let Some((_, other)) = longer.or(shorter) {
        let other = other.clone();
        let remedy = format!(
            "begins as {other} does, so that it does not tell the keys apart: give more characters"
        );
        sources.refuse_because(&[path, &other], prefix, remedy);
        return;
    }
    known.prefixes.insert(prefix.clone(), path.to_owned());
}

fn check_scopes(name: &str, scopes: &Vec<Scope>, sources: &mut Sources<'_>) {
    let choice = "one or more of \"sessions\", \"events\", \"messages\"";
    no_repeats(&format!("{name}.scopes"), scopes, choice, sources);
}

pub(super) fn client_certificates(
    tenant: &str,
    options: Vec<ClientCertificateOptions>,
    grpc: &Grpc,
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Vec<ClientCertificate> {
    let list = format!("{tenant}.client_certificates");
    let authority = grpc.tls.as_ref().and_then(|tls| tls.client_ca_pem.as_ref());
    if !options.is_empty() && authority.is_none() {
        let remedy = "needs grpc.tls.client_ca_file, the authority that signs them: set it, or take them out";
        let tls = ["cert_file", "key_file", "client_ca_file"].map(|key| format!("grpc.tls.{key}"));
        let keys = [list.as_str(), &tls[0], &tls[1], &tls[2]];
        sources.problems.report(&keys, None, remedy);
    }
    let mut names = HashMap::new();
    let mut certificates = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let what = "certificate of the tenant";
        let name = sources.named(&list, what, &options.id, place, &mut names);
        let path = format!("{name}.name");
        if !is_alternative_name(&options.name) {
            let remedy = "must be a DNS name in small letters, or a URI such as spiffe://cluster.local/ns/bots/sa/echo";
            sources.refuse(&path, &options.name, remedy);
        } else if let Some(other) = known
            .certificates
            .insert(options.name.clone(), path.clone())
        {
            let remedy =
                format!("is the same as {other}: a certificate must be of one tenant only");
            sources.refuse_because(&[&path, &other], &options.name, remedy);
        }
        check_scopes(&name, &options.scopes, sources);
        certificates.push(ClientCertificate {
            id: options.id,
            name: options.name,
            scopes: options.scopes,
        });
    }
    certificates
}

/// A URI with a scheme and something behind it, or a host name. Neither with wildcards: they are compared as they are.
fn is_alternative_name(name: &str) -> bool {
    let visible = name.len() <= 2048 && name.bytes().all(|byte| byte.is_ascii_graphic());
    match name.split_once("://") {
        Some((scheme, rest)) => {
            let scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && !scheme.is_empty();
            visible && scheme && !rest.is_empty()
        }
        None => {
            let label = |label: &str| {
                let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
            };
            name.len() <= 253 && name.split('.').all(label)
        }
    }
}

pub(super) fn jwt_subjects(
    tenant: &str,
    options: Vec<JwtSubjectOptions>,
    issuers: &[JwtIssuer],
    known: &mut Known,
    sources: &mut Sources<'_>,
) -> Vec<JwtSubject> {
    let list = format!("{tenant}.jwt_subjects");
    let mut names = HashMap::new();
    let mut subjects = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let what = "subject of the tenant";
        let name = sources.named(&list, what, &options.id, place, &mut names);
        if !issuers.iter().any(|issuer| issuer.id == options.issuer) {
            let remedy = "must be the id of one of [[jwt_issuers]]";
            sources.refuse(&format!("{name}.issuer"), &options.issuer, remedy);
        }
        let path = format!("{name}.subject");
        let pair = (options.issuer.clone(), options.subject.clone());
        if let Some(other) = known.subjects.insert(pair, path.clone()) {
            let remedy = format!("is the same as {other}: a subject must be of one tenant only");
            sources.refuse_because(&[&path, &other], &options.subject, remedy);
        }
        check_scopes(&name, &options.scopes, sources);
        subjects.push(JwtSubject {
            id: options.id,
            issuer: options.issuer,
            subject: options.subject,
            scopes: options.scopes,
        });
    }
    subjects
}

pub(super) fn jwt_issuers(
    options: Vec<JwtIssuerOptions>,
    sources: &mut Sources<'_>,
) -> Vec<JwtIssuer> {
    let mut names = HashMap::new();
    let mut claims = HashMap::new();
    let mut issuers = Vec::with_capacity(options.len());
    for (place, options) in options.into_iter().enumerate() {
        let name = sources.named("jwt_issuers", "issuer", &options.id, place, &mut names);
        let key = |field: &str| format!("{name}.{field}");
        let path = key("issuer");
        if let Some(other) = claims.insert(options.issuer.clone(), path.clone()) {
            let remedy = format!("is the same as {other}: it would not say whose keys to take");
            sources.refuse_because(&[&path, &other], &options.issuer, remedy);
        }
        sources.within(&key("refresh"), &options.refresh, &SECOND, &(HOUR * 24));
        let (none, most) = (Duration::ZERO, SECOND * 600);
        sources.within(&key("clock_skew"), &options.clock_skew, &none, &most);
        issuers.push(JwtIssuer {
            keys: jwt_keys(&name, &options, sources),
            id: options.id,
            issuer: options.issuer,
            audience: options.audience,
            refresh: options.refresh,
            clock_skew: options.clock_skew,
        });
    }
    issuers
}

fn jwt_keys(name: &str, options: &JwtIssuerOptions, sources: &mut Sources<'_>) -> JwtKeys {
    let key = |field: &str| format!("{name}.{field}");
    let (file_key, url_key) = (key("jwks_file"), key("jwks_url"));
    match (&options.jwks_file, &options.jwks_url) {
        (Some(file), None) => {
            for (field, given) in [
                ("jwks_ca_file", &options.jwks_ca_file),
                ("jwks_token_file", &options.jwks_token_file),
            ] {
                if let Some(path) = given {
                    let remedy = format!("is for {url_key} only: take it out");
                    sources.refuse_because(&[&key(field), &url_key], path, remedy);
                }
            }
            JwtKeys::File(sources.readable(&file_key, file))
        }
        (None, Some(url)) => {
            if !is_fetchable(url) {
                let remedy = "must be https://HOST[:PORT][/PATH], or http:// on this machine, without a user";
                // What stands before an @ may be a password.
                let shown = (!url.contains('@')).then(|| url.to_toml());
                sources.problems.report(&[&url_key], shown, remedy);
            }
            let ca_file = options
                .jwks_ca_file
                .as_ref()
                .map(|path| sources.readable_certificates(&key("jwks_ca_file"), path));
            let token_file = options
                .jwks_token_file
                .as_ref()
                .map(|path| sources.readable(&key("jwks_token_file"), path));
            JwtKeys::Url {
                url: url.clone(),
                ca_file,
                token_file,
            }
        }
        (Some(_), Some(url)) => {
            let remedy = format!("stands beside {file_key}: give one of the two");
            sources.refuse_because(&[&url_key, &file_key], url, remedy);
            JwtKeys::File(PathBuf::new())
        }
        (None, None) => {
            let remedy =
                format!("or {url_key} is required: say where the issuer's public keys are");
            sources
                .problems
                .report(&[&file_key, &url_key], None, remedy);
            JwtKeys::File(PathBuf::new())
        }
    }
}

fn is_fetchable(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    plain
        && match scheme {
            "https" => true,
            "http" => crate::config::is_loopback(authority.as_str()),
            _ => false,
        }
}
