//! How an event lies in the store: as it was encoded, or sealed.
//!
//! A sealed payload is the byte 0 and a value of [`crate::store::seal`]. No encoded event begins with that byte, for
//! protobuf has no field 0; so what was written before a tenant asked for sealing, or after it asked no more, is read
//! all the same.

#[cfg(test)]
use std::borrow::Cow;

use crate::store::seal::{SealError, SealedFor, Sealer};
use crate::types::{AccountId, TenantId};

/// The first byte of a sealed payload.
const SEALED: u8 = 0;

/// Seals an encoded event of a tenant under the active key.
///
/// # Errors
/// [`SealError::Cipher`], which is not expected.
pub(super) fn wrap(
    sealer: &Sealer,
    tenant: &TenantId,
    encoded: &[u8],
) -> Result<Vec<u8>, SealError> {
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
#[cfg(test)]
pub(super) fn unwrap<'a>(
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

/// A payload belongs to the tenant, not to an account: an event may be of none.
fn with<T>(tenant: &TenantId, work: impl FnOnce(&SealedFor<'_>) -> T) -> T {
    work(&SealedFor {
        tenant,
        account: &AccountId::new(""),
        kind: "event",
    })
}
