//! The stack over clusters that do as they are told, in paused time.

mod affinity;
mod cluster_header;
mod deadlines;
mod faults;
mod hashing;
mod hedging;
mod hedging_a6;
mod mirrors;
mod retries;
mod routing;
mod throttling;

use super::{ActiveFaults, CallSettings, Core, Outcome, WaitForReady};
use crate::{
    body::CallBody,
    call::{Started, Upstream},
    cluster::{AttemptContext, AttemptError, AttemptErrorKind},
    context::Incoming,
    retry::{
        head::Head,
        hedging::{HedgingPolicies, HedgingPolicy},
        replay::{Budget, Kept},
        spare::{Sent, Spare},
        throttle::Throttling,
    },
    snapshot::State,
    table::{
        RouteTable,
        named::Named,
        testing::{config, forward, http, retry_policy, route},
    },
    testing::held::{Rest, watch},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_xds::{
    config::{XdsConfig, XdsError, XdsErrorCause},
    matcher::{Fraction, PathMatcher},
    name::ResourceType,
    resource::{
        retry::{RetryOn, RetryPolicy},
        route::{Forward, RoutingPriority},
    },
};
use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

const UNAVAILABLE: Act = Act::Code(Code::Unavailable, Duration::ZERO);
/// Of what is kept without a policy.
const SPARES: usize = 1 << 20;
const OK: Act = Act::Code(Code::Ok, Duration::ZERO);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a fake cluster does with an attempt.
#[derive(Clone, Debug)]
enum Act {
    /// Answers with this code, without messages, after this long.
    Code(Code, Duration),
    /// As above, with this header.
    With(Code, &'static str, &'static str),
    /// Answers with a message, then trailers after this long.
    Stream(Duration),
    /// Answers with a message, then this status.
    Ends(Code),
    /// Answers with messages without end, each at once.
    Flood,
    /// Fails.
    Fail(AttemptErrorKind),
    /// The same, while somebody still reads the request.
    Abandons(AttemptErrorKind),
    /// The same, and hands the request back.
    Unsent(AttemptErrorKind),
    /// Never answers.
    Hang,
    /// The same, and reads nothing either.
    Deaf,
}

/// What a fake cluster saw.
#[derive(Clone, Debug)]
struct Seen {
    cluster: String,
    at: Duration,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
    hash: Option<u64>,
    /// The last endpoint that the call has tried.
    tried: Option<SocketAddr>,
}

/// All the clusters of a test.
struct World {
    began: Instant,
    script: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    permits: Arc<AtomicU32>,
    /// Permits that are out.
    retries: Arc<AtomicU32>,
    /// Attempts whose response body is alive, and deaf ones.
    open: Arc<AtomicU32>,
    /// For what is kept without a policy.
    spares: Arc<Budget>,
}

struct Fake {
    name: String,
    world: Arc<World>,
}

struct Permit(Arc<AtomicU32>, #[expect(dead_code, reason = "dropping it is its use")] Guard);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl crate::call::Late for Body {
    fn late(self) -> String {
        String::new()
    }
}

impl crate::call::Place for Body {
    fn endpoint(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, 1], 80)))
    }
}

impl Upstream for Fake {
    type Body = Body;
    type RetryPermit = Permit;

    type Exchange = Pin<Box<dyn Future<Output = Result<Response<Body>, AttemptError>> + Send>>;

