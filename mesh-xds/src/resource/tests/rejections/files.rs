//! TLS contexts that name files.

use super::{
    secret::{common, over_ads, refused_by_a_server, socket, source, text},
    *,
};
use crate::resource::tls::{CrlFile, Identity, KeyFiles, Roots};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3 as cluster,
        core::v3::{DataSource, data_source::Specifier},
    },
    extensions::transport_sockets::tls::v3::{
        CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, TlsCertificate,
        UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    },
};

fn file(path: &str) -> Option<DataSource> {
    source(Specifier::Filename(path.into()))
}

fn own() -> TlsCertificate {
    TlsCertificate {
        certificate_chain: file("/etc/own.pem"),
        private_key: file("/etc/own.key"),
        ..Default::default()
    }
}

fn judged_by(trusted_ca: Option<DataSource>) -> Option<ValidationContextType> {
    let context = CertificateValidationContext { trusted_ca, ..Default::default() };
    Some(ValidationContextType::ValidationContext(context))
}

/// A cluster with certificate and roots from files.
fn secured() -> cluster::Cluster {
    let common = CommonTlsContext {
        tls_certificates: vec![own()],
        validation_context_type: judged_by(file("/etc/roots.pem")),
        ..Default::default()
    };
    let tls = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    cluster::Cluster { transport_socket: socket(&tls), ..super::cluster::good() }
}

fn change(message: &mut cluster::Cluster, change: impl FnOnce(&mut TlsCertificate)) {
    common(message, |common| change(&mut common.tls_certificates[0]));
}

#[test]
fn a_cluster_names_files_of_its_clients() {
    let parsed = |message: &cluster::Cluster| Cluster::parse(&message.encode_to_vec(), &context()).unwrap();
    let good = parsed(&secured());
    let tls = good.tls.as_ref().unwrap();
    let files = KeyFiles { certificate: "/etc/own.pem".into(), key: "/etc/own.key".into() };
    assert_eq!(tls.identity, Some(Identity::Files(files)));
    assert_eq!(tls.roots, Roots::File("/etc/roots.pem".into()));

    // A provider goes before either, as everywhere.
    let mut provided = secured();
    common(&mut provided, |common| {
        let provider =
            Some(CertificateProviderPluginInstance { instance_name: "default".into(), ..Default::default() });
        common.tls_certificate_provider_instance.clone_from(&provider);
        let Some(ValidationContextType::ValidationContext(context)) = &mut common.validation_context_type
        else {
            panic!("another context")
        };
        context.ca_certificate_provider_instance = provider;
    });
    let tls = parsed(&provided).tls.unwrap();
    assert_eq!(tls.identity, Some(Identity::Provider("default".into())));
    assert_eq!(tls.roots, Roots::Provider("default".into()));

    const COMMON: &str = "transport_socket.typed_config.common_tls_context";
    let at = |rest: &str| -> &'static str { format!("{COMMON}.{rest}").leak() };
    const A_FILE: &str = "must be a filename";
    refuses::<Cluster, _>(
        &secured(),
        &[
            (
                |m| common(m, |c| c.tls_certificates.push(own())),
                at("tls_certificates"),
                "more than one certificate",
            ),
            (
                |m| change(m, |own| own.certificate_chain = text("PEM")),
                at("tls_certificates[0].certificate_chain"),
                A_FILE,
            ),
            (
                |m| change(m, |own| own.certificate_chain = None),
                at("tls_certificates[0].certificate_chain"),
                "is required",
            ),
            (
                |m| change(m, |own| own.private_key = source(Specifier::EnvironmentVariable("KEY".into()))),
                at("tls_certificates[0].private_key"),
                A_FILE,
            ),
            (
                |m| change(m, |own| own.private_key = file("")),
                at("tls_certificates[0].private_key.filename"),
                "is empty",
            ),
            (
                |m| change(m, |own| own.password = file("/etc/password")),
                at("tls_certificates[0].password"),
                "is not supported",
            ),
            (
                |m| change(m, |own| own.pkcs12 = file("/etc/own.p12")),
                at("tls_certificates[0].pkcs12"),
                "is not supported",
            ),
            (
                |m| change(m, |own| own.private_key_provider = Some(Default::default())),
                at("tls_certificates[0].private_key_provider"),
                "is not supported",
            ),
            (
                |m| change(m, |own| own.tls_params = Some(Default::default())),
                at("tls_certificates[0].tls_params"),
                "is not supported",
            ),
            (
                |m| common(m, |c| c.validation_context_type = judged_by(text("PEM"))),
                at("validation_context.trusted_ca"),
                A_FILE,
            ),
            (
                |m| common(m, |c| c.validation_context_type = judged_by(file(""))),
                at("validation_context.trusted_ca.filename"),
                "is empty",
            ),
            (
                |m| {
                    common(m, |c| {
                        let combined = CombinedCertificateValidationContext {
                            default_validation_context: Some(CertificateValidationContext {
                                trusted_ca: file("/etc/roots.pem"),
                                ..Default::default()
                            }),
                            validation_context_sds_secret_config: Some(over_ads("roots")),
                            ..Default::default()
                        };
                        c.validation_context_type =
                            Some(ValidationContextType::CombinedValidationContext(combined));
                    });
                },
                at("combined_validation_context.validation_context_sds_secret_config"),
                "which roots are meant",
            ),
        ],
    );
    let lacking = ParseContext { support: Support::NONE, ..context() };
    let error = Cluster::parse(&secured().encode_to_vec(), &lacking).unwrap_err();
    let places: Vec<&str> = error.rejected.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(places, [at("tls_certificates[0]"), at("validation_context.trusted_ca")]);
    assert!(error.to_string().contains("this client does not have certificate-files"), "{error}");
}

