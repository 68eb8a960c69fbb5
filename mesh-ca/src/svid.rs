//! X.509 SVIDs: a certificate chain with one SPIFFE id, and the key that belongs to it.

use crate::{
    certificate::{self, InvalidCertificate},
    clock,
    key::{self, KeyError, PrivateKey},
    spiffe_id::SpiffeId,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{fmt, sync::Arc, time::SystemTime};

/// Why a chain and a key are not an SVID.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSvid {
    /// The chain's text is not PEM.
    #[error("the certificate chain is not readable PEM: {0}")]
    Pem(String),
    /// No certificate in the chain.
    #[error("the certificate chain is empty")]
    Empty,
    /// A leaf that is not an X.509 SVID.
    #[error("the leaf is not an X.509 SVID: {0}")]
    Leaf(#[source] InvalidCertificate),
    /// An intermediate that may not sign.
    #[error("certificate {position} of the chain may not sign others, yet it stands above the leaf")]
    Intermediate {
        /// Its place in the chain; the leaf is 0.
        position: usize,
    },
    /// The key is unusable, or another certificate's.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// An X.509 SVID, checked when it was made: a sound leaf, issuers that may issue, and the leaf's key.
/// Cheap to clone; its `Debug` output shows no key.
#[derive(Clone)]
pub struct X509Svid {
    id: SpiffeId,
    chain: Arc<[CertificateDer<'static>]>,
    key: Arc<PrivateKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl X509Svid {
    /// From a chain (leaf first, then intermediates, no root) and the leaf's key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, InvalidSvid> {
        let (leaf, above) = chain.split_first().ok_or(InvalidSvid::Empty)?;
        let parsed = certificate::parse(leaf).map_err(InvalidSvid::Leaf)?;
        let id = certificate::svid_id(&parsed).map_err(InvalidSvid::Leaf)?;
        let not_before = clock::from_asn1(parsed.validity().not_before);
        let not_after = clock::from_asn1(parsed.validity().not_after);
        for (position, issuer) in above.iter().enumerate() {
            let may_sign = certificate::parse(issuer)
                .and_then(|issuer| certificate::may_sign_certificates(&issuer))
                .is_ok_and(|may| may);
            if !may_sign {
                return Err(InvalidSvid::Intermediate { position: position + 1 });
            }
        }
        key.certified(&chain, &rustls::crypto::aws_lc_rs::default_provider())?;
        Ok(Self { id, chain: chain.into(), key: Arc::new(key), not_before, not_after })
    }

    /// From PEM texts: the chain (leaf first) and the private key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, InvalidSvid> {
        Self::new(certificates(chain).map_err(InvalidSvid::Pem)?, PrivateKey::from_pem(key)?)
    }

    /// Whose identity this is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| key::pem("CERTIFICATE", der)).collect()
    }

    /// Why the SVID is of no use at `now`, naming both clocks; none when it is valid.
    pub fn validity_error(&self, now: SystemTime) -> Option<String> {
        validity_error(&format!("certificate of {}", self.id), self.not_before, self.not_after, now)
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "X509Svid({}, {} to {}, key redacted)",
            self.id,
            clock::utc(self.not_before),
            clock::utc(self.not_after)
        )
    }
}

/// The certificates of a PEM text, in order.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| key::unreadable(&error))
}

/// Says that `what` is not valid at `now`, with both clocks: skew is what usually causes it.
pub(crate) fn validity_error(
    what: &str,
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Option<String> {
    if now < not_before {
        Some(format!(
            "{what} is not valid before {}, but the clock here says {}: one of the two clocks is wrong",
            clock::utc(not_before),
            clock::utc(now)
        ))
    } else if now > not_after {
        Some(format!("{what} expired at {}; the clock here says {}", clock::utc(not_after), clock::utc(now)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Leaf;

    #[test]
    fn a_sound_chain_and_its_key_make_an_svid() {
        let leaf = Leaf::new("spiffe://td/ns/a/sa/b").issue();
        let svid = X509Svid::from_pem(leaf.chain_pem.as_bytes(), leaf.key.to_pem().as_bytes()).unwrap();
        assert_eq!(svid.id().as_str(), "spiffe://td/ns/a/sa/b");
        assert_eq!(svid.chain_pem(), leaf.chain_pem);
        assert!(svid.not_before() < svid.not_after());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (leaf, other) = (Leaf::new("spiffe://td/a").issue(), PrivateKey::generate().unwrap());
        let error = X509Svid::from_pem(leaf.chain_pem.as_bytes(), other.to_pem().as_bytes()).unwrap_err();
        assert!(matches!(error, InvalidSvid::Key(KeyError::Mismatch(_))), "{error}");
    }

    #[test]
    fn an_empty_or_garbled_chain_is_refused() {
        let key = || PrivateKey::generate().unwrap();
        assert!(matches!(X509Svid::new(vec![], key()).unwrap_err(), InvalidSvid::Empty));
        let garbage = vec![CertificateDer::from(vec![1, 2, 3])];
        assert!(matches!(X509Svid::new(garbage, key()).unwrap_err(), InvalidSvid::Leaf(_)));
        let pem = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            X509Svid::from_pem(pem, key().to_pem().as_bytes()).unwrap_err(),
            InvalidSvid::Pem(_)
        ));
    }

    #[test]
    fn an_intermediate_that_may_not_sign_is_refused() {
        let leaf = Leaf::new("spiffe://td/a").issue();
        let other = Leaf::new("spiffe://td/b").issue();
        let chain = vec![leaf.der.clone(), other.der];
        let error = X509Svid::new(chain, leaf.key).unwrap_err();
        assert!(matches!(error, InvalidSvid::Intermediate { position: 1 }), "{error}");
    }

    #[test]
    fn debug_output_shows_no_key_material() {
        let leaf = Leaf::new("spiffe://td/a").issue();
        let pem = leaf.key.to_pem();
        let svid = X509Svid::new(vec![leaf.der], leaf.key).unwrap();
        let shown = format!("{svid:?} {svid:#?}");
        assert!(shown.contains("redacted") && shown.contains("spiffe://td/a"), "{shown}");
        for line in pem.lines().filter(|line| !line.starts_with('-')) {
            assert!(!shown.contains(line), "{shown}");
        }
    }
}
