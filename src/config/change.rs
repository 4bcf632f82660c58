//! What of a configuration may change while the gateway runs. Tenants come, go and change; what everything is built on
//! stays until a restart, and what a tenant's data is laid out by stays as long as there is data.

use super::error::{ConfigErrors, Problem};
use super::{Config, Grpc, GrpcTls, Seal, SealKeys, Tenant};
use crate::types::TenantId;

/// What a new configuration changes.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// Tenants that come.
    pub added: Vec<Tenant>,
    /// Tenants that are others now.
    pub changed: Vec<Tenant>,
    /// Tenants that go.
    pub removed: Vec<TenantId>,
    /// The sealing keys, if they are others now.
    pub seal: Option<SealKeys>,
    /// What the API's TLS is of now, if that changes.
    pub tls: Option<GrpcTls>,
    /// Whether the operators, or the issuers of JWTs, are others now.
    pub callers: bool,
}

impl Change {
    /// Whether it changes anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// From this configuration, which is in force, to the next.
    ///
    /// # Errors
    /// Everything that cannot change while the gateway runs, each with the reason.
    pub fn change_to(&self, next: &Self) -> Result<Change, ConfigErrors> {
        let mut problems = self.fixed(next);
        let mut change = Change {
            callers: self.operators != next.operators || self.jwt_issuers != next.jwt_issuers,
            ..Change::default()
        };
        // How every tenant's sessions behave is set for all of them at once.
        let for_all = self.pacing == next.pacing
            && self.backoff == next.backoff
            && self.keepalive == next.keepalive;
        for tenant in &next.tenants {
            let Some(before) = self.tenants.iter().find(|before| before.id == tenant.id) else {
                change.added.push(tenant.clone());
                continue;
            };
            problems.extend(before.fixed(tenant));
            if !for_all || before != tenant {
                change.changed.push(tenant.clone());
            }
        }
        let stays = |tenant: &&Tenant| next.tenants.iter().all(|next| next.id != tenant.id);
        let gone = self.tenants.iter().filter(stays);
        change.removed = gone.map(|tenant| tenant.id.clone()).collect();
        change.seal = match (&self.seal, &next.seal) {
            (Seal::Keys(before), Seal::Keys(next)) if before != next => Some(next.clone()),
            (Seal::Keys(_) | Seal::KeyFile { .. } | Seal::Ephemeral, _) => None,
        };
        if self.grpc.tls != next.grpc.tls {
            change.tls.clone_from(&next.grpc.tls);
        }
        if problems.is_empty() {
            Ok(change)
        } else {
            Err(ConfigErrors {
                file: None,
                problems,
            })
        }
    }

    /// What changes and must not.
    fn fixed(&self, next: &Self) -> Vec<Problem> {
        let keys = [
            ("replica_id", self.replica_id == next.replica_id),
            ("grpc", self.grpc.stays(&next.grpc)),
            ("ops", self.ops == next.ops),
            ("log", self.log == next.log),
            ("store", self.store == next.store),
            ("seal", self.seal.can_become(&next.seal)),
            ("shutdown", self.shutdown == next.shutdown),
        ];
        let changed = keys.into_iter().filter(|(_, same)| !same);
        changed
            .map(|(key, _)| Problem {
                key: key.to_owned(),
                value: None,
                remedy: "cannot change while imgate runs: put it back, or restart imgate"
                    .to_owned(),
            })
            .collect()
    }
}

impl Grpc {
    /// Whether nothing changes but what TLS is of.
    fn stays(&self, next: &Self) -> bool {
        let without_tls = |grpc: &Self| Self {
            tls: None,
            ..grpc.clone()
        };
        without_tls(self) == without_tls(next) && self.tls.is_some() == next.tls.is_some()
    }
}

