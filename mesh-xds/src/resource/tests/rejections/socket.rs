//! What may be around TLS in a cluster's transport socket: the HTTP CONNECT proxy (gRFC A86), the PROXY protocol.

use super::*;
use crate::resource::cluster::{HttpConnect, ProxyProtocol, Tlv};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3 as pb,
            core::v3::{
                Address, ProxyProtocolConfig, SubstitutionFormatString, TlvEntry, TransportSocket,
                proxy_protocol_config::Version, transport_socket::ConfigType,
            },
        },
        extensions::transport_sockets::{
            http_11_proxy::v3::Http11ProxyUpstreamTransport as Proxy,
            proxy_protocol::v3::ProxyProtocolUpstreamTransport as Header, raw_buffer::v3::RawBuffer,
        },
    },
    google::protobuf::Any,
};

const TOP: &str = "transport_socket.typed_config";
const INNER: &str = "transport_socket.typed_config.transport_socket.typed_config";

fn socket(config: Any) -> Option<TransportSocket> {
    Some(TransportSocket { name: "any".into(), config_type: Some(ConfigType::TypedConfig(config)) })
}

fn of(message: &impl MessageName) -> Option<TransportSocket> {
    socket(model::wire::any(message))
}

fn proxy(transport_socket: Option<TransportSocket>) -> Proxy {
    Proxy { transport_socket, ..Proxy::default() }
}

fn header(config: ProxyProtocolConfig, transport_socket: Option<TransportSocket>) -> Header {
    Header { config: Some(config), transport_socket, ..Header::default() }
}

fn v2(added_tlvs: Vec<TlvEntry>) -> ProxyProtocolConfig {
    ProxyProtocolConfig { version: Version::V2.into(), added_tlvs, ..Default::default() }
}

