//! A cluster's transport socket, to and from protobuf: what is around TLS, and TLS.
//!
//! Two wrappers are known. The HTTP CONNECT proxy (gRFC A86) is the outer one: first the proxy is asked for the way to
//! the endpoint, then the PROXY protocol tells the endpoint who comes, then TLS begins. The other way round the proxy
//! would be told instead of the endpoint; that is refused.

use super::tlv;
use crate::{
    field_path::{Faults, Path},
    resource::{
        Feature, ParseContext,
        cluster::{HttpConnect, ProxyProtocol},
        tls::{self, UpstreamTls},
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            ProxyProtocolConfig, TransportSocket, proxy_protocol_config::Version,
            transport_socket::ConfigType,
        },
        extensions::transport_sockets::{
            http_11_proxy::v3::Http11ProxyUpstreamTransport,
            proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer,
        },
    },
    google::protobuf::Any,
};
use prost::Name;

/// Names that Envoy wants the sockets to have.
const HTTP_CONNECT: &str = "envoy.transport_sockets.http_11_proxy";
const PROXY_PROTOCOL: &str = "envoy.transport_sockets.upstream_proxy_protocol";
const PLAINTEXT: &str = "envoy.transport_sockets.raw_buffer";

/// What stands in a cluster's transport socket.
#[derive(Default)]
pub(super) struct Socket {
    pub(super) tls: Option<UpstreamTls>,
    pub(super) http_connect: Option<HttpConnect>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

/// Where a socket stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Cluster,
    InHttpConnect,
    InProxyProtocol,
}

/// What every socket of a cluster needs to be read.
#[derive(Clone, Copy)]
struct Reader<'c> {
    auto_mtls: bool,
    context: &'c ParseContext,
}

pub(super) fn parse(
    socket: &TransportSocket,
    auto_mtls: bool,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Socket> {
    Reader { auto_mtls, context }.socket(socket, Place::Cluster, at, faults)
}

impl Reader<'_> {
    fn socket(
        self,
        socket: &TransportSocket,
        place: Place,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Socket> {
        let here = at.field("typed_config");
        let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
            return faults.reject(&here, "is required");
        };
        let is = |url: String| any.type_url == url;
        if is(Http11ProxyUpstreamTransport::type_url()) {
            match place {
                Place::Cluster => return self.http_connect(any, &here, faults),
                Place::InHttpConnect => return faults.reject(&here, "is a proxy behind a proxy"),
                Place::InProxyProtocol => {
                    let reason = "is not supported inside of the PROXY protocol: put the PROXY protocol into the \
                                  proxy's socket, so that the endpoint has it and not the proxy";
                    return faults.reject(&here, reason);
                }
            }
        }
        if is(ProxyProtocolUpstreamTransport::type_url()) {
            if place == Place::InProxyProtocol {
                return faults.reject(&here, "is the PROXY protocol inside of the PROXY protocol");
            }
            return self.proxy_protocol(any, &here, faults);
        }
        // In a wrapper Envoy wants plaintext to be said.
        if place != Place::Cluster && is(RawBuffer::type_url()) {
            let _: RawBuffer = wire::unpack(any, &here, faults)?;
            return Some(Socket::default());
        }
        let tls = tls::wire::upstream(socket, self.auto_mtls, self.context, at, faults)?;
        Some(Socket { tls: Some(tls), ..Socket::default() })
    }

    fn http_connect(self, any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Socket> {
        self.context.support.require(Feature::HttpConnect, at, faults)?;
        let proxy: Http11ProxyUpstreamTransport = wire::unpack(any, at, faults)?;
        let default_proxy = match &proxy.default_proxy_address {
            Some(_) => {
                let at = at.field("default_proxy_address");
                Some(wire::socket_address(&proxy.default_proxy_address, &at, faults)?)
            }
            None => None,
        };
        let inner = match &proxy.transport_socket {
            Some(inner) => self.socket(inner, Place::InHttpConnect, &at.field("transport_socket"), faults)?,
            None => Socket::default(),
        };
        Some(Socket { http_connect: Some(HttpConnect { default_proxy }), ..inner })
    }

    fn proxy_protocol(self, any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Socket> {
        self.context.support.require(Feature::ProxyProtocol, at, faults)?;
        let transport: ProxyProtocolUpstreamTransport = wire::unpack(any, at, faults)?;
        let config = transport.config.unwrap_or_default();
        let proxy_protocol = header(&config, &at.field("config"), faults);
        let inner_at = at.field("transport_socket");
        let inner = faults.required(&inner_at, &transport.transport_socket)?;
        let inner = self.socket(inner, Place::InProxyProtocol, &inner_at, faults)?;
        Some(Socket { proxy_protocol: Some(proxy_protocol?), ..inner })
    }
}

fn header(config: &ProxyProtocolConfig, at: &Path<'_>, faults: &mut Faults) -> Option<ProxyProtocol> {
    let list = at.field("added_tlvs");
    let tlvs = tlv::parse(&config.added_tlvs, &list, faults);
    match Version::try_from(config.version) {
        Ok(Version::V1) if !config.added_tlvs.is_empty() => {
            faults.reject(&list, "must be empty: version V1 has no TLVs, V2 has")
        }
        Ok(Version::V1) => Some(ProxyProtocol::V1),
        Ok(Version::V2) => Some(ProxyProtocol::V2 { tlvs: tlvs? }),
        Err(_) => faults.reject(&at.field("version"), format_args!("{} is not a version", config.version)),
    }
}

pub(super) fn encode(
    tls: Option<&UpstreamTls>,
    http_connect: Option<&HttpConnect>,
    proxy_protocol: Option<&ProxyProtocol>,
) -> Option<TransportSocket> {
    let mut socket = tls.map(tls::wire::upstream_proto);
    if let Some(header) = proxy_protocol {
        socket = Some(around(header, socket));
    }
    if let Some(HttpConnect { default_proxy }) = http_connect {
        let config = Http11ProxyUpstreamTransport {
            transport_socket: socket,
            default_proxy_address: default_proxy.map(wire::socket_address_proto),
        };
        socket = Some(named(HTTP_CONNECT, wire::any(&config)));
    }
    socket
}

/// The PROXY protocol around a socket.
fn around(header: &ProxyProtocol, inner: Option<TransportSocket>) -> TransportSocket {
    let (version, tlvs) = match header {
        ProxyProtocol::V1 => (Version::V1, [].as_slice()),
        ProxyProtocol::V2 { tlvs } => (Version::V2, &**tlvs),
    };
    let config = ProxyProtocolConfig {
        version: version.into(),
        added_tlvs: tlv::proto(tlvs),
        ..ProxyProtocolConfig::default()
    };
    let plaintext = || named(PLAINTEXT, wire::any(&RawBuffer::default()));
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(config),
        transport_socket: Some(inner.unwrap_or_else(plaintext)),
        ..ProxyProtocolUpstreamTransport::default()
    };
    named(PROXY_PROTOCOL, wire::any(&transport))
}

fn named(name: &str, config: Any) -> TransportSocket {
    TransportSocket { name: name.into(), config_type: Some(ConfigType::TypedConfig(config)) }
}
