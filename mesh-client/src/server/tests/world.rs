//! A mesh server with a tonic service behind it, clients of several kinds, and the hand that changes its
//! configuration: real sockets, real TLS.

pub(super) use crate::testing::{authority, id, identity};
use crate::{
    registration::WorkloadInfo,
    server::{ControlPlane, MeshServer, PeerIdentity, ServerBuilder, ServerStatus, Surroundings},
    testing::held::Rest,
    tls::Providers,
};
use futures_util::{StreamExt, future::BoxFuture};
use mesh_ca::{
    channel::{self, Target},
    issuer::Authority,
    rustls::ServerTrust,
    spiffe_id::SpiffeId,
    verifier::ServerCheck,
    workload::WorkloadIdentity,
};
use mesh_xds::{
    config::{ServerXdsConfig, XdsError, XdsErrorCause},
    matcher::{DomainPattern, PathMatcher, StringMatcher, StringPattern},
    name::ResourceType,
    resource::{
        filter::{FilterConfig, HttpFilter},
        listener::{
            FilterChain, FilterChainMatch, HttpConnectionManager, Listener, ListenerKind, RouteSource,
            ServerListener, TransportProtocol,
        },
        rbac::{Permission, Policy, Principal, Rbac, RbacAction, Rules},
        route::{HeaderMutations, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost},
        tls::DownstreamTls,
    },
};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, task::Poll};
use tokio::{sync::watch, task::JoinHandle};
use tokio_stream::wrappers::WatchStream;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
    transport::{Channel, Server},
};
use tonic_prost::ProstCodec;

pub(super) const SAY: &str = "/test.Echo/Say";
pub(super) const STREAM: &str = "/test.Echo/Stream";
/// A server under test; ends when dropped, and serves no request by then.
pub(super) struct World {
    pub(super) authority: Arc<Authority>,
    pub(super) server: MeshServer,
    pub(super) config: watch::Sender<Option<Result<Arc<ServerXdsConfig>, XdsError>>>,
    /// Lets the streams of [`STREAM`] end.
    pub(super) release: watch::Sender<bool>,
    pub(super) serve: JoinHandle<Result<(), tonic::transport::Error>>,
    _rest: Rest,
}

type Configs = watch::Receiver<Option<Result<Arc<ServerXdsConfig>, XdsError>>>;

