//! Secret, to and from protobuf.
//!
//! A fault never quotes what it is about.

use super::{PrivateKey, Secret, SecretContent, TlsCertificate, ValidationContext};
use crate::{
    field_path::{Faults, Path},
    name::{Name, ResourceType},
    resource::{ParseContext, Resource, sealed::Parse, tls, tls::SanMatcher},
};
use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{self as proto, CertificateValidationContext, secret::Type},
};
use prost::Message;
use std::sync::Arc;
use zeroize::Zeroize;

/// What Envoy shows instead of a key.
const REDACTED: &str = "[redacted]";

impl Resource for Secret {
    const TYPE: ResourceType = ResourceType::Secret;

    /// With the key.
    fn to_proto(&self) -> Bytes {
        let key = match &self.content {
            SecretContent::Certificate(certificate) => certificate.key.pem(),
            SecretContent::Validation(_) => &[],
        };
        let mut message = encode(self, inline(key));
        let bytes = message.encode_to_vec().into();
        Self::wipe(&mut message);
        bytes
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        Vec::new()
    }
}

impl Secret {
    /// The encoded message, for people: without the key.
    pub(crate) fn redacted(&self) -> Bytes {
        let key =
            DataSource { specifier: Some(Specifier::InlineString(REDACTED.into())), ..Default::default() };
        encode(self, key).encode_to_vec().into()
    }
}

fn encode(secret: &Secret, key: DataSource) -> proto::Secret {
    let content = match &secret.content {
        SecretContent::Certificate(certificate) => Type::TlsCertificate(proto::TlsCertificate {
            certificate_chain: Some(inline(&certificate.chain)),
            private_key: Some(key),
            ..Default::default()
        }),
        SecretContent::Validation(validation) => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(&validation.roots)),
            ..tls::wire::sans_proto(&validation.sans)
        }),
    };
    proto::Secret { name: secret.name.to_string(), r#type: Some(content) }
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..Default::default() }
}

impl Parse for Secret {
    type Proto = proto::Secret;

    fn proto_name(proto: &Self::Proto) -> &str {
        &proto.name
    }

    fn from_message(
        proto: &Self::Proto,
        name: Name,
        context: &ParseContext,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let (content, field) = match &proto.r#type {
            Some(Type::TlsCertificate(own)) => {
                let at = at.field("tls_certificate");
                if !context.private {
                    let reason = "came in plaintext from another machine, so that others may have its key: speak to \
                                  the control plane over TLS (channel_creds `tls`) or a socket of this machine";
                    faults.reject::<()>(&at, reason);
                }
                (certificate(own, &at, faults).map(SecretContent::Certificate)?, "tls_certificate")
            }
            Some(Type::ValidationContext(other)) => {
                let at = at.field("validation_context");
                (validation(other, &at, faults).map(SecretContent::Validation)?, "validation_context")
            }
            Some(Type::SessionTicketKeys(_)) => {
                let reason = "is not supported: TLS sessions are not resumed, since that skips verification";
                return faults.reject(&at.field("session_ticket_keys"), reason);
            }
            Some(Type::GenericSecret(_)) => {
                let reason =
                    "is not supported: nothing here uses one; send tls_certificate or validation_context";
                return faults.reject(&at.field("generic_secret"), reason);
            }
            None => {
                let reason = "is empty: one of tls_certificate and validation_context is required";
                return faults.reject(&at.field("type"), reason);
            }
        };
        if let Err(fault) = (context.secrets)(&content) {
            let at = at.field(field);
            return faults.reject(&at.field(fault.field), fault.reason);
        }
        Some(Self { name, content })
    }

    /// What was decoded is not left in memory beside what was made of it.
    fn wipe(proto: &mut Self::Proto) {
        let Some(Type::TlsCertificate(certificate)) = &mut proto.r#type else { return };
        for source in [&mut certificate.private_key, &mut certificate.password, &mut certificate.pkcs12] {
            match source.as_mut().and_then(|source| source.specifier.as_mut()) {
                Some(Specifier::InlineBytes(bytes)) => bytes.zeroize(),
                Some(Specifier::InlineString(text)) => text.zeroize(),
                _ => {}
            }
        }
    }
}

