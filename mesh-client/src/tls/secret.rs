//! Secrets of the control plane (Envoy's SDS) as what a client shows and judges by.
//!
//! Checked twice: when they arrive, so that one of no use is rejected and the earlier one stays; and when a
//! connection is made, where what does not fit fails that connection. Nothing here quotes a key.

use super::TlsError;
use mesh_ca::{
    bundle::Roots,
    key_pair::{InvalidKeyPair, KeyPair},
    rustls::{Provider, default_provider},
};
use mesh_xds::{
    config::ClusterSecrets,
    name::{Name, ResourceType, canonical},
    resource::{
        Secret,
        secret::{SecretContent, SecretFault, TlsCertificate, ValidationContext},
    },
};
use std::{sync::Arc, time::SystemTime};

/// Whether connections can be made with a secret; for [`mesh_xds::client::ClientSettings::secrets`].
pub(crate) fn check(content: &SecretContent) -> Result<(), SecretFault> {
    match content {
        SecretContent::Certificate(certificate) => {
            read(certificate, &default_provider()).map(drop).map_err(|error| {
                let field = match &error {
                    InvalidKeyPair::Key(_) => "private_key",
                    _ => "certificate_chain",
                };
                SecretFault { field, reason: error.to_string() }
            })
        }
        SecretContent::Validation(validation) => Roots::from_pem(&validation.roots)
            .map(drop)
            .map_err(|error| SecretFault { field: "trusted_ca", reason: error.to_string() }),
    }
}

fn read(certificate: &TlsCertificate, crypto: &Provider) -> Result<KeyPair, InvalidKeyPair> {
    KeyPair::from_pem(&certificate.chain, certificate.key.pem(), crypto)
}

/// The certificate that a context names. One that is not valid now is refused here, where the reason can be said:
/// the peer would only say that it is bad.
pub(super) fn key_pair(
    secrets: &ClusterSecrets,
    name: &Name,
    now: SystemTime,
    crypto: &Provider,
) -> Result<KeyPair, TlsError> {
    let secret = named(secrets.identity.as_ref(), name)?;
    let unusable = |reason| TlsError::Secret { name: name.clone(), reason };
    let SecretContent::Certificate(certificate) = &secret.content else {
        return Err(unusable(format!("it is a {}, not a tls_certificate", secret.content.kind())));
    };
    let pair = read(certificate, crypto).map_err(|error| unusable(error.to_string()))?;
    match pair.validity_error(now) {
        None => Ok(pair),
        Some(reason) => Err(unusable(reason)),
    }
}

/// The roots that a context names, and the names that come with them.
pub(super) fn roots<'s>(
    secrets: &'s ClusterSecrets,
    name: &Name,
) -> Result<(Roots, &'s ValidationContext), TlsError> {
    let secret = named(secrets.roots.as_ref(), name)?;
    let unusable = |reason| TlsError::Secret { name: name.clone(), reason };
    let SecretContent::Validation(validation) = &secret.content else {
        return Err(unusable(format!("it is a {}, not a validation_context", secret.content.kind())));
    };
    let roots = Roots::from_pem(&validation.roots).map_err(|error| unusable(error.to_string()))?;
    Ok((roots, validation))
}

/// The secret, if it is the one that is named: a cluster's context and its secrets arrive together, and are taken in
/// one after the other.
fn named<'s>(secret: Option<&'s Arc<Secret>>, name: &Name) -> Result<&'s Secret, TlsError> {
    let kind = ResourceType::Secret;
    let same = |secret: &&Arc<Secret>| canonical(kind, &secret.name) == canonical(kind, name);
    secret.filter(same).map(|secret| &**secret).ok_or_else(|| TlsError::NoSecret(name.clone()))
}