pub(super) async fn surroundings(authority: &Arc<Authority>, configs: Configs) -> Surroundings {
    let own = identity(authority, "reviews").await;
    let configs = WatchStream::new(configs).filter_map(std::future::ready);
    Surroundings {
        listener: Box::new(move |address| Some((format!("inbound/{address}").into(), configs.boxed()))),
        providers: Arc::new(Providers::new([("default".into(), own)])),
        control_planes: Vec::new(),
        info: WorkloadInfo::default(),
        kept: None,
    }
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(super) async fn start_with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::start_at(&[], change).await
    }

    /// A server that registers with the control planes at these addresses.
    pub(super) async fn start_at(
        control_planes: &[&str],
        change: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let authority = authority();
        let (config, watch) = watch::channel(None);
        let mut surroundings = surroundings(&authority, watch).await;
        let control_planes = control_planes.iter().map(|address| {
            let target = Target::plaintext(address).unwrap();
            let connect = Box::new(move || Ok(channel::connect(&target)));
            ControlPlane { connect, address: (*address).to_owned() }
        });
        surroundings.control_planes = control_planes.collect();
        let builder = ServerBuilder::new(surroundings, "127.0.0.1:0".parse().unwrap());
        let server = change(builder).await.unwrap();
        let mut world = Self::around(authority, server);
        world.config = config;
        world
    }

    /// The service behind a server that is configured in another way.
    pub(super) fn around(authority: Arc<Authority>, server: MeshServer) -> Self {
        let release = watch::Sender::new(false);
        let echo = Echo { release: release.subscribe() };
        let serve = Server::builder()
            .layer(server.layer())
            .add_service(echo)
            .serve_with_incoming_shutdown(server.incoming(), server.drained());
        let config = watch::Sender::new(None);
        Self { authority, server, config, release, serve: tokio::spawn(serve), _rest: Rest::default() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Configures the server, and waits until it is so.
    pub(super) async fn configure(&self, chains: Vec<FilterChain>) {
        let listener = ServerListener {
            address: self.address().ip(),
            port: self.address().port(),
            filter_chains: chains,
            default_filter_chain: None,
        };
        self.publish(Ok(ListenerKind::Server(listener))).await;
    }

    pub(super) async fn publish(&self, kind: Result<ListenerKind, &str>) {
        let name = self.server.status().listener;
        let mut served = self.server.owner.shared.watch_serving();
        served.mark_unchanged();
        self.config.send_replace(Some(match kind {
            Ok(kind) => {
                let listener = Arc::new(Listener { name, kind });
                Ok(Arc::new(ServerXdsConfig { listener, routes: BTreeMap::new(), version: "1".into() }))
            }
            Err(why) => Err(XdsError {
                resource_type: ResourceType::Listener,
                name,
                cause: XdsErrorCause::DoesNotExist(why.into()),
                server: "127.0.0.1:15012".into(),
                node: "a test".into(),
            }),
        }));
        served.changed().await.unwrap();
    }

    /// A client of the mesh, with the identity of that service account.
    pub(super) async fn client(&self, account: &str) -> Channel {
        self.client_of(&self.authority, account).await
    }

    /// A client whose certificate another authority has signed. It trusts the server's all the same.
    pub(super) async fn client_of(&self, signer: &Arc<Authority>, account: &str) -> Channel {
        let identity = identity(signer, account).await;
        self.tls(Some(&identity))
    }

    /// A client that speaks TLS and has no certificate.
    pub(super) fn anonymous(&self) -> Channel {
        self.tls(None)
    }

    pub(super) fn tls(&self, identity: Option<&WorkloadIdentity>) -> Channel {
        let check = ServerCheck::exact(SpiffeId::parse(&id("reviews")).unwrap());
        let trust = ServerTrust::Bundles(self.authority.bundles(), check);
        channel::connect(&Target::tls(&self.address().to_string(), trust, identity).unwrap())
    }

    pub(super) fn plaintext(&self) -> Channel {
        channel::connect(&Target::plaintext(&self.address().to_string()).unwrap())
    }

    pub(super) fn status(&self) -> ServerStatus {
        self.server.status()
    }

    /// Waits until the status is so.
    pub(super) async fn until(&self, done: impl Fn(&ServerStatus) -> bool) {
        let mut open = self.server.owner.shared.watch_open();
        while !done(&self.status()) {
            open.changed().await.unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

/// Calls [`SAY`] and returns its answer: who the server believes the caller to be. A call that was never
/// sent, because the connection was about to end, is made again, as by every gRPC client.
pub(super) async fn say(channel: &Channel) -> Result<String, Status> {
    match call(channel, SAY, |_| {}).await {
        Err(status) if unsent(&status) => call(channel, SAY, |_| {}).await,
        answer => answer,
    }
}

fn unsent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

pub(super) async fn call(
    channel: &Channel,
    path: &str,
    change: impl FnOnce(&mut Request<String>),
) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(String::new());
    change(&mut request);
    let codec = ProstCodec::<String, String>::default();
    client.unary(request, path.parse().unwrap(), codec).await.map(Response::into_inner)
}

/// Opens [`STREAM`] and reads its first message.
pub(super) async fn stream(channel: &Channel) -> Result<tonic::Streaming<String>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<String, String>::default();
    let request = Request::new(String::new());
    let mut stream = client
        .server_streaming(request, http::uri::PathAndQuery::from_static(STREAM), codec)
        .await?
        .into_inner();
    assert_eq!(stream.message().await?.as_deref(), Some("first"));
    Ok(stream)
}

pub(super) fn code<T>(result: Result<T, Status>) -> Code {
    result.err().map_or(Code::Ok, |status| status.code())
}

/// `test.Echo`: `Say` answers who called; `Stream` sends one message, and another once released.
#[derive(Clone)]
struct Echo {
    release: watch::Receiver<bool>,
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl tower_service::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let release = self.release.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, String>::default());
            Ok(match request.uri().path() {
                SAY => grpc.unary(tower::service_fn(who), request).await,
                STREAM => {
                    let two = move |_: Request<String>| two(release.clone());
                    grpc.server_streaming(tower::service_fn(two), request).await
                }
                _ => Status::unimplemented("the test has no such method").into_http(),
            })
        })
    }
}

