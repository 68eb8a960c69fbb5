//! Connections: TCP, or TLS with an optional client certificate, and what is known of the other end.
//!
//! Handshakes run side by side and have a time limit, so a peer that does nothing keeps nobody waiting.
//! The server's certificate is read at each handshake: a rotation needs no restart.

use futures_util::Stream;
use mesh_ca::{issuer::PeerInfo, rustls::peer_identity};
use rustls::ServerConfig;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

/// A peer has this long for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait in the listener's backlog.
const HANDSHAKES: usize = 1024;
/// Wait after a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// An accepted connection.
pub(crate) struct Connection {
    io: Io,
    peer: PeerInfo,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// The connections of a listener, handshakes done.
pub(crate) struct Incoming {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<io::Result<Connection>>,
    /// After a failure to accept.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// In plaintext without a TLS configuration.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { listener, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new(), pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            while let Poll::Ready(Some(done)) = this.handshakes.poll_join_next(cx) {
                match done {
                    Ok(Ok(connection)) => return Poll::Ready(Some(Ok(connection))),
                    Ok(Err(error)) => tracing::debug!(%error, "a connection failed before it was one"),
                    Err(error) => tracing::error!(%error, "a handshake did not end well"),
                }
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            if this.handshakes.len() >= HANDSHAKES {
                return Poll::Pending;
            }
            let (tcp, address) = match ready!(this.listener.poll_accept(cx)) {
                Ok(accepted) => accepted,
                // Of one connection, or of the process (too many open files): others may come, but not at once.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    this.pause = Some(Box::pin(sleep(PAUSE)));
                    continue;
                }
            };
            // Small messages must not wait for each other.
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "no delay could not be set");
            }
            let mut peer = PeerInfo { certificate: None, address: Some(address) };
            let Some(acceptor) = this.tls.clone() else {
                return Poll::Ready(Some(Ok(Connection { io: Io::Plain(tcp), peer })));
            };
            this.handshakes.spawn(async move {
                let slow = |_| {
                    io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("TLS handshake with {address} takes too long"),
                    )
                };
                let tls = timeout(HANDSHAKE, acceptor.accept(tcp)).await.map_err(slow)??;
                peer.certificate = peer_identity(tls.get_ref().1);
                Ok(Connection { io: Io::Tls(Box::new(tls)), peer })
            });
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
