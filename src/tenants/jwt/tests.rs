//! What a JWT must be to be believed, rule by rule, and who is known by one.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::*;
use crate::tenants::auth::{Caller, Credentials, Means, Principal, Scope};
use crate::tenants::directory::{Callers, Contents, Directory, JwtSubject, Tenant};
use crate::types::TenantId;

const NOW: u64 = 1_700_000_000;
const SKEW: u64 = 30;
const ISSUER: &str = "https://kubernetes.default.svc";
const AUDIENCE: &str = "imgate";
const SUBJECT: &str = "system:serviceaccount:bots:echo";

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key pair that signs as an issuer does.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Sign,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

fn ecdsa(
    id: &str,
    algorithm: &'static str,
    curve: &str,
    signing: &'static EcdsaSigningAlgorithm,
) -> Signer {
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    Signer {
        algorithm,
        jwk: json!({"kty": "EC", "kid": id, "crv": curve, "x": b64(x), "y": b64(y)}),
        sign: Box::new(move |message| {
            let signature = pair.sign(&SystemRandom::new(), message).unwrap();
            signature.as_ref().to_vec()
        }),
    }
}

fn es256(id: &str) -> Signer {
    ecdsa(id, "ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)
}

fn ed25519(id: &str) -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = b64(pair.public_key().as_ref());
    Signer {
        algorithm: "EdDSA",
        jwk: json!({"kty": "OKP", "kid": id, "crv": "Ed25519", "x": x}),
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    }
}

fn rsa(id: &str, algorithm: &'static str, encoding: &'static dyn RsaEncoding) -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    Signer {
        algorithm,
        jwk: json!({"kty": "RSA", "kid": id, "n": b64(public.n), "e": b64(public.e)}),
        sign: Box::new(move |message| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                .unwrap();
            signature
        }),
    }
}

impl Signer {
    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.jwk["kid"], "typ": "JWT"});
        self.token_with(&header, claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = b64((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": NOW + 600, "iat": NOW, "nbf": NOW})
}

/// The good claims but for one, which is left out if it is `null`.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name);
    } else {
        map.insert(name.to_owned(), value);
    }
    claims
}

