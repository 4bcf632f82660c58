//! AdminService, beside the rotation of keys.

use imgate::proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::world::{World, as_operator, as_tenant};

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    (status.code(), details.error_info().unwrap().reason.clone())
}

#[tokio::test]
async fn an_operator_sees_partitions_and_sessions_of_all_tenants() {
    let world = World::start("info").await;
    let accounts = ["a", "b", "c"];
    for account in accounts {
        world.log_in(account, 0).await;
    }
    let mut admin = world.admin().await;
    for tenant in ["", "acme"] {
        let tenant = tenant.to_owned();
        let asked = as_operator(v1::ListPartitionsRequest { tenant });
        let held = admin.list_partitions(asked).await.unwrap().into_inner();
        let numbers: Vec<_> = held.partitions.iter().map(|one| one.number).collect();
        assert_eq!(numbers, [0, 1]);
        for partition in &held.partitions {
            assert_eq!((&*partition.tenant, &*partition.owner), ("acme", "r"));
            assert!(partition.epoch > 0);
        }
        let events: u64 = held.partitions.iter().map(|one| one.last_sequence).sum();
        assert!(events >= 3, "each session has told that it is online");
    }

    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let asked = v1::ListTenantSessionsRequest {
            tenant: "acme".into(),
            page_size: 2,
            page_token,
        };
        let page = admin.list_tenant_sessions(as_operator(asked)).await;
        let page = page.unwrap().into_inner();
        listed.extend(page.sessions.into_iter().map(|session| session.account));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, accounts);

    let nobody = v1::ListTenantSessionsRequest {
        tenant: "nobody".into(),
        ..v1::ListTenantSessionsRequest::default()
    };
    let refused = refusal(
        admin
            .list_tenant_sessions(as_operator(nobody.clone()))
            .await,
    );
    assert_eq!(refused, (Code::InvalidArgument, "INVALID_FIELD".into()));
    // To a tenant it says nothing of whether there is another.
    for tenant in ["nobody", "acme"] {
        let asked = v1::ListTenantSessionsRequest {
            tenant: tenant.into(),
            ..nobody.clone()
        };
        let refused = refusal(admin.list_tenant_sessions(as_tenant(asked)).await);
        assert_eq!(refused.0, Code::PermissionDenied, "{tenant}");
    }
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let world = World::start("info").await;
    let mut admin = world.admin().await;
    let unserved = (Code::Unimplemented, "UNIMPLEMENTED".to_owned());
    let asked = as_operator(v1::ListReplicasRequest {});
    assert_eq!(refusal(admin.list_replicas(asked).await), unserved);
    let asked = as_operator(v1::DrainRequest::default());
    assert_eq!(refusal(admin.drain(asked).await), unserved);
    let asked = as_operator(v1::ReloginRequest::default());
    assert_eq!(refusal(admin.relogin(asked).await), unserved);
    // And to those who may not call it, not even that.
    let asked = as_tenant(v1::ReloginRequest::default());
    assert_eq!(
        refusal(admin.relogin(asked).await).0,
        Code::PermissionDenied
    );
}
