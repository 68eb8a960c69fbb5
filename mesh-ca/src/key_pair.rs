//! A certificate chain with its key, of whatever names: what a control plane hands out (Envoy's SDS).
//!
//! Unlike an [`X509Svid`](crate::svid::X509Svid) it need not name a workload. It is checked when it is made: every
//! certificate can be read, and the key is the leaf's and of a kind that the cryptography has.

use crate::{
    certificate, clock,
    key::{KeyError, PrivateKey},
    rustls::Provider,
    svid,
};
use rustls::sign::CertifiedKey;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use zeroize::Zeroizing;

/// Why texts are no key pair. Says nothing of the key itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeyPair {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Arc<std::io::Error>,
    },
    /// The chain's text is not PEM.
    #[error("the certificate chain is not readable PEM: {0}")]
    Pem(String),
    /// No certificate in the chain.
    #[error("the certificate chain is empty")]
    Empty,
    /// A certificate that cannot be read.
    #[error("certificate {position} of the chain cannot be read: {reason}")]
    Certificate {
        /// Its place in the chain; the leaf is 0.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is unusable, or another certificate's.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A certificate chain and the leaf's key, ready for handshakes. Cheap to clone; its `Debug` output shows no key.
#[derive(Clone)]
pub struct KeyPair {
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl KeyPair {
    /// From PEM texts: the chain (leaf first) and the private key.
    pub fn from_pem(chain: &[u8], key: &[u8], provider: &Provider) -> Result<Self, InvalidKeyPair> {
        let chain = svid::certificates(chain).map_err(InvalidKeyPair::Pem)?;
        let mut validity = None;
        for (position, der) in chain.iter().enumerate() {
            let parsed = certificate::parse(der)
                .map_err(|error| InvalidKeyPair::Certificate { position, reason: error.to_string() })?;
            let times = parsed.validity();
            validity.get_or_insert((clock::from_asn1(times.not_before), clock::from_asn1(times.not_after)));
        }
        let (not_before, not_after) = validity.ok_or(InvalidKeyPair::Empty)?;
        let certified = PrivateKey::from_pem(key)?.certified(&chain, provider)?;
        Ok(Self { certified: Arc::new(certified), not_before, not_after })
    }

    /// From files of PEM: the chain (leaf first) and the private key.
    pub fn from_files(chain: &Path, key: &Path, provider: &Provider) -> Result<Self, InvalidKeyPair> {
        let read = |path: &Path| {
            let unreadable = |error| InvalidKeyPair::File { path: path.to_owned(), error: Arc::new(error) };
            std::fs::read(path).map_err(unreadable)
        };
        Self::from_pem(&read(chain)?, &Zeroizing::new(read(key)?), provider)
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Why it is of no use at `now`, naming both clocks; none when it is valid.
    pub fn validity_error(&self, now: SystemTime) -> Option<String> {
        svid::validity_error("its certificate", self.not_before, self.not_after, now)
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (clock::utc(self.not_before), clock::utc(self.not_after));
        write!(f, "KeyPair({from} to {to}, key redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rustls::default_provider, testing::Ca};
    use rcgen::{CertificateParams, KeyPair as Generated};

    /// A certificate for a DNS name, which no SVID has, and its key.
    fn issued(name: &str) -> (String, String) {
        let key = Generated::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &Ca::new("ca").issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pair(chain: &str, key: &str) -> Result<KeyPair, InvalidKeyPair> {
        KeyPair::from_pem(chain.as_bytes(), key.as_bytes(), &default_provider())
    }

    #[test]
    fn a_certificate_without_spiffe_id_and_its_key_are_a_pair() {
        let (chain, key) = issued("reviews.test");
        let pair = pair(&chain, &key).unwrap();
        assert_eq!(pair.validity_error(SystemTime::now()), None);
        assert!(pair.validity_error(SystemTime::UNIX_EPOCH).unwrap().contains("its certificate"));
        assert!(format!("{pair:?}").contains("key redacted"));
    }

    #[test]
    fn what_is_no_pair_is_refused_and_nothing_is_quoted() {
        let ((chain, key), (_, other)) = (issued("a.test"), issued("b.test"));
        assert!(matches!(pair(&chain, &other), Err(InvalidKeyPair::Key(KeyError::Mismatch(_)))));
        assert!(matches!(pair("", &key), Err(InvalidKeyPair::Empty)));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let broken = format!("{chain}{nonsense}");
        assert!(matches!(pair(&broken, &key), Err(InvalidKeyPair::Certificate { position: 1, .. })));
        // A key on the line of its label, in either place.
        let line = format!("-----BEGIN PRIVATE KEY----- {}", "SECRET");
        let bytes = format!("{:?}", b"SECRET").trim_matches(['[', ']']).to_owned();
        for error in [pair(&chain, &line).unwrap_err(), pair(&line, &key).unwrap_err()] {
            let text = format!("{error} {error:?}");
            assert!(!text.contains("SECRET") && !text.contains(&bytes), "{text}");
            assert!(text.contains("a line that begins a block"), "{text}");
        }
    }
}
