//! A tenant's own service that makes signatures.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgate::connectors::tencent::usersig;
use imgate::proto::v1;
use imgate::proto::v1::signature_issuer_service_server::{
    SignatureIssuerService, SignatureIssuerServiceServer,
};
use imgate::runtime::supervisor::{TaskKind, Tasks};
use imgate::types::{Secret, WallClock};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::needles::Known;
use crate::world::{APP, APP_KEY};

/// Gone with the value.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    made: Arc<Made>,
    tasks: Tasks,
}

#[derive(Default)]
struct Made(Mutex<Vec<String>>);

#[tonic::async_trait]
impl SignatureIssuerService for Made {
    async fn issue_signature(
        &self,
        request: Request<v1::IssueSignatureRequest>,
    ) -> Result<Response<v1::IssueSignatureResponse>, Status> {
        assert!(request.metadata().contains_key("authorization"));
        let account = request.into_inner().account;
        let (now, hour) = (WallClock.now(), Duration::from_secs(3600));
        let key = Secret::new(APP_KEY.to_owned());
        let signature = usersig::mint(APP.into(), &key, &account, now, hour, None);
        let signature = signature.expose().clone();
        self.0.lock().unwrap().push(signature.clone());
        Ok(Response::new(v1::IssueSignatureResponse { signature }))
    }
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (made, tasks) = (Arc::new(Made::default()), Tasks::new());
        let service = SignatureIssuerServiceServer::from_arc(Arc::clone(&made));
        let stop = tasks.clone();
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        tasks.spawn("issuer", TaskKind::Work, async move {
            tokio::select! {
                () = stop.stopping() => {}
                served = serving => served.unwrap(),
            }
        });
        Self {
            address,
            made,
            tasks,
        }
    }

    /// What it has made.
    pub(crate) fn issued(&self) -> Vec<Known> {
        let made = self.made.0.lock().unwrap();
        let made = made.iter().enumerate();
        made.map(|(number, signature)| Known::new(format!("issued signature {number}"), signature))
            .collect()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
