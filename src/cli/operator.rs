//! The operator's connection to a gateway, and `imgate purge-tenant`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::{CliError, read_secret, runtime};
use crate::proto::v1;
use crate::proto::v1::admin_service_client::AdminServiceClient;

/// How long a connection to the gateway may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often the gateway is asked for a sign of life while it works.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Which gateway, and who calls.
#[derive(Debug, Args)]
pub(super) struct OperatorArgs {
    /// The gateway's API, as in `https://imgate.example:50051` or `http://127.0.0.1:50051`.
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The file that holds an operator's key.
    #[arg(long, value_name = "FILE")]
    operator_key_file: PathBuf,
    /// The authorities to trust for the gateway's certificate, PEM; the system's without it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client certificate with its chain, PEM, for a gateway that asks for one.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The client certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// The arguments of `imgate purge-tenant`.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The tenant's ID.
    tenant: String,
}

/// A client of AdminService.
pub(super) type Admin = AdminServiceClient<InterceptedService<Channel, Bearer>>;

/// Puts the operator's key to every call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let bearer = self.0.clone();
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

impl OperatorArgs {
    pub(super) async fn connect(&self) -> Result<Admin, CliError> {
        let key = read_secret(&self.operator_key_file)?;
        let bearer = Zeroizing::new(format!("Bearer {}", key.expose()));
        let mut bearer: MetadataValue<Ascii> =
            bearer.as_str().parse().map_err(|_| CliError::Argument {
                argument: "--operator-key-file",
                problem: String::from("must hold a key of printable ASCII on one line"),
            })?;
        bearer.set_sensitive(true);
        let channel = channel(self).await?;
        Ok(AdminServiceClient::with_interceptor(
            channel,
            Bearer(bearer),
        ))
    }
}

/// Deletes all that the store has of a tenant that was removed from the configuration.
pub(super) fn purge_tenant(args: &PurgeArgs, out: &mut impl Write) -> Result<(), CliError> {
    runtime()?.block_on(async {
        let mut admin = args.operator.connect().await?;
        let request = v1::PurgeTenantRequest {
            tenant: args.tenant.clone(),
        };
        let purged = admin.purge_tenant(request).await.map_err(refused)?;
        let partitions = purged.into_inner().partitions;
        let tenant = &args.tenant;
        Ok(writeln!(
            out,
            "{tenant}: all data of {partitions} partitions is deleted"
        )?)
    })
}

async fn channel(args: &OperatorArgs) -> Result<Channel, CliError> {
    let wrong = |problem: String| CliError::Argument {
        argument: "--gateway",
        problem,
    };
    let unreachable =
        |error: &dyn std::error::Error| wrong(format!("cannot be reached: {}", with_causes(error)));
    let endpoint = Endpoint::from_shared(args.gateway.clone())
        .map_err(|error| wrong(format!("is no URL: {error}")))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE);
    let endpoint = match endpoint.uri().scheme_str() {
        Some("https") => endpoint
            .tls_config(tls(args)?)
            .map_err(|error| unreachable(&error))?,
        Some("http") => endpoint,
        Some(_) | None => return Err(wrong("must begin with https:// or http://".into())),
    };
    endpoint
        .connect()
        .await
        .map_err(|error| unreachable(&error))
}

fn tls(args: &OperatorArgs) -> Result<ClientTlsConfig, CliError> {
    let config = ClientTlsConfig::new();
    let config = match &args.ca_file {
        Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
        None => config.with_native_roots(),
    };
    Ok(match (&args.cert_file, &args.key_file) {
        (Some(certificate), Some(key)) => {
            let key = read_secret(key)?;
            config.identity(Identity::from_pem(read(certificate)?, key.expose()))
        }
        (Some(_) | None, _) => config,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|source| CliError::ReadFile {
        path: path.to_owned(),
        source,
    })
}

/// The library's own text names the first cause only.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(super) fn refused(status: Status) -> CliError {
    CliError::Refused(status.code(), status.message().to_owned())
}
