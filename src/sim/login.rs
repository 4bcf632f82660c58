//! Who a request is from: login by signature, login by ticket, and the ticket in every later request.

use std::sync::Arc;

use serde_json::Value;

use super::accounts::{Accepted, Account, NewLogin, Refused, Seat, count};
use super::world::World;
use crate::connectors::tencent::usersig::{UserSig, UserSigError};
use crate::types::{AccountId, UnixMillis};

/// What a request's head says of its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    identifier: &'a str,
    usersig: &'a str,
    a2: &'a str,
    tiny_id: u64,
    inst_id: u64,
    sdk_app_id: u64,
}

impl<'a> Claim<'a> {
    pub(super) fn of(head: &'a Value) -> Self {
        let text = |field: &str| head.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| head.get(field).and_then(Value::as_u64).unwrap_or_default();
        let tiny_id = match head.get("tinyid") {
            Some(Value::String(digits)) => digits.parse().unwrap_or_default(),
            _ => number("tinyid"),
        };
        Self {
            identifier: text("identifier"),
            usersig: text("usersig"),
            a2: text("a2"),
            tiny_id,
            inst_id: number("status_instid"),
            sdk_app_id: number("sdkappid"),
        }
    }

    /// The ticket; empty when the request has none.
    pub(super) fn a2(&self) -> &'a str {
        self.a2
    }
}

/// The client that logs in: what its connection's address says.
#[derive(Clone, Debug)]
pub(super) struct ClientName {
    pub(super) platform: u32,
    pub(super) instance: String,
}

impl World {
    /// Logs in by ticket if there is one, else by signature, and seats the connection.
    pub(super) fn log_in(
        &self,
        claim: Claim<'_>,
        client: &ClientName,
        seat: Seat,
        now: UnixMillis,
    ) -> Result<(Arc<Account>, Accepted), Refused> {
        let known = if claim.a2.is_empty() {
            self.find(claim.identifier)
        } else {
            self.find_tiny(claim.tiny_id)
        };
        let name = known
            .as_ref()
            .map_or(claim.identifier, |account| account.id.as_str());
        let done = match self.take_refusal(name) {
            Some(code) => Err(Refused::new(code, "refused by the control port")),
            None if claim.a2.is_empty() => self.by_signature(claim, client, seat, now),
            None => known
                .clone()
                .ok_or_else(Refused::ticket)
                .and_then(|account| {
                    let accepted = account.resume(claim.a2, claim.inst_id, seat, now)?;
                    Ok((account, accepted))
                }),
        };
        if done.is_err() {
            count(&self.refused);
            if let Some(account) = known {
                count(&account.counters.refused);
            }
        }
        done
    }

    fn by_signature(
        &self,
        claim: Claim<'_>,
        client: &ClientName,
        seat: Seat,
        now: UnixMillis,
    ) -> Result<(Arc<Account>, Accepted), Refused> {
        let id = AccountId::parse(claim.identifier)
            .map_err(|problem| Refused::new(70402, format!("identifier {problem}")))?;
        let expires_at = self.check_signature(claim, now)?;
        if claim.sdk_app_id != self.options.sdk_app_id {
            return Err(Refused::new(60006, "sdkappid does not exist"));
        }
        let account = self.find_or_create(&id);
        let accepted = account.log_in(NewLogin {
            platform: client.platform,
            instance: &client.instance,
            expires_at,
            seat,
            spacing: self.options.login_spacing,
        })?;
        Ok((account, accepted))
    }

    /// Until when the signature is good, if it is.
    fn check_signature(&self, claim: Claim<'_>, now: UnixMillis) -> Result<UnixMillis, Refused> {
        let sig = UserSig::parse(claim.usersig).map_err(|error| match error {
            UserSigError::Empty => Refused::new(70002, "usersig empty"),
            UserSigError::TooLong
            | UserSigError::Base64
            | UserSigError::Compression
            | UserSigError::Fields
            | UserSigError::Version => Refused::new(70003, "usersig illegal"),
        })?;
        if sig.sdk_app_id != self.options.sdk_app_id {
            return Err(Refused::new(70014, "usersig is for another sdkappid"));
        }
        if sig.account != claim.identifier {
            return Err(Refused::new(70013, "usersig is for another identifier"));
        }
        if !sig.verify(&self.options.secret_key) {
            return Err(Refused::new(70009, "usersig was made with another key"));
        }
        if sig.expires_at() <= now {
            return Err(Refused::expired());
        }
        Ok(sig.expires_at())
    }

