//! The arms: ways from a generated client to the server.

use crate::{
    Outcome,
    compare::Compared,
    hosts::{self, Hosts},
    raw::Raw,
    server::Addresses,
    stream::StreamsClient,
    window::{self, Kind, Length, Load, Window},
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
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
    transport::{Channel, Endpoint},
};

/// Until the configuration has come: the control plane is in this process, which callgrind makes fifty times slower.
const PATIENCE: Duration = Duration::from_secs(300);

const ONE_CALL: Load = Load { kind: Kind::Unary, callers: 1, payload: 0, length: Length::Calls(1) };

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
    /// The same, with a timeout.
    MeshTimeout,
    /// `MeshChannel`, Istio's default retry policy.
    MeshRetry,
    /// `MeshChannel`, a fault that next to no call draws.
    MeshFault,
    /// `MeshChannel`, a thousand other routes before the one that matches.
    MeshRoutes,
    /// `MeshChannel`, a thousand other virtual hosts before the one that matches.
    MeshHosts,
    /// `MeshChannel`, ten endpoints.
    Mesh10,
    /// `MeshChannel`, a thousand endpoints.
    Mesh1000,
    /// tonic's `Channel` over the mesh's TLS connector.
    Tls,
    /// The same again.
    TlsAgain,
    /// `MeshChannel` over mTLS.
    MeshTls,
}

impl Arm {
    /// All of them, in the order of the tables.
    pub const ALL: &[Self] = &[
        Self::Plain,
        Self::Again,
        Self::Raw,
        Self::Mesh,
        Self::MeshTimeout,
        Self::MeshRetry,
        Self::MeshFault,
        Self::MeshRoutes,
        Self::MeshHosts,
        Self::Mesh10,
        Self::Mesh1000,
        Self::Tls,
        Self::TlsAgain,
        Self::MeshTls,
    ];

    /// Those that are measured under load.
    pub const LOADED: &[Self] = &[
        Self::Plain,
        Self::Again,
        Self::Raw,
        Self::Mesh,
        Self::MeshRetry,
        Self::MeshFault,
        Self::Mesh10,
        Self::Mesh1000,
        Self::Tls,
        Self::TlsAgain,
        Self::MeshTls,
    ];

    /// Those of which long messages and streams tell something that short calls do not.
    pub const CARRYING: &[Self] = &[
        Self::Plain,
        Self::Again,
        Self::Raw,
        Self::Mesh,
        Self::MeshRetry,
        Self::Tls,
        Self::TlsAgain,
        Self::MeshTls,
    ];

    /// What a mesh arm calls.
    fn target(self) -> Option<&'static str> {
        Some(match self {
            Self::Plain | Self::Again | Self::Raw | Self::Tls | Self::TlsAgain => return None,
            Self::Mesh => "xds:///once:9080",
            Self::MeshTimeout => "xds:///timed:9080",
            Self::MeshRetry => "xds:///retried:9080",
            Self::MeshFault => "xds:///faulty:9080",
            Self::MeshRoutes => "xds:///routed:9080",
            Self::MeshHosts => hosts::TARGET,
            Self::Mesh10 => "xds:///ten:9080",
            Self::Mesh1000 => "xds:///thousand:9080",
            Self::MeshTls => "xds:///secure:9080",
        })
    }
}

impl Compared for Arm {
    fn label(self) -> &'static str {
        match self {
            Self::Plain => "tonic `Channel`",
            Self::Again => "tonic `Channel` again (A/A)",
            Self::Raw => "hyper `SendRequest`",
            Self::Mesh => "`MeshChannel`, one route",
            Self::MeshTimeout => "`MeshChannel`, timeout",
            Self::MeshRetry => "`MeshChannel`, default retries",
            Self::MeshFault => "`MeshChannel`, fault filter",
            Self::MeshRoutes => "`MeshChannel`, 1,000 routes",
            Self::MeshHosts => "`MeshChannel`, 1,000 virtual hosts",
            Self::Mesh10 => "`MeshChannel`, 10 endpoints",
            Self::Mesh1000 => "`MeshChannel`, 1,000 endpoints",
            Self::Tls => "tonic `Channel`, mTLS",
            Self::TlsAgain => "tonic `Channel`, mTLS again (A/A)",
            Self::MeshTls => "`MeshChannel`, mTLS",
        }
    }

    /// The same server, reached by tonic.
    fn base(self) -> Self {
        match self {
            Self::Tls | Self::TlsAgain | Self::MeshTls => Self::Tls,
            _ => Self::Plain,
        }
    }
}

