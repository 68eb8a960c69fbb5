//! TLS contexts, to and from protobuf.
//!
//! Both the current and the deprecated provider fields are written, as Istio does, and the current ones are
//! preferred when read.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::{CrlFile, DownstreamTls, Identity, KeyFiles, Roots, SanKind, SanMatcher, UpstreamTls};
use crate::{
    field_path::{Faults, Path},
    name::Name,
    resource::{Feature, ParseContext, wire},
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
        },
        extensions::transport_sockets::tls::v3::{
            self as proto, CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
            SdsSecretConfig, TlsCertificate,
            common_tls_context::{
                CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
            },
            subject_alt_name_matcher::SanType,
        },
    },
    google::protobuf::BoolValue,
};
use prost::{Message, Name as MessageName};
use std::sync::Arc;

/// Whose side of a connection a context is for.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

/// Name that gRPC and Envoy want the socket to have.
const SOCKET: &str = "envoy.transport_sockets.tls";
const MAX_SNI: usize = 255;

pub(in crate::resource) fn upstream(
    socket: &TransportSocket,
    only_mesh_endpoints: bool,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<UpstreamTls> {
    let tls: proto::UpstreamTlsContext = typed_config(socket, at, faults)?;
    let at = at.field("typed_config");
    let common_at = at.field("common_tls_context");
    let common = faults.required(&common_at, &tls.common_tls_context)?;
    let identity = identity(common, Side::Client, context, &common_at, faults);
    let validation = validation(common, Side::Client, context, &common_at, faults);
    if tls.sni.len() > MAX_SNI {
        faults.reject::<()>(&at.field("sni"), format_args!("is longer than {MAX_SNI} bytes"));
    }
    let Validation { roots, sans, crl } = validation?;
    let Some(roots) = roots else {
        return faults.reject(
            &common_at.field("validation_context"),
            "names nothing to verify the server with: ca_certificate_provider_instance, system_root_certs, a file \
             (trusted_ca) or a secret (SDS)",
        );
    };
    if roots == Roots::System && sans.is_empty() && !tls.auto_sni_san_validation {
        return faults.reject(
            &common_at.field("validation_context"),
            "system_root_certs vouch for every site there is: name the server by match_typed_subject_alt_names, or set \
             auto_sni_san_validation",
        );
    }
    Some(UpstreamTls {
        identity: identity?,
        roots,
        crl,
        sans,
        sni: (!tls.sni.is_empty()).then(|| tls.sni.as_str().into()),
        auto_host_sni: tls.auto_host_sni,
        auto_sni_san_validation: tls.auto_sni_san_validation,
        only_mesh_endpoints,
    })
}

pub(in crate::resource) fn downstream(
    socket: &TransportSocket,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<DownstreamTls> {
    let tls: proto::DownstreamTlsContext = typed_config(socket, at, faults)?;
    let at = at.field("typed_config");
    let is_true = |value: &Option<BoolValue>| value.as_ref().is_some_and(|value| value.value);
    if is_true(&tls.require_sni) {
        faults.reject::<()>(&at.field("require_sni"), "is not supported");
    }
    if tls.ocsp_staple_policy != proto::downstream_tls_context::OcspStaplePolicy::LenientStapling as i32 {
        faults.reject::<()>(&at.field("ocsp_staple_policy"), "only LENIENT_STAPLING is supported");
    }
    let common_at = at.field("common_tls_context");
    let common = faults.required(&common_at, &tls.common_tls_context)?;
    let identity = identity(common, Side::Server, context, &common_at, faults);
    // Revocation lists are refused where they stand.
    let Validation { roots, sans, crl: _ } = validation(common, Side::Server, context, &common_at, faults)?;
    let validation_at = common_at.field("validation_context");
    if !sans.is_empty() {
        faults.reject::<()>(&validation_at, "SAN matchers are not used on servers; use authorization");
    }
    let client_roots = match roots {
        Some(Roots::System) => return faults.reject(&validation_at, "system_root_certs is for clients only"),
        Some(Roots::Provider(instance)) => Some(instance),
        // Refused where it stands.
        Some(Roots::Secret(_) | Roots::File(_)) | None => None,
    };
    let require_client_certificate = is_true(&tls.require_client_certificate);
    if require_client_certificate && client_roots.is_none() {
        let at = at.field("require_client_certificate");
        faults.reject::<()>(&at, "needs ca_certificate_provider_instance to verify clients with");
    }
    let Some(Identity::Provider(identity)) = identity? else {
        return faults.reject(&common_at.field("tls_certificate_provider_instance"), "is required");
    };
    Some(DownstreamTls { identity, client_roots, require_client_certificate })
}

fn typed_config<M: Message + MessageName + Default>(
    socket: &TransportSocket,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<M> {
    let at = at.field("typed_config");
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => wire::unpack(any, &at, faults),
        None => faults.reject(&at, "is required"),
    }
}

/// The provider instance, checked against the bootstrap.
fn instance(name: &str, context: &ParseContext, at: &Path<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    match context.certificate_providers.get(name) {
        Some(name) => Some(name.clone()),
        None => faults.reject(
            at,
            format_args!(
                "certificate provider instance `{name}` is not in the bootstrap's certificate_providers"
            ),
        ),
    }
}

fn identity(
    common: &CommonTlsContext,
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Identity>> {
    for (unsupported, field) in [
        (common.tls_params.is_some(), "tls_params"),
        (common.custom_handshaker.is_some(), "custom_handshaker"),
        (common.custom_tls_certificate_selector.is_some(), "custom_tls_certificate_selector"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    if let Some(provider) = &common.tls_certificate_provider_instance {
        let at = at.field("tls_certificate_provider_instance");
        return instance(&provider.instance_name, context, &at, faults).map(Identity::Provider).map(Some);
    }
    if let Some(provider) = &common.tls_certificate_certificate_provider_instance {
        let at = at.field("tls_certificate_certificate_provider_instance");
        return instance(&provider.instance_name, context, &at, faults).map(Identity::Provider).map(Some);
    }
    if common.tls_certificate_certificate_provider.is_some() {
        return faults.reject(&at.field("tls_certificate_certificate_provider"), NAME_A_KEY_PROVIDER);
    }
    let list = at.field("tls_certificates");
    match common.tls_certificates.as_slice() {
        [] => {}
        [one] => return files(one, side, context, &list.index(0), faults).map(Identity::Files).map(Some),
        _ => return faults.reject(&list, "has more than one certificate; a client shows one"),
    }
    let list = at.field("tls_certificate_sds_secret_configs");
    match common.tls_certificate_sds_secret_configs.as_slice() {
        [] => Some(None),
        [one] => secret(one, side, context, &list.index(0), faults).map(Identity::Secret).map(Some),
        _ => faults.reject(&list, "has more than one certificate; a client shows one"),
    }
}

/// The files of a certificate that is named by them.
fn files(
    certificate: &TlsCertificate,
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<KeyFiles> {
    if side == Side::Server {
        return faults.reject(at, NAME_A_KEY_PROVIDER);
    }
    context.support.require(Feature::CertificateFiles, at, faults)?;
    refuse_unread(certificate, at, faults);
    let chain = filename(&certificate.certificate_chain, &at.field("certificate_chain"), faults);
    let key = filename(&certificate.private_key, &at.field("private_key"), faults);
    Some(KeyFiles { certificate: chain?, key: key? })
}

/// A key that is elsewhere, or that nobody can read without more.
fn refuse_unread(certificate: &TlsCertificate, at: &Path<'_>, faults: &mut Faults) {
    for (unsupported, field) in [
        (certificate.password.is_some(), "password"),
        (certificate.pkcs12.is_some(), "pkcs12"),
        (certificate.private_key_provider.is_some(), "private_key_provider"),
        (certificate.tls_params.is_some(), "tls_params"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
}

/// The path of a file. What stands in the context itself is refused: a key would be shown wherever the cluster is.
fn filename(source: &Option<DataSource>, at: &Path<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let source = faults.required(at, source)?;
    match &source.specifier {
        Some(Specifier::Filename(path)) if path.is_empty() => {
            faults.reject(&at.field("filename"), "is empty")
        }
        Some(Specifier::Filename(path)) => Some(path.as_str().into()),
        _ => faults
            .reject(at, "must be a filename; contents come from a certificate provider or a secret (SDS)"),
    }
}

/// The secret that is named, to be had where the context came from.
fn secret(
    config: &SdsSecretConfig,
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Name> {
    if side == Side::Server {
        let reason = "is not supported on servers, whose certificate is their identity in the mesh: name a \
                      certificate provider of the bootstrap";
        return faults.reject(at, reason);
    }
    context.support.require(Feature::Sds, at, faults)?;
    let source_at = at.field("sds_config");
    if config.sds_config.is_none() {
        let reason =
            "is required: without it the secret is one of the bootstrap, which has none; say `ads` or `self`";
        return faults.reject(&source_at, reason);
    }
    wire::require_ads(&config.sds_config, &source_at, faults)?;
    if config.name.is_empty() {
        return faults.reject(&at.field("name"), "is required");
    }
    Some(config.name.as_str().into())
}

struct Validation {
    roots: Option<Roots>,
    sans: Vec<SanMatcher>,
    crl: Option<CrlFile>,
}

fn validation(
    common: &CommonTlsContext,
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Validation> {
    let none = CertificateValidationContext::default();
    let combined_at = at.field("combined_validation_context");
    const SDS: &str = "validation_context_sds_secret_config";
    let (validation, deprecated, sds, field) = match &common.validation_context_type {
        None => return Some(Validation { roots: None, sans: Vec::new(), crl: None }),
        Some(ValidationContextType::ValidationContext(validation)) => {
            (validation, None, None, "validation_context")
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => (
            combined.default_validation_context.as_ref().unwrap_or(&none),
            combined.validation_context_certificate_provider_instance.as_ref(),
            combined.validation_context_sds_secret_config.as_ref().map(|sds| (sds, combined_at.field(SDS))),
            "combined_validation_context.default_validation_context",
        ),
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(provider)) => {
            (&none, Some(provider), None, "validation_context_certificate_provider_instance")
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(sds)) => {
            (&none, None, Some((sds, at.field(SDS))), SDS)
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            return faults.reject(&at.field("validation_context_certificate_provider"), NAME_A_PROVIDER);
        }
    };
    let plugin = matches!(&common.validation_context_type,
        Some(ValidationContextType::CombinedValidationContext(combined))
            if combined.validation_context_certificate_provider.is_some());
    let at = at.field(field);
    refuse_unsupported(validation, &at, faults);
    let provider = validation.ca_certificate_provider_instance.as_ref().map(|p| &p.instance_name);
    let roots = match provider.or(deprecated.map(|p| &p.instance_name)) {
        Some(name) => {
            let at = at.field("ca_certificate_provider_instance");
            Some(Roots::Provider(instance(name, context, &at, faults)?))
        }
        None if validation.trusted_ca.is_some() && validation.system_root_certs.is_none() => {
            let at = at.field("trusted_ca");
            // Nobody would be verified against what is meant.
            if side == Side::Server {
                return faults.reject(&at, NAME_A_PROVIDER);
            }
            if let Some((_, at)) = sds {
                return faults.reject(&at, "stands beside trusted_ca: which roots are meant?");
            }
            context.support.require(Feature::CertificateFiles, &at, faults)?;
            Some(Roots::File(filename(&validation.trusted_ca, &at, faults)?))
        }
        None if validation.system_root_certs.is_some() => {
            if let Some((_, at)) = sds {
                return faults.reject(&at, "stands beside system_root_certs: which roots are meant?");
            }
            Some(Roots::System)
        }
        None if plugin => {
            let at = combined_at.field("validation_context_certificate_provider");
            return faults.reject(&at, NAME_A_PROVIDER);
        }
        None => match sds {
            Some((sds, at)) => Some(Roots::Secret(secret(sds, side, context, &at, faults)?)),
            None => None,
        },
    };
    let crl = match &validation.crl {
        None => None,
        Some(_) => Some(revoked(validation, side, roots.as_ref(), context, &at, faults)?),
    };
    Some(Validation { roots, sans: sans(validation, &at, faults)?, crl })
}

/// The file that says which certificates are revoked.
fn revoked(
    validation: &CertificateValidationContext,
    side: Side,
    roots: Option<&Roots>,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<CrlFile> {
    let at = at.field("crl");
    if side == Side::Server {
        return faults.reject(&at, "is not supported on servers");
    }
    context.support.require(Feature::CertificateFiles, &at, faults)?;
    // Certificates of the mesh are short-lived instead, and secrets say themselves what is believed.
    if !matches!(roots, Some(Roots::File(_) | Roots::System)) {
        let reason =
            "is not supported but beside roots in a file (trusted_ca) or the system's (system_root_certs)";
        return faults.reject(&at, reason);
    }
    let path = filename(&validation.crl, &at, faults)?;
    Some(CrlFile { path, only_leaf: validation.only_verify_leaf_cert_crl })
}

const NAME_A_KEY_PROVIDER: &str = "is not supported: name a certificate provider of the bootstrap in \
                                   tls_certificate_provider_instance";
const NAME_A_PROVIDER: &str = "is not supported: name a certificate provider of the bootstrap in \
                               ca_certificate_provider_instance";

/// What would make a check that is asked for one that is not made.
pub(in crate::resource) fn refuse_unsupported(
    validation: &CertificateValidationContext,
    at: &Path<'_>,
    faults: &mut Faults,
) {
    for (unsupported, field) in [
        (!validation.verify_certificate_spki.is_empty(), "verify_certificate_spki"),
        (!validation.verify_certificate_hash.is_empty(), "verify_certificate_hash"),
        (
            validation.require_signed_certificate_timestamp.as_ref().is_some_and(|value| value.value),
            "require_signed_certificate_timestamp",
        ),
        (validation.max_verify_depth.is_some(), "max_verify_depth"),
        (validation.custom_validator_config.is_some(), "custom_validator_config"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
}

/// The typed list wins over the deprecated one; types other than DNS, URI, email and IP cannot be matched.
pub(in crate::resource) fn sans(
    validation: &CertificateValidationContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<SanMatcher>> {
    if validation.match_typed_subject_alt_names.is_empty() {
        let list = at.field("match_subject_alt_names");
        return wire::every(&validation.match_subject_alt_names, &list, faults, |matcher, at, faults| {
            wire::string_matcher(matcher, at, faults).map(SanMatcher::from)
        });
    }
    let list = at.field("match_typed_subject_alt_names");
    wire::every(&validation.match_typed_subject_alt_names, &list, faults, |typed, at, faults| {
        let kind = match SanType::try_from(typed.san_type) {
            Ok(SanType::Dns) => SanKind::Dns,
            Ok(SanType::Uri) => SanKind::Uri,
            Ok(SanType::Email) => SanKind::Email,
            Ok(SanType::IpAddress) => SanKind::Ip,
            _ => return faults.reject(&at.field("san_type"), "must be DNS, URI, EMAIL or IP_ADDRESS"),
        };
        let at = at.field("matcher");
        let name = wire::string_matcher(faults.required(&at, &typed.matcher)?, &at, faults)?;
        Some(SanMatcher { kind: Some(kind), name })
    })
}

pub(in crate::resource) fn upstream_proto(tls: &UpstreamTls) -> TransportSocket {
    socket(&proto::UpstreamTlsContext {
        common_tls_context: Some(common_proto(
            tls.identity.as_ref(),
            Some(&tls.roots),
            CertificateValidationContext {
                crl: tls.crl.as_ref().map(|crl| file_proto(&crl.path)),
                only_verify_leaf_cert_crl: tls.crl.as_ref().is_some_and(|crl| crl.only_leaf),
                ..sans_proto(&tls.sans)
            },
        )),
        sni: tls.sni.as_deref().unwrap_or_default().into(),
        auto_host_sni: tls.auto_host_sni,
        auto_sni_san_validation: tls.auto_sni_san_validation,
        ..Default::default()
    })
}

/// A context with these matchers and nothing else.
pub(in crate::resource) fn sans_proto(sans: &[SanMatcher]) -> CertificateValidationContext {
    // The older list, which every client reads, unless only the newer one can say it. That one goes before the
    // older, so that a matcher of any kind is then one of each.
    let plain = |san: &SanMatcher| wire::string_matcher_proto(&san.name);
    let typed = sans.iter().any(|san| san.kind.is_some());
    let each = |san: &SanMatcher| {
        let kinds: Vec<SanKind> = san.kind.map_or(SanKind::ALL.into(), |kind| vec![kind]);
        let matcher = plain(san);
        kinds.into_iter().map(move |kind| proto::SubjectAltNameMatcher {
            san_type: san_type(kind).into(),
            matcher: Some(matcher.clone()),
            ..Default::default()
        })
    };
    if typed {
        CertificateValidationContext {
            match_typed_subject_alt_names: sans.iter().flat_map(each).collect(),
            ..CertificateValidationContext::default()
        }
    } else {
        CertificateValidationContext {
            match_subject_alt_names: sans.iter().map(plain).collect(),
            ..CertificateValidationContext::default()
        }
    }
}

const fn san_type(kind: SanKind) -> SanType {
    match kind {
        SanKind::Dns => SanType::Dns,
        SanKind::Uri => SanType::Uri,
        SanKind::Email => SanType::Email,
        SanKind::Ip => SanType::IpAddress,
    }
}

pub(in crate::resource) fn downstream_proto(tls: &DownstreamTls) -> TransportSocket {
    let identity = Identity::Provider(tls.identity.clone());
    let roots = tls.client_roots.clone().map(Roots::Provider);
    let validation = CertificateValidationContext::default();
    socket(&proto::DownstreamTlsContext {
        common_tls_context: Some(common_proto(Some(&identity), roots.as_ref(), validation)),
        require_client_certificate: Some(BoolValue { value: tls.require_client_certificate }),
        ..Default::default()
    })
}

fn socket<M: Message + MessageName>(context: &M) -> TransportSocket {
    TransportSocket { name: SOCKET.into(), config_type: Some(ConfigType::TypedConfig(wire::any(context))) }
}

/// Istio's names for what a provider instance holds; no implementation looks at them.
const IDENTITY_CERTIFICATE: &str = "default";
const ROOT_CERTIFICATE: &str = "ROOTCA";

fn common_proto(
    identity: Option<&Identity>,
    roots: Option<&Roots>,
    mut validation: CertificateValidationContext,
) -> CommonTlsContext {
    let current = |name: &Arc<str>, certificate: &str| CertificateProviderPluginInstance {
        instance_name: name.to_string(),
        certificate_name: certificate.into(),
    };
    let deprecated = |name: &Arc<str>, certificate: &str| CertificateProviderInstance {
        instance_name: name.to_string(),
        certificate_name: certificate.into(),
    };
    let mut combined = CombinedCertificateValidationContext::default();
    match roots {
        Some(Roots::Provider(name)) => {
            validation.ca_certificate_provider_instance = Some(current(name, ROOT_CERTIFICATE));
            combined.validation_context_certificate_provider_instance =
                Some(deprecated(name, ROOT_CERTIFICATE));
        }
        Some(Roots::System) => validation.system_root_certs = Some(Default::default()),
        Some(Roots::Secret(name)) => combined.validation_context_sds_secret_config = Some(sds_proto(name)),
        Some(Roots::File(path)) => validation.trusted_ca = Some(file_proto(path)),
        None => {}
    }
    combined.default_validation_context = Some(validation);
    let (provider, secret, files) = match identity {
        Some(Identity::Provider(instance)) => (Some(instance), None, None),
        Some(Identity::Secret(name)) => (None, Some(name), None),
        Some(Identity::Files(files)) => (None, None, Some(files)),
        None => (None, None, None),
    };
    let certificate = |files: &KeyFiles| TlsCertificate {
        certificate_chain: Some(file_proto(&files.certificate)),
        private_key: Some(file_proto(&files.key)),
        ..TlsCertificate::default()
    };
    CommonTlsContext {
        tls_certificate_provider_instance: provider.map(|name| current(name, IDENTITY_CERTIFICATE)),
        tls_certificate_certificate_provider_instance: provider
            .map(|name| deprecated(name, IDENTITY_CERTIFICATE)),
        tls_certificate_sds_secret_configs: secret.map(sds_proto).into_iter().collect(),
        tls_certificates: files.map(certificate).into_iter().collect(),
        validation_context_type: roots.map(|_| ValidationContextType::CombinedValidationContext(combined)),
        ..CommonTlsContext::default()
    }
}

fn file_proto(path: &Arc<str>) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_string())), ..DataSource::default() }
}

fn sds_proto(name: &Name) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_string(), sds_config: Some(wire::ads()) }
}
