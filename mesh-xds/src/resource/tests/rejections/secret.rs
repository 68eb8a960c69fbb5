//! Secret (Envoy's SDS), and the TLS contexts that name one.

// Fields that Envoy deprecates are still what other control planes send.
#![allow(deprecated)]

use super::*;
use crate::matcher::StringMatcher;
use crate::resource::{
    secret::SecretFault,
    tls::{Identity, Roots, SanKind, SanMatcher, UpstreamTls},
};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3 as cluster,
        core::v3::{
            ConfigSource, DataSource, GrpcService, PathConfigSource, TransportSocket,
            config_source::ConfigSourceSpecifier, data_source::Specifier, transport_socket::ConfigType,
        },
        listener::v3 as listener,
    },
    extensions::transport_sockets::tls::v3::{
        self as pb, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
        UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        secret::Type,
    },
};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nSECRET\n-----END EC PRIVATE KEY-----\n";
const ENCRYPTED: &str =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nSECRET\n-----END ENCRYPTED PRIVATE KEY-----\n";

#[expect(clippy::unnecessary_wraps, reason = "as fields have it")]
pub(super) fn source(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource { specifier: Some(specifier), ..Default::default() })
}

pub(super) fn text(text: &str) -> Option<DataSource> {
    source(Specifier::InlineString(text.into()))
}