/// The client of an arm.
#[derive(Clone, Debug)]
enum Client {
    Tonic(Channel),
    Raw(Raw, http::Uri),
    Mesh(MeshChannel),
}

impl Client {
    async fn run(&self, load: Load) -> Outcome<Window> {
        match self {
            Self::Tonic(channel) => run(channel.clone(), http::Uri::default(), load).await,
            Self::Raw(raw, origin) => run(raw.clone(), origin.clone(), load).await,
            Self::Mesh(channel) => run(channel.clone(), http::Uri::default(), load).await,
        }
    }
}

/// A window of calls through this transport.
pub async fn run<T>(transport: T, origin: http::Uri, load: Load) -> Outcome<Window>
where
    T: GrpcService<Body, Future: Send> + Clone + Send + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    match load.kind {
        Kind::Unary => window::run(GreeterClient::with_origin(transport, origin), load).await,
        Kind::Download => window::run(StreamsClient::new(transport, origin), load).await,
    }
}

/// Arms, connected.
#[derive(Debug)]
pub struct Arms {
    clients: Vec<(Arm, Client)>,
    mesh: Mesh,
    /// Where [`Arm::MeshHosts`] belongs to.
    hosts: Option<Hosts>,
}

impl Arms {
    /// Connects these arms, each with connections of its own.
    pub async fn connect(arms: &[Arm], control_plane: SocketAddr, servers: Addresses) -> Outcome<Self> {
        let (mesh, identity) = world::client(control_plane)?;
        let mut connected = Self { clients: Vec::new(), mesh, hosts: None };
        for &arm in arms {
            let client = match arm.target() {
                Some(target) if arm == Arm::MeshHosts => {
                    let hosts = connected.hosts.insert(Hosts::start(servers.plain).await?);
                    Client::Mesh(hosts.mesh.channel(target)?)
                }
                Some(target) => Client::Mesh(connected.mesh.channel(target)?),
                None if arm == Arm::Raw => {
                    let origin = format!("http://{}", servers.plain).parse()?;
                    Client::Raw(Raw::connect(servers.plain).await?, origin)
                }
                None if arm.base() == Arm::Tls => {
                    let check = ServerCheck::trust_domain(world::trust_domain()?);
                    let trust = ServerTrust::Mesh(identity.clone(), check);
                    let target = Target::tls(&servers.tls.to_string(), trust, Some(&identity))?;
                    Client::Tonic(connect(&target))
                }
                None => {
                    let endpoint = Endpoint::from_shared(format!("http://{}", servers.plain))?;
                    Client::Tonic(endpoint.connect().await?)
                }
            };
            ready(&client).await.map_err(|error| format!("{}: {error}", arm.label()))?;
            connected.clients.push((arm, client));
        }
        connected.all_ready().await?;
        Ok(connected)
    }

    /// Waits until every endpoint of every cluster is connected.
    async fn all_ready(&self) -> Outcome {
        let begun = Instant::now();
        loop {
            let waiting =
                self.mesh.status().clusters.values().any(|cluster| cluster.ready < cluster.endpoints);
            if !waiting {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err("not every endpoint was connected in time".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One window of an arm.
    pub async fn run(&self, arm: Arm, load: Load) -> Outcome<Window> {
        self.client(arm)?.run(load).await
    }

    /// Sends so many messages of so many bytes in one call; how many bytes arrived.
    pub async fn upload(&self, arm: Arm, bytes: usize, messages: usize) -> Outcome<usize> {
        let message = HelloRequest { name: "x".repeat(bytes) };
        let none = http::Uri::default();
        Ok(match self.client(arm)?.clone() {
            Client::Tonic(channel) => StreamsClient::new(channel, none).upload(message, messages).await?,
            Client::Raw(raw, origin) => StreamsClient::new(raw, origin).upload(message, messages).await?,
            Client::Mesh(channel) => StreamsClient::new(channel, none).upload(message, messages).await?,
        })
    }

    fn client(&self, arm: Arm) -> Outcome<&Client> {
        let client = self.clients.iter().find(|(of, _)| *of == arm).map(|(_, client)| client);
        Ok(client.ok_or("no such arm")?)
    }
}

/// Calls until a call succeeds.
async fn ready(client: &Client) -> Outcome {
    let begun = Instant::now();
    loop {
        match client.run(ONE_CALL).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
