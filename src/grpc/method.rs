//! What has to be known of each method before it is called.

use std::time::Duration;

use crate::tenants::auth::Scope;

/// One method of the API.
#[derive(Debug)]
pub(super) struct Method {
    /// The request's path.
    path: &'static str,
    /// The name in metrics.
    pub(super) name: &'static str,
    /// What the caller's key must allow.
    pub(super) scope: Scope,
    /// How long it may take when the caller does not say; `None` for a stream without end.
    pub(super) default_deadline: Option<Duration>,
    /// Whether what was begun goes on when the deadline passes.
    pub(super) goes_on: bool,
}

const fn unary(path: &'static str, name: &'static str, scope: Scope, seconds: u64) -> Method {
    Method {
        path,
        name,
        scope,
        default_deadline: Some(Duration::from_secs(seconds)),
        goes_on: false,
    }
}

/// All methods that need a tenant's key.
pub(super) static METHODS: [Method; 11] = [
    Method {
        goes_on: true,
        ..unary(
            "/imgate.v1.SessionService/Login",
            "Login",
            Scope::Sessions,
            60,
        )
    },
    unary(
        "/imgate.v1.SessionService/Logout",
        "Logout",
        Scope::Sessions,
        30,
    ),
    unary(
        "/imgate.v1.SessionService/RenewSignature",
        "RenewSignature",
        Scope::Sessions,
        30,
    ),
    unary(
        "/imgate.v1.SessionService/GetSession",
        "GetSession",
        Scope::Sessions,
        30,
    ),
    unary(
        "/imgate.v1.SessionService/ListSessions",
        "ListSessions",
        Scope::Sessions,
        30,
    ),
    Method {
        path: "/imgate.v1.EventService/Subscribe",
        name: "Subscribe",
        scope: Scope::Events,
        default_deadline: None,
        goes_on: false,
    },
    unary(
        "/imgate.v1.EventService/Acknowledge",
        "Acknowledge",
        Scope::Events,
        30,
    ),
    unary(
        "/imgate.v1.EventService/ListSubscriptions",
        "ListSubscriptions",
        Scope::Events,
        30,
    ),
    unary(
        "/imgate.v1.EventService/DeleteSubscription",
        "DeleteSubscription",
        Scope::Events,
        30,
    ),
    unary(
        "/imgate.v1.MessageService/Send",
        "Send",
        Scope::Messages,
        30,
    ),
    unary(
        "/imgate.v1.MessageService/Invoke",
        "Invoke",
        Scope::Messages,
        30,
    ),
];

/// The method of a request; `None` for what needs no key: health, reflection, and what there is not.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// A method that is missing in the table would be served to anybody.
    #[test]
    fn every_method_of_the_served_services_is_in_the_table() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTOR_SET).unwrap();
        let mut paths = Vec::new();
        for file in set.file.iter().filter(|file| file.package() == "imgate.v1") {
            for service in &file.service {
                if ["AdminService", "SignatureIssuerService"].contains(&service.name()) {
                    continue;
                }
                for method in &service.method {
                    paths.push(format!("/imgate.v1.{}/{}", service.name(), method.name()));
                    let found = find(paths.last().unwrap()).expect("in the table");
                    assert_eq!(found.name, method.name());
                    assert_eq!(found.default_deadline.is_none(), method.server_streaming());
                }
            }
        }
        assert_eq!(paths.len(), METHODS.len());
    }
}
