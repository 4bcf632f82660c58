//! Health, reflection, and what the server refuses to be.

use std::collections::BTreeSet;

use imgate::grpc::server::{ServerError, ServerOptions};
use prost::Message as _;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{PATIENCE, open_tenant, served, start};

const SERVICES: [&str; 3] = [
    "imgate.v1.EventService",
    "imgate.v1.MessageService",
    "imgate.v1.SessionService",
];

#[tokio::test]
async fn health_is_said_by_service_and_needs_no_key() {
    let served = served().await;
    let mut health = HealthClient::new(served.channel().await);
    let mut all = async |expected: ServingStatus| {
        for service in ["", SERVICES[0], SERVICES[1], SERVICES[2]] {
            let request = HealthCheckRequest {
                service: service.into(),
            };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), expected, "{service}");
        }
    };
    all(ServingStatus::Serving).await;
    served.health.set_serving(false).await;
    all(ServingStatus::NotServing).await;
    let unknown = HealthCheckRequest {
        service: "imgate.v1.Nothing".into(),
    };
    let status = health.check(unknown).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_watcher_of_health_sees_the_draining() {
    let served = served().await;
    let mut health = HealthClient::new(served.channel().await);
    let request = HealthCheckRequest {
        service: SERVICES[0].into(),
    };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let mut next = async || {
        let answer = timeout(PATIENCE, watch.message()).await.unwrap();
        answer.unwrap().unwrap().status()
    };
    assert_eq!(next().await, ServingStatus::Serving);
    served.tasks.stop();
    assert_eq!(next().await, ServingStatus::NotServing);
    // Readiness that comes late does not undo it.
    served.health.set_serving(true).await;
    assert_eq!(next().await, ServingStatus::NotServing);
}

#[tokio::test]
async fn the_server_ends_even_if_a_call_does_not() {
    let options = ServerOptions {
        drain_within: std::time::Duration::from_millis(300),
        ..ServerOptions::default()
    };
    let served = start("127.0.0.1:0", vec![open_tenant("dev")], options)
        .await
        .unwrap();
    let mut health = HealthClient::new(served.channel().await);
    // A watch of health never ends by itself.
    let request = HealthCheckRequest::default();
    let watch = health.watch(request).await.unwrap().into_inner();
    served.tasks.stop();
    timeout(PATIENCE, served.tasks.ended()).await.unwrap();
    drop(watch);
}

/// The two versions of reflection have the same messages in two packages.
macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            let served = served().await;
            let mut client = ServerReflectionClient::new(served.channel().await);
            let request = |message_request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message_request),
            };
            let requests = tokio_stream::iter([
                request(MessageRequest::ListServices(String::new())),
                request(MessageRequest::FileContainingSymbol(SERVICES[2].into())),
                request(MessageRequest::FileContainingSymbol(
                    "grpc.health.v1.Health".into(),
                )),
            ]);
            let answers = client.server_reflection_info(requests).await.unwrap();
            let answers: Vec<_> = answers
                .into_inner()
                .map(|answer| answer.unwrap().message_response.unwrap())
                .collect()
                .await;
            let MessageResponse::ListServicesResponse(list) = &answers[0] else {
                panic!("{answers:?}");
            };
            let names: BTreeSet<&str> = list.service.iter().map(|one| one.name.as_str()).collect();
            assert!(
                SERVICES.iter().all(|service| names.contains(service)),
                "{names:?}"
            );
            assert!(names.contains("grpc.health.v1.Health"));
            for (answer, file) in answers[1..]
                .iter()
                .zip(["imgate/v1/session.proto", "health.proto"])
            {
                let MessageResponse::FileDescriptorResponse(files) = answer else {
                    panic!("{answer:?}");
                };
                let bytes = files.file_descriptor_proto[0].as_slice();
                let found = prost_types::FileDescriptorProto::decode(bytes).unwrap();
                assert!(found.name().ends_with(file), "{}", found.name());
            }
        }
    };
}

reflection_test!(reflection_describes_the_services, v1);
reflection_test!(the_older_reflection_describes_them_too, v1alpha);

#[tokio::test]
async fn a_tenant_is_not_open_to_the_world() {
    let options = ServerOptions::default();
    let started = start("0.0.0.0:0", vec![open_tenant("dev")], options).await;
    let error = started.err().unwrap();
    assert!(matches!(error, ServerError::OpenToTheWorld(_)), "{error}");
}
