//! Accepting connections: plaintext or TLS, told apart by their first byte, each handshake on its own.
//!
//! What it promises: nobody is served before the configuration is known; a client that is slow or silent in
//! its handshake, or after it with HTTP/2's preface, is cut off in time, and holds up others only where a
//! thousand of them shake hands at once; every refusal is counted, and logged with the peer and the reason;
//! an error of `accept` never ends the stream. A refused connection is closed without an explanation to the
//! peer. Connections that speak HTTP/2 are not limited in number, nor closed for being idle: that is up to
//! the settings of tonic's server (`http2_keepalive_interval`).

use super::{
    Owner,
    connection::{PeerIdentity, Security},
    filter_chain::{Arrival, Chain},
    io::{MeshIo, Stream as Transport},
    state::{Serving, Shared},
};
use futures_core::Stream;
use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_rustls::TlsAcceptor;

/// Longest time from a connection's arrival to the end of its handshake, waiting for configuration
/// included.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Most handshakes at once; further connections wait in the kernel's queue.
const MOST_HANDSHAKES: usize = 1024;
/// After an `accept` that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// The connections of a [`super::MeshServer`], for tonic's `serve_with_incoming_shutdown`. Ends when the
/// server has drained; the listening socket closes when this is dropped.
pub struct Incoming {
    listener: Option<TcpListener>,
    owner: Arc<Owner>,
    drained: Pin<Box<dyn Future<Output = ()> + Send>>,
    handshakes: JoinSet<Option<MeshIo>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(super) fn new(
        listener: Option<TcpListener>,
        owner: Arc<Owner>,
        drained: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { listener, owner, drained: Box::pin(drained), handshakes: JoinSet::new(), pause: None }
    }

    /// Starts the handshakes of the connections that have come, as far as may be.
    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        let Some(listener) = &self.listener else { return };
        while self.handshakes.len() < MOST_HANDSHAKES {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, remote))) => {
                    self.handshakes.spawn(welcome(stream, remote, self.owner.shared.clone()));
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(local = %self.owner.local, %error, "a connection could not be accepted");
                    // The peer's own failure concerns nobody else; anything else may well last.
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) {
                        self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                    }
                }
            }
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<MeshIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.listener.is_none() {
            return Poll::Ready(None);
        }
        if this.drained.as_mut().poll(cx).is_ready() {
            this.listener = None;
            this.handshakes.abort_all();
            return Poll::Ready(None);
        }
        loop {
            this.poll_accept(cx);
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(io)))) => return Poll::Ready(Some(Ok(io))),
                // Refused, and said so; there may be room for another handshake now.
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({}, {} handshakes)", self.owner.local, self.handshakes.len())
    }
}

/// Why a connection is not served.
enum Refusal {
    /// It ended before it said anything: a port scan, a health check.
    Silent,
    Because(String),
}

impl<T: fmt::Display> From<T> for Refusal {
    fn from(reason: T) -> Self {
        Self::Because(reason.to_string())
    }
}

/// From an accepted connection to one that may carry requests.
async fn welcome(stream: TcpStream, remote: SocketAddr, server: Arc<Shared>) -> Option<MeshIo> {
    match tokio::time::timeout(HANDSHAKE_LIMIT, shake_hands(stream, remote, &server)).await {
        Ok(Ok(io)) => return Some(io),
        Ok(Err(Refusal::Silent)) => tracing::debug!(%remote, "connection ended before it said anything"),
        Ok(Err(Refusal::Because(reason))) => server.refused(remote, &reason),
        Err(_) => server.refused(remote, &format_args!("its handshake took longer than {HANDSHAKE_LIMIT:?}")),
    }
    None
}

async fn shake_hands(stream: TcpStream, remote: SocketAddr, server: &Arc<Shared>) -> Result<MeshIo, Refusal> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let mut serving = server.watch_serving();
    let known = |serving: &Serving| !matches!(serving, Serving::Waiting);
    if let Serving::Not(reason) = &*serving.wait_for(known).await? {
        return Err(Refusal::Because(reason.to_string()));
    }
    // Peeked, not read: whoever comes next needs the byte.
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(Refusal::Silent);
    }
    let tls = first == [TLS_HANDSHAKE];
    // The configuration of now, not of when the connection came.
    let chain = serving.borrow().chain(Arrival::new(local, remote, tls))?.clone();
    let (transport, security, expires) = secure(stream, tls, &chain).await?;
    let (connection, registered) = server.admit(remote, local, security, expires)?;
    Ok(MeshIo::new(transport, connection, registered))
}

/// Gives the connection the protection that its chain asks for; and until when its peer is who it proved to
/// be.
async fn secure(
    stream: TcpStream,
    tls: bool,
    chain: &Chain,
) -> Result<(Transport, Security, Option<Instant>), Refusal> {
    let wanted = match (&chain.tls, tls) {
        (None, false) => return Ok((Transport::Plain(stream), Security::Plaintext, None)),
        (None, true) => return Err("it speaks TLS, and its filter chain is plaintext".into()),
        (Some(_), false) => return Err("it is plaintext, and its filter chain requires TLS".into()),
        (Some(wanted), true) => wanted,
    };
    let config = wanted.config.clone()?;
    let own = wanted.providers.ready(&wanted.context.identity)?;
    let stream = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| format!("its TLS handshake failed: {error}"))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"h2") {
        return Err("it did not agree to speak HTTP/2 (ALPN h2)".into());
    }
    let certificate = mesh_ca::rustls::peer_identity(session);
    if wanted.context.require_client_certificate && certificate.is_none() {
        return Err("it has no certificate that names it".into());
    }
    let expires = certificate.as_ref().and_then(|certificate| {
        let left = certificate.not_after.duration_since(own.clock().now()).unwrap_or_default();
        Instant::now().checked_add(left)
    });
    let context = wanted.context.clone();
    let security = Security::Tls { context, peer: certificate.map(PeerIdentity::verified) };
    Ok((Transport::Tls(Box::new(stream)), security, expires))
}
