//! The rules of `[tenants.callback]`.

use tokio_tungstenite::tungstenite::http::Uri;

use super::{MILLISECOND, MINUTE};
use crate::config::load::Sources;
use crate::config::options::CallbackOptions;
use crate::config::{Callback, is_loopback};
use crate::types::Secret;

/// `name` is the section's full name.
pub(super) fn callback(
    name: &str,
    options: CallbackOptions,
    sources: &mut Sources<'_>,
) -> Callback {
    let key = |field: &str| format!("{name}.{field}");
    let url = url(&key("url"), &options.url, sources);
    let (least, timeout) = (MILLISECOND * 100, &options.timeout);
    sources.within(&key("timeout"), timeout, &least, &MINUTE);
    let pace = &options.calls_per_second;
    sources.within(&key("calls_per_second"), pace, &1, &100_000);
    let concurrency = &options.concurrency;
    sources.within(&key("concurrency"), concurrency, &1, &10_000);

    if url.starts_with("http://") {
        let files = [
            ("ca_file", &options.ca_file),
            ("cert_file", &options.cert_file),
            ("key_file", &options.key_file),
        ];
        for (field, file) in files {
            if let Some(path) = file {
                let remedy = "is for TLS: give an https:// url, or take it out";
                sources.refuse_because(&[&key(field), &key("url")], path, remedy);
            }
        }
    }
    let identity = match (&options.cert_file, &options.key_file) {
        (Some(certificate), Some(private_key)) => {
            let certificate = sources.certificates(&key("cert_file"), certificate);
            let private_key = sources.private_key(&key("key_file"), private_key);
            certificate.zip(private_key)
        }
        (Some(path), None) => {
            let remedy = format!("needs its private key: set {}", key("key_file"));
            sources.refuse(&key("cert_file"), path, remedy);
            None
        }
        (None, Some(path)) => {
            let remedy = format!("needs its certificate: set {}", key("cert_file"));
            sources.refuse(&key("key_file"), path, remedy);
            None
        }
        (None, None) => None,
    };
    let token = options.token.and_then(|place| {
        let token = sources.secret(&key("token"), &place)?;
        is_visible(&token).then_some(token).or_else(|| {
            let remedy = "must be of visible ASCII characters, for it is sent in a header";
            sources.problems.report(&[&key("token")], None, remedy);
            None
        })
    });
    let ca_file = options.ca_file;
    Callback {
        url,
        ca_pem: ca_file.and_then(|path| sources.certificates(&key("ca_file"), &path)),
        identity,
        token,
        timeout: options.timeout,
        calls_per_second: options.calls_per_second,
        concurrency: options.concurrency,
    }
}

fn is_visible(token: &Secret<String>) -> bool {
    token.expose().bytes().all(|byte| byte.is_ascii_graphic())
}

/// The URL without a slash at its end.
fn url(key: &str, given: &String, sources: &mut Sources<'_>) -> String {
    let parsed = given.parse::<Uri>().ok().and_then(|uri| {
        let scheme = uri
            .scheme_str()
            .filter(|s| matches!(*s, "http" | "https"))?;
        let authority = uri.authority()?;
        let port = authority.as_str().strip_prefix(authority.host())?;
        let plain = !authority.host().is_empty()
            && (port.is_empty() || authority.port_u16().is_some_and(|port| port > 0))
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !given.contains('#');
        plain.then(|| (scheme.to_owned(), authority.to_string()))
    });
    let Some((scheme, authority)) = parsed else {
        let remedy = "must be https://HOST[:PORT], or http:// on a loopback address; gRPC adds the path itself";
        sources.refuse(key, given, remedy);
        return String::new();
    };
    if scheme == "http" && !is_loopback(&authority) {
        let remedy = "must be https://: signatures would cross the network in plain text";
        sources.refuse(key, given, remedy);
    }
    format!("{scheme}://{authority}")
}
