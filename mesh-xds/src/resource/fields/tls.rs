//! TLS contexts and what may be around them (gRFC A29, A82, A86, A101), and the secrets that those of clients may name (Envoy's SDS).

use super::{Message, ignored, needs, rejected, supported};
use crate::resource::Feature;
use envoy_types::pb::envoy::{
    config::core::v3::{ProxyProtocolConfig, TlvEntry},
    extensions::transport_sockets::{
        http_11_proxy::v3::Http11ProxyUpstreamTransport,
        proxy_protocol::v3::ProxyProtocolUpstreamTransport,
        tls::v3::{
            CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
            DownstreamTlsContext, SdsSecretConfig, Secret, SubjectAltNameMatcher, TlsCertificate,
            UpstreamTlsContext, common_tls_context::CombinedCertificateValidationContext,
        },
    },
};

pub(super) const MESSAGES: &[&Message] = &[
    &UPSTREAM,
    &DOWNSTREAM,
    &COMMON,
    &COMBINED,
    &VALIDATION,
    &PROVIDER,
    &FILES,
    &SDS,
    &SAN,
    &HTTP_CONNECT,
    &PROXY_PROTOCOL,
    &HEADER,
    &TLV,
];

pub(super) const SECRETS: &[&Message] = &[&SECRET, &CERTIFICATE, &SECRET_VALIDATION];

const A_PROVIDER: &str = "a certificate provider of the bootstrap holds keys and roots";
const LIBRARY: &str = "TLS 1.2 and 1.3 as rustls has them";

pub(in crate::resource) static UPSTREAM: Message = Message::of::<UpstreamTlsContext>(
    "",
    &[
        supported("common_tls_context", "A29", "required"),
        supported("sni", "A101", "at most 255 bytes"),
        supported("auto_host_sni auto_sni_san_validation", "A101", ""),
        ignored("allow_renegotiation max_session_keys enforce_rsa_key_usage", "A29", LIBRARY),
    ],
);

pub(in crate::resource) static DOWNSTREAM: Message = Message::of::<DownstreamTlsContext>(
    "",
    &[
        supported("common_tls_context", "A29", "required, with a certificate"),
        supported("require_client_certificate", "A29", "needs roots to verify clients with"),
        rejected("require_sni", "A29", ""),
        rejected("ocsp_staple_policy", "A29", "other values than LENIENT_STAPLING"),
        ignored(
            "disable_stateful_session_resumption session_timeout full_scan_certs_on_sni_mismatch \
             prefer_client_ciphers session_ticket_keys session_ticket_keys_sds_secret_config \
             disable_stateless_session_resumption",
            "A29",
            LIBRARY,
        ),
    ],
);

pub(in crate::resource) static COMMON: Message = Message::of::<CommonTlsContext>(
    "",
    &[
        supported("tls_certificate_provider_instance", "A29", "must be in the bootstrap"),
        supported(
            "tls_certificate_certificate_provider_instance",
            "A29",
            "deprecated; where the other is not",
        ),
        supported(
            "validation_context combined_validation_context validation_context_certificate_provider_instance",
            "A29",
            "",
        ),
        needs(
            Feature::Sds,
            "tls_certificate_sds_secret_configs",
            "Envoy",
            "of clients; one; where no provider is named",
        ),
        needs(Feature::Sds, "validation_context_sds_secret_config", "Envoy", "of clients"),
        needs(
            Feature::CertificateFiles,
            "tls_certificates",
            "Envoy",
            "of clients; one; where no provider is named",
        ),
        rejected("tls_certificate_certificate_provider", "A29", A_PROVIDER),
        rejected("validation_context_certificate_provider", "A29", A_PROVIDER),
        rejected("tls_params custom_handshaker custom_tls_certificate_selector", "A29", ""),
        ignored("alpn_protocols", "A29", "h2, always"),
        ignored("key_log", "A29", "keys of connections are written nowhere"),
    ],
);

pub(in crate::resource) static COMBINED: Message = Message::of::<CombinedCertificateValidationContext>(
    "",
    &[
        supported("default_validation_context", "A29", ""),
        supported("validation_context_certificate_provider_instance", "A29", "deprecated; where no other is"),
        needs(
            Feature::Sds,
            "validation_context_sds_secret_config",
            "Envoy",
            "of clients; where no provider is named; its SAN matchers are added to those of \
             default_validation_context",
        ),
        rejected("validation_context_certificate_provider", "A29", A_PROVIDER),
    ],
);

pub(in crate::resource) static VALIDATION: Message = Message::of::<CertificateValidationContext>(
    "",
    &[
        supported("ca_certificate_provider_instance", "A29", "must be in the bootstrap"),
        supported(
            "system_root_certs",
            "A82",
            "of clients, where no instance is named; the server must be named (gRPC would take anybody)",
        ),
        supported("match_typed_subject_alt_names", "A29", "of clients; DNS, URI, EMAIL and IP_ADDRESS"),
        supported("match_subject_alt_names", "A29", "deprecated; where the other is not"),
        rejected(
            "verify_certificate_spki verify_certificate_hash require_signed_certificate_timestamp \
             custom_validator_config",
            "A29",
            "",
        ),
        rejected("max_verify_depth", "Envoy", "would be checked less strictly than it says"),
        needs(
            Feature::CertificateFiles,
            "trusted_ca",
            "Envoy",
            "of clients, where no instance is named; filename; contents come from a provider or a secret",
        ),
        needs(
            Feature::CertificateFiles,
            "crl only_verify_leaf_cert_crl",
            "Envoy",
            "of clients, beside trusted_ca or system_root_certs; filename; every certificate but the root needs a list of \
             its issuer that has not ended",
        ),
        ignored("watched_directory", "A29", "the provider watches its files"),
        ignored(
            "allow_expired_certificate trust_chain_verification suppress_client_ca_list",
            "A29",
            "certificates are verified as strictly as without",
        ),
    ],
);

