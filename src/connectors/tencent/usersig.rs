//! The login credential (TLSSigAPIv2 UserSig): made with an app's secret key, read, and checked. Pure: time is an argument.
//!
//! What a signature is made of and read into is wiped. What is not, for it belongs to the zlib library: what the packer of
//! each thread holds of the last signature that it has packed, until it packs the next, and the unpacker's own window; and
//! what the JSON library holds while it reads.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read as _;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::bufread::ZlibDecoder;
use flate2::{Compress, Compression, FlushCompress};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Classified, ErrorKind};
use crate::types::{Secret, UnixMillis};

/// The one version that there is.
const VERSION: &str = "2.0";

/// The longest signature that is looked at, in bytes. Real ones have some 200; a user buffer makes them longer.
const MAX_SIGNATURE: usize = 16 * 1024;

/// The most that a signature may unpack to, in bytes.
const MAX_JSON: u64 = 64 * 1024;

/// More than one without a user buffer unpacks to, in bytes: its buffer does not grow, which would leave a copy behind.
const USUAL_JSON: usize = 1024;

thread_local! {
    /// To set one up costs ten times what a signature takes to be packed.
    static PACKER: RefCell<Compress> = RefCell::new(Compress::new(Compression::default(), true));
}

/// What a signature says of itself. It is not to be believed before [`UserSig::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSig {
    /// The user ID it was made for.
    pub account: String,
    /// The upstream app it was made for.
    pub sdk_app_id: u64,
    /// When it was made, in whole seconds.
    pub issued_at: UnixMillis,
    /// How long it is good from then, in whole seconds.
    pub lifetime: Duration,
    /// The tenant's own bytes (they carry room permissions elsewhere), if there are any.
    pub userbuf: Option<Vec<u8>>,
    mac: Secret<Vec<u8>>,
}

/// Why a text is no signature. No text of the signature is repeated.
#[derive(Debug, thiserror::Error)]
pub enum UserSigError {
    /// There is none.
    #[error("the signature is empty")]
    Empty,
    /// It is longer than any signature.
    #[error(
        "the signature is longer than {MAX_SIGNATURE} bytes, or unpacks to more than {MAX_JSON}"
    )]
    TooLong,
    /// It is not in the upstream's variant of base64.
    #[error("the signature is not base64 (it may be cut short)")]
    Base64,
    /// It does not unpack.
    #[error("the signature is not a zlib stream (it may be cut short)")]
    Compression,
    /// It does not hold the fields of a signature.
    #[error("the signature does not hold the fields of a TLSSigAPIv2 signature")]
    Fields,
    /// It is of a version that nobody knows.
    #[error("the signature is not of version {VERSION}")]
    Version,
}

impl Classified for UserSigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

/// The signature's JSON, in the order in which the vendor writes it.
#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    #[serde(rename = "TLS.ver")]
    version: Cow<'a, str>,
    #[serde(rename = "TLS.identifier")]
    identifier: Cow<'a, str>,
    #[serde(rename = "TLS.sdkappid")]
    sdk_app_id: u64,
    #[serde(rename = "TLS.time")]
    time: u64,
    #[serde(rename = "TLS.expire")]
    expire: u64,
    #[serde(
        rename = "TLS.userbuf",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    userbuf: Option<String>,
    #[serde(rename = "TLS.sig")]
    sig: Cow<'a, str>,
}

