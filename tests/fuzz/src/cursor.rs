//! Cursors and page tokens: texts that a caller makes up, and bodies in a token of the gateway's own.

use imgate::events::cursor::Cursor;
use imgate::tenants::token::{TokenError, Tokens, Use};
use imgate::types::{AccountId, Secret, TenantId};

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// More than any body of a corpus has.
const MAX_BODY: usize = 1 << 20;

/// `t` and a text, `b` and the body of a cursor, `p` and the body of a page token.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((b't', text)) => made_up(&String::from_utf8_lossy(text)),
        Some((b'b', body)) => cursor(body),
        Some((b'p', body)) => sealed(Use::Page, Use::Cursor, body),
        Some(_) | None => {}
    }
}

fn key(seed: u8) -> Secret<[u8; 32]> {
    Secret::new([seed; 32])
}

fn tokens() -> Tokens {
    Tokens::new(&key(1), [&key(2)])
}

fn tenant() -> TenantId {
    TenantId::new("acme")
}

/// Nobody who lacks the keys can make one.
fn made_up(text: &str) {
    let (tokens, tenant) = (tokens(), tenant());
    let error = Cursor::decode(&tokens, &tenant, text).expect_err("nobody made it");
    // These have words of their own and nothing of the text.
    assert!(matches!(error, TokenError::TooLong | TokenError::Refused));
    for usage in [Use::Cursor, Use::Page] {
        for most in [0, AccountId::MAX_BYTES, MAX_BODY] {
            assert!(tokens.open(usage, &tenant, text, most).is_err());
        }
    }
}

/// Whatever the gateway itself wrapped is a cursor that comes back as it was, or is refused.
fn cursor(body: &[u8]) {
    let (tokens, tenant) = (tokens(), tenant());
    let text = tokens.seal(Use::Cursor, &tenant, body);
    if let Ok(cursor) = Cursor::decode(&tokens, &tenant, &text) {
        assert_eq!(cursor.encode(&tokens, &tenant), text);
        assert_eq!(cursor.positions().len(), cursor.marks.len());
        let other = TenantId::new("acme2");
        assert_eq!(
            Cursor::decode(&tokens, &other, &text),
            Err(TokenError::Refused)
        );
        let elsewhere = cursor.encode(&tokens, &other);
        assert_eq!(
            Cursor::decode(&tokens, &tenant, &elsewhere),
            Err(TokenError::Refused)
        );
        assert_eq!(Cursor::decode(&tokens, &other, &elsewhere), Ok(cursor));
    }
    sealed(Use::Cursor, Use::Page, body);
}

fn sealed(usage: Use, other_usage: Use, body: &[u8]) {
    let (tokens, tenant) = (tokens(), tenant());
    let text = tokens.seal(usage, &tenant, body);
    let open = |text: &str| tokens.open(usage, &tenant, text, MAX_BODY);
    assert_eq!(open(&text).as_deref(), Ok(body));
    assert_eq!(
        tokens.open(usage, &tenant, &text, body.len()).as_deref(),
        Ok(body)
    );
    if let Some(less) = body.len().checked_sub(1) {
        assert_eq!(
            tokens.open(usage, &tenant, &text, less),
            Err(TokenError::TooLong)
        );
    }
    // It is nobody else's and nothing else.
    let refused = Err(TokenError::Refused);
    assert_eq!(
        tokens.open(usage, &TenantId::new("acm"), &text, MAX_BODY),
        refused
    );
    assert_eq!(tokens.open(other_usage, &tenant, &text, MAX_BODY), refused);
    assert_eq!(
        Tokens::new(&key(3), []).open(usage, &tenant, &text, MAX_BODY),
        refused
    );
    // A key that only opens does open.
    let rotated = Tokens::new(&key(4), [&key(1)]);
    assert_eq!(
        rotated.open(usage, &tenant, &text, MAX_BODY).as_deref(),
        Ok(body)
    );
    // Every change of a letter, and every cut, breaks it.
    let at = super::place(body, text.len());
    assert_eq!(open(&text[..at]), refused);
    let mut changed = text.clone().into_bytes();
    let letter = ALPHABET[super::place(&changed, ALPHABET.len())];
    if changed[at] != letter {
        changed[at] = letter;
        assert_eq!(open(&String::from_utf8(changed).expect("ASCII")), refused);
    }
    assert_eq!(open(&format!("{text}A")), refused);
}