fn certificate(proto: &proto::TlsCertificate, at: &Path<'_>, faults: &mut Faults) -> Option<TlsCertificate> {
    for (unsupported, field, reason) in [
        (proto.pkcs12.is_some(), "pkcs12", "is not supported: send certificate_chain and private_key as PEM"),
        (
            proto.private_key_provider.is_some(),
            "private_key_provider",
            "is not supported: send the key in private_key",
        ),
        (
            proto.password.is_some(),
            "password",
            "is not supported: a password that travels with its key protects nothing; send the key plain",
        ),
        (proto.tls_params.is_some(), "tls_params", "is not supported"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), reason);
        }
    }
    let chain = certificates(&proto.certificate_chain, &at.field("certificate_chain"), faults);
    let key = key(&proto.private_key, &at.field("private_key"), faults);
    Some(TlsCertificate { chain: chain?, key: key? })
}

fn validation(
    proto: &CertificateValidationContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<ValidationContext> {
    tls::wire::refuse_unsupported(proto, at, faults);
    if proto.crl.is_some() {
        let reason = "is not supported in a secret: name a file in the cluster, beside trusted_ca";
        faults.reject::<()>(&at.field("crl"), reason);
    }
    for (unsupported, field) in [
        (proto.ca_certificate_provider_instance.is_some(), "ca_certificate_provider_instance"),
        (proto.system_root_certs.is_some(), "system_root_certs"),
    ] {
        if unsupported {
            let reason = "is not supported in a secret: name it in the cluster, or send trusted_ca";
            faults.reject::<()>(&at.field(field), reason);
        }
    }
    // Envoy would verify nobody without them.
    let roots = certificates(&proto.trusted_ca, &at.field("trusted_ca"), faults);
    let sans: Option<Vec<SanMatcher>> = tls::wire::sans(proto, at, faults);
    Some(ValidationContext { roots: roots?, sans: sans? })
}

/// The bytes that stand in the message itself.
fn inlined<'p>(source: &'p Option<DataSource>, at: &Path<'_>, faults: &mut Faults) -> Option<&'p [u8]> {
    let bytes = match &faults.required(at, source)?.specifier {
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice(),
        Some(Specifier::InlineString(text)) => text.as_bytes(),
        Some(Specifier::Filename(_)) => {
            let reason = "is not supported: which files of this machine are read is not for a control plane to say; \
                          send the text as inline_bytes, or name a certificate provider of the bootstrap instead";
            return faults.reject(&at.field("filename"), reason);
        }
        Some(Specifier::EnvironmentVariable(_)) => {
            let reason = "is not supported: which variables of this process are read is not for a control plane to \
                          say; send the text as inline_bytes";
            return faults.reject(&at.field("environment_variable"), reason);
        }
        None => &[],
    };
    if bytes.is_empty() {
        return faults.reject(at, "is empty");
    }
    Some(bytes)
}

/// PEM of certificates. Whether they are any good is for the data path's check.
fn certificates(source: &Option<DataSource>, at: &Path<'_>, faults: &mut Faults) -> Option<Arc<[u8]>> {
    let pem = inlined(source, at, faults)?;
    // What is shown to people would be a key.
    if begins(pem, b"PRIVATE KEY-----").is_some() {
        return faults.reject(at, "holds a private key; only certificates belong here");
    }
    if begins(pem, b"CERTIFICATE-----").is_none() {
        return faults.reject(at, "holds no PEM certificate (-----BEGIN CERTIFICATE-----)");
    }
    Some(pem.into())
}

fn key(source: &Option<DataSource>, at: &Path<'_>, faults: &mut Faults) -> Option<PrivateKey> {
    let pem = inlined(source, at, faults)?;
    match begins(pem, b"PRIVATE KEY-----") {
        None => faults.reject(at, "holds no PEM private key (-----BEGIN PRIVATE KEY-----)"),
        Some(label) if label.starts_with(b"ENCRYPTED") => {
            faults.reject(at, "is encrypted, which is not supported: send the key plain")
        }
        Some(_) => Some(PrivateKey::new(pem)),
    }
}

/// The label of the first block of PEM whose label ends so.
fn begins<'p>(pem: &'p [u8], end: &[u8]) -> Option<&'p [u8]> {
    let lines = pem.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut labels = lines.filter_map(|line| line.trim_ascii().strip_prefix(b"-----BEGIN "));
    labels.find(|label| label.ends_with(end))
}
