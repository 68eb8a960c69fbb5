//! Private keys: made here, never shown, wiped when dropped.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    crypto::CryptoProvider,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject},
};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// Why a key could not be made or read. Says nothing of the key itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The random generator or the signature library failed.
    #[error("no private key could be generated: {0}")]
    Generate(String),
    /// The PEM text holds no private key.
    #[error("no private key found in the PEM text (expected PKCS#8, SEC1 or PKCS#1): {0}")]
    Pem(String),
    /// A key of a kind or form that the TLS library cannot use.
    #[error("the private key cannot be used: {0}")]
    Unusable(String),
    /// The key does not belong to the certificate.
    #[error("the private key is not the one of the certificate: {0}")]
    Mismatch(String),
}

/// A private key, wiped from memory when dropped. Its `Debug` output is redacted.
///
/// Own keys are P-256; keys read from files may be of any kind that rustls supports.
pub struct PrivateKey(Zeroizing<PrivateKeyDer<'static>>);

impl PrivateKey {
    /// A new P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| KeyError::Generate(error.to_string()))?;
        Ok(Self(Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair)))))
    }

    /// Reads the first private key of a PEM text and makes sure that TLS can use it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| KeyError::Pem(unreadable(&error)))?;
        let key = Self(Zeroizing::new(der));
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.0)
            .map_err(|error| KeyError::Unusable(error.to_string()))?;
        Ok(key)
    }

    /// The key as PEM, for a file that only its owner can read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let label = match &*self.0 {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Zeroizing::new(pem(label, self.0.secret_der()))
    }

    /// The key for rustls, together with the chain it belongs to.
    pub(crate) fn certified(
        &self,
        chain: &[CertificateDer<'static>],
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, KeyError> {
        let key: Arc<dyn SigningKey> = provider
            .key_provider
            .load_private_key(self.0.clone_key())
            .map_err(|error| KeyError::Unusable(error.to_string()))?;
        let certified = CertifiedKey::new(chain.to_vec(), key);
        certified.keys_match().map_err(|error| KeyError::Mismatch(error.to_string()))?;
        Ok(certified)
    }

    /// The key for rcgen, which signs requests and certificates with it.
    pub(crate) fn signer(&self) -> Result<Zeroizing<KeyPair>, KeyError> {
        let pair = KeyPair::try_from(&*self.0).map_err(|error| KeyError::Unusable(error.to_string()))?;
        Ok(Zeroizing::new(pair))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// What is wrong with a PEM text. The library's own words quote lines of it, and what somebody took for a line of
/// PEM may hold a key.
pub(crate) fn unreadable(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "the end line of a block is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins a block does not end as one (-----BEGIN …-----)".to_owned()
        }
        pem::Error::Base64Decode(_) => "a block is not base64".to_owned(),
        pem::Error::NoItemsFound => "there is no such block".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}

/// DER as one PEM block (RFC 7468: 64 characters a line).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 32 + 2 * label.len() + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_form() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(key.0.secret_der(), again.0.secret_der());
    }

    #[test]
    fn debug_output_shows_no_key_material() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?} {key:#?}"), "PrivateKey(redacted) PrivateKey(redacted)");
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_being_quoted() {
        let nonsense = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let error = PrivateKey::from_pem(nonsense).unwrap_err();
        assert!(matches!(error, KeyError::Unusable(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        assert!(matches!(PrivateKey::from_pem(b"").unwrap_err(), KeyError::Pem(_)));
    }
}
