//! Copies of requests, sent elsewhere and forgotten (Istio's `mirror`).
//!
//! A copy never delays, fails or changes the call. It is sent once the request has been sent whole; a
//! request longer than what retries keep is not copied, nor one of too many at once, and a copy that finds no endpoint
//! is not sent. All of that is counted.

use super::{Call, retry::set_timeout};
use crate::{
    body::CallBody,
    call::Upstream,
    cluster::AttemptContext,
    retry::replay::{Replay, Whole},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Uri, request::Parts, uri::Authority};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use std::{
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

/// Copies under way for one target.
const MOST: usize = 256;
/// A copy is given up after this, if the call has no deadline.
const PATIENCE: Duration = Duration::from_secs(15);

/// The copies under way; dropping this ends them.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Mutex<JoinSet<()>>);

impl Mirrors {
    /// Those that have not ended.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while copies.try_join_next().is_some() {}
        copies.len()
    }

    /// Starts one, unless there are too many.
    fn start(&self, copy: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while copies.try_join_next().is_some() {}
        let room = copies.len() < MOST;
        if room {
            copies.spawn(copy);
        }
        room
    }
}

impl<U: Upstream> Call<'_, U> {
    /// Prepares the copies of this call.
    pub(super) fn mirror(&self, parts: &Parts, replay: &Replay) {
        let counters = &self.core.counters;
        for (mirror, destination) in &self.forwarding.mirrors {
            if !mirror.fraction.hit(self.core.dice.roll().u32(0..1_000_000)) {
                continue;
            }
            let sent = match destination {
                Ok(cluster) => {
                    let deadline =
                        self.deadline.map_or_else(|| Instant::now() + PATIENCE, |deadline| deadline.at);
                    let counted = Arc::clone(counters);
                    let mut parts = parts.clone();
                    if mirror.shadow_host {
                        parts.uri = shadow(parts.uri);
                    }
                    let copy = copy(cluster.clone(), parts, replay.whole(), deadline);
                    self.core.mirrors.start(async move {
                        if copy.await {
                            counted.mirrored.add_one();
                        } else {
                            counted.not_mirrored.add_one();
                        }
                    })
                }
                Err(why) => {
                    tracing::debug!(cluster = %mirror.cluster, %why, "request not mirrored");
                    false
                }
            };
            if !sent {
                counters.not_mirrored.add_one();
            }
        }
    }
}

/// With `-shadow` after the host name, as Envoy marks copies. An address is no name, and stays.
fn shadow(uri: Uri) -> Uri {
    let marked = uri.authority().filter(|authority| authority.host().parse::<IpAddr>().is_err());
    let marked = marked.filter(|authority| !authority.host().starts_with('[')).and_then(|authority| {
        let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}-shadow{port}", authority.host()).parse::<Authority>().ok()
    });
    let mut parts = uri.clone().into_parts();
    match marked {
        Some(marked) => {
            parts.authority = Some(marked);
            Uri::from_parts(parts).unwrap_or(uri)
        }
        None => uri,
    }
}

/// Sends a copy and reads its answer to the end; false when it was not sent.
async fn copy<U: Upstream>(
    cluster: Arc<U>,
    parts: Parts,
    whole: oneshot::Receiver<Whole>,
    deadline: Instant,
) -> bool {
    let Ok(Ok(whole)) = tokio::time::timeout_at(deadline, whole).await else { return false };
    let frames = whole.into_iter().map(|data: Bytes| Ok::<_, Infallible>(Frame::data(data)));
    let body = tonic::body::Body::new(StreamBody::new(stream::iter(frames)));
    let mut request = Request::from_parts(parts, CallBody::Tonic(body));
    let now = Instant::now();
    if deadline <= now {
        return false;
    }
    set_timeout(&mut request, Some(deadline), || now);
    let ends = Some(deadline);
    let mut context = AttemptContext { deadline: ends, ends, ..AttemptContext::default() };
    let response = match cluster.attempt(request, &mut context).await {
        Ok(response) => response,
        Err(error) => return error.was_sent(),
    };
    let mut body = pin!(response.into_body());
    let drain = async { while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {} };
    // An answer that does not end is dropped like any other.
    let _ = tokio::time::timeout_at(deadline, drain).await;
    true
}
