//! Reading a certificate: its names and times, and the X509-SVID rules for a leaf.
//!
//! [`PeerCertificate`] is what policies look at. `svid_id` holds the leaf rules of [X509-SVID] §2-5,
//! which TLS libraries do not check.
//!
//! [X509-SVID]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

use crate::{
    clock,
    spiffe_id::{InvalidSpiffeId, SpiffeId},
};
use rustls_pki_types::CertificateDer;
use std::{fmt, net::IpAddr, time::SystemTime};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, KeyUsage},
    prelude::FromDer,
};

/// More URI names than this in a leaf is an attack on whoever parses them.
const MOST_URI_SANS: usize = 32;

/// Why a certificate cannot be read, or is not the leaf of an X.509 SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCertificate {
    /// Not a certificate at all, or with trailing bytes.
    #[error("not a well-formed X.509 certificate: {0}")]
    Malformed(String),
    /// Extensions that cannot be read, or occur twice.
    #[error("its {0} extension is malformed or occurs twice")]
    Extension(&'static str),
    /// No URI name at all.
    #[error("it has no URI name, so no SPIFFE id")]
    NoUri,
    /// More than one URI name.
    #[error("it has {0} URI names; an SVID has exactly one")]
    SeveralUris(usize),
    /// The URI name is not a SPIFFE id.
    #[error(transparent)]
    Id(#[from] InvalidSpiffeId),
    /// The id names a trust domain, not a workload.
    #[error("its id {0} has no path: it names a trust domain, not a workload")]
    NoPath(SpiffeId),
    /// No basic constraints.
    #[error("it does not say whether it is a CA (no basic constraints)")]
    NoBasicConstraints,
    /// A CA certificate used as a leaf.
    #[error("it is a CA certificate")]
    Ca,
    /// No key usage.
    #[error("it does not say what its key is for (no key usage)")]
    NoKeyUsage,
    /// Key usage not marked critical.
    #[error("its key usage is not marked critical")]
    KeyUsageNotCritical,
    /// The key may sign certificates or revocation lists.
    #[error("its key may sign {0}, which a workload's must not")]
    SigningKey(&'static str),
    /// The key may not sign handshakes.
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
}

/// The names and times of a certificate.
///
/// [`PeerCertificate::from_der`] only reads: it proves nothing. A proven one comes from
/// [`crate::rustls::peer_identity`] after a handshake, or is handed to a check during one.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// The SPIFFE id, when the certificate is a sound SVID leaf.
    pub spiffe_id: Option<SpiffeId>,
    /// All URI names.
    pub uri_sans: Vec<String>,
    /// All DNS names.
    pub dns_sans: Vec<String>,
    /// All IP addresses.
    pub ip_sans: Vec<IpAddr>,
    /// All mail addresses.
    pub email_sans: Vec<String>,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
}

impl PeerCertificate {
    /// Reads a certificate. Whether it is to be believed is another question.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let certificate = parse(der)?;
        let names = Names::of(&certificate)?;
        Ok(Self {
            spiffe_id: svid_id(&certificate).ok(),
            uri_sans: names.uris,
            dns_sans: names.dns,
            ip_sans: names.ips,
            email_sans: names.emails,
            not_before: clock::from_asn1(certificate.validity().not_before),
            not_after: clock::from_asn1(certificate.validity().not_after),
            der: der.clone().into_owned(),
        })
    }

    /// The names, as an error message shows them: the SPIFFE id if there is one, else all names.
    pub fn names(&self) -> String {
        if let Some(id) = &self.spiffe_id {
            return id.to_string();
        }
        let uris = self.uri_sans.iter().map(|uri| uri.escape_default().to_string());
        let dns = self.dns_sans.iter().map(|name| name.escape_default().to_string());
        let ips = self.ip_sans.iter().map(IpAddr::to_string);
        let emails = self.email_sans.iter().map(|address| address.escape_default().to_string());
        let names: Vec<_> = uris.chain(dns).chain(ips).chain(emails).collect();
        if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({}, until {})", self.names(), clock::utc(self.not_after))
    }
}

/// Parses DER, all of it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, InvalidCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(InvalidCertificate::Malformed("bytes follow the certificate".to_owned())),
        Err(error) => Err(InvalidCertificate::Malformed(error.to_string())),
    }
}

/// The SPIFFE id of a leaf that obeys the X509-SVID rules.
pub(crate) fn svid_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, InvalidCertificate> {
    let names = Names::of(certificate)?;
    let uri = match names.uris.as_slice() {
        [] => return Err(InvalidCertificate::NoUri),
        [uri] => uri,
        several => return Err(InvalidCertificate::SeveralUris(several.len())),
    };
    let id = SpiffeId::parse(uri)?;
    if id.path().is_empty() {
        return Err(InvalidCertificate::NoPath(id));
    }
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| InvalidCertificate::Extension("basic constraints"))?
        .ok_or(InvalidCertificate::NoBasicConstraints)?;
    if constraints.value.ca {
        return Err(InvalidCertificate::Ca);
    }
    let usage = key_usage(certificate)?.ok_or(InvalidCertificate::NoKeyUsage)?;
    if !usage.critical {
        return Err(InvalidCertificate::KeyUsageNotCritical);
    }
    if usage.value.key_cert_sign() {
        return Err(InvalidCertificate::SigningKey("certificates"));
    }
    if usage.value.crl_sign() {
        return Err(InvalidCertificate::SigningKey("revocation lists"));
    }
    if !usage.value.digital_signature() {
        return Err(InvalidCertificate::NoDigitalSignature);
    }
    Ok(id)
}

/// Whether an issuer's certificate allows it to sign others. webpki does not look at the key usage.
pub(crate) fn may_sign_certificates(certificate: &X509Certificate<'_>) -> Result<bool, InvalidCertificate> {
    let constraints =
        certificate.basic_constraints().map_err(|_| InvalidCertificate::Extension("basic constraints"))?;
    let ca = constraints.is_some_and(|constraints| constraints.value.ca);
    let usage = key_usage(certificate)?.is_none_or(|usage| usage.value.key_cert_sign());
    Ok(ca && usage)
}

struct Usage<'a> {
    critical: bool,
    value: &'a KeyUsage,
}

fn key_usage<'a>(certificate: &'a X509Certificate<'_>) -> Result<Option<Usage<'a>>, InvalidCertificate> {
    let found = certificate.key_usage().map_err(|_| InvalidCertificate::Extension("key usage"))?;
    Ok(found.map(|extension| Usage { critical: extension.critical, value: extension.value }))
}

#[derive(Default)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    emails: Vec<String>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, InvalidCertificate> {
        const WHAT: InvalidCertificate = InvalidCertificate::Extension("subject alternative name");
        let mut names = Self::default();
        let Some(extension) = certificate.subject_alternative_name().map_err(|_| WHAT)? else {
            return Ok(names);
        };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => names.ips.push(address(bytes).ok_or(WHAT)?),
                GeneralName::RFC822Name(address) => names.emails.push((*address).to_owned()),
                GeneralName::Invalid(..) => return Err(WHAT),
                _ => {}
            }
        }
        if names.uris.len() > MOST_URI_SANS {
            return Err(InvalidCertificate::SeveralUris(names.uris.len()));
        }
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests;