async fn who(request: Request<String>) -> Result<Response<String>, Status> {
    assert!(request.remote_addr().is_some());
    let peer = request.extensions().get::<PeerIdentity>();
    let mut answer = peer.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    for name in ["x-mesh-peer", "x-forwarded-client-cert"] {
        if request.metadata().contains_key(name) {
            answer.push_str(" spoofed");
        }
    }
    let incoming = crate::context::Incoming::current().unwrap_or_default();
    if incoming.deadline.is_some() {
        answer.push_str(" in a hurry");
    }
    if incoming.retry {
        answer.push_str(" again");
    }
    Ok(Response::new(answer))
}

type Two = std::pin::Pin<Box<dyn futures_core::Stream<Item = Result<String, Status>> + Send>>;

async fn two(release: watch::Receiver<bool>) -> Result<Response<Two>, Status> {
    let last = |mut release: watch::Receiver<bool>| async move {
        let _ = release.wait_for(|released| *released).await;
        Ok("last".to_owned())
    };
    let first = futures_util::stream::iter([Ok("first".to_owned())]);
    Ok(Response::new(Box::pin(first.chain(futures_util::stream::once(last(release))))))
}

/// A chain that lets everything pass which these filters let pass.
pub(super) fn chain(
    transport: TransportProtocol,
    tls: Option<DownstreamTls>,
    filters: Vec<Rules>,
) -> FilterChain {
    let route = Route {
        name: "all".into(),
        matches: RouteMatch {
            path: PathMatcher::Prefix { value: "/".into(), ignore_case: false },
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
        },
        action: RouteAction::NonForwarding,
        overrides: Default::default(),
        headers: HeaderMutations::default(),
        origin: None,
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec![DomainPattern::Any],
        routes: vec![Arc::new(route)],
        retry: None,
        hedge: None,
        overrides: Default::default(),
        headers: HeaderMutations::default(),
    };
    let routes = RouteConfiguration::new("inline".into(), vec![Arc::new(host)]);
    let filter = |name: String, config| HttpFilter { name: name.into(), config, disabled: false };
    let rbac =
        |(i, rules)| filter(format!("rbac-{i}"), FilterConfig::Rbac(Arc::new(Rbac { rules: Some(rules) })));
    let mut filters: Vec<HttpFilter> = filters.into_iter().enumerate().map(rbac).collect();
    filters.push(filter("router".into(), FilterConfig::Router));
    FilterChain {
        name: "a test's".into(),
        matches: FilterChainMatch { transport, ..FilterChainMatch::default() },
        tls,
        http: HttpConnectionManager {
            routes: RouteSource::Inline(Arc::new(routes)),
            filters,
            max_stream_duration: None,
        },
    }
}

/// TLS with the identity of the mesh.
pub(super) fn mutual(required: bool) -> Option<DownstreamTls> {
    Some(DownstreamTls {
        identity: "default".into(),
        client_roots: Some("default".into()),
        require_client_certificate: required,
    })
}

/// Istio's STRICT.
pub(super) fn strict(filters: Vec<Rules>) -> Vec<FilterChain> {
    vec![chain(TransportProtocol::Any, mutual(true), filters)]
}

/// Istio's PERMISSIVE.
pub(super) fn permissive(filters: Vec<Rules>) -> Vec<FilterChain> {
    vec![
        chain(TransportProtocol::Tls, mutual(true), filters.clone()),
        chain(TransportProtocol::RawBuffer, None, filters),
    ]
}

/// Istio's DISABLE.
pub(super) fn disabled(filters: Vec<Rules>) -> Vec<FilterChain> {
    vec![chain(TransportProtocol::Any, None, filters)]
}

pub(super) fn rules(action: RbacAction, principals: Vec<Principal>) -> Rules {
    let policy = Policy { permissions: vec![Permission::Any], principals };
    Rules {
        action,
        policies: BTreeMap::from([("ns[default]-policy[test]-rule[0]".into(), policy)]),
        audit: None,
    }
}

pub(super) fn account(account: &str) -> Principal {
    let pattern = StringPattern::Exact(id(account).into());
    Principal::Authenticated(Some(StringMatcher { pattern, ignore_case: false }))
}