fn certificate() -> pb::Secret {
    let certificate = pb::TlsCertificate {
        certificate_chain: source(Specifier::InlineBytes(CERTIFICATE.into())),
        private_key: text(KEY),
        ..Default::default()
    };
    pb::Secret { name: "s".into(), r#type: Some(Type::TlsCertificate(certificate)) }
}

fn validation() -> pb::Secret {
    let validation = CertificateValidationContext { trusted_ca: text(CERTIFICATE), ..Default::default() };
    pb::Secret { name: "s".into(), r#type: Some(Type::ValidationContext(validation)) }
}

fn own(message: &mut pb::Secret) -> &mut pb::TlsCertificate {
    match &mut message.r#type {
        Some(Type::TlsCertificate(certificate)) => certificate,
        other => panic!("{other:?}"),
    }
}

fn judged(message: &mut pb::Secret) -> &mut CertificateValidationContext {
    match &mut message.r#type {
        Some(Type::ValidationContext(validation)) => validation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_faulty_certificate_is_refused_with_the_place() {
    const CHAIN: &str = "tls_certificate.certificate_chain";
    const PRIVATE: &str = "tls_certificate.private_key";
    refuses::<Secret, _>(
        &certificate(),
        &[
            (|m| m.r#type = None, "type", "is empty"),
            (
                |m| m.r#type = Some(Type::SessionTicketKeys(Default::default())),
                "session_ticket_keys",
                "sessions are not resumed",
            ),
            (|m| m.r#type = Some(Type::GenericSecret(Default::default())), "generic_secret", "not supported"),
            (|m| own(m).certificate_chain = None, CHAIN, "is required"),
            (|m| own(m).certificate_chain = Some(DataSource::default()), CHAIN, "is empty"),
            (|m| own(m).certificate_chain = text(""), CHAIN, "is empty"),
            (|m| own(m).certificate_chain = text("MIIB"), CHAIN, "no PEM certificate"),
            (
                |m| own(m).certificate_chain = text(&format!("{CERTIFICATE}{KEY}")),
                CHAIN,
                "holds a private key",
            ),
            (
                |m| own(m).certificate_chain = source(Specifier::Filename("/etc/c.pem".into())),
                "tls_certificate.certificate_chain.filename",
                "which files of this machine are read is not for a control plane to say",
            ),
            (
                |m| own(m).certificate_chain = source(Specifier::EnvironmentVariable("C".into())),
                "tls_certificate.certificate_chain.environment_variable",
                "which variables of this process are read",
            ),
            (|m| own(m).private_key = None, PRIVATE, "is required"),
            (|m| own(m).private_key = text(""), PRIVATE, "is empty"),
            (|m| own(m).private_key = text(CERTIFICATE), PRIVATE, "no PEM private key"),
            (|m| own(m).private_key = text(ENCRYPTED), PRIVATE, "is encrypted"),
            (
                |m| own(m).private_key = source(Specifier::Filename("/etc/k.pem".into())),
                "tls_certificate.private_key.filename",
                "which files of this machine are read is not for a control plane to say",
            ),
            (
                |m| own(m).private_key = source(Specifier::EnvironmentVariable("K".into())),
                "tls_certificate.private_key.environment_variable",
                "which variables of this process are read",
            ),
            (|m| own(m).password = text("p"), "tls_certificate.password", "protects nothing"),
            (|m| own(m).pkcs12 = text("p"), "tls_certificate.pkcs12", "as PEM"),
            (
                |m| own(m).private_key_provider = Some(Default::default()),
                "tls_certificate.private_key_provider",
                "not supported",
            ),
            (|m| own(m).tls_params = Some(Default::default()), "tls_certificate.tls_params", "not supported"),
        ],
    );
}

#[test]
fn a_faulty_validation_context_is_refused_with_the_place() {
    const ROOTS: &str = "validation_context.trusted_ca";
    refuses::<Secret, _>(
        &validation(),
        &[
            (|m| judged(m).trusted_ca = None, ROOTS, "is required"),
            (|m| judged(m).trusted_ca = text("MIIB"), ROOTS, "no PEM certificate"),
            (|m| judged(m).trusted_ca = text(&format!("{KEY}{CERTIFICATE}")), ROOTS, "holds a private key"),
            (
                |m| judged(m).trusted_ca = source(Specifier::Filename("/etc/ca.pem".into())),
                "validation_context.trusted_ca.filename",
                "which files of this machine are read is not for a control plane to say",
            ),
            (
                |m| judged(m).trusted_ca = source(Specifier::EnvironmentVariable("CA".into())),
                "validation_context.trusted_ca.environment_variable",
                "which variables of this process are read",
            ),
            (
                |m| judged(m).ca_certificate_provider_instance = Some(Default::default()),
                "validation_context.ca_certificate_provider_instance",
                "name it in the cluster",
            ),
            (
                |m| judged(m).system_root_certs = Some(Default::default()),
                "validation_context.system_root_certs",
                "name it in the cluster",
            ),
            (
                |m| judged(m).verify_certificate_hash.push("00".into()),
                "validation_context.verify_certificate_hash",
                "not supported",
            ),
            (|m| judged(m).crl = Some(Default::default()), "validation_context.crl", "not supported"),
            (
                |m| judged(m).match_typed_subject_alt_names.push(Default::default()),
                "validation_context.match_typed_subject_alt_names[0].san_type",
                "must be DNS",
            ),
            (
                |m| judged(m).match_subject_alt_names.push(Default::default()),
                "validation_context.match_subject_alt_names[0]",
                "one of exact",
            ),
        ],
    );
}

#[test]
fn what_the_data_path_says_of_a_secret_counts_and_no_fault_quotes_a_key() {
    let context = ParseContext {
        secrets: |_| Err(SecretFault { field: "private_key", reason: "is another one's".to_owned() }),
        ..context()
    };
    let error = Secret::parse(&certificate().encode_to_vec(), &context).unwrap_err();
    assert_eq!(error.to_string(), "s: tls_certificate.private_key: is another one's");

    let overheard = ParseContext { private: false, ..super::context() };
    let error = Secret::parse(&certificate().encode_to_vec(), &overheard).unwrap_err().to_string();
    assert!(error.starts_with("s: tls_certificate: came in plaintext from another machine"), "{error}");
    assert!(Secret::parse(&validation().encode_to_vec(), &overheard).is_ok(), "roots are no secret");

    let mut several = certificate();
    own(&mut several).certificate_chain = text(KEY);
    own(&mut several).private_key = text(ENCRYPTED);
    own(&mut several).password = text("SECRET");
    let error = Secret::parse(&several.encode_to_vec(), &super::context()).unwrap_err();
    assert!(error.rejected.faults.len() == 3 && !format!("{error} {error:?}").contains("SECRET"), "{error}");
}

fn sds(name: &str, source: Option<ConfigSourceSpecifier>) -> SdsSecretConfig {
    let sds_config =
        source.map(|source| ConfigSource { config_source_specifier: Some(source), ..Default::default() });
    SdsSecretConfig { name: name.into(), sds_config }
}

pub(super) fn over_ads(name: &str) -> SdsSecretConfig {
    sds(name, Some(ConfigSourceSpecifier::Ads(Default::default())))
}

pub(super) fn socket(context: &impl MessageName) -> Option<TransportSocket> {
    Some(TransportSocket {
        name: "s".into(),
        config_type: Some(ConfigType::TypedConfig(model::wire::any(context))),
    })
}

fn combined(roots: SdsSecretConfig) -> Option<ValidationContextType> {
    Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        validation_context_sds_secret_config: Some(roots),
        ..Default::default()
    }))
}

/// A cluster with certificate and roots from secrets.
fn secured() -> cluster::Cluster {
    let common = CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![over_ads("own")],
        validation_context_type: combined(over_ads("roots")),
        ..Default::default()
    };
    let tls = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    cluster::Cluster { transport_socket: socket(&tls), ..super::cluster::good() }
}

