//! Whether what an issuer answers may go upstream. Pure: time is an argument.

use std::time::Duration;

use crate::connectors::tencent::usersig::UserSig;
use crate::types::{Secret, UnixMillis};

/// What an answer is held against.
#[derive(Debug)]
pub(super) struct Expected {
    /// The tenant's upstream app.
    pub(super) sdk_app_id: u64,
    /// The app's secret key, where the gateway has it.
    pub(super) key: Option<Secret<String>>,
    /// How much life must be left.
    pub(super) least_life: Duration,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no signature.
    Unreadable,
    /// It is another account's.
    OtherAccount,
    /// It is another app's.
    OtherApp,
    /// It is made with another key than the app's.
    Forged,
    /// It has ended.
    Expired,
    /// It ends too soon.
    ShortLived,
}

impl Wrong {
    pub(super) const ALL: [Self; 6] = [
        Self::Unreadable,
        Self::OtherAccount,
        Self::OtherApp,
        Self::Forged,
        Self::Expired,
        Self::ShortLived,
    ];

    /// The metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::OtherAccount => "other_account",
            Self::OtherApp => "other_app",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::ShortLived => "short_lived",
        }
    }

    /// In words, for the tenant.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Unreadable => "the issuer answers what is no signature",
            Self::OtherAccount => "the issuer answers the signature of another account",
            Self::OtherApp => "the issuer answers the signature of another app",
            Self::Forged => "the issuer answers a signature that is not made with the app's key",
            Self::Expired => "the issuer answers a signature that has ended",
            Self::ShortLived => "the issuer answers a signature that ends too soon",
        }
    }
}

impl Expected {
    /// Reads an answer for `account`, and refuses what the upstream would, or what would soon be of no use.
    pub(super) fn check(&self, text: &str, account: &str, now: UnixMillis) -> Result<(), Wrong> {
        let read = UserSig::parse(text).map_err(|_| Wrong::Unreadable)?;
        let forged = self.key.as_ref().is_some_and(|key| !read.verify(key));
        if read.account != account {
            Err(Wrong::OtherAccount)
        } else if read.sdk_app_id != self.sdk_app_id {
            Err(Wrong::OtherApp)
        } else if forged {
            Err(Wrong::Forged)
        } else if read.expires_at() <= now {
            Err(Wrong::Expired)
        } else if read.expires_at().since(now) < self.least_life {
            Err(Wrong::ShortLived)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::tencent::usersig::mint;

    #[test]
    fn an_answer_is_for_this_account_and_app_and_lasts() {
        let now = UnixMillis::from_secs(1_790_000_000);
        let key = Secret::new("key".to_owned());
        let seconds = Duration::from_secs;
        let made = |app, key: &str, account: &str, ago: u64, life: u64| {
            let at = UnixMillis::from_secs(now.as_secs() - ago);
            let key = Secret::new(key.to_owned());
            mint(app, &key, account, at, seconds(life), None)
        };
        let expected = |key| Expected {
            sdk_app_id: 7,
            key,
            least_life: seconds(15),
        };
        for (name, answer, knowing, unknowing) in [
            ("good", made(7, "key", "bot", 0, 60), Ok(()), Ok(())),
            (
                "just long enough",
                made(7, "key", "bot", 45, 60),
                Ok(()),
                Ok(()),
            ),
            (
                "another key",
                made(7, "other", "bot", 0, 60),
                Err(Wrong::Forged),
                Ok(()),
            ),
            (
                "nothing",
                Secret::default(),
                Err(Wrong::Unreadable),
                Err(Wrong::Unreadable),
            ),
            (
                "garbage",
                Secret::new("garbage".to_owned()),
                Err(Wrong::Unreadable),
                Err(Wrong::Unreadable),
            ),
            (
                "account",
                made(7, "key", "Bot", 0, 60),
                Err(Wrong::OtherAccount),
                Err(Wrong::OtherAccount),
            ),
            (
                "app",
                made(8, "key", "bot", 0, 60),
                Err(Wrong::OtherApp),
                Err(Wrong::OtherApp),
            ),
            (
                "ended",
                made(7, "key", "bot", 60, 60),
                Err(Wrong::Expired),
                Err(Wrong::Expired),
            ),
            (
                "ends soon",
                made(7, "key", "bot", 46, 60),
                Err(Wrong::ShortLived),
                Err(Wrong::ShortLived),
            ),
        ] {
            let checked = |key| expected(key).check(answer.expose(), "bot", now);
            assert_eq!(checked(Some(key.clone())), knowing, "{name}");
            assert_eq!(checked(None), unknowing, "{name}");
        }
    }
}
