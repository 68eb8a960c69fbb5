//! What must hold whatever happens: a client of the whole mesh, a control plane and real servers over loopback.
//!
//! No test waits for time to pass in order to be right: where something must end, the call's deadline is the outcome
//! that is asked for, and elsewhere the bound is what only a broken client reaches.
//!
//! Every test ends with [`at_rest`]: whatever calls held was given back.
//!
//! | what goes wrong | test |
//! |---|---|
//! | no Listener, RouteConfiguration, Cluster or ClusterLoadAssignment | [`faults`]: `a_resource_that_is_not_there…` |
//! | scaled to zero and back; removed and added again | [`faults`]: `a_service_that…`, `a_cluster_that…` |
//! | one of three endpoints refuses | [`faults`]: `one_of_three…`; under load `cluster/tests/tcp.rs` |
//! | priorities, locality weights, equal shares | [`faults`]; distributions in `cluster/tests/health.rs`, `lb/tests.rs` |
//! | long streams are counted | [`faults`]: `a_long_stream…`, `least_request_sees…` |
//! | retries within the deadline | [`faults`]: `retries_end…`; `the_deadline_covers…` in `stack/tests/deadlines.rs` |
//! | inverted match on an absent header, `a,b` in two lines | `mesh-xds/src/matcher/header.rs` |
//! | unknown required filter, no router, weights of zero | `mesh-xds/src/resource/` (tables of rejection) |
//! | a gigabyte of upload | `a_request_too_long_to_keep…` in `stack/tests/retries.rs`; memory in the benches |
//! | the control plane is away, silent, replaced, restarted | `mesh/tests/control_planes.rs`, [`restarts`] |
//! | a rejected or missing resource beside good ones | `mesh-xds/src/client/`, `mesh-xds/src/model.rs` |
//! | half-open endpoints | `a_silent_call_is_pinged…` in `cluster/tests/change.rs` |
//! | identities that end or change | `cluster/tests/tls.rs` |
//! | configuration tears | `mesh-xds/src/config/` |
//! | servers restart: drained, killed | [`restarts`] |
//! | calls are dropped anywhere | [`storms`] |
//! | a server refuses streams, goes away, resets | [`unprocessed`] |
//! | a peer stops, hangs up, talks nonsense | [`hostile`] |
//! | any header, path, authority, status | [`anything`] |

mod anything;
mod faults;
mod hostile;
mod restarts;
mod script;
mod storms;
mod unprocessed;

use super::{
    world::{Echo, Plane, ask, reviews},
    *,
};
use crate::{MeshBody, MeshChannel};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tower_service::Service;

/// What calls hold at this moment: everything that is not zero, by name.
fn held(mesh: &Mesh) -> Vec<(String, u64)> {
    let mut held = Vec::new();
    for cluster in mesh.0.clusters.all() {
        held.extend(
            cluster.guards().map(|(what, count)| (format!("cluster {}: {what}", cluster.name()), count)),
        );
    }
    for target in mesh.targets_in_use() {
        let Some(subscription) = mesh.in_use(&target) else { continue };
        let of_target = subscription.core.held();
        held.extend(of_target.map(|(what, count)| (format!("target {target}: {what}"), count)));
    }
    held.retain(|(_, count)| *count > 0);
    held
}

/// Waits until nothing is held any more, by calls or on endpoints: copies and the rest of requests are sent by tasks,
/// which end when the runtime gets to them.
async fn at_rest(mesh: &Mesh) {
    let ended = tokio::time::timeout(LONG, async {
        while !held(mesh).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(ended.await.is_ok(), "still held: {:?}", held(mesh));
    for cluster in mesh.0.clusters.all() {
        let Some(description) = cluster.describe().await else { continue };
        for (address, (state, _)) in description.endpoints {
            assert_eq!(state.in_flight, 0, "cluster {}: endpoint {address}", cluster.name());
        }
    }
}

/// A unary request to the cluster `to`.
fn request(to: &str, deadline: Duration) -> http::Request<Body> {
    let mut request = http::Request::post("/mesh.test.Echo/Ask")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("to", to)
        .body(Body::new(Full::new(Bytes::from_static(&[0; 5]))))
        .unwrap();
    request.headers_mut().insert("grpc-timeout", crate::timeout::format(deadline));
    request
}

/// Makes a call and reads its answer to the end: where its status is, before any decoder has seen it.
async fn ending(mut channel: MeshChannel, request: http::Request<Body>) -> Result<HeaderMap, Status> {
    let response: http::Response<MeshBody> = channel.call(request).await?;
    let (parts, body) = response.into_parts();
    if parts.headers.contains_key("grpc-status") {
        return Ok(parts.headers);
    }
    Ok(body.collect().await?.trailers().cloned().unwrap_or_default())
}

/// The status of a call, as every client of gRPC reads it.
async fn status(channel: MeshChannel, request: http::Request<Body>) -> Status {
    match ending(channel, request).await {
        Ok(ending) => {
            Status::from_header_map(&ending).unwrap_or_else(|| panic!("no grpc-status: {ending:?}"))
        }
        Err(status) => status,
    }
}