pub(super) fn common(message: &mut cluster::Cluster, change: impl FnOnce(&mut CommonTlsContext)) {
    let Some(ConfigType::TypedConfig(any)) = &mut message.transport_socket.as_mut().unwrap().config_type
    else {
        panic!("no config")
    };
    within::<UpstreamTlsContext>(Some(any), |tls| change(tls.common_tls_context.as_mut().unwrap()));
}

#[test]
fn a_cluster_names_secrets_that_are_to_be_had_over_ads() {
    let parsed = |message: &cluster::Cluster| Cluster::parse(&message.encode_to_vec(), &context()).unwrap();
    let good = parsed(&secured());
    let tls = good.tls.as_ref().unwrap();
    assert_eq!(tls.identity, Some(Identity::Secret("own".into())));
    assert_eq!(tls.roots, Roots::Secret("roots".into()));
    let secrets: Vec<_> =
        good.references().into_iter().filter(|(kind, _)| *kind == ResourceType::Secret).collect();
    assert_eq!(secrets, [(ResourceType::Secret, "own".into()), (ResourceType::Secret, "roots".into())]);

    // The same by `self`, and with the whole context from the secret.
    let mut other = secured();
    common(&mut other, |common| {
        let source = Some(ConfigSourceSpecifier::Self_(Default::default()));
        let roots = ValidationContextType::ValidationContextSdsSecretConfig(sds("roots", source));
        common.validation_context_type = Some(roots);
    });
    assert_eq!(parsed(&other), good);

    // A provider goes before it, as everywhere.
    let mut provided = secured();
    common(&mut provided, |common| {
        common.tls_certificate_provider_instance = Some(pb::CertificateProviderPluginInstance {
            instance_name: "default".into(),
            ..Default::default()
        });
    });
    assert_eq!(parsed(&provided).tls.as_ref().unwrap().identity, Some(Identity::Provider("default".into())));

    const COMMON: &str = "transport_socket.typed_config.common_tls_context";
    let at = |rest: &str| -> &'static str { format!("{COMMON}.{rest}").leak() };
    const OTHER: &str = "must be `ads` or `self`";
    refuses::<Cluster, _>(
        &secured(),
        &[
            (
                |m| common(m, |c| c.tls_certificate_sds_secret_configs.push(over_ads("second"))),
                at("tls_certificate_sds_secret_configs"),
                "more than one certificate",
            ),
            (
                |m| common(m, |c| c.tls_certificate_sds_secret_configs = vec![over_ads("")]),
                at("tls_certificate_sds_secret_configs[0].name"),
                "is required",
            ),
            (
                |m| common(m, |c| c.tls_certificate_sds_secret_configs = vec![sds("own", None)]),
                at("tls_certificate_sds_secret_configs[0].sds_config"),
                "one of the bootstrap",
            ),
            (
                |m| {
                    common(m, |c| {
                        let file = ConfigSourceSpecifier::PathConfigSource(PathConfigSource::default());
                        c.tls_certificate_sds_secret_configs = vec![sds("own", Some(file))];
                    });
                },
                at("tls_certificate_sds_secret_configs[0].sds_config"),
                OTHER,
            ),
            (
                |m| {
                    common(m, |c| {
                        let mut api = envoy_types::pb::envoy::config::core::v3::ApiConfigSource::default();
                        api.grpc_services.push(GrpcService::default());
                        let api = ConfigSourceSpecifier::ApiConfigSource(api);
                        c.validation_context_type = combined(sds("roots", Some(api)));
                    });
                },
                at("combined_validation_context.validation_context_sds_secret_config.sds_config"),
                OTHER,
            ),
            (
                |m| {
                    common(m, |c| {
                        let source = Some(ConfigSourceSpecifier::Path("/roots".into()));
                        let roots =
                            ValidationContextType::ValidationContextSdsSecretConfig(sds("roots", source));
                        c.validation_context_type = Some(roots);
                    });
                },
                at("validation_context_sds_secret_config.sds_config"),
                OTHER,
            ),
            (
                |m| {
                    common(m, |c| {
                        let Some(ValidationContextType::CombinedValidationContext(combined)) =
                            &mut c.validation_context_type
                        else {
                            panic!("not combined")
                        };
                        combined.default_validation_context = Some(CertificateValidationContext {
                            system_root_certs: Some(Default::default()),
                            ..Default::default()
                        });
                    });
                },
                at("combined_validation_context.validation_context_sds_secret_config"),
                "which roots are meant",
            ),
            (
                |m| {
                    common(m, |c| {
                        let Some(ValidationContextType::CombinedValidationContext(combined)) =
                            &mut c.validation_context_type
                        else {
                            panic!("not combined")
                        };
                        combined.validation_context_certificate_provider = Some(Default::default());
                    });
                },
                at("combined_validation_context.validation_context_certificate_provider"),
                "name a certificate provider",
            ),
        ],
    );
    let lacking = ParseContext { support: Support::NONE, ..context() };
    let error = Cluster::parse(&secured().encode_to_vec(), &lacking).unwrap_err().to_string();
    assert!(error.contains("this client does not have sds (Sds)"), "{error}");
}