fn set(signers: &[&Signer]) -> Vec<u8> {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn options() -> IssuerOptions {
    IssuerOptions {
        id: "cluster".to_owned(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        source: Source::File("jwks.json".into()),
        refresh: Duration::from_secs(300),
        clock_skew: Duration::from_secs(SKEW),
    }
}

fn issuer(keys: &[u8]) -> Issuer {
    let issuer = Issuer::new(options());
    issuer
        .keys
        .store(Some(Arc::new(KeySet::parse(keys).unwrap())));
    issuer
}

fn verify(issuer: &Issuer, text: &str) -> Result<(), AuthError> {
    issuer.verify(UnixMillis::from_secs(NOW), &Token::read(text)?)
}

const fn invalid(fault: JwtFault) -> Result<(), AuthError> {
    Err(AuthError::JwtInvalid(fault))
}

#[test]
fn every_algorithm_of_a_public_key_is_taken() {
    for signer in [
        es256("k"),
        ecdsa("k", "ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ed25519("k"),
        rsa("k", "RS256", &RSA_PKCS1_SHA256),
        rsa("k", "PS256", &RSA_PSS_SHA256),
    ] {
        let issuer = issuer(&set(&[&signer]));
        let token = signer.token(&claims());
        assert_eq!(verify(&issuer, &token), Ok(()), "{}", signer.algorithm);
        // With one bit of the signature or of a claim changed, it is somebody else's.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = BASE64.decode(signature).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let forged = format!("{message}.{}", b64(bytes));
        assert_eq!(verify(&issuer, &forged), invalid(JwtFault::Signature));
        let (header, _) = message.split_once('.').unwrap();
        let other = claims_with("sub", json!("system:serviceaccount:bots:other"));
        let forged = format!("{header}.{}.{signature}", b64(other.to_string()));
        assert_eq!(verify(&issuer, &forged), invalid(JwtFault::Signature));
    }
}

#[test]
fn claims_decide_one_by_one() {
    let signer = es256("k");
    let issuer = issuer(&set(&[&signer]));
    let late = Err(AuthError::JwtExpired);
    let early = Err(AuthError::JwtNotYetValid);
    let unread = invalid(JwtFault::Claims);
    let foreign = invalid(JwtFault::Audience);
    for (name, value, expected) in [
        ("exp", json!(NOW - SKEW + 1), Ok(())),
        ("exp", json!(NOW - SKEW), late),
        ("exp", json!(0), late),
        ("exp", json!((NOW - SKEW) as f64 + 0.5), Ok(())),
        ("exp", json!(-1), unread),
        ("exp", json!(1e300), unread),
        ("exp", json!("2030-01-01"), unread),
        ("exp", Value::Null, unread),
        ("nbf", json!(NOW + SKEW), Ok(())),
        ("nbf", json!(NOW + SKEW + 1), early),
        ("nbf", Value::Null, Ok(())),
        ("nbf", json!("now"), unread),
        ("iat", json!(NOW + SKEW), Ok(())),
        ("iat", json!(NOW + SKEW + 1), early),
        ("iat", Value::Null, Ok(())),
        ("aud", json!([AUDIENCE]), Ok(())),
        ("aud", json!(["other", AUDIENCE]), Ok(())),
        ("aud", json!("other"), foreign),
        ("aud", json!("imgate2"), foreign),
        ("aud", json!("Imgate"), foreign),
        ("aud", json!([]), foreign),
        ("aud", json!(7), unread),
        ("aud", Value::Null, unread),
        ("sub", Value::Null, unread),
        ("sub", json!(["x"]), unread),
        ("iss", Value::Null, unread),
    ] {
        let token = signer.token(&claims_with(name, value.clone()));
        assert_eq!(verify(&issuer, &token), expected, "{name} = {value}");
    }
    // Whose claim is there twice has two meanings, and so none.
    let twice = claims().to_string().replacen('{', r#"{"sub":"other","#, 1);
    let header = json!({"alg": "ES256", "kid": "k"}).to_string();
    let message = format!("{}.{}", b64(header), b64(twice));
    let token = format!("{message}.{}", b64((signer.sign)(message.as_bytes())));
    assert_eq!(verify(&issuer, &token), unread);
}

/// Whoever has no key learns nothing of what the time would say.
#[test]
fn an_expired_token_is_called_expired_only_if_its_signature_is_right() {
    let signer = es256("k");
    let issuer = issuer(&set(&[&signer]));
    let expired = claims_with("exp", json!(1));
    assert_eq!(
        verify(&issuer, &signer.token(&expired)),
        Err(AuthError::JwtExpired)
    );
    let forged = es256("k").token(&expired);
    assert_eq!(verify(&issuer, &forged), invalid(JwtFault::Signature));
}

#[test]
fn a_public_key_is_not_taken_for_a_secret() {
    let signer = rsa("k", "RS256", &RSA_PKCS1_SHA256);
    let issuer = issuer(&set(&[&signer]));
    // The attacker signs by HMAC with what everybody can have: the public key, in all forms it may be kept in.
    let modulus = signer.jwk["n"].as_str().unwrap();
    for secret in [
        BASE64.decode(modulus).unwrap(),
        modulus.as_bytes().to_vec(),
        signer.jwk.to_string().into_bytes(),
    ] {
        for (algorithm, hmac) in [
            ("HS256", aws_lc_rs::hmac::HMAC_SHA256),
            ("HS384", aws_lc_rs::hmac::HMAC_SHA384),
            ("HS512", aws_lc_rs::hmac::HMAC_SHA512),
        ] {
            let key = aws_lc_rs::hmac::Key::new(hmac, &secret);
            let forger = Signer {
                algorithm,
                jwk: signer.jwk.clone(),
                sign: Box::new(move |message| {
                    aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
                }),
            };
            let refused = verify(&issuer, &forger.token(&claims()));
            assert_eq!(refused, invalid(JwtFault::Algorithm), "{algorithm}");
        }
    }
}

#[test]
fn headers_decide_one_by_one() {
    let signer = es256("k");
    let other = rsa("r", "RS256", &RSA_PKCS1_SHA256);
    let issuer = issuer(&set(&[&signer, &other]));
    let unknown = Err(AuthError::JwtKeyUnknown);
    for (header, expected) in [
        (json!({"alg": "ES256", "kid": "k"}), Ok(())),
        (json!({"alg": "ES256", "kid": "gone"}), unknown),
        (json!({"alg": "ES256", "kid": ""}), unknown),
        // The key's kind and the algorithm do not agree.
        (json!({"alg": "ES256", "kid": "r"}), unknown),
        (json!({"alg": "RS256", "kid": "k"}), unknown),
        (json!({"alg": "ES384", "kid": "k"}), unknown),
        // Without an ID where there is no choice.
        (json!({"alg": "ES256"}), Ok(())),
        (json!({"alg": "none"}), invalid(JwtFault::Header)),
        (
            json!({"alg": "None", "kid": "k"}),
            invalid(JwtFault::Header),
        ),
        (
            json!({"alg": "ES512", "kid": "k"}),
            invalid(JwtFault::Header),
        ),
        (json!({"kid": "k"}), invalid(JwtFault::Header)),
        (
            json!({"alg": ["ES256"], "kid": "k"}),
            invalid(JwtFault::Header),
        ),
        (json!("ES256"), invalid(JwtFault::Header)),
        (
            json!({"alg": "ES256", "kid": "k", "crit": ["exp"]}),
            invalid(JwtFault::Critical),
        ),
        // A key that the token brings is not looked at.
        (
            json!({"alg": "ES256", "kid": "gone", "jwk": signer.jwk}),
            unknown,
        ),
    ] {
        let token = signer.token_with(&header, &claims());
        assert_eq!(verify(&issuer, &token), expected, "{header}");
    }
    // `none` with no signature at all.
    let header = b64(r#"{"alg":"none"}"#);
    let bare = format!("{header}.{}.", b64(claims().to_string()));
    assert_eq!(verify(&issuer, &bare), invalid(JwtFault::Header));
    for junk in ["..", "a.b.c", "é.é.é", &".".repeat(2)] {
        assert_eq!(verify(&issuer, junk), invalid(JwtFault::Header), "{junk}");
    }
}

#[test]
fn without_an_id_there_must_be_one_key_only() {
    let (one, two) = (es256("1"), es256("2"));
    let issuer = issuer(&set(&[&one, &two]));
    let token = two.token_with(&json!({"alg": "ES256"}), &claims());
    assert_eq!(verify(&issuer, &token), Err(AuthError::JwtKeyUnknown));
    assert_eq!(verify(&issuer, &two.token(&claims())), Ok(()));
}

#[test]
fn a_set_is_read_for_what_can_check_signatures() {
    let good = es256("k");
    let with = |extra: Value| {
        let mut jwk = good.jwk.clone();
        let map = jwk.as_object_mut().unwrap();
        map.extend(extra.as_object().unwrap().clone());
        jwk
    };
    for (jwk, usable) in [
        (with(json!({})), true),
        (with(json!({"use": "sig", "alg": "ES256"})), true),
        (with(json!({"key_ops": ["verify"]})), true),
        (with(json!({"x5c": ["junk"], "more": {"a": 1}})), true),
        (with(json!({"use": "enc"})), false),
        (with(json!({"key_ops": ["sign"]})), false),
        (with(json!({"alg": "ES384"})), false),
        (with(json!({"alg": "HS256"})), false),
        (with(json!({"alg": "nonsense"})), false),
        (with(json!({"crv": "P-521"})), false),
        (with(json!({"crv": "secp256k1"})), false),
        (with(json!({"x": "?"})), false),
        (json!({"kty": "oct", "kid": "k", "k": b64("secret")}), false),
        (json!({"kty": "RSA", "kid": "k"}), false),
        (json!("k"), false),
    ] {
        let alone = json!({ "keys": [jwk] }).to_string();
        assert_eq!(KeySet::parse(alone.as_bytes()).is_ok(), usable, "{jwk}");
        // What is of no use does not spoil the rest.
        let beside = json!({ "keys": [jwk, es256("other").jwk] }).to_string();
        let beside = KeySet::parse(beside.as_bytes()).unwrap();
        assert_eq!(beside.len(), if usable { 2 } else { 1 }, "{jwk}");
    }
    let many = json!({"keys": vec![good.jwk.clone(); 101]}).to_string();
    for text in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#, &many] {
        assert!(KeySet::parse(text.as_bytes()).is_err());
    }
}

#[test]
fn before_its_keys_are_read_an_issuer_says_so() {
    let token = es256("k").token(&claims());
    let issuer = Issuer::new(options());
    let refused = verify(&issuer, &token);
    assert_eq!(refused, Err(AuthError::JwtKeysUnavailable));
}

fn tenant(id: &str, subject: &str) -> Tenant {
    Tenant {
        id: TenantId::new(id),
        partitions: 8,
        max_subscriptions: 100,
        callers: Callers {
            subjects: vec![JwtSubject {
                id: "echo".to_owned(),
                issuer: "cluster".to_owned(),
                subject: subject.to_owned(),
                scopes: vec![Scope::Events],
            }],
            ..Callers::default()
        },
        open: false,
    }
}

fn ask(directory: &Directory, token: &str, named: Option<&str>) -> Result<Principal, AuthError> {
    let authorization = format!("Bearer {token}");
    let credentials = Credentials {
        authorization: Some(&authorization),
        tenant: named,
        ..Credentials::default()
    };
    match directory.authenticate(UnixMillis::from_secs(NOW), credentials)? {
        Caller::Tenant(principal) => Ok(principal),
        Caller::Operator(operator) => panic!("{operator:?}"),
    }
}

#[test]
fn a_subject_is_the_caller_of_one_tenant() {
    let signer = es256("k");
    let directory = Directory::new(Contents {
        tenants: vec![tenant("acme", SUBJECT), tenant("other", "other")],
        operators: vec![],
        issuers: vec![Arc::new(issuer(&set(&[&signer])))],
    })
    .unwrap();
    let token = signer.token(&claims());
    let caller = ask(&directory, &token, None).unwrap();
    assert_eq!((caller.tenant.as_str(), &*caller.key_id), ("acme", "echo"));
    assert_eq!(
        (caller.means, &*caller.scopes),
        (Means::Jwt, &[Scope::Events][..])
    );
    assert!(ask(&directory, &token, Some("acme")).is_ok());
    // Whether the other tenant is there or not, the answer is the same.
    for named in ["other", "nobody"] {
        let refused = ask(&directory, &token, Some(named));
        assert_eq!(refused, Err(AuthError::OtherTenant));
    }
    for (name, value, expected) in [
        ("sub", json!("nobody"), AuthError::JwtSubjectUnknown),
        (
            "iss",
            json!("https://elsewhere"),
            AuthError::JwtInvalid(JwtFault::Issuer),
        ),
        (
            "iss",
            json!(format!("{ISSUER}/")),
            AuthError::JwtInvalid(JwtFault::Issuer),
        ),
    ] {
        let token = signer.token(&claims_with(name, value));
        assert_eq!(ask(&directory, &token, None), Err(expected));
    }
    // What has two dots is a JWT here; what has not is a key.
    let refused = ask(&directory, "a.b.c", None);
    assert_eq!(refused, Err(AuthError::JwtInvalid(JwtFault::Header)));
    for key in ["a.b", "a.b.c.d", "a"] {
        let refused = ask(&directory, key, None);
        assert_eq!(refused, Err(AuthError::KeyUnknown));
    }
}
