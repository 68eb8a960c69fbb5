//! A control plane's CA port: tonic over TLS, telling the service who the peer is.

use mesh_ca::{
    issuer::{CertificateService, PeerInfo},
    rustls::{ClientAuth, default_provider, peer_identity, server_config},
    workload::WorkloadIdentity,
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Server, server::Connected};

/// A running server; dropping it closes its port and its connections.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends the server and waits until its port is free.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

/// Serves at `address` (port 0: any), in plaintext or as `identity`.
pub(crate) async fn serve(
    service: CertificateService,
    identity: Option<&WorkloadIdentity>,
    address: SocketAddr,
) -> Running {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = identity.map(|identity| {
        let config = server_config(identity, ClientAuth::Optional, &[b"h2"], default_provider()).unwrap();
        TlsAcceptor::from(config)
    });
    let (accepted, incoming) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((tcp, peer)) = listener.accept().await {
            if let Ok(stream) = greet(tcp, peer, tls.as_ref()).await
                && accepted.send(Ok::<_, io::Error>(stream)).await.is_err()
            {
                return;
            }
        }
    });
    tasks.spawn(async move {
        let server = Server::builder().add_service(service.into_server());
        server.serve_with_incoming(ReceiverStream::new(incoming)).await.unwrap();
    });
    Running { address, tasks }
}

async fn greet(tcp: TcpStream, peer: SocketAddr, tls: Option<&TlsAcceptor>) -> io::Result<Stream> {
    let address = Some(peer);
    let Some(tls) = tls else {
        return Ok(Stream { io: Box::new(tcp), peer: PeerInfo { certificate: None, address } });
    };
    let stream = tls.accept(tcp).await?;
    let certificate = peer_identity(stream.get_ref().1);
    Ok(Stream { io: Box::new(stream), peer: PeerInfo { certificate, address } })
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Stream {
    io: Box<dyn Io>,
    peer: PeerInfo,
}

impl Connected for Stream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