    /// Whose request this is, by its ticket.
    pub(super) fn authenticate(
        &self,
        claim: Claim<'_>,
        now: UnixMillis,
    ) -> Result<Arc<Account>, Refused> {
        if claim.a2.is_empty() {
            return Err(Refused::not_logged_in());
        }
        let account = self.find_tiny(claim.tiny_id).ok_or_else(Refused::ticket)?;
        account.check(claim.a2, now)?;
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::connectors::tencent::usersig::mint;
    use crate::sim::SimOptions;
    use crate::types::Secret;

    const APP: u64 = 1_400_000_001;
    const NOW: UnixMillis = UnixMillis::from_secs(1_000);

    fn world() -> World {
        World::new(SimOptions::new(APP, Secret::new(String::from("key"))), None)
    }

    fn sig(app: u64, key: &str, account: &str) -> String {
        let key = Secret::new(key.to_owned());
        let lifetime = Duration::from_secs(60);
        mint(app, &key, account, NOW, lifetime, None)
            .expose()
            .clone()
    }

    fn log_in(world: &World, head: &Value, now: UnixMillis) -> Result<Accepted, u32> {
        let seat = Seat {
            connection: world.next_number(),
            queue: mpsc::channel(1).0,
            cut: CancellationToken::new(),
            wire: std::sync::Weak::new(),
        };
        let client = ClientName {
            platform: 7,
            instance: String::from("i"),
        };
        let done = world.log_in(Claim::of(head), &client, seat, now);
        done.map(|(_, accepted)| accepted)
            .map_err(|refused| refused.code)
    }

    fn by_signature(world: &World, account: &str, sig: &str) -> Result<Accepted, u32> {
        let head = json!({ "identifier": account, "usersig": sig, "sdkappid": APP });
        log_in(world, &head, NOW)
    }

    #[test]
    fn signatures_are_refused_by_the_upstreams_numbers() {
        let world = world();
        let good = sig(APP, "key", "bot1");
        let long = "x".repeat(65);
        for (account, sig, code) in [
            ("bot1", "", 70002),
            ("bot1", "garbage", 70003),
            ("bot1", &good[..good.len() / 2], 70003),
            ("bot1", &sig(APP, "other", "bot1"), 70009),
            ("bot1", &sig(APP, "key", "bot2"), 70013),
            ("bot1", &sig(APP + 1, "key", "bot1"), 70014),
            ("", &sig(APP, "key", ""), 70402),
            (&long, &sig(APP, "key", &long), 70402),
        ] {
            assert_eq!(by_signature(&world, account, sig), Err(code), "{account}");
            assert!(world.find(account).is_none());
        }
        let head = json!({ "identifier": "bot1", "usersig": good, "sdkappid": APP });
        assert_eq!(
            log_in(&world, &head, NOW.plus(Duration::from_secs(60))),
            Err(70001)
        );
        let head = json!({ "identifier": "bot1", "usersig": good, "sdkappid": 1 });
        assert_eq!(log_in(&world, &head, NOW), Err(60006));
        assert!(by_signature(&world, "bot1", &good).is_ok());
        let stats = world.stats(NOW);
        assert_eq!((stats.logins, stats.refused), (1, 10));
    }

    #[test]
    fn a_ticket_takes_the_place_of_the_signature() {
        let world = world();
        let login = by_signature(&world, "bot1", &sig(APP, "key", "bot1")).unwrap();
        let tiny = login.tiny_id.to_string();
        let head = json!({ "a2": login.a2, "tinyid": tiny, "status_instid": login.inst_id });
        assert_eq!(log_in(&world, &head, NOW), Ok(login.clone()));
        assert!(world.authenticate(Claim::of(&head), NOW).is_ok());
        let head =
            json!({ "a2": login.a2, "tinyid": login.tiny_id, "status_instid": login.inst_id });
        assert_eq!(log_in(&world, &head, NOW), Ok(login.clone()));
        for bad in [
            json!({ "a2": "x", "tinyid": tiny, "status_instid": login.inst_id }),
            json!({ "a2": login.a2, "tinyid": "1", "status_instid": login.inst_id }),
            json!({ "a2": login.a2, "status_instid": login.inst_id }),
        ] {
            assert_eq!(log_in(&world, &bad, NOW), Err(20002), "{bad}");
            assert_eq!(
                world.authenticate(Claim::of(&bad), NOW).unwrap_err().code,
                20002
            );
        }
        assert_eq!(
            world
                .authenticate(Claim::of(&json!({})), NOW)
                .unwrap_err()
                .code,
            70003
        );
        let user = world.stats(NOW).users["bot1"];
        assert_eq!((user.logins, user.resumes, user.connections), (1, 2, 3));
    }

    #[test]
    fn refusals_concern_both_kinds() {
        let world = world();
        let good = sig(APP, "key", "bot1");
        let login = by_signature(&world, "bot1", &good).unwrap();
        world.refuse(Some("bot1"), 70050, 2).unwrap();
        assert_eq!(by_signature(&world, "bot1", &good), Err(70050));
        let head = json!({
            "a2": login.a2, "tinyid": login.tiny_id, "status_instid": login.inst_id
        });
        assert_eq!(log_in(&world, &head, NOW), Err(70050));
        assert_eq!(log_in(&world, &head, NOW), Ok(login));
        assert_eq!(world.stats(NOW).users["bot1"].refused, 2);
        let unknown = world.refuse(Some("bot2"), 70050, 1).unwrap_err();
        assert!(unknown.to_string().contains("bot2"));
    }
}
