//! Connections to endpoints.

use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Options of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// Until TCP, the way through a proxy, and TLS are up. Default 5 s in Envoy; Istio sends 10 s.
    pub connect_timeout: Duration,
    /// Then a connection is replaced; 0 is unlimited.
    pub max_requests_per_connection: u32,
    /// A connection without calls is closed after this; absent: 1 h; zero: never.
    pub idle_timeout: Option<Duration>,
    /// A connection is replaced after this.
    pub max_connection_duration: Option<Duration>,
    /// HTTP/2 PING.
    pub http2_keepalive: Option<Http2Keepalive>,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Streams on one connection at most; absent: what the server says.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 flow control of a stream, in bytes, 65,535..=2^31-1; absent: the data path's choice.
    pub initial_stream_window: Option<u32>,
    /// HTTP/2 flow control of a connection, in bytes, 65,535..=2^31-1; absent: the data path's choice.
    pub initial_connection_window: Option<u32>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            max_requests_per_connection: 0,
            idle_timeout: None,
            max_connection_duration: None,
            http2_keepalive: None,
            tcp_keepalive: None,
            max_concurrent_streams: None,
            initial_stream_window: None,
            initial_connection_window: None,
        }
    }
}

/// HTTP/2 PING frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Between pings.
    pub interval: Duration,
    /// Until the answer.
    pub timeout: Duration,
}

/// Options of the socket; absent ones are the operating system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes that end the connection; not zero.
    pub probes: Option<u32>,
    /// Silence before the first probe, in whole seconds.
    pub time: Option<Duration>,
    /// Between probes, in whole seconds.
    pub interval: Option<Duration>,
}

/// `Http11ProxyUpstreamTransport`: an endpoint that names a proxy is reached through it (gRFC A86).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpConnect {
    /// The proxy of endpoints that name none; absent: those are dialled directly.
    pub default_proxy: Option<SocketAddr>,
}

/// `ProxyProtocolUpstreamTransport`: a connection begins, before TLS, with a header that says from where to where it is
/// (the PROXY protocol, <https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2 {
        /// `added_tlvs`, together at most [`Tlv::MOST`] bytes.
        tlvs: Arc<[Tlv]>,
    },
}

/// What else a header of version 2 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// `PP2_TYPE_…`
    pub kind: u8,
    /// Not empty.
    pub value: Arc<[u8]>,
}

impl Tlv {
    /// Of all that a header holds together: it has a length of 16 bits, of which addresses need 36 at most.
    pub const MOST: usize = 0xffff - 36;

    /// As it stands in a header, in bytes: its kind, its length and its value.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        3 + self.value.len()
    }
}
