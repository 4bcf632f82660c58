//! The names of a caller's client certificate.

use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// The names (DNS and URI subject alternative names) of a client certificate that was verified. A listener puts them into the
/// extensions of each request of a connection that has shown one; requests without them came without a certificate. Cheap to
/// clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames(Arc<[String]>);

impl PeerNames {
    /// Of the leaf certificate in DER. One that cannot be read has no names. Whether it is to be trusted is for the handshake
    /// to say.
    pub fn of_certificate(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        let Ok(Some(extension)) = certificate.subject_alternative_name() else {
            return Self::default();
        };
        let names = extension.value.general_names.iter().filter_map(name);
        Self(names.collect())
    }

    /// The names, in the certificate's order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<N: Into<String>> FromIterator<N> for PeerNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

/// A name as the configuration writes it. A DNS name that looks like a URI is left out: the two kinds share one list, and an
/// authority may watch over one of them less.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enum: kinds of names that nobody is known by"
)]
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) if !dns.contains([':', '/']) => Some(dns.to_ascii_lowercase()),
        GeneralName::URI(uri) if uri.contains("://") => Some((*uri).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        // A common name is no name that anybody is known by.
        params
            .distinguished_name
            .push(DnType::CommonName, "common.example");
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn text(text: &str) -> Ia5String {
        Ia5String::try_from(text).unwrap()
    }

    #[test]
    fn the_dns_and_uri_names_are_read() {
        let der = certificate(vec![
            SanType::DnsName(text("Bots.Example.com")),
            SanType::Rfc822Name(text("bots@example.com")),
            SanType::URI(text("spiffe://cluster/ns/bots/sa/Echo")),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ]);
        let names = PeerNames::of_certificate(&der);
        let names: Vec<&str> = names.iter().collect();
        assert_eq!(
            names,
            ["bots.example.com", "spiffe://cluster/ns/bots/sa/Echo"]
        );
    }

    #[test]
    fn a_name_of_one_kind_does_not_pass_for_the_other() {
        let der = certificate(vec![
            SanType::DnsName(text("spiffe://cluster/ns/bots/sa/echo")),
            SanType::URI(text("bots.example.com")),
        ]);
        assert_eq!(PeerNames::of_certificate(&der), PeerNames::default());
    }

    #[test]
    fn what_has_no_names_or_is_no_certificate_has_none() {
        let plain = certificate(vec![]);
        let cut = &plain[..plain.len() / 2];
        for der in [plain.as_slice(), cut, b"", b"\x30\x80", b"junk"] {
            assert_eq!(PeerNames::of_certificate(der), PeerNames::default());
        }
    }
}
