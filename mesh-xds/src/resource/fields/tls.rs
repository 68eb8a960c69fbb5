//! TLS contexts (gRFC A29, A82, A86, A101). There is no `Secret` resource, see [`resource::tls`].
//!
//! [`resource::tls`]: crate::resource::tls

use super::{Message, ignored, needs, rejected, supported};
use crate::resource::Feature;
use envoy_types::pb::envoy::extensions::transport_sockets::{
    http_11_proxy::v3::Http11ProxyUpstreamTransport,
    tls::v3::{
        CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
        DownstreamTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
        common_tls_context::CombinedCertificateValidationContext,
    },
};

pub(super) const MESSAGES: &[&Message] =
    &[&UPSTREAM, &DOWNSTREAM, &COMMON, &COMBINED, &VALIDATION, &PROVIDER, &SAN, &HTTP_CONNECT];

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
        rejected(
            "tls_certificates tls_certificate_sds_secret_configs tls_certificate_certificate_provider",
            "A29",
            A_PROVIDER,
        ),
        rejected(
            "validation_context_sds_secret_config validation_context_certificate_provider",
            "A29",
            A_PROVIDER,
        ),
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
        rejected(
            "validation_context_sds_secret_config validation_context_certificate_provider",
            "A29",
            A_PROVIDER,
        ),
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
            "verify_certificate_spki verify_certificate_hash require_signed_certificate_timestamp crl \
             custom_validator_config",
            "A29",
            "",
        ),
        rejected("max_verify_depth", "Envoy", "would be checked less strictly than it says"),
        rejected("trusted_ca", "A29", "unless an instance is named, which goes before it"),
        ignored("watched_directory", "A29", "the provider watches its files"),
        ignored(
            "allow_expired_certificate trust_chain_verification only_verify_leaf_cert_crl \
             suppress_client_ca_list",
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
        needs(Feature::HttpConnect, "transport_socket", "A86", "TLS, or nothing; refused otherwise"),
        needs(Feature::HttpConnect, "default_proxy_address", "Envoy", "refused otherwise"),
    ],
);
