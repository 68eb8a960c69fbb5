//! The server that is called: it answers with what it got. As a plain tonic server, and as a member of the
//! mesh; in this process, or in one of its own that ends when its standard input does.

use crate::{Outcome, stream::Streams, world};
use mesh_client::Mesh;
use mesh_examples::greeter::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use std::{net::SocketAddr, process::Stdio};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

struct Echo;

#[tonic::async_trait]
impl Greeter for Echo {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: request.into_inner().name }))
    }
}

/// Where the servers are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Without TLS and without the mesh.
    pub plain: SocketAddr,
    /// A member of the mesh, which insists on mTLS.
    pub tls: SocketAddr,
}

/// Serves both on the current runtime, until it ends.
pub async fn serve(control_plane: SocketAddr) -> Outcome<Addresses> {
    // At every address of the loopback network: so one server is many endpoints.
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let plain = SocketAddr::from(([127, 0, 0, 1], listener.local_addr()?.port()));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = Server::builder().add_service(GreeterServer::new(Echo)).add_service(Streams);
    tokio::spawn(router.serve_with_incoming(incoming));

    let mesh: Mesh = world::member(control_plane, world::SERVER)?;
    let server = mesh.server(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let tls = server.local_addr();
    tokio::spawn(async move {
        let router = Server::builder()
            .layer(server.layer())
            .add_service(GreeterServer::new(Echo))
            .add_service(Streams);
        let served = router.serve_with_incoming(server.incoming()).await;
        // The registration lives as long as this does.
        drop((server, mesh));
        served
    });
    Ok(Addresses { plain, tls })
}

/// The body of the server's own process: serves, says where, and ends with standard input.
pub async fn process(control_plane: SocketAddr) -> Outcome {
    let Addresses { plain, tls } = serve(control_plane).await?;
    println!("{plain} {tls}");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// A server in its own process; ends with this value.
#[derive(Debug)]
pub struct ServerProcess {
    child: std::process::Child,
    /// Where it serves.
    pub addresses: Addresses,
}

impl ServerProcess {
    /// Starts this program again, as a server with so many threads.
    pub fn start(control_plane: SocketAddr, threads: usize) -> Outcome<Self> {
        use std::io::{BufRead, BufReader};
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .args(["serve", &control_plane.to_string(), &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let (plain, tls) = line.trim().split_once(' ').ok_or("the server process did not start")?;
        Ok(Self { addresses: Addresses { plain: plain.parse()?, tls: tls.parse()? }, child })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has been told to end; an error would mean that it already has.
        let _ = self.child.wait();
    }
}
