//! The way to the gateway's API: its address, and a tenant's key.

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::gateway::api_key;

/// Where the API is, and whose calls come.
#[derive(Debug, clap::Args)]
pub(crate) struct Api {
    /// `HOST:PORT` of the gateway's API.
    #[arg(long)]
    gateway: String,
    #[arg(long)]
    pub(super) tenant: String,
}

impl Api {
    /// A connection to it.
    pub(super) async fn connect(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.gateway)).unwrap();
        endpoint.tcp_nodelay(true).connect().await.unwrap()
    }
}

/// Has each call bring the tenant's API key.
pub(super) fn with_key(
    tenant: &str,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let bearer = format!("Bearer {}", api_key(tenant));
    let bearer: MetadataValue<_> = bearer.parse().unwrap();
    move |mut request| {
        request
            .metadata_mut()
            .insert("authorization", bearer.clone());
        Ok(request)
    }
}
