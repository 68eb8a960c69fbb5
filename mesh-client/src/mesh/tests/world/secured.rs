//! A server that speaks TLS, in front of one that does not.

use crate::connector::{Connect, Connecting, Destination, Stream};
use mesh_ca::rustls::peer_identity;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional, duplex},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// Leads what comes over `io` to a server.
pub(crate) async fn lead(mut io: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr) {
    let mut tcp = TcpStream::connect(server).await.unwrap();
    // Either end may go first.
    let _ = copy_bidirectional(&mut io, &mut tcp).await;
}

/// Leads every stream to a server that speaks TLS.
#[derive(Clone)]
pub(crate) struct Secured {
    acceptor: TlsAcceptor,
    server: SocketAddr,
    /// The SPIFFE ids of the clients that show one, a connection each.
    clients: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Secured {
    pub(crate) fn new(config: Arc<rustls::ServerConfig>, server: SocketAddr) -> Self {
        let (clients, connections) = (Arc::default(), Arc::default());
        Self { acceptor: TlsAcceptor::from(config), server, clients, connections }
    }

    pub(crate) fn clients(&self) -> Vec<String> {
        self.clients.lock().unwrap().clone()
    }

    /// Every connection breaks.
    pub(crate) fn hang_up(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Connect for Secured {
    fn connect<'a>(&'a self, _: Destination<'a>) -> Connecting<'a> {
        Box::pin(async {
            let (ours, theirs) = duplex(1 << 16);
            let this = self.clone();
            let serving = tokio::spawn(async move {
                // A client that refuses this server ends the handshake.
                let Ok(stream) = this.acceptor.accept(theirs).await else { return };
                let tls = stream.get_ref().1;
                if tls.peer_certificates().is_some() {
                    let client = peer_identity(tls).unwrap();
                    this.clients.lock().unwrap().push(client.spiffe_id.unwrap().to_string());
                }
                lead(stream, this.server).await;
            });
            self.connections.lock().unwrap().push(serving.abort_handle());
            Ok(Stream::new(ours))
        })
    }
}
