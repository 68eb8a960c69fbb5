//! Dialling: a stream of bytes, what [`super::way`] begins it with, TLS where it is demanded, HTTP/2, until the peer's
//! SETTINGS arrive.
//!
//! Promises: the whole takes at most `connect_timeout`; addresses are raced as [`super::eyeballs`] says, each
//! failure named; missing TLS material fails the dial, it never falls back to plaintext.

use super::{
    TlsConfigs,
    conn::Line,
    driver::{Driver, Keepalive},
    eyeballs,
    io::{BoxIo, Seen, Watched, cause},
    way::Way,
};
use crate::connector::Connect;
use arc_swap::ArcSwap;
use http::uri::Scheme;
use mesh_xds::{
    config::ClusterSecrets,
    resource::{cluster::ConnectionOptions, tls::UpstreamTls},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// gRPC servers allow a ping every 5 minutes unless told otherwise; ours are only sent while calls are open and
/// nothing arrives, and back off when a server complains (gRFC A8). Without them, a peer that vanished without
/// a FIN would swallow calls until the kernel gives up, 15 minutes later.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Flow-control windows unless the cluster says others: enough for 10 Gbit/s at 1 ms, fixed, because measuring them costs a ping per burst.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
/// Until the peer says how many streams it takes: what the specification recommends it to take at least.
const FIRST_STREAMS: usize = 100;
/// Of response headers.
const HEADER_LIST: u32 = 16 << 10;
/// How far short messages that nobody has read yet may fall short of 256 bytes each, together: h2 ends a connection
/// beyond that, since each costs it about that much, whatever its length. Its own default is reached by a reader that is
/// 10,000 messages behind, which would cost all other calls of the connection; by this one at 65,000.
const SHORT_FRAMES: usize = 16 << 20;

/// How to reach an endpoint.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) hostname: Option<Arc<str>>,
    pub(crate) way: Way,
    /// `None`: plaintext.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
    pub(crate) options: ConnectionOptions,
    /// The keepalive interval is multiplied by it: the peer complained of pings.
    pub(crate) patience: u32,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) tls_configs: Arc<dyn TlsConfigs>,
    /// Read for each connection, so that one that is made after a rotation is made with the new ones.
    pub(crate) secrets: LiveSecrets,
}

/// What the secrets of a cluster are now. A connection that is up keeps those that it was made with.
pub(crate) type LiveSecrets = Arc<ArcSwap<ClusterSecrets>>;

/// A connection that is up.
pub(crate) struct Dialled {
    pub(crate) line: Arc<Line>,
    /// Must be polled for requests to be sent.
    pub(crate) driver: Driver,
    pub(crate) scheme: Scheme,
    pub(crate) reconnect_before: Option<Instant>,
}

/// A stream of bytes to a peer.
struct Opened {
    io: BoxIo,
    scheme: Scheme,
    reconnect_before: Option<Instant>,
}

impl Dialler {
    /// Dials until a connection is up, the addresses are exhausted or the time is; the error says which
    /// address failed and why.
    pub(crate) async fn dial(self) -> Result<Dialled, String> {
        self.reach(|address| self.dial_address(address)).await
    }

    /// As [`Self::dial`], without HTTP/2: a stream of bytes, TLS below it where it is demanded.
    pub(crate) async fn open(self) -> Result<BoxIo, String> {
        self.reach(async |address| Ok(self.open_address(address).await?.io)).await
    }

    async fn reach<T, F>(&self, dial: impl Fn(SocketAddr) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>>,
    {
        let timeout = self.options.connect_timeout;
        let mut failures = String::new();
        let all = async {
            if let Some(tls) = &self.tls {
                self.tls_configs.settled(tls).await;
            }
            eyeballs::race(&self.addresses, &mut failures, dial).await
        };
        match tokio::time::timeout(timeout, all).await {
            Ok(Some(up)) => Ok(up),
            Ok(None) => Err(failures),
            Err(_) => {
                let comma = if failures.is_empty() { "" } else { ", " };
                let first = self.addresses.first().map(ToString::to_string).unwrap_or_default();
                let through = self.way.through();
                Err(format!("{failures}{comma}{first}: not connected within {timeout:?}{through}"))
            }
        }
    }

    async fn open_address(&self, address: SocketAddr) -> Result<Opened, String> {
        let tcp_keepalive = self.options.tcp_keepalive;
        let hostname = self.hostname.as_deref();
        let io = self.way.open(&*self.connect, address, hostname, tcp_keepalive).await?;
        Ok(match &self.tls {
            None => Opened { io, scheme: Scheme::HTTP, reconnect_before: None },
            Some(tls) => {
                let tls = self.tls_configs.client_tls(tls, &self.secrets.load(), hostname)?;
                let connector = tokio_rustls::TlsConnector::from(tls.config);
                let handshake = connector.connect(tls.server_name, io).await;
                let stream = handshake.map_err(|error| format!("TLS handshake: {}", cause(&error)))?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("TLS handshake: the peer did not agree to HTTP/2 (ALPN h2)".to_owned());
                }
                let io: BoxIo = Box::new(stream);
                Opened { io, scheme: Scheme::HTTPS, reconnect_before: tls.reconnect_before }
            }
        })
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<Dialled, String> {
        let Opened { io, scheme, reconnect_before } = self.open_address(address).await?;
        let (io, seen) = Watched::new(io);
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(self.options.initial_stream_window.unwrap_or(STREAM_WINDOW))
            .initial_connection_window_size(
                self.options.initial_connection_window.unwrap_or(CONNECTION_WINDOW),
            )
            .initial_max_send_streams(FIRST_STREAMS)
            .max_header_list_size(HEADER_LIST)
            .data_frame_budget(SHORT_FRAMES)
            .enable_push(false);
        let handshake = builder.handshake(io).await;
        let (sender, mut h2) = handshake.map_err(|error| explain(&error, &seen))?;
        let keepalive = h2.ping_pong().map(|pings| self.keepalive(pings));
        let line = Line::new(sender);
        let mut driver = Driver::new(h2, seen, Arc::clone(&line), keepalive);
        driver.settle().await?;
        Ok(Dialled { line, driver, scheme, reconnect_before })
    }

    fn keepalive(&self, pings: h2::PingPong) -> Keepalive {
        let (interval, timeout) = match self.options.http2_keepalive {
            Some(keepalive) => (keepalive.interval, keepalive.timeout),
            None => (KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT),
        };
        let interval = interval.saturating_mul(self.patience.max(1));
        // What was configured is for dead peers in general; the default only for calls that wait.
        Keepalive::new(pings, interval, timeout, self.options.http2_keepalive.is_some())
    }
}

/// An error of a connection with its causes, the IO error that was seen first.
pub(crate) fn explain(error: &h2::Error, seen: &Seen) -> String {
    if let Some(cause) = seen.error() {
        return cause.to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