pub(in crate::resource) static PROVIDER: Message = Message::of::<CertificateProviderPluginInstance>(
    "",
    &[
        supported("instance_name", "A29", ""),
        ignored("certificate_name", "A29", "an instance has one certificate and one set of roots"),
    ],
);

const A_FILE: &str = "required: a filename; which files that may be, the data path says";

pub(in crate::resource) static FILES: Message = Message::of::<TlsCertificate>(
    "in a TLS context",
    &[
        supported("certificate_chain private_key", "Envoy", A_FILE),
        rejected("password pkcs12 private_key_provider tls_params", "Envoy", ""),
        ignored("ocsp_staple signed_certificate_timestamp", "Envoy", "for servers"),
        ignored("watched_directory", "Envoy", "files are looked at as the bootstrap says"),
    ],
);

pub(in crate::resource) static SDS: Message = Message::of::<SdsSecretConfig>(
    "",
    &[
        supported("name", "Envoy", "required"),
        supported("sds_config", "Envoy", "required: `ads` or `self`; other sources are refused"),
    ],
);

pub(in crate::resource) static SECRET: Message = Message::of::<Secret>(
    "",
    &[
        supported("name", "Envoy", "required"),
        supported("tls_certificate validation_context", "Envoy", ""),
        rejected("session_ticket_keys", "Envoy", "TLS sessions are not resumed"),
        rejected("generic_secret", "Envoy", "nothing uses one"),
    ],
);

const INLINE: &str = "required: inline_bytes or inline_string, PEM; filename and environment_variable are refused, \
                      since what is read on this machine is not for a control plane to say";

pub(in crate::resource) static CERTIFICATE: Message = Message::of::<TlsCertificate>(
    "",
    &[
        supported("certificate_chain", "Envoy", INLINE),
        supported(
            "private_key",
            "Envoy",
            "so too, not encrypted, the key of the certificate, and not in plaintext from another machine",
        ),
        rejected("password pkcs12 private_key_provider tls_params", "Envoy", ""),
        ignored("ocsp_staple signed_certificate_timestamp", "Envoy", "for servers"),
        ignored("watched_directory", "Envoy", "no file is read"),
    ],
);

pub(in crate::resource) static SECRET_VALIDATION: Message = Message::of::<CertificateValidationContext>(
    "in a secret",
    &[
        supported("trusted_ca", "Envoy", INLINE),
        supported("match_typed_subject_alt_names", "Envoy", "DNS, URI, EMAIL and IP_ADDRESS"),
        supported("match_subject_alt_names", "Envoy", "deprecated; where the other is not"),
        rejected(
            "verify_certificate_spki verify_certificate_hash require_signed_certificate_timestamp crl \
             custom_validator_config max_verify_depth",
            "Envoy",
            "",
        ),
        rejected("ca_certificate_provider_instance system_root_certs", "Envoy", "the cluster may name them"),
        ignored("watched_directory", "Envoy", "no file is read"),
        ignored(
            "allow_expired_certificate trust_chain_verification only_verify_leaf_cert_crl \
             suppress_client_ca_list",
            "Envoy",
            "certificates are verified as strictly as without",
        ),
    ],
);

pub(in crate::resource) static SAN: Message = Message::of::<SubjectAltNameMatcher>(
    "",
    &[
        supported("san_type", "A29", "DNS, URI, EMAIL or IP_ADDRESS"),
        supported("matcher", "A29", "required"),
        ignored("oid", "Envoy", "of a kind that is refused"),
    ],
);

pub(in crate::resource) static HTTP_CONNECT: Message = Message::of::<Http11ProxyUpstreamTransport>(
    "",
    &[
        needs(
            Feature::HttpConnect,
            "transport_socket",
            "A86",
            "TLS, the PROXY protocol, `RawBuffer` or nothing; refused otherwise",
        ),
        needs(Feature::HttpConnect, "default_proxy_address", "Envoy", "refused otherwise"),
    ],
);

pub(in crate::resource) static PROXY_PROTOCOL: Message = Message::of::<ProxyProtocolUpstreamTransport>(
    "",
    &[
        needs(Feature::ProxyProtocol, "config", "Envoy", "V1 without it"),
        needs(
            Feature::ProxyProtocol,
            "transport_socket",
            "Envoy",
            "required; TLS or `RawBuffer`, anything else is refused",
        ),
        ignored("allow_unspecified_address tlv_as_pool_key", "Envoy", "Envoy does not implement them"),
    ],
);

pub(in crate::resource) static HEADER: Message = Message::of::<ProxyProtocolConfig>(
    "",
    &[
        needs(Feature::ProxyProtocol, "version", "Envoy", ""),
        needs(Feature::ProxyProtocol, "added_tlvs", "Envoy", "of V2; those of an endpoint go before"),
        ignored("pass_through_tlvs", "Envoy", "a client has no connection before its own to take them from"),
    ],
);

pub(in crate::resource) static TLV: Message = Message::of::<TlvEntry>(
    "",
    &[
        needs(Feature::ProxyProtocol, "type", "Envoy", "0 to 255"),
        needs(Feature::ProxyProtocol, "value", "Envoy", "required; 65,499 bytes together"),
        rejected("format_string", "Envoy", "there is no request yet"),
    ],
);