impl UserSig {
    /// Reads a signature, without checking who made it.
    ///
    /// # Errors
    ///
    /// [`UserSigError`] when the text is empty, cut short or anything but a signature. Bounded in time and memory.
    pub fn parse(signature: &str) -> Result<Self, UserSigError> {
        if signature.is_empty() {
            return Err(UserSigError::Empty);
        }
        if signature.len() > MAX_SIGNATURE {
            return Err(UserSigError::TooLong);
        }
        let base64 = Zeroizing::new(from_url_alphabet(signature));
        let mut packed = Zeroizing::new(Vec::with_capacity(base64.len()));
        BASE64
            .decode_vec(base64.as_bytes(), &mut packed)
            .map_err(|_| UserSigError::Base64)?;
        let mut json = Zeroizing::new(Vec::with_capacity(USUAL_JSON));
        ZlibDecoder::new(packed.as_slice())
            .take(MAX_JSON + 1)
            .read_to_end(&mut json)
            .map_err(|_| UserSigError::Compression)?;
        if json.len() as u64 > MAX_JSON {
            return Err(UserSigError::TooLong);
        }
        let fields: Fields<'_> = serde_json::from_slice(&json).map_err(|_| UserSigError::Fields)?;
        if fields.version != VERSION {
            return Err(UserSigError::Version);
        }
        let decode = |text: &str| BASE64.decode(text).map_err(|_| UserSigError::Fields);
        Ok(Self {
            account: fields.identifier.into_owned(),
            sdk_app_id: fields.sdk_app_id,
            issued_at: UnixMillis::from_secs(fields.time),
            lifetime: Duration::from_secs(fields.expire),
            userbuf: fields.userbuf.as_deref().map(decode).transpose()?,
            mac: Secret::new(decode(&fields.sig)?),
        })
    }

    /// The moment from which the upstream refuses it with 70001.
    pub fn expires_at(&self) -> UnixMillis {
        self.issued_at.plus(self.lifetime)
    }

    /// Whether it was made with this key. In constant time; says nothing of expiry.
    pub fn verify(&self, key: &Secret<String>) -> bool {
        let userbuf = self.userbuf.as_ref().map(|bytes| BASE64.encode(bytes));
        let message = message(
            &self.account,
            self.sdk_app_id,
            self.issued_at.as_secs(),
            self.lifetime.as_secs(),
            userbuf.as_deref(),
        );
        hmac::verify(&hmac_key(key), message.as_bytes(), self.mac.expose()).is_ok()
    }
}

/// Makes a signature for `account`, good for `lifetime` from `issued_at` (both cut to whole seconds).
pub fn mint(
    sdk_app_id: u64,
    key: &Secret<String>,
    account: &str,
    issued_at: UnixMillis,
    lifetime: Duration,
    userbuf: Option<&[u8]>,
) -> Secret<String> {
    let userbuf = userbuf.map(|bytes| BASE64.encode(bytes));
    let (time, expire) = (issued_at.as_secs(), lifetime.as_secs());
    let message = message(account, sdk_app_id, time, expire, userbuf.as_deref());
    let tag = hmac::sign(&hmac_key(key), message.as_bytes());
    let sig = Zeroizing::new(BASE64.encode(tag));
    let fields = Fields {
        version: VERSION.into(),
        identifier: account.into(),
        sdk_app_id,
        time,
        expire,
        userbuf,
        sig: sig.as_str().into(),
    };
    // Each buffer is as great as it can become: one that grows leaves a copy behind that is not wiped.
    let length = USUAL_JSON + 6 * account.len() + fields.userbuf.as_ref().map_or(0, String::len);
    let mut json = Zeroizing::new(Vec::with_capacity(length));
    // Strings and numbers into memory: no step can fail.
    let _ = serde_json::to_writer(&mut *json, &fields);
    let base64 = Zeroizing::new(BASE64.encode(&*pack(&json)));
    Secret::new(to_url_alphabet(&base64))
}

/// The same bytes as a packer that has never packed anything gives.
fn pack(json: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut packed = Zeroizing::new(Vec::with_capacity(2 * json.len() + 64));
    PACKER.with_borrow_mut(|packer| {
        packer.reset();
        // There is room for all of it, and so no step can fail.
        let _ = packer.compress_vec(json, &mut packed, FlushCompress::Finish);
    });
    packed
}

fn hmac_key(key: &Secret<String>) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())
}

