//! What an Envoy is sent: an HTTP proxy on loopback (Istio's `proxyHttpPort`), every visible host's
//! routes, every cluster. Where the vocabulary has no room, its messages are completed here.
//!
//! The Envoy's certificate is in files that it names in its node metadata. It then speaks mTLS as
//! automatic mTLS asks: to endpoints that are marked. Without files it speaks plaintext to servers that
//! take it, and has no cluster for those that a rule says must be spoken to with mTLS: nothing is sent
//! in the clear that was meant to be encrypted.

use super::{
    Compiled, Compiler,
    client::{CertificateFiles, EnvoyOptions},
    listener::connection_manager,
    route::HTTP_PROXY,
};
use envoy_types::{
    pb::{
        envoy::{
            config::{
                cluster::v3 as cds,
                core::v3::{
                    self as core, DataSource, SocketAddress, TransportSocket, data_source, socket_address,
                    transport_socket::ConfigType,
                },
                listener::v3 as lds,
            },
            extensions::{
                filters::network::http_connection_manager::v3::{
                    self as http, http_connection_manager::RouteSpecifier,
                },
                transport_sockets::{
                    proxy_protocol::v3::ProxyProtocolUpstreamTransport,
                    raw_buffer::v3::RawBuffer,
                    tls::v3::{
                        CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher,
                        TlsCertificate, UpstreamTlsContext, common_tls_context::ValidationContextType,
                        subject_alt_name_matcher::SanType,
                    },
                },
                upstreams::http::v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
            r#type::matcher::v3::{self as matcher, string_matcher::MatchPattern},
        },
        google::protobuf::{Any, Struct, Value, value::Kind},
    },
    util::pack_any,
};
use mesh_xds::{
    matcher::StringPattern,
    name::ResourceType,
    resource::{
        Resource,
        listener::{Listener, ListenerKind, RouteSource},
        tls::{Identity, Roots, UpstreamTls},
    },
};
use prost::{Message, Name as _};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
const PROXY_PROTOCOL_SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";

impl Compiler<'_> {
    pub(super) fn envoy(&self, options: &EnvoyOptions, kind: ResourceType, name: &str) -> Option<Compiled> {
        let message = match kind {
            ResourceType::Listener if name == HTTP_PROXY => {
                proxy_listener(options.proxy_port?)?.encode_to_vec()
            }
            // It asked for a single target by name, as a gRPC client would.
            ResourceType::Listener => return self.outbound_listener(name).map(Compiled::Listener),
            ResourceType::RouteConfiguration => {
                let routes = if name == HTTP_PROXY { self.all_routes() } else { self.routes(name)? };
                return Some(Compiled::Routes(routes));
            }
            ResourceType::Cluster => self.envoy_cluster(options, name)?.encode_to_vec(),
            ResourceType::ClusterLoadAssignment => return self.assignment(name).map(Compiled::Endpoints),
            ResourceType::Secret => return None,
        };
        Some(Compiled::Envoy(message.into()))
    }

    fn envoy_cluster(&self, options: &EnvoyOptions, name: &str) -> Option<cds::Cluster> {
        let mut cluster = self.cluster(name)?;
        let tls = cluster.tls.take();
        let mut message = cds::Cluster::decode(cluster.to_proto()).ok()?;
        finish(&mut message);
        let wrapper = wrapper(&message);
        let wrapped = |socket| match &wrapper {
            Some(wrapper) => {
                let wrapper =
                    ProxyProtocolUpstreamTransport { transport_socket: Some(socket), ..wrapper.clone() };
                self::socket(PROXY_PROTOCOL_SOCKET, pack_any(wrapper))
            }
            None => socket,
        };
        match (tls, &options.certificate) {
            (None, _) => {}
            (Some(tls), None) if tls.only_mesh_endpoints => {}
            (Some(tls), None) if !matches!(tls.roots, Roots::Provider(_)) => {
                message.transport_socket = Some(wrapped(tls_socket(&tls, None)));
            }
            (Some(_), None) => {
                tracing::warn!(
                    cluster = name,
                    "mTLS is demanded and the Envoy has no certificate; the cluster is left out"
                );
                return None;
            }
            (Some(tls), Some(files)) if tls.only_mesh_endpoints => {
                message.transport_socket = None;
                message.transport_socket_matches = vec![
                    socket_match("tlsMode-istio", Some("istio"), wrapped(tls_socket(&tls, Some(files)))),
                    socket_match("tlsMode-disabled", None, wrapped(plaintext_socket())),
                ];
            }
            (Some(tls), Some(files)) => {
                message.transport_socket = Some(wrapped(tls_socket(&tls, Some(files))));
            }
        }
        Some(message)
    }
}

/// What is around the plaintext of a cluster that asks for the PROXY protocol.
fn wrapper(message: &cds::Cluster) -> Option<ProxyProtocolUpstreamTransport> {
    match message.transport_socket.as_ref()?.config_type.as_ref()? {
        ConfigType::TypedConfig(any) if any.type_url == ProxyProtocolUpstreamTransport::type_url() => {
            ProxyProtocolUpstreamTransport::decode(any.value.as_slice()).ok()
        }
        ConfigType::TypedConfig(_) => None,
    }
}

