//! What a panic prints that prints everything that holds a secret.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use imgate::config::Config;
use imgate::connectors::tencent::usersig::{self, UserSig};
use imgate::proto::v1;
use imgate::runtime::record;
use imgate::store::StoredSession;
use imgate::store::seal::{KeyRing, Sealer};
use imgate::tenants::token::Tokens;
use imgate::types::{Secret, SessionKey, TenantId, WallClock};

/// Panics with the configuration, with what opens and is opened of the store, and with requests that bring a
/// signature, and answers all that was printed. For a test of its own process: the hook is everybody's.
pub(crate) fn with_everything(
    config: &Path,
    sealer: &Sealer,
    tokens: &Tokens,
    stored: &[StoredSession],
    signature: &str,
) -> Vec<u8> {
    let config = Config::load(config).unwrap();
    let tenant = TenantId::new("acme");
    let restored: Vec<_> = stored
        .iter()
        .map(|stored| {
            let (tenant, account) = (tenant.clone(), stored.account.clone());
            record::decode(sealer, &SessionKey { tenant, account }, &stored.record).unwrap()
        })
        .collect();
    assert!(!restored.is_empty());
    let keys = config.seal.open().unwrap();
    let ring = KeyRing::of(&keys.active, &keys.keys).unwrap();
    let login = v1::LoginRequest {
        account: "bot".into(),
        signature: signature.into(),
    };
    let renew = v1::RenewSignatureRequest {
        account: "bot".into(),
        signature: signature.into(),
    };
    let answer = v1::IssueSignatureResponse {
        signature: signature.into(),
    };
    let parsed = UserSig::parse(signature).unwrap();
    let secret = Secret::new(signature.to_owned());
    let minted = usersig::mint(1, &secret, "bot", WallClock.now(), Duration::ZERO, None);

    let printed = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&printed);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        to.lock().unwrap().extend(panic.to_string().bytes());
    }));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        panic!(
            "on purpose: {config:?} {sealer:?} {tokens:?} {keys:?} {ring:?} {restored:?} {login:?} {renew:?} {answer:?} \
             {parsed:?} {secret:?} {secret} {minted:?}"
        )
    }));
    std::panic::set_hook(before);
    assert!(panicked.is_err());
    let printed = printed.lock().unwrap();
    assert!(printed.len() > 1000, "everything was printed");
    printed.clone()
}