/// The text that is signed.
fn message(
    identifier: &str,
    sdk_app_id: u64,
    time: u64,
    expire: u64,
    userbuf: Option<&str>,
) -> String {
    let mut message = format!(
        "TLS.identifier:{identifier}\nTLS.sdkappid:{sdk_app_id}\nTLS.time:{time}\nTLS.expire:{expire}\n"
    );
    if let Some(userbuf) = userbuf {
        message.push_str("TLS.userbuf:");
        message.push_str(userbuf);
        message.push('\n');
    }
    message
}

/// The vendor's own replacement of the three characters that URLs do not like; not the usual one.
fn to_url_alphabet(base64: &str) -> String {
    replaced(base64, |c| match c {
        '+' => '*',
        '/' => '-',
        '=' => '_',
        other => other,
    })
}

fn from_url_alphabet(signature: &str) -> String {
    replaced(signature, |c| match c {
        '*' => '+',
        '-' => '/',
        '_' => '=',
        other => other,
    })
}

/// As long as it was, so that it does not grow on the way.
fn replaced(text: &str, replace: impl Fn(char) -> char) -> String {
    let mut replaced = String::with_capacity(text.len());
    replaced.extend(text.chars().map(replace));
    replaced
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        appid: u64,
        key: String,
        id: String,
        exp: u64,
        buf: Option<String>,
        time: u64,
        hmac_b64: String,
        json: String,
        usersig: String,
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str(include_str!("../../../tests/data/usersig-vectors.json")).unwrap()
    }

    fn json_of(signature: &str) -> String {
        let mut json = String::new();
        ZlibDecoder::new(
            BASE64
                .decode(from_url_alphabet(signature))
                .unwrap()
                .as_slice(),
        )
        .read_to_string(&mut json)
        .unwrap();
        json
    }

    fn minted(vector: &Vector) -> Secret<String> {
        mint(
            vector.appid,
            &Secret::new(vector.key.clone()),
            &vector.id,
            UnixMillis::from_secs(vector.time),
            Duration::from_secs(vector.exp),
            vector.buf.as_ref().map(String::as_bytes),
        )
    }

    fn pack_afresh(json: &[u8]) -> Vec<u8> {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
        packer.write_all(json).unwrap();
        packer.finish().unwrap()
    }

    fn pack(json: &str) -> String {
        to_url_alphabet(&BASE64.encode(pack_afresh(json.as_bytes())))
    }

    #[test]
    fn what_the_vendor_made_is_read_and_verified() {
        assert_eq!(vectors().len(), 4);
        for vector in vectors() {
            let read = UserSig::parse(&vector.usersig).unwrap();
            assert_eq!(read.account, vector.id);
            assert_eq!(read.sdk_app_id, vector.appid);
            assert_eq!(read.issued_at, UnixMillis::from_secs(vector.time));
            assert_eq!(read.lifetime, Duration::from_secs(vector.exp));
            assert_eq!(read.userbuf, vector.buf.map(String::into_bytes));
            assert_eq!(
                read.expires_at(),
                UnixMillis::from_secs(vector.time + vector.exp)
            );
            assert_eq!(BASE64.encode(read.mac.expose()), vector.hmac_b64);
            assert!(read.verify(&Secret::new(vector.key)));
            assert!(!read.verify(&Secret::new(String::from("another"))));
        }
    }

    #[test]
    fn what_is_minted_holds_what_the_vendor_writes() {
        for vector in vectors() {
            let signature = minted(&vector);
            // The deflate bytes may differ between zlib builds; the JSON inside may not.
            assert_eq!(json_of(signature.expose()), vector.json);
            let read = UserSig::parse(signature.expose()).unwrap();
            assert_eq!(read, UserSig::parse(&vector.usersig).unwrap());
        }
    }

    #[test]
    fn every_changed_field_breaks_the_signature() {
        let vector = &vectors()[3];
        let key = Secret::new(vector.key.clone());
        for (from, to) in [
            ("bot1", "bot2"),
            ("1400000001", "1400000002"),
            ("1700000000", "1700000001"),
            ("86400", "86401"),
            ("aGVsbG8=", "aGVsbG9v"),
            ("\"TLS.userbuf\":\"aGVsbG8=\",", ""),
            ("vE10", "vE11"),
        ] {
            assert!(vector.json.contains(from));
            let changed = UserSig::parse(&pack(&vector.json.replace(from, to))).unwrap();
            assert!(!changed.verify(&key), "{from} -> {to}");
        }
        assert!(UserSig::parse(&pack(&vector.json)).unwrap().verify(&key));
    }

    #[test]
    fn what_is_no_signature_is_refused_with_a_reason() {
        let json = &vectors()[0].json;
        let bomb = pack(&" ".repeat(1 << 20));
        assert!(bomb.len() < MAX_SIGNATURE);
        for (signature, reason) in [
            (String::new(), "empty"),
            ("x".repeat(MAX_SIGNATURE + 1), "longer"),
            (bomb, "unpacks to more"),
            (String::from("用户"), "base64"),
            (String::from("eJyr"), "zlib"),
            (String::from("AAAA"), "zlib"),
            (pack("garbage"), "fields"),
            (pack("{}"), "fields"),
            (pack(&json.replace("86400", "-1")), "fields"),
            (pack(&json.replace("1400000001", "\"x\"")), "fields"),
            (pack(&json.replace("Vg8f", "....")), "fields"),
            (pack(&json.replace("2.0", "1.0")), "version"),
        ] {
            let error = UserSig::parse(&signature).unwrap_err();
            assert!(error.public_text().contains(reason), "{error} / {reason}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = &vectors()[0].usersig;
        let key = Secret::new(vectors()[0].key.clone());
        for length in 0..whole.len() {
            // A stream may lack the last bytes of its trailer and still hold everything; then it is good.
            if let Ok(read) = UserSig::parse(&whole[..length]) {
                assert!(length + 8 >= whole.len() && read.verify(&key), "{length}");
            }
        }
    }

    #[test]
    fn far_expiries_do_not_overflow() {
        let json = vectors()[0].json.replace("86400", &u64::MAX.to_string());
        let read = UserSig::parse(&pack(&json)).unwrap();
        assert_eq!(read.expires_at(), UnixMillis(u64::MAX));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let read = UserSig::parse(&vectors()[0].usersig).unwrap();
        assert!(format!("{read:?}").contains("mac: ***"));
    }

    proptest! {
        /// Few different bytes, so that much repeats, or any.
        #[test]
        fn a_packer_that_is_used_again_packs_as_a_new_one_does(
            texts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(b'a'..b'e', 0..4_000),
                    prop::collection::vec(any::<u8>(), 0..4_000),
                    prop::collection::vec(any::<u8>(), 0..300).prop_map(|text| text.repeat(300)),
                ],
                1..6,
            ),
        ) {
            for text in texts {
                prop_assert_eq!(&*super::pack(&text), &pack_afresh(&text));
            }
        }

        #[test]
        fn parsing_never_panics(text: String, bytes: Vec<u8>) {
            let _ = UserSig::parse(&text);
            let _ = UserSig::parse(&to_url_alphabet(&BASE64.encode(&bytes)));
        }

        #[test]
        fn minted_signatures_verify(
            app: u64,
            key: String,
            account: String,
            time in 0..u64::from(u32::MAX),
            expire in 0..u64::from(u32::MAX),
            userbuf: Option<Vec<u8>>,
        ) {
            let key = Secret::new(key);
            let issued = UnixMillis::from_secs(time);
            let signature =
                mint(app, &key, &account, issued, Duration::from_secs(expire), userbuf.as_deref());
            let read = UserSig::parse(signature.expose()).unwrap();
            prop_assert_eq!(&read.account, &account);
            prop_assert_eq!((read.sdk_app_id, read.issued_at), (app, issued));
            prop_assert_eq!(read.expires_at(), UnixMillis::from_secs(time + expire));
            prop_assert_eq!(&read.userbuf, &userbuf);
            prop_assert!(read.verify(&key));
            let other = Secret::new(key.expose().clone() + "x");
            prop_assert!(!read.verify(&other));
        }
    }
}