/// What is wrong with a server's TLS context.
pub(super) fn refused_by_a_server(common: CommonTlsContext) -> String {
    let tls = DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let good = crate::config::testing::server_listener("l", &["r"]).to_proto();
    let mut message = listener::Listener::decode(good).unwrap();
    message.default_filter_chain.as_mut().unwrap().transport_socket = socket(&tls);
    Listener::parse(&message.encode_to_vec(), &context()).unwrap_err().to_string()
}

#[test]
fn a_server_names_no_secret() {
    let own =
        CommonTlsContext { tls_certificate_sds_secret_configs: vec![over_ads("own")], ..Default::default() };
    let error = refused_by_a_server(own);
    assert!(error.contains("tls_certificate_sds_secret_configs[0]: is not supported on servers"), "{error}");
    let clients = CommonTlsContext {
        tls_certificate_provider_instance: Some(pb::CertificateProviderPluginInstance {
            instance_name: "default".into(),
            ..Default::default()
        }),
        validation_context_type: combined(over_ads("roots")),
        ..Default::default()
    };
    let error = refused_by_a_server(clients);
    assert!(error.contains("validation_context_sds_secret_config: is not supported on servers"), "{error}");
}

/// Envoy appends the lists of the secret to those of the context, and then the typed one goes before the other.
#[test]
fn names_of_a_secret_are_added_as_envoy_merges_them() {
    let any = |text: &str| SanMatcher::from(StringMatcher::exact(text, false));
    let dns = |text: &str| SanMatcher { kind: Some(SanKind::Dns), ..any(text) };
    let tls = |sans| UpstreamTls {
        identity: None,
        roots: Roots::Secret("roots".into()),
        sans,
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    };
    assert_eq!(tls(vec![any("a")]).accepted(&[]), [any("a")]);
    assert_eq!(tls(vec![]).accepted(&[dns("b")]), [dns("b")]);
    assert_eq!(tls(vec![any("a")]).accepted(&[any("b")]), [any("a"), any("b")]);
    assert_eq!(tls(vec![any("a")]).accepted(&[dns("b")]), [dns("b")]);
    assert_eq!(tls(vec![dns("a")]).accepted(&[any("b")]), [dns("a")]);
    assert_eq!(tls(vec![dns("a")]).accepted(&[dns("b")]), [dns("a"), dns("b")]);
}