impl Tenant {
    fn fixed(&self, next: &Self) -> Vec<Problem> {
        let keys = [
            (
                "partitions",
                u32::from(self.partitions),
                u32::from(next.partitions),
                "its sessions and its log are spread over them",
            ),
            (
                "sdk_app_id",
                self.sdk_app_id,
                next.sdk_app_id,
                "its signatures, tickets and reading positions are of that app",
            ),
        ];
        let changed = keys
            .into_iter()
            .filter(|(_, before, next, _)| before != next);
        changed
            .map(|(key, before, next, reason)| Problem {
                key: format!("tenants[{}].{key}", self.id),
                value: Some(next.to_string()),
                remedy: format!(
                    "cannot change from {before}, for {reason}: put it back, or declare another tenant"
                ),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Key, StoreKind};
    use crate::types::Secret;
    use std::time::Duration;

    fn config(tenants: &[&str]) -> Config {
        let url = "ws://127.0.0.1:1";
        let tenant = |id: &&str| Tenant::new(TenantId::new(id), 1, url.to_owned());
        Config::new(StoreKind::Memory, tenants.iter().map(tenant).collect())
    }

    fn ids(tenants: &[Tenant]) -> Vec<&str> {
        tenants.iter().map(|tenant| tenant.id.as_str()).collect()
    }

    #[test]
    fn only_what_changed_is_touched() {
        let before = config(&["a", "b", "c"]);
        assert!(before.change_to(&before.clone()).unwrap().is_empty());
        let mut next = config(&["d", "c", "b"]);
        next.tenants[2] = next.tenants[2]
            .clone()
            .with_secret_key(Secret::new("key".into()));
        let change = before.change_to(&next).unwrap();
        assert_eq!(ids(&change.added), ["d"]);
        assert_eq!(ids(&change.changed), ["b"]);
        assert_eq!(change.removed, [TenantId::new("a")]);
        // Operators are no tenant's, and change none.
        let mut next = before.clone();
        next.operators = vec![Key {
            id: "ops".to_owned(),
            sha256: "0".repeat(64),
            prefix: None,
            not_before: None,
            not_after: None,
        }];
        let change = before.change_to(&next).unwrap();
        let only = Change {
            callers: true,
            ..Change::default()
        };
        assert_eq!(change, only);
        assert!(!change.is_empty());
        // What holds for all changes all.
        let mut next = before.clone();
        next.backoff.max = Duration::from_secs(5);
        assert_eq!(
            ids(&before.change_to(&next).unwrap().changed),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn given_keys_can_become_others() {
        let keys = |active: &str| {
            let keys = ["k1", "k2"].map(|id| (id.to_owned(), Secret::new([1; 32])));
            Seal::Keys(SealKeys {
                active: active.to_owned(),
                keys: keys.into(),
            })
        };
        let mut before = config(&["a"]);
        let mut next = before.clone();
        next.seal = keys("k1");
        let refused = before.change_to(&next).unwrap_err().to_string();
        assert!(refused.contains("seal: cannot change"), "{refused}");
        before.seal = keys("k1");
        assert_eq!(before.change_to(&next).unwrap().seal, None);
        next.seal = keys("k2");
        let change = before.change_to(&next).unwrap();
        assert_eq!(change.seal.unwrap().active, "k2");
    }

    #[test]
    fn a_certificate_may_change_and_tls_may_neither_come_nor_go() {
        let tls = |certificate: &str| {
            Some(GrpcTls {
                cert_pem: certificate.into(),
                key_pem: Secret::new(vec![]),
                client_ca_pem: None,
                clients_optional: false,
            })
        };
        let mut before = config(&["a"]);
        let mut next = before.clone();
        next.grpc.tls = tls("old");
        assert!(before.change_to(&next).is_err() && next.change_to(&before).is_err());
        before.grpc.tls = tls("old");
        assert_eq!(before.change_to(&next).unwrap().tls, None);
        next.grpc.tls = tls("new");
        let change = before.change_to(&next).unwrap();
        assert!(!change.is_empty() && change.changed.is_empty());
        assert_eq!(change.tls, next.grpc.tls);
        next.grpc.max_connections += 1;
        assert!(before.change_to(&next).is_err());
    }

    #[test]
    fn what_must_not_change_is_refused_with_the_reason() {
        let before = config(&["a"]);
        let mut next = before.clone();
        next.tenants[0].partitions = 16;
        next.tenants[0].sdk_app_id = 2;
        next.store.lease_ttl *= 2;
        next.grpc.listen = ([127, 0, 0, 1], 1).into();
        let refused = before.change_to(&next).unwrap_err().to_string();
        for said in [
            "grpc: cannot change while imgate runs",
            "store: cannot change while imgate runs",
            "tenants[a].partitions = 16: cannot change from 8, for its sessions and its log are spread over them",
            "tenants[a].sdk_app_id = 2: cannot change from 1, for its signatures",
        ] {
            assert!(refused.contains(said), "{said} is not in {refused}");
        }
    }
}
