//! The opaque token that says where a subscriber stands in each log of its tenant. Pure.

use std::collections::BTreeMap;

use super::entry::Print;
use crate::store::{LogId, Position};
use crate::tenants::directory;
use crate::tenants::token::{TokenError, Tokens, Use};
use crate::types::TenantId;

/// The most partitions that a cursor can name: as many as a tenant can have.
const MAX_PARTITIONS: usize = directory::MAX_PARTITIONS as usize;

/// Bytes of one mark: partition number, log identity, sequence, fingerprint.
const MARK_BYTES: usize = 2 + 8 + 8 + 4;

/// A place in a log, and what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The place.
    pub position: Position,
    /// Of the entry there; `None` if that was never seen.
    pub print: Option<Print>,
}

/// A place in each log of a tenant, by partition number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The places.
    pub marks: BTreeMap<u16, Mark>,
}

impl From<Position> for Mark {
    fn from(position: Position) -> Self {
        Self {
            position,
            print: None,
        }
    }
}

impl Mark {
    /// Whether what is known to be there is not the same.
    pub(super) fn differs(&self, other: Self) -> bool {
        matches!((self.print, other.print), (Some(own), Some(others)) if own != others)
    }
}

impl Cursor {
    /// A cursor at positions of which no more is known.
    pub fn at(positions: impl IntoIterator<Item = (u16, Position)>) -> Self {
        let positions = positions.into_iter();
        Self {
            marks: positions
                .map(|(number, position)| (number, position.into()))
                .collect(),
        }
    }

    /// The positions alone.
    pub fn positions(&self) -> BTreeMap<u16, Position> {
        let marks = self.marks.iter();
        marks
            .map(|(&number, mark)| (number, mark.position))
            .collect()
    }

    /// The token, good for `tenant` alone. Places beyond the most that a tenant can have are left out.
    pub fn encode(&self, tokens: &Tokens, tenant: &TenantId) -> String {
        let mut body = Vec::with_capacity(self.marks.len() * MARK_BYTES);
        for (number, mark) in self.marks.iter().take(MAX_PARTITIONS) {
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&mark.position.log.0.to_be_bytes());
            body.extend_from_slice(&mark.position.sequence.to_be_bytes());
            let print = mark.print.map_or(0, |Print(print)| print);
            body.extend_from_slice(&print.to_be_bytes());
        }
        tokens.seal(Use::Cursor, tenant, &body)
    }

    /// Reads a token that `tenant` brings.
    ///
    /// # Errors
    /// When it was not made by [`Cursor::encode`] for that tenant.
    pub fn decode(tokens: &Tokens, tenant: &TenantId, text: &str) -> Result<Self, TokenError> {
        let body = tokens.open(Use::Cursor, tenant, text, MAX_PARTITIONS * MARK_BYTES)?;
        let (chunks, rest) = body.as_chunks::<MARK_BYTES>();
        if !rest.is_empty() {
            return Err(TokenError::Refused);
        }
        let mut marks = BTreeMap::new();
        for chunk in chunks {
            let (number, mark) = mark(chunk).ok_or(TokenError::Refused)?;
            let in_order = marks
                .last_key_value()
                .is_none_or(|(last, _)| *last < number);
            if !in_order {
                return Err(TokenError::Refused);
            }
            marks.insert(number, mark);
        }
        Ok(Self { marks })
    }
}

fn mark(chunk: &[u8; MARK_BYTES]) -> Option<(u16, Mark)> {
    let (number, rest) = chunk.split_first_chunk::<2>()?;
    let (log, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (print, _) = rest.split_first_chunk::<4>()?;
    let position = Position {
        log: LogId(u64::from_be_bytes(*log)),
        sequence: u64::from_be_bytes(*sequence),
    };
    let print = u32::from_be_bytes(*print);
    let print = (print != 0).then_some(Print(print));
    Some((u16::from_be_bytes(*number), Mark { position, print }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = BTreeMap<u16, Mark>> {
        let print = proptest::option::of((1..=u32::MAX).prop_map(Print));
        let mark = (any::<u64>(), any::<u64>(), print).prop_map(|(log, sequence, print)| Mark {
            position: Position {
                log: LogId(log),
                sequence,
            },
            print,
        });
        prop::collection::btree_map(any::<u16>(), mark, 0..40)
    }

    #[test]
    fn the_largest_cursor_can_be_read_back() {
        let (tokens, tenant) = (Tokens::for_tests(), TenantId::new("t"));
        let position = Position {
            log: LogId(u64::MAX),
            sequence: u64::MAX,
        };
        let print = Some(Print(u32::MAX));
        let marks = (0..1024).map(|n| (n, Mark { position, print })).collect();
        let cursor = Cursor { marks };
        let text = cursor.encode(&tokens, &tenant);
        assert_eq!(Cursor::decode(&tokens, &tenant, &text), Ok(cursor));
        let long = "A".repeat(40_000);
        assert_eq!(
            Cursor::decode(&tokens, &tenant, &long),
            Err(TokenError::TooLong)
        );
    }

    #[test]
    fn a_body_out_of_order_or_cut_short_is_refused() {
        let (tokens, tenant) = (Tokens::for_tests(), TenantId::new("t"));
        let twice = [0_u8; 2 * MARK_BYTES];
        for body in [&twice[..], &twice[..MARK_BYTES + 3]] {
            let text = tokens.seal(Use::Cursor, &tenant, body);
            assert_eq!(
                Cursor::decode(&tokens, &tenant, &text),
                Err(TokenError::Refused)
            );
        }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_for_its_tenant_only(marks in marks()) {
            let tokens = Tokens::for_tests();
            let (own, other) = (TenantId::new("a"), TenantId::new("b"));
            let cursor = Cursor { marks };
            let text = cursor.encode(&tokens, &own);
            prop_assert_eq!(Cursor::decode(&tokens, &other, &text), Err(TokenError::Refused));
            prop_assert_eq!(Cursor::decode(&tokens, &own, &text), Ok(cursor));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (tokens, tenant) = (Tokens::for_tests(), TenantId::new("t"));
            prop_assert!(Cursor::decode(&tokens, &tenant, &text).is_err());
            // Well wrapped garbage is either a cursor or refused.
            let wrapped = tokens.seal(Use::Cursor, &tenant, &bytes);
            if let Ok(cursor) = Cursor::decode(&tokens, &tenant, &wrapped) {
                prop_assert_eq!(cursor.encode(&tokens, &tenant), wrapped);
            }
        }
    }
}
