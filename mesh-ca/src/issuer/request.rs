//! Reading a PKCS#10 request: a public key, proven to be the asker's, and nothing else.
//!
//! Whatever names, usages or extensions it asks for are not even looked at. Limits hold before
//! anything is parsed: the asker is not authenticated yet.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
    },
    prelude::FromDer,
};

/// No sound request is larger than this (bytes of PEM).
pub const LARGEST_CSR: usize = 64 * 1024;

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestRefused {
    /// Larger than [`LARGEST_CSR`].
    #[error("the certificate request has {0} bytes; at most {LARGEST_CSR} are read")]
    TooLarge(usize),
    /// Not a PEM `CERTIFICATE REQUEST`.
    #[error("the certificate request is not PEM: {0}")]
    Pem(String),
    /// Not PKCS#10.
    #[error("the certificate request is not well-formed PKCS#10")]
    Malformed,
    /// The signature is not by the key in the request, or by a weak or unknown algorithm.
    #[error("the certificate request's signature is not valid, or its algorithm or key is too weak")]
    Signature,
    /// A kind of key that is not certified.
    #[error("the certificate request's key is of a kind that is not supported: {0}")]
    Key(String),
}

/// A public key whose owner has shown to hold the private one.
#[derive(Debug)]
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
}

impl SigningRequest {
    /// Reads a PEM request and checks its own signature.
    pub fn parse(pem: &str) -> Result<Self, RequestRefused> {
        if pem.len() > LARGEST_CSR {
            return Err(RequestRefused::TooLarge(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| RequestRefused::Pem(error.to_string()))?;
        let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
            return Err(RequestRefused::Malformed);
        };
        // SHA-1 and RSA-PSS are left out: the parser would accept 1024-bit RSA keys with the former.
        let strong = [
            OID_SIG_ECDSA_WITH_SHA256,
            OID_SIG_ECDSA_WITH_SHA384,
            OID_SIG_ED25519,
            OID_PKCS1_SHA256WITHRSA,
            OID_PKCS1_SHA384WITHRSA,
            OID_PKCS1_SHA512WITHRSA,
        ]
        .contains(&request.signature_algorithm.algorithm);
        if !strong || request.verify_signature().is_err() {
            return Err(RequestRefused::Signature);
        }
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|error| RequestRefused::Key(error.to_string()))?;
        Ok(Self { key })
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{csr, key::PrivateKey};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;
    use rcgen::PublicKeyData;

    fn pem(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }

    fn good() -> String {
        csr::request(&PrivateKey::generate().unwrap(), None).unwrap()
    }

    #[test]
    fn a_request_signed_by_its_own_key_is_accepted() {
        SigningRequest::parse(&good()).unwrap();
    }

    #[test]
    fn keys_of_every_supported_kind_are_accepted() {
        // Istio's agent asks with RSA 2048 unless told otherwise.
        for kind in [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            let key = rcgen::KeyPair::generate_for(kind).unwrap();
            let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
            let request = SigningRequest::parse(&csr.pem().unwrap());
            assert!(request.is_ok(), "{kind:?}: {request:?}");
        }
    }

    #[test]
    fn any_flipped_bit_of_the_signature_is_refused() {
        let der = CertificateSigningRequestDer::from_pem_slice(good().as_bytes()).unwrap();
        let mut der = der.as_ref().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let error = SigningRequest::parse(&pem(&STANDARD.encode(der))).unwrap_err();
        assert_eq!(error, RequestRefused::Signature);
    }

    #[test]
    fn nonsense_and_floods_are_refused_before_any_signature_is_checked() {
        let cases = [
            (String::new(), "not PEM"),
            ("hello".to_owned(), "not PEM"),
            (pem("AAAA"), "well-formed"),
            (pem("!"), "not PEM"),
            (format!("{}{}", good(), " ".repeat(LARGEST_CSR)), "at most"),
        ];
        for (text, reason) in cases {
            let error = SigningRequest::parse(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:.60}: {error}");
        }
    }

    proptest! {
        /// Nobody is authenticated yet. The parser is lax about some tags outside the signed part, so a
        /// changed request may pass; it must not pass for another key.
        #[test]
        fn a_changed_request_is_refused_or_is_for_the_same_key(at: proptest::sample::Index, flip in 1_u8..) {
            static GOOD: std::sync::LazyLock<String> = std::sync::LazyLock::new(good);
            let mut der = CertificateSigningRequestDer::from_pem_slice(GOOD.as_bytes()).unwrap().to_vec();
            let at = at.index(der.len());
            der[at] ^= flip;
            let key = |pem: &str| SigningRequest::parse(pem).map(|request| request.key.der_bytes().to_vec());
            if let Ok(changed) = key(&pem(&STANDARD.encode(der))) {
                prop_assert_eq!(changed, key(&GOOD).unwrap(), "byte {}", at);
            }
        }
    }
}
