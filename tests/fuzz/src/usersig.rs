//! Signatures: a text as a caller brings it, the JSON within one, and one that is made here.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use imgate::connectors::tencent::usersig::{UserSig, UserSigError, mint};
use imgate::error::Classified as _;
use imgate::runtime::record;
use imgate::types::{Secret, UnixMillis};

/// The vendor's alphabet in the place of base64's own.
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-_";

/// `t` and a text, `j` and the JSON of a signature, or `m` and what one is made of: four numbers, the account, and
/// after a zero byte the user buffer.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((b't', text)) => {
            if let Ok(text) = std::str::from_utf8(text) {
                brought(text);
            }
        }
        Some((b'j', json)) => brought(&packed(json)),
        Some((b'm', parts)) => made(parts),
        Some(_) | None => {}
    }
}

/// A key that nobody has signed with.
fn key() -> Secret<String> {
    Secret::new("a-key-that-nobody-has".to_owned())
}

fn packed(json: &[u8]) -> String {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(json).expect("into memory");
    let base64 = STANDARD.encode(packer.finish().expect("into memory"));
    base64.replace('+', "*").replace('/', "-").replace('=', "_")
}

fn brought(text: &str) {
    let read = match UserSig::parse(text) {
        Ok(read) => read,
        Err(error) => {
            // These have words of their own and nothing of the text.
            assert!(matches!(
                error,
                UserSigError::Empty
                    | UserSigError::TooLong
                    | UserSigError::Base64
                    | UserSigError::Compression
                    | UserSigError::Fields
                    | UserSigError::Version
            ));
            assert!(error.public_text().starts_with("the signature "));
            return;
        }
    };
    assert!(!read.verify(&key()), "it was not made with this key");
    assert!(read.expires_at() >= read.issued_at);
    let life = record::signature(Secret::new(text.to_owned()))
        .life
        .expect("it was read");
    assert_eq!(
        (life.issued_at, life.expires_at),
        (read.issued_at, read.expires_at())
    );
    for at in [life.issued_at, life.expires_at] {
        assert!(super::is_valid(Some(&record::timestamp(at))));
    }
    let again = mint(
        read.sdk_app_id,
        &key(),
        &read.account,
        read.issued_at,
        read.lifetime,
        read.userbuf.as_deref(),
    );
    match UserSig::parse(again.expose()) {
        Ok(again) => {
            assert!(again.verify(&key()));
            assert!(says_the_same(&again, &read));
        }
        // Escaped and packed in another way it may be longer than what was read.
        Err(UserSigError::TooLong) => assert!(text.len() > 2000 || read.account.len() > 2000),
        Err(error) => panic!("what was made is not read: {error}"),
    }
}

/// Moments are of whole seconds, and at the end of all time of those that are left.
fn says_the_same(one: &UserSig, other: &UserSig) -> bool {
    one.account == other.account
        && one.sdk_app_id == other.sdk_app_id
        && one.issued_at.as_secs() == other.issued_at.as_secs()
        && one.lifetime == other.lifetime
        && one.userbuf == other.userbuf
}

fn made(mut data: &[u8]) {
    let whole = data;
    let [app, issued, lifetime, change] = [(); 4].map(|()| super::number(&mut data));
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let account = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let userbuf = parts.next();
    let issued = UnixMillis(issued);
    let lifetime = Duration::from_secs(lifetime);
    let text = mint(app, &key(), &account, issued, lifetime, userbuf);
    let read = match UserSig::parse(text.expose()) {
        Ok(read) => read,
        Err(error) => {
            assert!(whole.len() > 2000, "what was made is not read: {error}");
            return;
        }
    };
    assert!(read.verify(&key()));
    assert!(!read.verify(&Secret::new("another-key".to_owned())));
    assert_eq!((&*read.account, read.sdk_app_id), (&*account, app));
    assert_eq!(read.issued_at.as_secs(), issued.as_secs());
    assert_eq!(
        (read.lifetime, read.userbuf.as_deref()),
        (lifetime, userbuf)
    );

    let mut changed = text.expose().clone().into_bytes();
    let at = change as usize % changed.len();
    changed[at] = ALPHABET[(change >> 32) as usize % ALPHABET.len()];
    let changed = String::from_utf8(changed).expect("both are ASCII");
    if let Ok(changed) = UserSig::parse(&changed) {
        // Some bits of a zlib stream say nothing; all others break it.
        assert!(!changed.verify(&key()) || says_the_same(&changed, &read));
    }
}
