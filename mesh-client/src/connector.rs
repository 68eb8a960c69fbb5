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
//! chooses the way to a peer; it cannot choose the peer.

pub use crate::endpoint::io::{BoxIo, Io};

use mesh_xds::resource::cluster::TcpKeepalive;
use std::{future::Future, io, net::SocketAddr, pin::Pin};
use tokio::net::TcpSocket;

/// Where a stream is to lead.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Destination<'a> {
    /// One of the addresses of an endpoint, as the control plane or DNS has it. If an endpoint has several, a
    /// connector is asked for one after the other, the next one before an earlier one has failed (gRFC A61).
    pub address: SocketAddr,
    /// The endpoint's host name, where the control plane sends one (gRFC A86).
    pub hostname: Option<&'a str>,
    /// TCP keepalive, where the cluster's configuration switches it on.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// A stream that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxIo>> + Send + 'a>>;

/// Opens streams of bytes to endpoints. Implemented by [`Tcp`], and by every function from an address to a future
/// of a stream: `|address: SocketAddr| async move { … }`.
///
/// The cluster's `connect_timeout` (5 s unless the control plane says otherwise: `mesh-server` says 10 s, as Istio does) is for this, TLS and HTTP/2
/// together; the future is dropped when it is over, or when another address of the endpoint was faster. An error is
/// named in the status of calls (`10.1.2.3:9080: connection refused`) and followed by another attempt after the
/// back-off. A stream may hold written bytes back until it is flushed, which happens whenever there is nothing more
/// to write.
pub trait Connect: Send + Sync + 'static {
    /// Opens one. Called inside the runtime that the mesh was built in.
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a>;
}

impl<F, Opening, Stream> Connect for F
where
    F: Fn(SocketAddr) -> Opening + Send + Sync + 'static,
    Opening: Future<Output = io::Result<Stream>> + Send + 'static,
    Stream: Io + 'static,
{
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        let opening = self(to.address);
        Box::pin(async move {
            let stream: BoxIo = Box::new(opening.await?);
            Ok(stream)
        })
    }
}

/// TCP, without delay (Nagle's algorithm is off). Of TCP keepalive only the switch can be set through tokio: the
/// times are the operating system's, and a cluster whose configuration asks for others is named once in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, to: Destination<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let socket = if to.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_nodelay(true)?;
            socket.set_keepalive(to.tcp_keepalive.is_some())?;
            let stream: BoxIo = Box::new(socket.connect(to.address).await?);
            Ok(stream)
        })
    }
}
