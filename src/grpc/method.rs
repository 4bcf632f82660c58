//! What has to be known of each method before it is called.

use std::time::Duration;

use crate::tenants::auth::Scope;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A caller of a tenant with this scope.
    Tenant(Scope),
    /// An operator.
    Operator,
}

/// One method of the API.
#[derive(Debug)]
pub(super) struct Method {
    /// The request's path.
    path: &'static str,
    /// The name in metrics.
    pub(super) name: &'static str,
    /// Who may call it.
    pub(super) access: Access,
    /// How long it may take when the caller does not say; `None` for a stream without end.
    pub(super) default_deadline: Option<Duration>,
    /// Whether what was begun goes on when the deadline passes.
    pub(super) goes_on: bool,
}

const SESSIONS: Access = Access::Tenant(Scope::Sessions);
const EVENTS: Access = Access::Tenant(Scope::Events);
const MESSAGES: Access = Access::Tenant(Scope::Messages);

const fn unary(path: &'static str, name: &'static str, access: Access, seconds: u64) -> Method {
    Method {
        path,
        name,
        access,
        default_deadline: Some(Duration::from_secs(seconds)),
        goes_on: false,
    }
}

/// All methods that need a credential, also those that are not served yet.
pub(super) static METHODS: [Method; 18] = [
    Method {
        goes_on: true,
        ..unary("/imgate.v1.SessionService/Login", "Login", SESSIONS, 60)
    },
    unary("/imgate.v1.SessionService/Logout", "Logout", SESSIONS, 30),
    unary(
        "/imgate.v1.SessionService/RenewSignature",
        "RenewSignature",
        SESSIONS,
        30,
    ),
    unary(
        "/imgate.v1.SessionService/GetSession",
        "GetSession",
        SESSIONS,
        30,
    ),
    unary(
        "/imgate.v1.SessionService/ListSessions",
        "ListSessions",
        SESSIONS,
        30,
    ),
    Method {
        path: "/imgate.v1.EventService/Subscribe",
        name: "Subscribe",
        access: EVENTS,
        default_deadline: None,
        goes_on: false,
    },
    unary(
        "/imgate.v1.EventService/Acknowledge",
        "Acknowledge",
        EVENTS,
        30,
    ),
    unary(
        "/imgate.v1.EventService/ListSubscriptions",
        "ListSubscriptions",
        EVENTS,
        30,
    ),
    unary(
        "/imgate.v1.EventService/DeleteSubscription",
        "DeleteSubscription",
        EVENTS,
        30,
    ),
    unary("/imgate.v1.MessageService/Send", "Send", MESSAGES, 30),
    unary("/imgate.v1.MessageService/Invoke", "Invoke", MESSAGES, 30),
    unary(
        "/imgate.v1.AdminService/ListReplicas",
        "ListReplicas",
        Access::Operator,
        30,
    ),
    unary(
        "/imgate.v1.AdminService/ListPartitions",
        "ListPartitions",
        Access::Operator,
        30,
    ),
    unary(
        "/imgate.v1.AdminService/ListTenantSessions",
        "ListTenantSessions",
        Access::Operator,
        30,
    ),
    Method {
        path: "/imgate.v1.AdminService/RotateKeys",
        name: "RotateKeys",
        access: Access::Operator,
        default_deadline: None,
        goes_on: false,
    },
    unary(
        "/imgate.v1.AdminService/PurgeTenant",
        "PurgeTenant",
        Access::Operator,
        300,
    ),
    unary(
        "/imgate.v1.AdminService/Drain",
        "Drain",
        Access::Operator,
        30,
    ),
    unary(
        "/imgate.v1.AdminService/Relogin",
        "Relogin",
        Access::Operator,
        30,
    ),
];

/// The method of a request; `None` for what needs no credential: health, reflection, and what there is not.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// A method that is missing in the table would be served to anybody.
    #[test]
    fn every_method_that_is_called_here_is_in_the_table() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTOR_SET).unwrap();
        let mut paths = Vec::new();
        for file in set.file.iter().filter(|file| file.package() == "imgate.v1") {
            for service in &file.service {
                // The tenant serves it, and the gateway calls.
                if service.name() == "SignatureIssuerService" {
                    continue;
                }
                for method in &service.method {
                    paths.push(format!("/imgate.v1.{}/{}", service.name(), method.name()));
                    let found = find(paths.last().unwrap()).expect("in the table");
                    assert_eq!(found.name, method.name());
                    assert_eq!(found.default_deadline.is_none(), method.server_streaming());
                    let expected = match service.name() {
                        "SessionService" => SESSIONS,
                        "EventService" => EVENTS,
                        "MessageService" => MESSAGES,
                        "AdminService" => Access::Operator,
                        other => panic!("who may call {other}?"),
                    };
                    assert_eq!(found.access, expected);
                }
            }
        }
        assert_eq!(paths.len(), METHODS.len());
    }
}
