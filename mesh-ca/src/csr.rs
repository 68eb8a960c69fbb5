//! Certificate signing requests (PKCS#10): made by a workload, read by the issuer.
//!
//! A request proves possession of a key and nothing else. The names in it are not believed by any
//! sound CA; ours does not even look at them.

use crate::{
    key::{KeyError, PrivateKey},
    spiffe_id::SpiffeId,
};
use rcgen::{CertificateParams, DistinguishedName, SanType};

/// Why a request could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Encoding or signing failed.
    #[error("the certificate request could not be encoded: {0}")]
    Encode(String),
}

/// A PEM request for `key`, naming the id that the caller hopes for, if it knows one. Istio's CA and
/// ours ignore that name; others compare it with what they authenticated.
pub fn request(key: &PrivateKey, hoped_for: Option<&SpiffeId>) -> Result<String, CsrError> {
    let encode = |error: rcgen::Error| CsrError::Encode(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = hoped_for {
        params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(encode)?));
    }
    let signer = key.signer()?;
    params.serialize_request(&*signer).and_then(|csr| csr.pem()).map_err(encode)
}
