//! Certificate revocation lists (RFC 5280 §5): which certificates their authority has taken back.
//!
//! Fails closed: every certificate of a chain but its root needs a list of its issuer that is signed, lists it not and
//! has not ended (`nextUpdate`). A list is judged at the handshake, by the clock of the connection.

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject as _};
use std::{fmt, sync::Arc};
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// Why a text holds no revocation lists that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLists {
    /// It is no PEM.
    #[error("{0}")]
    Pem(String),
    /// Nothing would be known of any certificate.
    #[error("it holds no certificate revocation list (PEM, `X509 CRL`)")]
    Empty,
    /// Only one list of an issuer is asked: which one must not depend on their order.
    #[error(
        "certificate revocation lists {position} and {other} are of the same issuer: leave the newest alone, and let it \
         be a complete one"
    )]
    SameIssuer {
        /// The place of the first, from 0.
        position: usize,
        /// The place of the second.
        other: usize,
    },
    /// One of them is wrong, or of a kind that is not understood (delta and indirect lists).
    #[error("certificate revocation list {position}: {reason}")]
    List {
        /// Its place, from 0.
        position: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Revocation lists, one at least. Cheap to clone.
#[derive(Clone)]
pub struct RevocationLists {
    lists: Arc<[CertRevocationList<'static>]>,
    source: Arc<str>,
    depth: RevocationCheckDepth,
}

impl RevocationLists {
    /// Those of a PEM text; `source` is where they are from, for messages.
    pub fn from_pem(pem: &[u8], source: impl Into<Arc<str>>) -> Result<Self, InvalidLists> {
        let mut lists: Vec<CertRevocationList<'static>> = Vec::new();
        for (position, der) in CertificateRevocationListDer::pem_slice_iter(pem).enumerate() {
            let der = der.map_err(|error| InvalidLists::Pem(crate::key::unreadable(&error)))?;
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| InvalidLists::List { position, reason: error.to_string() })?;
            let list = CertRevocationList::from(list);
            if let Some(first) = lists.iter().position(|one| one.issuer() == list.issuer()) {
                return Err(InvalidLists::SameIssuer { position: first, other: position });
            }
            lists.push(list);
        }
        if lists.is_empty() {
            return Err(InvalidLists::Empty);
        }
        Ok(Self { lists: lists.into(), source: source.into(), depth: RevocationCheckDepth::Chain })
    }

    /// Looks at the peer's own certificate only, and not at those between it and the root (Envoy's
    /// `only_verify_leaf_cert_crl`).
    #[must_use]
    pub fn of_leaf(self) -> Self {
        Self { depth: RevocationCheckDepth::EndEntity, ..self }
    }

    /// Where they are from.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// All of them, as a verifier wants them.
    pub(crate) fn all(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// How a verifier has to use them. `None` of none at all, which [`Self::from_pem`] never makes.
    pub(crate) fn options<'a>(&self, all: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let options = RevocationOptionsBuilder::new(all).ok()?;
        let options = options.with_depth(self.depth).with_status_policy(UnknownStatusPolicy::Deny);
        Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
    }
}

impl fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationLists({} of {})", self.lists.len(), self.source)
    }
}

#[cfg(test)]
mod tests;
