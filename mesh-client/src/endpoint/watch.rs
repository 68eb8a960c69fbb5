//! What an endpoint says of its own health while it is connected (gRPC's client-side health checking; gRFC A17).
//!
//! Promises: while it is wanted there is one `grpc.health.v1.Health/Watch` stream, on a connection that is offered to
//! calls; it moves when that connection goes, and ends with the endpoint. The endpoint is connecting until the first
//! answer, ready while that is SERVING, and in transient failure otherwise, also when the stream fails; a connection
//! that replaces another one takes over what was known. A failed stream is opened again: at once if it had brought an
//! answer, otherwise 1 s later, x1.6 up to 120 s, +-20 %. An endpoint without the service is taken to be well, as in
//! gRPC, which is logged once.

use super::{
    Endpoint,
    conn::Conn,
    machine::{Connectivity, backoff},
    own::Own,
};
use crate::health::{HealthCheckRequest, HealthCheckResponse, ServingStatus};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, client::Grpc};
use tonic_prost::ProstCodec;

const PATH: &str = "/grpc.health.v1.Health/Watch";
/// An endpoint that answers and ends the stream each time is asked so often at most.
const SHORTEST_STREAM: Duration = Duration::from_secs(1);
/// Of an answer: it is one small number.
const LARGEST_ANSWER: usize = 1 << 10;

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// It has not answered yet.
    Nothing,
    Serving,
    Not(Arc<str>),
}

/// The stream of an endpoint, if there is one. Ends it when dropped.
pub(super) struct HealthWatch {
    service: Arc<str>,
    known: Arc<Mutex<Known>>,
    following: Option<(Arc<Conn>, AbortOnDropHandle<()>)>,
    /// Its balancing does not look at health.
    off: bool,
}

impl HealthWatch {
    /// Of this service of the endpoint; the empty name stands for all of it.
    pub(super) fn new(service: Arc<str>) -> Self {
        let known = Arc::new(Mutex::new(Known::Nothing));
        Self { service, known, following: None, off: false }
    }

    /// Watches over one of these connections, unless it is `off`. Needs a tokio runtime.
    pub(super) fn follow<'a>(
        &mut self,
        off: bool,
        mut offered: impl Iterator<Item = &'a Arc<Conn>> + Clone,
        seed: u64,
    ) {
        self.off = off;
        let stays = |(conn, _): &(Arc<Conn>, _)| !off && offered.clone().any(|one| Arc::ptr_eq(one, conn));
        if self.following.as_ref().is_some_and(stays) {
            return;
        }
        // Ended before another begins: it must not speak for it.
        self.following = None;
        let Some(conn) = offered.next().filter(|_| !off) else {
            *lock(&self.known) = Known::Nothing;
            return;
        };
        let stream = run(Arc::clone(conn), Arc::clone(&self.service), Arc::clone(&self.known), seed);
        self.following = Some((Arc::clone(conn), AbortOnDropHandle::new(tokio::spawn(stream))));
    }

    /// What is told of an endpoint whose connections are like this. Its task is woken when that may have changed.
    pub(super) fn judge(&self, connectivity: Connectivity) -> Connectivity {
        match &*lock(&self.known) {
            _ if self.off || connectivity != Connectivity::Ready => connectivity,
            Known::Nothing => Connectivity::Connecting,
            Known::Serving => Connectivity::Ready,
            Known::Not(reason) => Connectivity::TransientFailure(Arc::clone(reason)),
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(conn: Arc<Conn>, service: Arc<str>, known: Arc<Mutex<Known>>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut failures = 0;
    let endpoint = Arc::clone(conn.endpoint());
    let Endpoint { cluster, address, .. } = &*endpoint;
    let tell = |news: Known| {
        if std::mem::replace(&mut *lock(&known), news.clone()) == news {
            return;
        }
        if let Known::Not(reason) = &news {
            tracing::warn!(%cluster, endpoint = %address, %reason, "endpoint is unhealthy by its own word");
        }
        endpoint.signal.notify_one();
    };
    loop {
        let began = Instant::now();
        let (answered, status) = stream(&conn, &endpoint, &service, tell).await;
        if conn.is_closed() {
            // The end of the connection says all, and another one will be followed.
            return;
        }
        if status.code() == Code::Unimplemented {
            tracing::warn!(
                %cluster, endpoint = %address, reason = status.message(),
                "client-side health checking: the endpoint has no service grpc.health.v1.Health and is taken to be well: add the service to it"
            );
            return tell(Known::Serving);
        }
        let reason = match status.message() {
            "" => format!("health watch: {address} ended the stream with {:?}", status.code()),
            text => format!("health watch of {address} failed: {:?}: {}", status.code(), text.escape_debug()),
        };
        tell(Known::Not(reason.into()));
        if answered {
            failures = 0;
            sleep(SHORTEST_STREAM.saturating_sub(began.elapsed())).await;
        } else {
            failures += 1;
            sleep(backoff(failures, &mut rng)).await;
        }
    }
}

/// Whether an answer came, and how the stream ended.
async fn stream(
    conn: &Arc<Conn>,
    endpoint: &Endpoint,
    service: &str,
    tell: impl Fn(Known),
) -> (bool, Status) {
    let mut client = Grpc::new(Own::new(Arc::clone(conn))).max_decoding_message_size(LARGEST_ANSWER);
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = http::uri::PathAndQuery::from_static(PATH);
    let mut answers = match client.server_streaming(request, path, codec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (false, status),
    };
    let mut answered = false;
    loop {
        let status = match answers.message().await {
            Ok(Some(answer)) => answer.status(),
            Ok(None) => return (answered, Status::ok("")),
            Err(status) => return (answered, status),
        };
        answered = true;
        tell(match status {
            ServingStatus::Serving => Known::Serving,
            other => {
                Known::Not(format!("health watch: {} says {}", endpoint.address, other.name(service)).into())
            }
        });
    }
}
