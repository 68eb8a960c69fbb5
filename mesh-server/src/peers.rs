//! Connections: TCP, or TLS with an optional client certificate, and what is known of the other end.
//!
//! Nothing that a peer does not do keeps anybody else waiting. Handshakes run side by side, each within a time limit
//! that holds until the peer has said that it speaks HTTP/2. Connections have places ([`Places`]): so many, no more
//! than the system has files for, and no address can take them all, nor all that shake hands. One that there is no
//! place for is closed at once.
//! The server's certificate is read at each handshake: a rotation needs no restart.

use crate::publish::Peer;
use mesh_ca::{issuer::PeerInfo, rustls::peer_identity};
use mesh_xds::server::{Full, Place, Places};
use rustls::ServerConfig;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A peer has this long for its handshake, and for saying what it speaks.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: usize = 2048;
/// Wait after a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two warnings that connections are refused.
const WARNING: Duration = Duration::from_secs(60);
/// What every client of HTTP/2 says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections at once, where the system has files for them.
const CONNECTIONS: usize = 20_000;
/// Files that are for something else.
const OTHER_FILES: usize = 128;

/// How many connections may be open: as many as are wanted, if the system lets this process have a file for each.
pub(crate) fn most_connections(wanted: Option<usize>) -> usize {
    let files = std::fs::read_to_string("/proc/self/limits").ok().and_then(|limits| open_files(&limits));
    let most = files.map_or(usize::MAX, |files| files.saturating_sub(OTHER_FILES).max(16));
    let wanted_now = wanted.unwrap_or(CONNECTIONS);
    if most < wanted_now {
        tracing::warn!(
            "this process may have {} files open, so it takes {most} connections at once and not {wanted_now}; raise \
             the limit (`ulimit -n`)",
            files.unwrap_or_default()
        );
    }
    wanted_now.min(most)
}

/// The soft limit of files, of Linux's table of limits.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A port, and the connections that it takes.
pub(crate) struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Arc<Places>,
    handshakes: Arc<Places>,
    warned: Option<Instant>,
}

impl Door {
    /// In plaintext without a TLS configuration. Doors may share places.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>, places: Arc<Places>) -> Self {
        let tls = tls.map(TlsAcceptor::from);
        Self { listener, tls, places, handshakes: Places::new(HANDSHAKES), warned: None }
    }

    /// The next connection that there is a place for. Cancel safe.
    pub(crate) async fn accept(&mut self) -> Arrival {
        loop {
            let (tcp, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // Of one connection, or of the process (too many open files): others may come, but not at once.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match self.place(address) {
                Ok((place, handshake)) => {
                    return Arrival { tcp, address, tls: self.tls.clone(), place, handshake };
                }
                Err(full) => self.refused(address, full),
            }
        }
    }

    fn place(&self, address: SocketAddr) -> Result<(Place, Place), Full> {
        let peer = Peer { identity: None, address: Some(address), expires: None };
        let account = peer.account();
        Ok((self.places.take(&account)?, self.handshakes.take(&account)?))
    }

    /// Often, when it happens: so it is said seldom.
    fn refused(&mut self, address: SocketAddr, full: Full) {
        let now = Instant::now();
        if self.warned.is_some_and(|at| now < at + WARNING) {
            tracing::debug!(%address, ?full, "a connection was refused");
            return;
        }
        self.warned = Some(now);
        tracing::warn!(
            %address,
            reason = match full {
                Full::All => "all places for connections are taken",
                Full::Peer => "its address has too many of the places for connections",
            },
            "connections are refused"
        );
    }
}

/// A connection that has come.
pub(crate) struct Arrival {
    tcp: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: Place,
    handshake: Place,
}

impl Arrival {
    /// After its handshake, when it has begun to speak HTTP/2.
    pub(crate) async fn http2(self) -> io::Result<Connection> {
        let Self { tcp, address, tls, place, handshake } = self;
        let shaken = async {
            // Small messages must not wait for each other.
            tcp.set_nodelay(true)?;
            let Some(acceptor) = tls else { return Ok((Io::Plain(greeted(tcp).await?), None)) };
            let tls = greeted(acceptor.accept(tcp).await?).await?;
            let certificate = peer_identity(tls.get_ref().1);
            Ok((Io::Tls(Box::new(tls)), certificate))
        };
        let (io, certificate) = in_time(shaken, address).await?;
        drop(handshake);
        let peer = PeerInfo { certificate, address: Some(address) };
        Ok(Connection { io, peer, unread: PREFACE, _place: place })
    }

