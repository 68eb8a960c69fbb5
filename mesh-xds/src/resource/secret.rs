//! Secret (Envoy's SDS): a certificate with its key, or what peers are verified against, from the control plane.
//!
//! A key is held in a [`PrivateKey`], which shows nothing of itself and is wiped when the last holder drops it. What
//! is in a secret is text of the control plane, never the name of a file or variable of this machine: which of
//! those are read is not for a control plane to say. Whether a key is usable, and the one of its certificate, takes
//! cryptography, which is the data path's: see [`SecretCheck`].

pub(super) mod wire;

use super::tls::SanMatcher;
use crate::name::Name;
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// A secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub content: SecretContent,
}

/// What a secret is.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretContent {
    /// What one side of a connection shows of itself.
    Certificate(TlsCertificate),
    /// What the other side is judged by.
    Validation(ValidationContext),
}

impl SecretContent {
    /// As Envoy calls the alternative.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "tls_certificate",
            Self::Validation(_) => "validation_context",
        }
    }
}

/// A certificate chain and its key (`TlsCertificate`).
#[derive(Clone, Debug, PartialEq)]
pub struct TlsCertificate {
    /// PEM, leaf first.
    pub chain: Arc<[u8]>,
    /// PEM: PKCS#8, SEC1 or PKCS#1.
    pub key: PrivateKey,
}

/// Roots, and which names are accepted (`CertificateValidationContext`).
#[derive(Clone, Debug, PartialEq)]
pub struct ValidationContext {
    /// PEM, at least one certificate.
    pub roots: Arc<[u8]>,
    /// Added to the matchers of the context that names the secret, see [`super::tls::UpstreamTls::accepted`].
    pub sans: Vec<SanMatcher>,
}

/// The PEM text of a private key. Cheap to clone; its `Debug` output is redacted, and the text is wiped from memory
/// with the last clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<Zeroizing<Vec<u8>>>);

impl PrivateKey {
    /// This text, for whoever serves it; a receiver checks it.
    pub fn new(pem: &[u8]) -> Self {
        Self(Arc::new(Zeroizing::new(pem.to_vec())))
    }

    /// The text, for whoever makes connections with it.
    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// What a data path says of a secret before it is accepted: a key that it cannot use, or that is another
/// certificate's, is rejected while the earlier one stays in use. Must say nothing of the key itself.
pub type SecretCheck = fn(&SecretContent) -> Result<(), SecretFault>;

/// Why a secret cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault {
    /// Which part, as Envoy calls the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}
