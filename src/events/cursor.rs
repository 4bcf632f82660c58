//! The opaque token that says where a subscriber stands in each log of its tenant. Pure.

use std::collections::BTreeMap;

use crate::store::{LogId, Position};
use crate::tenants::directory;
use crate::tenants::token::{self, TokenError, Use};
use crate::types::TenantId;

/// The most partitions that a cursor can name: as many as a tenant can have.
const MAX_PARTITIONS: usize = directory::MAX_PARTITIONS as usize;

/// Bytes of one position: partition number, log identity, sequence.
const POSITION_BYTES: usize = 2 + 8 + 8;

/// A position in each log of a tenant, by partition number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The positions.
    pub positions: BTreeMap<u16, Position>,
}

impl Cursor {
    /// The token, good for `tenant` alone. Positions beyond the most that a tenant can have are left out.
    pub fn encode(&self, tenant: &TenantId) -> String {
        let mut body = Vec::with_capacity(self.positions.len() * POSITION_BYTES);
        for (number, position) in self.positions.iter().take(MAX_PARTITIONS) {
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&position.log.0.to_be_bytes());
            body.extend_from_slice(&position.sequence.to_be_bytes());
        }
        token::seal(Use::Cursor, tenant, &body)
    }

    /// Reads a token that `tenant` brings.
    pub fn decode(tenant: &TenantId, text: &str) -> Result<Self, TokenError> {
        let body = token::open(Use::Cursor, tenant, text, MAX_PARTITIONS * POSITION_BYTES)?;
        let (chunks, rest) = body.as_chunks::<POSITION_BYTES>();
        if !rest.is_empty() {
            return Err(TokenError::Damaged);
        }
        let mut positions = BTreeMap::new();
        for chunk in chunks {
            let (number, position) = position(chunk).ok_or(TokenError::Damaged)?;
            let in_order = positions
                .last_key_value()
                .is_none_or(|(last, _)| *last < number);
            if !in_order {
                return Err(TokenError::Damaged);
            }
            positions.insert(number, position);
        }
        Ok(Self { positions })
    }
}

fn position(chunk: &[u8; POSITION_BYTES]) -> Option<(u16, Position)> {
    let (number, rest) = chunk.split_first_chunk::<2>()?;
    let (log, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, _) = rest.split_first_chunk::<8>()?;
    Some((
        u16::from_be_bytes(*number),
        Position {
            log: LogId(u64::from_be_bytes(*log)),
            sequence: u64::from_be_bytes(*sequence),
        },
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = BTreeMap<u16, Position>> {
        let position = (any::<u64>(), any::<u64>()).prop_map(|(log, sequence)| Position {
            log: LogId(log),
            sequence,
        });
        prop::collection::btree_map(any::<u16>(), position, 0..40)
    }

    #[test]
    fn the_largest_cursor_can_be_read_back() {
        let tenant = TenantId::new("t");
        let position = Position {
            log: LogId(u64::MAX),
            sequence: u64::MAX,
        };
        let positions: BTreeMap<u16, Position> = (0..1024).map(|n| (n, position)).collect();
        let cursor = Cursor { positions };
        assert_eq!(Cursor::decode(&tenant, &cursor.encode(&tenant)), Ok(cursor));
        let long = "A".repeat(30_000);
        assert_eq!(Cursor::decode(&tenant, &long), Err(TokenError::TooLong));
    }

    #[test]
    fn a_body_out_of_order_or_cut_short_is_refused() {
        let tenant = TenantId::new("t");
        let twice = [0_u8; 2 * POSITION_BYTES];
        for body in [&twice[..], &twice[..POSITION_BYTES + 3]] {
            let text = token::seal(Use::Cursor, &tenant, body);
            assert_eq!(Cursor::decode(&tenant, &text), Err(TokenError::Damaged));
        }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_for_its_tenant_only(positions in positions()) {
            let (own, other) = (TenantId::new("a"), TenantId::new("b"));
            let cursor = Cursor { positions };
            let text = cursor.encode(&own);
            prop_assert_eq!(Cursor::decode(&other, &text), Err(TokenError::OtherTenant));
            prop_assert_eq!(Cursor::decode(&own, &text), Ok(cursor));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let tenant = TenantId::new("t");
            prop_assert!(Cursor::decode(&tenant, &text).is_err());
            // Well wrapped garbage is either a cursor or refused.
            let wrapped = token::seal(Use::Cursor, &tenant, &bytes);
            if let Ok(cursor) = Cursor::decode(&tenant, &wrapped) {
                prop_assert_eq!(cursor.encode(&tenant), wrapped);
            }
        }
    }
}