    fn begin(&self, request: Request<CallBody>, context: &mut AttemptContext) -> Started<Self::Exchange> {
        let (cluster, world) = (self.name.clone(), self.world.clone());
        let (deadline, hash, tried) = (context.deadline, context.hash, context.tried.last());
        if cluster.starts_with("late") && tried.is_none() {
            return Started::Later(request);
        }
        Started::Sent(Box::pin(async move {
            let at = Instant::now() - world.began;
            let (parts, body) = request.into_parts();
            if world.turns_deaf() {
                world.open.fetch_add(1, SeqCst);
                let _open = Guard(world.open.clone());
                return std::future::pending().await;
            }
            if let Some(kind) = world.abandons() {
                tokio::spawn(body.collect());
                return Err(error(kind));
            }
            let head = matches!(body, CallBody::Tonic(_))
                .then(|| Head::of(&parts.method, &parts.uri, &parts.headers));
            let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
                return Err(error(AttemptErrorKind::RequestBody));
            };
            let uri = parts.uri.to_string();
            let seen = Seen { cluster, at, uri, headers: parts.headers, body: body.clone(), hash, tried };
            world.seen.lock().unwrap().push(seen);
            let act = world.script.lock().unwrap().pop_front();
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let mut result = tokio::select! {
                result = world.act(act) => result,
                () = late => Err(error(AttemptErrorKind::DeadlineExceeded)),
            };
            if let (Err(error), Some(head)) = (&mut result, head) {
                let mut kept = Kept::default();
                kept.push(body);
                let spare = Spare::new(Box::new(head), Sent::Whole(kept), &world.spares);
                error.spare = spare.filter(|_| error.kind.is_unprocessed()).map(Box::new);
            }
            result
        }))
    }

    /// Of clusters whose names begin with `late`, a call's first attempt waits for 10 ms.
    async fn begin_later(
        &self,
        request: Request<CallBody>,
        context: &mut AttemptContext,
    ) -> Result<Self::Exchange, AttemptError> {
        tokio::time::sleep(ms(10)).await;
        context.tried.push(SocketAddr::from(([10, 0, 0, 1], 80)));
        let Started::Sent(exchange) = self.begin(request, context) else { panic!("it waits once") };
        Ok(exchange)
    }

    fn retry_permit(&self, _: RoutingPriority) -> Option<Permit> {
        let permits = &self.world.permits;
        permits.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).ok()?;
        Some(Permit(permits.clone(), Guard::of(&self.world.retries)))
    }

    fn wants_hash(&self) -> bool {
        self.name.starts_with("ring")
    }
}

impl World {
    /// Whether the next attempt is one that reads nothing.
    fn turns_deaf(&self) -> bool {
        let mut script = self.script.lock().unwrap();
        let deaf = matches!(script.front(), Some(Act::Deaf));
        if deaf {
            script.pop_front();
        }
        deaf
    }

    /// How the next attempt fails, of one that does while its request is read.
    fn abandons(&self) -> Option<AttemptErrorKind> {
        let mut script = self.script.lock().unwrap();
        let Some(Act::Abandons(kind)) = script.front() else { return None };
        let kind = *kind;
        script.pop_front();
        Some(kind)
    }

    async fn act(&self, act: Option<Act>) -> Result<Response<Body>, AttemptError> {
        match act.unwrap_or(Act::Code(Code::Ok, Duration::ZERO)) {
            Act::Code(code, after) => {
                tokio::time::sleep(after).await;
                Ok(Status::new(code, "said the server").into_http())
            }
            Act::With(code, name, value) => {
                let mut response = Status::new(code, "said the server").into_http();
                response.headers_mut().insert(name, HeaderValue::from_static(value));
                Ok(response)
            }
            Act::Stream(after) => {
                let open = Guard::of(&self.open);
                let frames = futures_util::stream::unfold((0, open), move |(step, open)| async move {
                    let frame = match step {
                        0 => Frame::data(Bytes::from_static(b"hello")),
                        1 => {
                            tokio::time::sleep(after).await;
                            Frame::trailers(HeaderMap::new())
                        }
                        _ => return None,
                    };
                    Some((Ok::<_, Status>(frame), (step + 1, open)))
                });
                Ok(Response::new(Body::new(StreamBody::new(frames))))
            }
            Act::Ends(code) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from(i32::from(code)));
                let frames = [Frame::data(Bytes::from_static(b"hello")), Frame::trailers(trailers)];
                let frames = frames.map(Ok::<_, Status>);
                Ok(Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames)))))
            }
            Act::Flood => {
                let frames = futures_util::stream::repeat_with(|| {
                    Ok::<_, Status>(Frame::data(Bytes::from_static(b"more")))
                });
                Ok(Response::new(Body::new(StreamBody::new(frames))))
            }
            Act::Fail(kind) => Err(error(kind)),
            Act::Unsent(kind) => {
                let back = Request::new(CallBody::Tonic(Body::empty()));
                Err(AttemptError { request: Some(Box::new(back)), ..error(kind) })
            }
            Act::Hang | Act::Deaf => std::future::pending().await,
            Act::Abandons(kind) => panic!("{kind:?} comes before the request is read"),
        }
    }
}

