//! Connections to endpoints.

use std::{net::SocketAddr, time::Duration};

/// Options of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// Until TCP and TLS are up. Default 5 s in Envoy; Istio sends 10 s.
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