/// The files of `secured`, and one of revocation lists.
fn with_lists(path: &str, only_verify_leaf_cert_crl: bool) -> cluster::Cluster {
    let mut message = secured();
    common(&mut message, |common| {
        common.validation_context_type =
            Some(ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: file("/etc/roots.pem"),
                crl: file(path),
                only_verify_leaf_cert_crl,
                ..Default::default()
            }));
    });
    message
}

#[test]
fn a_cluster_names_a_file_of_revocation_lists() {
    let parse = |message: &cluster::Cluster, context: &ParseContext| {
        Cluster::parse(&message.encode_to_vec(), context).map(|cluster| cluster.tls.unwrap().crl.clone())
    };
    for only_leaf in [false, true] {
        let crl = CrlFile { path: "/etc/crl.pem".into(), only_leaf };
        assert_eq!(parse(&with_lists("/etc/crl.pem", only_leaf), &context()).unwrap(), Some(crl));
    }
    const PLACE: &str = "transport_socket.typed_config.common_tls_context.validation_context.crl";
    let empty = parse(&with_lists("", false), &context()).unwrap_err().to_string();
    assert!(empty.contains(&format!("{PLACE}.filename: is empty")), "{empty}");
    let lacking = ParseContext { support: Support::NONE, ..context() };
    let refused = parse(&with_lists("/etc/crl.pem", false), &lacking).unwrap_err().to_string();
    assert!(refused.contains("validation_context.trusted_ca: this client does not have"), "{refused}");
}

/// What a server shows is its identity in the mesh, which comes from a provider.
#[test]
fn a_server_names_no_file() {
    let error = refused_by_a_server(CommonTlsContext { tls_certificates: vec![own()], ..Default::default() });
    assert!(error.contains("tls_certificates[0]: is not supported: name a certificate provider"), "{error}");
    let roots = judged_by(file("/etc/roots.pem"));
    let error =
        refused_by_a_server(CommonTlsContext { validation_context_type: roots, ..Default::default() });
    assert!(error.contains("trusted_ca: is not supported: name a certificate provider"), "{error}");
    let lists = CertificateValidationContext { crl: file("/etc/crl.pem"), ..Default::default() };
    let lists = Some(ValidationContextType::ValidationContext(lists));
    let error =
        refused_by_a_server(CommonTlsContext { validation_context_type: lists, ..Default::default() });
    assert!(error.contains("crl: is not supported on servers"), "{error}");
}