struct Guard(Arc<AtomicU32>);

impl Guard {
    fn of(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn error(kind: AttemptErrorKind) -> AttemptError {
    let status = match kind {
        AttemptErrorKind::DeadlineExceeded => Status::deadline_exceeded("cluster c: no response"),
        kind => Status::unavailable(format!("cluster c: {kind:?}")),
    };
    AttemptError { status, kind, request: None, spare: None }
}

/// Clusters whose names begin with `c` are known, of others the control plane says that there are none, and of those that
/// begin with `?` nothing.
fn named(world: &Arc<World>) -> Arc<Named<Fake>> {
    let world = world.clone();
    Named::new(Box::new(move |name| {
        let found = match name.as_bytes().first() {
            Some(b'c') => Some(Ok(Arc::new(Fake { name: name.to_string(), world: world.clone() }))),
            Some(b'?') => None,
            _ => Some(Err("the control plane knows none".into())),
        };
        futures_util::stream::iter(found).chain(futures_util::stream::pending()).boxed()
    }))
}

/// A target over fake clusters. When it is dropped, its calls have given back what they held.
struct Mesh {
    _rest: Rest,
    core: Arc<Core<Fake>>,
    world: Arc<World>,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // No gauge of its own: tests change the core, which must have one owner then.
        let copies = self.core.mirrors.under_way();
        assert!(std::thread::panicking() || copies == 0, "{copies} copies have not ended");
    }
}

impl Mesh {
    fn new(config: &XdsConfig, script: impl IntoIterator<Item = Act>) -> Self {
        let mesh = Self::pending(script);
        mesh.publish(config);
        mesh
    }

    fn pending(script: impl IntoIterator<Item = Act>) -> Self {
        Self::with(None, None, script)
    }

    /// Retries are throttled.
    fn throttled(config: &XdsConfig, throttling: Throttling, script: impl IntoIterator<Item = Act>) -> Self {
        let mesh = Self::with(Some(throttling), None, script);
        mesh.publish(config);
        mesh
    }

    /// The program hedges calls of these methods.
    fn hedging(
        config: &XdsConfig,
        throttling: Option<Throttling>,
        policies: &[(&str, HedgingPolicy)],
        script: impl IntoIterator<Item = Act>,
    ) -> Self {
        let mut read = HedgingPolicies::default();
        for (methods, policy) in policies {
            read.add(methods, policy).unwrap();
        }
        let mesh = Self::with(throttling, Some(Arc::new(read)), script);
        mesh.publish(config);
        mesh
    }

    fn with(
        throttling: Option<Throttling>,
        hedging: Option<Arc<HedgingPolicies>>,
        script: impl IntoIterator<Item = Act>,
    ) -> Self {
        let world = Arc::new(World {
            began: Instant::now(),
            script: Mutex::new(script.into_iter().collect()),
            seen: Mutex::default(),
            permits: Arc::new(AtomicU32::new(3)),
            retries: Arc::default(),
            open: Arc::default(),
            spares: Budget::new(SPARES),
        });
        watch(&world, |world| {
            [
                ("retries", world.retries.load(SeqCst).into()),
                ("open responses", world.open.load(SeqCst).into()),
                ("bytes of requests without a policy", (SPARES - world.spares.left()) as u64),
            ]
        });
        let settings = CallSettings {
            wait_for_ready: false,
            propagate_deadlines: true,
            retry_at_every_hop: false,
            throttling,
            hedging,
            faults: ActiveFaults::new(),
            address: "10.0.0.7".into(),
        };
        let core = Arc::new(Core::new("reviews:9080".parse().unwrap(), settings, 1, named(&world)));
        Self { _rest: Rest::default(), core, world }
    }

