//! Moments as the API shows them.

/// The end of the year 9999: the latest second that `google.protobuf.Timestamp` can name. Client libraries fail on later
/// ones.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// A moment in Unix milliseconds, for the API; one that it cannot name is the latest that it can.
pub fn timestamp(unix_millis: u64) -> prost_types::Timestamp {
    let millis = unix_millis.min(LAST_SECOND * 1000 + 999);
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(0),
        nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stay_within_what_clients_can_read() {
        let shown = |millis| {
            let at = timestamp(millis);
            (at.seconds, at.nanos)
        };
        assert_eq!(shown(0), (0, 0));
        assert_eq!(shown(1_795_000_000_123), (1_795_000_000, 123_000_000));
        for late in [253_402_300_800_000, u64::MAX] {
            assert_eq!(shown(late), (253_402_300_799, 999_000_000));
        }
    }
}