/// The listener of the proxy, with the connection manager that a client's listener would have.
fn proxy_listener(port: u16) -> Option<lds::Listener> {
    let routes = RouteSource::Rds(HTTP_PROXY.into());
    let client = Listener { name: HTTP_PROXY.into(), kind: ListenerKind::Api(connection_manager(routes)) };
    let manager = lds::Listener::decode(client.to_proto()).ok()?.api_listener?.api_listener?;
    let mut manager = http::HttpConnectionManager::decode(manager.value.as_slice()).ok()?;
    manager.stat_prefix = HTTP_PROXY.to_owned();
    // A stream may be silent for as long as its deadline allows.
    manager.stream_idle_timeout = Some(envoy_types::pb::google::protobuf::Duration::default());
    if let Some(RouteSpecifier::Rds(routes)) = &mut manager.route_specifier {
        routes.config_source.iter_mut().for_each(v3);
    }
    Some(lds::Listener {
        name: HTTP_PROXY.to_owned(),
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(SocketAddress {
                address: "127.0.0.1".to_owned(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
                ..SocketAddress::default()
            })),
        }),
        filter_chains: vec![lds::FilterChain {
            filters: vec![lds::Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(lds::filter::ConfigType::TypedConfig(pack_any(manager))),
            }],
            ..lds::FilterChain::default()
        }],
        ..lds::Listener::default()
    })
}

/// HTTP/2 to every server (gRPC speaks nothing else), and xDS v3 for what comes over ADS.
fn finish(message: &mut cds::Cluster) {
    if let Some(eds) = &mut message.eds_cluster_config {
        eds.eds_config.iter_mut().for_each(v3);
    }
    let options = message.typed_extension_protocol_options.remove(HTTP_OPTIONS);
    let mut options =
        options.and_then(|any| HttpProtocolOptions::decode(any.value.as_slice()).ok()).unwrap_or_default();
    options.upstream_protocol_options.get_or_insert_with(|| {
        let protocol_config = Some(ProtocolConfig::Http2ProtocolOptions(Default::default()));
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })
    });
    message.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack_any(options));
}

fn v3(source: &mut core::ConfigSource) {
    source.resource_api_version = core::ApiVersion::V3.into();
}

fn socket_match(
    name: &str,
    tls_mode: Option<&str>,
    socket: TransportSocket,
) -> cds::cluster::TransportSocketMatch {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = tls_mode.map(|mode| ("tlsMode".to_owned(), text(mode))).into_iter().collect();
    cds::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(Struct { fields }),
        transport_socket: Some(socket),
    }
}

fn socket(name: &str, config: Any) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn plaintext_socket() -> TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", pack_any(RawBuffer::default()))
}

/// `own` is the Envoy's certificate of the mesh.
fn tls_socket(tls: &UpstreamTls, own: Option<&CertificateFiles>) -> TransportSocket {
    let file = |path: &str| {
        Some(DataSource {
            specifier: Some(data_source::Specifier::Filename(path.to_owned())),
            ..Default::default()
        })
    };
    let pair = match &tls.identity {
        Some(Identity::Provider(_)) => own.map(|own| (own.chain.as_str(), own.key.as_str())),
        Some(Identity::Files(files)) => Some((&*files.certificate, &*files.key)),
        Some(Identity::Secret(_)) | None => None,
    };
    let root = match &tls.roots {
        Roots::Provider(_) => own.map(|own| own.root.as_str()),
        Roots::File(path) => Some(&**path),
        Roots::System | Roots::Secret(_) => None,
    };
    // In the mesh a name is a SPIFFE id; outside of it, whatever the certificate has.
    let mesh = matches!(tls.roots, Roots::Provider(_));
    let kinds: &[SanType] = if mesh {
        &[SanType::Uri]
    } else {
        &[SanType::Dns, SanType::Uri, SanType::Email, SanType::IpAddress]
    };
    // The compiler writes exact names only; anything else becomes a name that nobody has, for without
    // names an Envoy would accept everybody.
    let names = tls.sans.iter().flat_map(|san| {
        let name = match &san.name.pattern {
            StringPattern::Exact(name) => name.as_ref().to_owned(),
            _ => "(not an exact name)".to_owned(),
        };
        let matcher =
            matcher::StringMatcher { match_pattern: Some(MatchPattern::Exact(name)), ..Default::default() };
        kinds.iter().map(move |kind| SubjectAltNameMatcher {
            san_type: (*kind).into(),
            matcher: Some(matcher.clone()),
            ..Default::default()
        })
    });
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: pair
                .map(|(chain, key)| TlsCertificate {
                    certificate_chain: file(chain),
                    private_key: file(key),
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            validation_context_type: Some(ValidationContextType::ValidationContext(
                CertificateValidationContext {
                    // Without it an Envoy would verify nobody: then it has none that can be read.
                    trusted_ca: file(root.unwrap_or("")),
                    match_typed_subject_alt_names: names.collect(),
                    crl: tls.crl.as_ref().and_then(|crl| file(&crl.path)),
                    only_verify_leaf_cert_crl: tls.crl.as_ref().is_some_and(|crl| crl.only_leaf),
                    ..Default::default()
                },
            )),
            alpn_protocols: vec!["h2".to_owned()],
            ..Default::default()
        }),
        sni: tls.sni.as_deref().unwrap_or_default().to_owned(),
        ..Default::default()
    };
    socket(TLS_SOCKET, pack_any(context))
}