    fn publish(&self, config: &XdsConfig) {
        let table = RouteTable::build(config, |cluster| {
            Arc::new(Fake { name: cluster.cluster.name.to_string(), world: self.world.clone() })
        });
        self.core.snapshot.set_config(Arc::new(config.clone()));
        self.core.snapshot.publish(State::Table(table));
    }

    fn fail(&self, cause: XdsErrorCause) {
        self.core.snapshot.publish(State::Failed(XdsError {
            resource_type: ResourceType::Listener,
            name: "reviews:9080".into(),
            cause,
            server: "127.0.0.1:15010".into(),
            node: "me".into(),
        }));
    }

    /// A call's response, read to its end: code, message, and how long it took.
    async fn call(&self, request: Request<Body>) -> Result<Response<Bytes>, Status> {
        let response = match self.core.call(request).await? {
            Outcome::Response(response) => response,
            Outcome::UnknownHost { error, .. } => return Err(self.core.failed(&error)),
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    fn seen(&self) -> Vec<Seen> {
        self.world.seen.lock().unwrap().clone()
    }

    fn elapsed(&self) -> Duration {
        Instant::now() - self.world.began
    }
}

/// A unary request.
fn request(timeout: Option<&str>) -> Request<Body> {
    let frames = [Ok::<_, Status>(Frame::data(Bytes::from_static(b"message")))];
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let mut request = Request::new(body);
    *request.uri_mut() = "/r.Reviews/List".parse().unwrap();
    if let Some(timeout) = timeout {
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    request
}

fn code(response: &Response<Bytes>) -> Code {
    Code::from_bytes(response.headers()["grpc-status"].as_bytes())
}

/// Everything goes to cluster `c`.
fn to_c(change: impl FnOnce(&mut Forward)) -> XdsConfig {
    let mut forward = forward("c");
    change(&mut forward);
    config(http(), vec![route(PathMatcher::any(), forward)])
}

fn retrying(change: impl FnOnce(&mut RetryPolicy)) -> XdsConfig {
    let mut policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    change(&mut policy);
    to_c(|forward| forward.retry = Some(Arc::new(policy)))
}

/// `grpc-previous-rpc-attempts` of each.
fn previous(mesh: &Mesh) -> Vec<u32> {
    let header = |seen: &Seen| match seen.headers.get("grpc-previous-rpc-attempts") {
        Some(value) => value.to_str().unwrap().parse().unwrap(),
        None => 0,
    };
    mesh.seen().iter().map(header).collect()
}

/// Nothing is held any more.
fn assert_released(mesh: &Mesh) {
    assert_eq!((mesh.world.permits.load(SeqCst), mesh.world.open.load(SeqCst)), (3, 0));
}

/// Two hundred calls, each with a pushback of 700 ms in the middle of its five retries.
async fn waits_begin_anew_after_a_pushback(config: &XdsConfig) -> Mesh {
    let pushback = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "700");
    let script = [UNAVAILABLE, UNAVAILABLE, pushback, UNAVAILABLE, UNAVAILABLE, OK];
    let mesh = Mesh::new(config, vec![script; 200].concat());
    for _ in 0..200 {
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    }
    let seen = mesh.seen();
    let waits = |retry: usize| seen.chunks(6).map(move |call| call[retry + 1].at - call[retry].at);
    for (retry, bound) in [(0, 25), (1, 50), (3, 25), (4, 50)] {
        // Timers have a grain of a millisecond.
        assert!(waits(retry).all(|wait| wait <= ms(bound + 1)), "{retry}");
        assert!(waits(retry).any(|wait| wait > ms(bound * 4 / 5)), "{retry}");
    }
    assert!(waits(2).all(|wait| wait == ms(700)));
    mesh
}
