//! How an event lies in the store: as it was encoded, or sealed.
//!
//! A sealed payload is the byte 0 and a value of [`crate::store::seal`]. No encoded event begins with that byte, for
//! protobuf has no field 0; so what was written before a tenant asked for sealing, or after it asked no more, is read
//! all the same.

use std::borrow::Cow;

use crate::store::seal::{SealError, SealedFor, Sealer};
use crate::types::{AccountId, TenantId};

/// The first byte of a sealed payload.
const SEALED: u8 = 0;

/// Seals an encoded event of a tenant under the active key.
///
/// # Errors
/// [`SealError::Cipher`], which is not expected.
pub fn wrap(sealer: &Sealer, tenant: &TenantId, encoded: &[u8]) -> Result<Vec<u8>, SealError> {
    let sealed = with(tenant, |belongs| sealer.seal(belongs, encoded))?;
    let mut payload = Vec::with_capacity(1 + sealed.len());
    payload.push(SEALED);
    payload.extend(sealed);
    Ok(payload)
}

/// The encoded event in a payload of a tenant's log.
///
/// # Errors
/// When it is sealed and does not open.
pub fn unwrap<'a>(
    sealer: &Sealer,
    tenant: &TenantId,
    payload: &'a [u8],
) -> Result<Cow<'a, [u8]>, SealError> {
    match payload.split_first() {
        Some((&SEALED, sealed)) => {
            let opened = with(tenant, |belongs| sealer.open(belongs, sealed))?;
            Ok(Cow::Owned(opened.expose().clone()))
        }
        Some(_) | None => Ok(Cow::Borrowed(payload)),
    }
}

/// Whether a payload is sealed, and under another key than the active one.
pub(super) fn needs_reseal(sealer: &Sealer, payload: &[u8]) -> bool {
    match payload.split_first() {
        Some((&SEALED, sealed)) => sealer.needs_reseal(sealed),
        Some(_) | None => false,
    }
}

/// A payload belongs to the tenant, not to an account: whose event it is is not known before it is opened.
fn with<T>(tenant: &TenantId, work: impl FnOnce(&SealedFor<'_>) -> T) -> T {
    work(&SealedFor {
        tenant,
        account: &AccountId::new(""),
        kind: "event",
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::events::testing::{message, sealer};

    #[test]
    fn an_event_comes_back_sealed_or_not() {
        let (sealer, tenant) = (sealer(1), TenantId::new("t"));
        let plain = message("bot", "secret").encode_to_vec();
        let sealed = wrap(&sealer, &tenant, &plain).unwrap();
        assert_eq!(sealed.first(), Some(&SEALED));
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for payload in [&plain, &sealed] {
            assert_eq!(unwrap(&sealer, &tenant, payload).unwrap(), plain);
        }
        assert!(unwrap(&sealer, &tenant, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_sealed_opens_for_its_tenant_and_under_its_key_only() {
        let tenant = TenantId::new("t");
        let sealed = wrap(&sealer(1), &tenant, b"event").unwrap();
        assert!(unwrap(&sealer(1), &TenantId::new("u"), &sealed).is_err());
        assert!(unwrap(&sealer(2), &tenant, &sealed).is_err());
        let cut = &sealed[..sealed.len() - 1];
        assert!(unwrap(&sealer(1), &tenant, cut).is_err());
        assert!(unwrap(&sealer(1), &tenant, &[SEALED]).is_err());
    }
}