fn tlv(kind: u32, value: &[u8]) -> TlvEntry {
    TlvEntry { r#type: kind, value: value.to_vec(), ..Default::default() }
}

fn plaintext() -> Option<TransportSocket> {
    of(&RawBuffer::default())
}

fn tls() -> Option<TransportSocket> {
    cluster::good().transport_socket
}

fn parse(transport_socket: Option<TransportSocket>) -> Result<Cluster, ParseError> {
    let message = pb::Cluster { transport_socket, ..cluster::good() };
    Cluster::parse(&message.encode_to_vec(), &context())
}

#[test]
fn wrappers_nest_with_the_proxy_outside_and_around_tls_or_nothing() {
    let (connect, secured) = (Some(HttpConnect::default()), true);
    let announced = Some(ProxyProtocol::V2 { tlvs: [].into() });
    for (socket, expected) in [
        (of(&proxy(None)), (connect, None, false)),
        (of(&proxy(plaintext())), (connect, None, false)),
        (of(&proxy(tls())), (connect, None, secured)),
        (of(&header(v2(vec![]), plaintext())), (None, announced.clone(), false)),
        (of(&header(v2(vec![]), tls())), (None, announced.clone(), secured)),
        (of(&proxy(of(&header(v2(vec![]), plaintext())))), (connect, announced.clone(), false)),
        (of(&proxy(of(&header(v2(vec![]), tls())))), (connect, announced, secured)),
        // As Envoy has it, nothing said is version 1.
        (
            of(&Header { transport_socket: plaintext(), ..Header::default() }),
            (None, Some(ProxyProtocol::V1), false),
        ),
    ] {
        let cluster = parse(socket).unwrap();
        assert_eq!((cluster.http_connect, cluster.proxy_protocol, cluster.tls.is_some()), expected);
    }
}

#[test]
fn tlvs_are_kept_in_order_up_to_what_a_header_holds() {
    let most = vec![0_u8; Tlv::MOST - 3 - 4];
    let entries = vec![tlv(0xe0, b"a"), tlv(255, &most)];
    let cluster = parse(of(&header(v2(entries), plaintext()))).unwrap();
    let tlvs = [Tlv { kind: 0xe0, value: (*b"a").into() }, Tlv { kind: 255, value: most.into() }];
    assert_eq!(cluster.proxy_protocol, Some(ProxyProtocol::V2 { tlvs: tlvs.into() }));
    // It can be sent on.
    let again = Cluster::parse(&cluster.to_proto(), &context()).unwrap();
    assert_eq!(again, cluster);
}

#[test]
fn a_faulty_wrapper_is_refused_with_the_place() {
    let garbled = |type_url| socket(Any { type_url, value: vec![0xff] });
    let at_config = |rest: &str| format!("{TOP}.config.{rest}");
    let nowhere = Proxy { default_proxy_address: Some(Address::default()), ..Proxy::default() };
    let format = TlvEntry { format_string: Some(SubstitutionFormatString::default()), ..tlv(1, b"a") };
    let v1 = |added_tlvs| ProxyProtocolConfig { added_tlvs, ..Default::default() };
    let v9 = ProxyProtocolConfig { version: 9, ..Default::default() };
    let tls_expected = "expected type.googleapis.com/envoy.extensions.transport_sockets.tls";
    let empty = Some(TransportSocket::default());
    for (socket, path, reason) in [
        (plaintext(), TOP.into(), tls_expected),
        (of(&proxy(of(&Proxy::default()))), INNER.into(), "is a proxy behind a proxy"),
        (of(&proxy(of(&Address::default()))), INNER.into(), tls_expected),
        (of(&proxy(empty.clone())), INNER.into(), "is required"),
        (of(&nowhere), format!("{TOP}.default_proxy_address"), "must be a socket_address"),
        (garbled(Proxy::type_url()), TOP.into(), "failed to decode"),
        (
            of(&header(v2(vec![]), of(&proxy(plaintext())))),
            INNER.into(),
            "put the PROXY protocol into the proxy's socket",
        ),
        (
            of(&header(v2(vec![]), of(&header(v2(vec![]), plaintext())))),
            INNER.into(),
            "is the PROXY protocol inside of the PROXY protocol",
        ),
        (of(&header(v2(vec![]), None)), format!("{TOP}.transport_socket"), "is required"),
        (of(&header(v2(vec![]), empty)), INNER.into(), "is required"),
        (of(&header(v2(vec![]), garbled(RawBuffer::type_url()))), INNER.into(), "failed to decode"),
        (garbled(Header::type_url()), TOP.into(), "failed to decode"),
        (of(&header(v9, plaintext())), at_config("version"), "9 is not a version"),
        (of(&header(v1(vec![tlv(1, b"a")]), plaintext())), at_config("added_tlvs"), "V1 has no TLVs"),
        (
            of(&header(v2(vec![tlv(1, b"a"), tlv(256, b"a")]), plaintext())),
            at_config("added_tlvs[1].type"),
            "256 must be less than 256",
        ),
        (
            of(&header(v2(vec![tlv(1, b"")]), plaintext())),
            at_config("added_tlvs[0].value"),
            "must not be empty",
        ),
        (
            of(&header(v2(vec![format]), plaintext())),
            at_config("added_tlvs[0].format_string"),
            "write a value",
        ),
        (
            of(&header(v2(vec![tlv(1, b"a"), tlv(1, &vec![0; Tlv::MOST - 3 - 3])]), plaintext())),
            at_config("added_tlvs"),
            "at most 65499 bytes together",
        ),
    ] {
        let error = parse(socket).expect_err(&format!("{path}: {reason}"));
        let found =
            error.rejected.faults.iter().any(|fault| fault.path == path && fault.reason.contains(reason));
        assert!(found, "{path}: {reason}: {error}");
    }
}

#[test]
fn a_data_path_without_it_refuses_a_wrapper_wherever_it_stands() {
    for (lacking, socket, path) in [
        (Feature::HttpConnect, of(&proxy(plaintext())), TOP),
        (Feature::ProxyProtocol, of(&header(v2(vec![]), plaintext())), TOP),
        (Feature::ProxyProtocol, of(&proxy(of(&header(v2(vec![]), plaintext())))), INNER),
    ] {
        let others: Vec<_> = Support::all().iter().filter(|feature| *feature != lacking).collect();
        let context = ParseContext { support: Support::of(&others), ..context() };
        let message = pb::Cluster { transport_socket: socket, ..cluster::good() };
        let error = Cluster::parse(&message.encode_to_vec(), &context).unwrap_err();
        let [fault] = &error.rejected.faults[..] else { panic!("{error}") };
        assert_eq!(fault.path, path);
        assert!(fault.reason.contains(lacking.name()), "{fault:?}");
    }
}