    /// As it is, in plaintext.
    pub(crate) fn plain(self) -> Connection {
        let peer = PeerInfo { certificate: None, address: Some(self.address) };
        Connection { io: Io::Plain(self.tcp), peer, unread: &[], _place: self.place }
    }
}

async fn in_time<T>(shaken: impl Future<Output = io::Result<T>>, address: SocketAddr) -> io::Result<T> {
    let slow = |_| {
        let text = format!("the handshake of {address} takes longer than {HANDSHAKE:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    timeout(HANDSHAKE, shaken).await.map_err(slow)?
}

/// A peer that has said that it speaks HTTP/2. What serves it has no time limit for that.
async fn greeted<T: AsyncRead + Unpin>(mut io: T) -> io::Result<T> {
    let mut said = [0; PREFACE.len()];
    io.read_exact(&mut said).await?;
    if said != *PREFACE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak HTTP/2"));
    }
    Ok(io)
}

/// Whether a connection is about to end because of its age: in the extensions of its requests. A client whose streams
/// end with it is there and comes again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grace(Arc<AtomicBool>);

impl Grace {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection that is open.
pub(crate) struct Connection {
    io: Io,
    pub(crate) peer: PeerInfo,
    /// What was read of it, and is still to be.
    unread: &'static [u8],
    _place: Place,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let (now, later) = self.unread.split_at(buf.remaining().min(self.unread.len()));
            buf.put_slice(now);
            self.unread = later;
            return Poll::Ready(Ok(()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_say_what_it_speaks_is_let_go_in_time() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let cases: [(&[u8], _); 4] = [
            (b"", Err(io::ErrorKind::TimedOut)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Err(io::ErrorKind::TimedOut)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Err(io::ErrorKind::InvalidData)),
            (PREFACE, Ok(())),
        ];
        for (said, expected) in cases {
            let (mut peer, io) = duplex(64);
            peer.write_all(said).await.unwrap();
            let begun = Instant::now();
            let outcome = in_time(greeted(io), address).await;
            let timed_out = expected == Err(io::ErrorKind::TimedOut);
            assert_eq!(outcome.map(drop).map_err(|error| error.kind()), expected, "{said:?}");
            assert_eq!(begun.elapsed(), if timed_out { HANDSHAKE } else { Duration::ZERO });
        }
    }

    async fn door(places: usize) -> (Door, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Door::new(listener, None, Places::new(places)), address)
    }

    #[tokio::test]
    async fn no_address_takes_all_places_and_one_that_is_left_is_free() {
        let (mut door, address) = door(4).await;
        let mut peers = Vec::new();
        let mut open = Vec::new();
        for _ in 0..3 {
            peers.push(TcpStream::connect(address).await.unwrap());
            open.push(door.accept().await.plain());
        }
        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut end = [0];
        tokio::select! {
            _ = door.accept() => panic!("it has three places of four"),
            read = refused.read(&mut end) => assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
        }
        let other = door.place(SocketAddr::from(([127, 0, 0, 2], 1)));
        assert!(other.is_ok(), "others get in");
        drop((open.pop(), other));
        let _peer = TcpStream::connect(address).await.unwrap();
        door.accept().await;
    }

    #[tokio::test]
    async fn what_was_said_first_is_read_again() {
        let (mut door, address) = door(4).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(PREFACE).await.unwrap();
        peer.write_all(b"more").await.unwrap();
        let mut connection = door.accept().await.http2().await.unwrap();
        let mut said = [0; 28];
        for part in said.chunks_mut(7) {
            connection.read_exact(part).await.unwrap();
        }
        assert_eq!(&said[24..], b"more");
        assert_eq!(&said[..24], PREFACE);
        assert_eq!(connection.peer.address, Some(peer.local_addr().unwrap()));
    }

    #[test]
    fn the_limit_of_files_is_the_soft_one() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(table), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            None
        );
        assert_eq!(open_files(""), None);
        assert!(most_connections(Some(3)) == 3);
    }
}
