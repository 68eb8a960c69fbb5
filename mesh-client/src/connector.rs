//! How streams of bytes to endpoints are opened: TCP unless the program says otherwise.
//!
//! ```no_run
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::SocketAddr;
//! use tokio::net::UnixStream;
//!
//! // Endpoints of this mesh listen on Unix sockets that are named after their ports.
//! let mesh = mesh_client::Mesh::builder()
//!     .connector(|address: SocketAddr| UnixStream::connect(format!("/run/mesh/{}", address.port())))
//!     .build()?;
//! # drop(mesh);
//! # Ok(())
//! # }
//! ```
//!
//! What a connector opens is carried on as if TCP had opened it: the mesh makes the TLS handshake over it where the
//! configuration demands one, and believes no peer that cannot prove its identity, then speaks HTTP/2. A connector
//! chooses the way to a peer; it cannot choose the peer. What a configuration wants before TLS comes over the stream as
//! well: the way through an HTTP CONNECT proxy (gRFC A86), and the header of the PROXY protocol.

pub use crate::endpoint::io::{BoxIo, Io};

use mesh_xds::resource::cluster::TcpKeepalive;
use std::{any::Any, fmt, future::Future, io, net::SocketAddr, pin::Pin};
use tokio::net::{TcpSocket, TcpStream};

/// Where a stream is to lead.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Destination<'a> {
    /// One of the addresses of an endpoint, as the control plane or DNS has it. If an endpoint has several, a
    /// connector is asked for one after the other, the next one before an earlier one has failed (gRFC A61).
    /// Of an endpoint behind an HTTP CONNECT proxy (gRFC A86) it is the proxy's address.
    pub address: SocketAddr,
    /// The endpoint's host name, where the control plane sends one and the stream leads to the endpoint itself.
    pub hostname: Option<&'a str>,
    /// The endpoint's address, where [`Self::address`] is the HTTP CONNECT proxy's: the mesh asks the proxy for the way.
    pub proxy_to: Option<SocketAddr>,
    /// TCP keepalive, where the cluster's configuration switches it on.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// A stream that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send + 'a>>;

/// A stream that was opened.
pub struct Stream {
    io: BoxIo,
    local_address: Option<SocketAddr>,
}

impl Stream {
    /// These bytes. A [`TcpStream`] has its local address; of anything else it is not known.
    pub fn new(io: impl Io + 'static) -> Self {
        let tcp = (&io as &dyn Any).downcast_ref::<TcpStream>();
        let local_address = tcp.and_then(|tcp| tcp.local_addr().ok());
        Self { io: Box::new(io), local_address }
    }

    /// The same, from this address of the client: what a server is told by the PROXY protocol, where the cluster asks
    /// for it. Without one the server is told that the connection is LOCAL (version 2) or UNKNOWN (version 1), and goes
    /// by what it sees.
    pub fn with_local_address(self, address: SocketAddr) -> Self {
        Self { local_address: Some(address), ..self }
    }

    pub(crate) fn into_parts(self) -> (BoxIo, Option<SocketAddr>) {
        (self.io, self.local_address)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("local_address", &self.local_address).finish_non_exhaustive()
    }
}

/// Opens streams of bytes to endpoints. Implemented by [`Tcp`], and by every function from an address to a future
/// of a stream: `|address: SocketAddr| async move { … }`.
///
/// The cluster's `connect_timeout` (5 s unless the control plane says otherwise: `mesh-server` says 10 s, as Istio does)
/// is for this, the way through a proxy, TLS and HTTP/2 together; the future is dropped when it is over, or when another address of the endpoint was faster. An error is
/// named in the status of calls (`10.1.2.3:9080: connection refused`) and followed by another attempt after the
/// back-off. A stream may hold written bytes back until it is flushed, which happens whenever there is nothing more
/// to write.
pub trait Connect: Send + Sync + 'static {
    /// Opens one. Called inside the runtime that the mesh was built in.
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a>;
}

impl<F, Opening, IO> Connect for F
where
    F: Fn(SocketAddr) -> Opening + Send + Sync + 'static,
    Opening: Future<Output = io::Result<IO>> + Send + 'static,
    IO: Io + 'static,
{
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        let opening = self(to.address);
        Box::pin(async move { Ok(Stream::new(opening.await?)) })
    }
}

/// TCP, without delay (Nagle's algorithm is off), with the cluster's keepalive. Numbers that the operating system does not
/// take fail the connection (Linux takes up to 127 probes, and times up to 32,767 s).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move { Ok(Stream::new(open(to).await?)) })
    }
}

async fn open(to: Destination<'_>) -> io::Result<TcpStream> {
    let socket = if to.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(keepalive) = to.tcp_keepalive {
        keep_alive(&socket, keepalive).map_err(|error| {
            io::Error::new(error.kind(), format!("tcp_keepalive of the cluster, {keepalive:?}: {error}"))
        })?;
    }
    socket.connect(to.address).await
}

/// What is absent stays the operating system's.
fn keep_alive(socket: &TcpSocket, TcpKeepalive { probes, time, interval }: TcpKeepalive) -> io::Result<()> {
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = time {
        options = options.with_time(time);
    }
    if let Some(interval) = interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = probes {
        options = options.with_retries(probes);
    }
    socket2::SockRef::from(socket).set_tcp_keepalive(&options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::time::Duration;
    use tokio::net::TcpListener;

    fn to(address: SocketAddr, tcp_keepalive: Option<TcpKeepalive>) -> Destination<'static> {
        Destination { address, hostname: None, proxy_to: None, tcp_keepalive }
    }

    #[tokio::test]
    async fn a_tcp_stream_knows_where_it_comes_from_and_another_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let local = tcp.local_addr().unwrap();
        assert_eq!(Stream::new(tcp).into_parts().1, Some(local));
        let memory = || Stream::new(tokio::io::empty());
        assert_eq!(memory().into_parts().1, None);
        assert_eq!(memory().with_local_address(local).into_parts().1, Some(local));
    }

    #[tokio::test]
    async fn a_sockets_keepalive_is_what_the_cluster_configures() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let opened = async |tcp_keepalive| open(to(address, tcp_keepalive)).await;
        let options = |stream: &TcpStream| {
            let socket = SockRef::from(stream);
            let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            (socket.keepalive().unwrap(), socket.tcp_keepalive_retries().unwrap(), times.0, times.1)
        };
        let (off, probes, time, interval) = options(&opened(None).await.unwrap());
        assert!(!off);
        let (on, ..) = options(&opened(Some(TcpKeepalive::default())).await.unwrap());
        assert!(on);

        let (asked, often) = (Duration::from_secs(61), Duration::from_secs(7));
        let keepalive = TcpKeepalive { probes: Some(3), time: Some(asked), interval: Some(often) };
        assert_eq!(options(&opened(Some(keepalive)).await.unwrap()), (true, 3, asked, often));
        let only = TcpKeepalive { time: Some(asked), ..TcpKeepalive::default() };
        assert_eq!(options(&opened(Some(only)).await.unwrap()), (true, probes, asked, interval));
        let only = TcpKeepalive { probes: Some(4), ..TcpKeepalive::default() };
        assert_eq!(options(&opened(Some(only)).await.unwrap()), (true, 4, time, interval));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn numbers_that_the_system_does_not_take_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp_keepalive = Some(TcpKeepalive { probes: Some(200), ..TcpKeepalive::default() });
        let error = open(to(address, tcp_keepalive)).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains("tcp_keepalive") && error.contains("probes: Some(200)"), "{error}");
    }
}
