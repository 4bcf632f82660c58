//! TLS with no buffer while nothing is exchanged: rustls' unbuffered connection over a socket.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// More than any handshake message or record of an exchange.
const SPACE: usize = 18 * 1024;

/// What connections to the upstream have in common: its certificate is the one that is trusted.
pub(crate) fn client_config(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificate).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(
        config
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

pub(crate) struct RawTls {
    stream: TcpStream,
    tls: UnbufferedClientConnection,
}

impl RawTls {
    pub(crate) fn new(stream: TcpStream, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::from(stream.peer_addr().unwrap().ip());
        let tls = UnbufferedClientConnection::new(config, name).unwrap();
        Self { stream, tls }
    }

    /// Writes a text, after the handshake if that is still to be made, and reads until `complete`.
    pub(crate) async fn exchange(&mut self, text: &[u8], complete: fn(&[u8]) -> Option<usize>) {
        let (mut incoming, mut answer) = (Vec::new(), Vec::new());
        let mut text = Some(text);
        loop {
            let mut outgoing = Vec::new();
            self.advance(&mut incoming, &mut outgoing, &mut text, &mut answer);
            self.stream.write_all(&outgoing).await.unwrap();
            if text.is_none() && complete(&answer).is_some() {
                // Half a record would be lost with the buffer.
                assert!(incoming.is_empty());
                return;
            }
            incoming.reserve(4096);
            let count = self.stream.read_buf(&mut incoming).await.unwrap();
            assert!(count > 0, "the upstream has closed");
        }
    }

    /// Waits until the connection is closed, with room for one byte.
    pub(crate) async fn idle(mut self) {
        let mut byte = [0];
        while self
            .stream
            .read(&mut byte)
            .await
            .is_ok_and(|count| count > 0)
        {}
    }

    /// Does what can be done with what has come.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other states are an end, those to come too"
    )]
    fn advance(
        &mut self,
        incoming: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
        text: &mut Option<&[u8]>,
        answer: &mut Vec<u8>,
    ) {
        loop {
            let UnbufferedStatus {
                mut discard, state, ..
            } = self.tls.process_tls_records(incoming);
            let go_on = match state.unwrap() {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.unwrap();
                        discard += record.discard;
                        answer.extend_from_slice(record.payload);
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(outgoing, |space| data.encode(space).unwrap());
                    true
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    true
                }
                ConnectionState::WriteTraffic(mut traffic) => match text.take() {
                    Some(text) => {
                        append(outgoing, |space| traffic.encrypt(text, space).unwrap());
                        true
                    }
                    None => false,
                },
                ConnectionState::BlockedHandshake => false,
                other => panic!("the upstream has ended TLS: {other:?}"),
            };
            incoming.drain(..discard);
            if !go_on {
                return;
            }
        }
    }
}

/// Has something be written at the end.
fn append(bytes: &mut Vec<u8>, write: impl FnOnce(&mut [u8]) -> usize) {
    let before = bytes.len();
    bytes.resize(before + SPACE, 0);
    let written = write(&mut bytes[before..]);
    bytes.truncate(before + written);
}
