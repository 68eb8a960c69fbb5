//! The arms: ways from a generated client to the server.

use crate::{
    Outcome,
    raw::Raw,
    server::Addresses,
    window::{self, Call, Load, Window},
    world,
};
use mesh_ca::{
    channel::{Target, connect},
    rustls::ServerTrust,
    verifier::ServerCheck,
};
use mesh_client::{Mesh, MeshChannel};
use mesh_examples::greeter::{HelloRequest, greeter_client::GreeterClient};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint};

/// Until the configuration has come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One way to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// tonic's `Channel`.
    Plain,
    /// The same again.
    Again,
    /// hyper's HTTP/2 connection.
    Raw,
    /// `MeshChannel`, one route without a retry policy.
    Mesh,
    /// `MeshChannel`, Istio's default retry policy.
    MeshRetry,
    /// tonic's `Channel` over the mesh's TLS connector.
    Tls,
    /// `MeshChannel` over mTLS.
    MeshTls,
}

impl Arm {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] =
        [Self::Plain, Self::Again, Self::Raw, Self::Mesh, Self::MeshRetry, Self::Tls, Self::MeshTls];

    /// What the tables call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Plain => "tonic `Channel`",
            Self::Again => "tonic `Channel` again (A/A)",
            Self::Raw => "hyper `SendRequest`",
            Self::Mesh => "`MeshChannel`, one route",
            Self::MeshRetry => "`MeshChannel`, default retries",
            Self::Tls => "tonic `Channel`, mTLS",
            Self::MeshTls => "`MeshChannel`, mTLS",
        }
    }

    /// The arm that it is compared with: the same server, reached by tonic.
    pub fn base(self) -> Self {
        match self {
            Self::Tls | Self::MeshTls => Self::Tls,
            _ => Self::Plain,
        }
    }
}

/// The client of an arm.
#[derive(Clone, Debug)]
enum Client {
    Tonic(GreeterClient<Channel>),
    Raw(GreeterClient<Raw>),
    Mesh(GreeterClient<MeshChannel>),
}

impl Client {
    async fn run(&self, load: Load) -> Outcome<Window> {
        match self {
            Self::Tonic(client) => window::run(client.clone(), load).await,
            Self::Raw(client) => window::run(client.clone(), load).await,
            Self::Mesh(client) => window::run(client.clone(), load).await,
        }
    }

    async fn ready(&self) -> Outcome {
        match self {
            Self::Tonic(client) => ready(client.clone()).await,
            Self::Raw(client) => ready(client.clone()).await,
            Self::Mesh(client) => ready(client.clone()).await,
        }
    }
}

/// Every arm, connected.
#[derive(Debug)]
pub struct Arms {
    clients: Vec<(Arm, Client)>,
    _mesh: Mesh,
}

impl Arms {
    /// Connects every arm, each with a connection of its own.
    pub async fn connect(control_plane: SocketAddr, servers: Addresses) -> Outcome<Self> {
        let (mesh, identity) = world::client(control_plane)?;
        let mut clients = Vec::new();
        for arm in Arm::ALL {
            let client = match arm {
                Arm::Plain | Arm::Again => {
                    let endpoint = Endpoint::from_shared(format!("http://{}", servers.plain))?;
                    Client::Tonic(GreeterClient::new(endpoint.connect().await?))
                }
                Arm::Raw => {
                    let origin = format!("http://{}", servers.plain).parse()?;
                    Client::Raw(GreeterClient::with_origin(Raw::connect(servers.plain).await?, origin))
                }
                Arm::Tls => {
                    let check = ServerCheck::trust_domain(world::trust_domain()?);
                    let trust = ServerTrust::Mesh(identity.clone(), check);
                    let target = Target::tls(&servers.tls.to_string(), trust, Some(&identity))?;
                    Client::Tonic(GreeterClient::new(connect(&target)))
                }
                Arm::Mesh => Client::Mesh(GreeterClient::new(mesh.channel(world::ONCE)?)),
                Arm::MeshRetry => Client::Mesh(GreeterClient::new(mesh.channel(world::RETRIED)?)),
                Arm::MeshTls => Client::Mesh(GreeterClient::new(mesh.channel(world::SECURE)?)),
            };
            client.ready().await.map_err(|error| format!("{}: {error}", arm.label()))?;
            clients.push((arm, client));
        }
        Ok(Self { clients, _mesh: mesh })
    }

    /// One window of an arm.
    pub async fn run(&self, arm: Arm, load: Load) -> Outcome<Window> {
        let client = self.clients.iter().find(|(of, _)| *of == arm).map(|(_, client)| client);
        client.ok_or("no such arm")?.run(load).await
    }
}

/// Calls until a call succeeds.
async fn ready(mut client: impl Call) -> Outcome {
    let begun = Instant::now();
    loop {
        match client.call(HelloRequest::default()).await {
            Ok(()) => return Ok(()),
            Err(status) if begun.elapsed() > PATIENCE => return Err(status.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
