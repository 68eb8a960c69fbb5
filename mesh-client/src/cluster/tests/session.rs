//! Calls that stay with the endpoint of their session, whatever the policy.

use super::net::*;
use crate::{
    call::Place,
    cluster::{AttemptContext, AttemptErrorKind, Cluster, Session},
};
use http::StatusCode;
use mesh_xds::resource::{
    cluster::{Consecutive, LbPolicy, Maglev, OutlierDetection, OverrideHostStatus, RingHash},
    endpoint::HealthStatus,
};
use std::time::Duration;
use tonic::Code;

fn session(ports: &[u16], strict: Option<u16>) -> AttemptContext {
    let strict = strict.map(|status| StatusCode::from_u16(status).unwrap());
    let session = Session::new(ports.iter().copied().map(address).collect(), strict);
    AttemptContext { session: Some(Box::new(session)), hash: Some(7), ..AttemptContext::default() }
}

/// The port that an attempt goes to.
async fn port(cluster: &Cluster, context: &mut AttemptContext) -> u16 {
    let response = attempt(cluster, context).await.unwrap();
    let port = response.body().endpoint().unwrap().port();
    status(response).await;
    port
}

/// The ports that calls of this session go to, and how many distinct ones there are.
async fn ports(cluster: &Cluster, of: &[u16]) -> Vec<u16> {
    let mut ports = Vec::new();
    for _ in 0..6 {
        ports.push(port(cluster, &mut session(of, None)).await);
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Which statuses sessions may ask for, beside HEALTHY and UNKNOWN.
fn and(status: HealthStatus) -> OverrideHostStatus {
    OverrideHostStatus::of([HealthStatus::Unknown, HealthStatus::Healthy, status])
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_its_endpoint_under_every_policy() {
    for lb in [
        LbPolicy::RoundRobin,
        LbPolicy::least_request(2),
        LbPolicy::Random,
        LbPolicy::PickFirst { shuffle: false },
        LbPolicy::ClientSideWeightedRoundRobin(Box::default()),
        LbPolicy::RingHash(RingHash::default()),
        LbPolicy::Maglev(Maglev::default()),
    ] {
        let net = Net::default();
        let _servers: [_; 3] = net.servers();
        let mut config = Config::of(&[1, 2, 3]);
        config.cluster.lb = lb.clone();
        let cluster = config.spawn(&net);
        // The first call of all comes before there is anything to look in.
        for of in [2, 3, 1] {
            assert_eq!(ports(&cluster, &[of]).await, [of], "{lb:?}");
        }
        assert_eq!(ports(&cluster, &[9, 3]).await, [3], "{lb:?}: the first that is there");
        let anywhere = ports(&cluster, &[]).await;
        let elsewhere = ports(&cluster, &[9]).await;
        let fixed = matches!(lb, LbPolicy::PickFirst { .. } | LbPolicy::RingHash(_) | LbPolicy::Maglev(_));
        match fixed {
            true => assert_eq!((anywhere.len(), &elsewhere), (1, &anywhere), "{lb:?}"),
            false => {
                assert!(anywhere.len() > 1 && elsewhere.len() > 1, "{lb:?}: {anywhere:?}, {elsewhere:?}")
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_balancing_does_not_use_is_dialled_for_its_session_alone() {
    let net = Net::default();
    let [first, standby] = net.servers();
    let cluster = Config::with_priorities(&[&[1], &[2]]).spawn(&net);
    rest().await;
    assert_eq!(port(&cluster, &mut session(&[], None)).await, 1);
    rest().await;
    assert_eq!(standby.dials(), 0, "a session that is elsewhere costs it no connection");
    assert_eq!(ports(&cluster, &[2]).await, [2]);
    assert_eq!(standby.dials(), 1);
    let before = (first.hits(), standby.hits());
    for _ in 0..10 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((first.hits(), standby.hits()), (10, 0), "others do not see it; before: {before:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_that_priorities_switch_and_that_its_endpoint_moves_between_them() {
    let net = Net::default();
    let [first, second] = net.servers();
    let cluster = Config::with_priorities(&[&[1], &[2]]).spawn(&net);
    assert_eq!(ports(&cluster, &[1]).await, [1]);
    first.door(Door::Refuses);
    first.kill();
    rest().await;
    assert_eq!(ports(&cluster, &[1]).await, [2], "it cannot be had: the session moves");
    first.door(Door::Open);
    pass(Duration::from_secs(130)).await;
    second.hits();
    call(&cluster).await.unwrap();
    assert_eq!(second.hits(), 0, "calls are back at the first priority");
    assert_eq!(ports(&cluster, &[2]).await, [2], "a session that began meanwhile is not");
    assert_eq!(ports(&cluster, &[1]).await, [1]);
    let dials = (first.dials(), second.dials());
    cluster.update(Config::with_priorities(&[&[2], &[1]]).build());
    rest().await;
    assert_eq!((ports(&cluster, &[1]).await, ports(&cluster, &[2]).await), (vec![1], vec![2]));
    assert_eq!((first.dials(), second.dials()), dials, "on the connections that there were");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_drains_keeps_its_sessions_where_its_status_may_be_asked_for() {
    for (statuses, stays) in [(OverrideHostStatus::default(), false), (and(HealthStatus::Draining), true)] {
        let net = Net::default();
        let [leaving, other] = net.servers();
        let mut config = Config::of(&[1, 2]);
        config.cluster.lb_options.override_host_status = statuses;
        let cluster = config.spawn(&net);
        assert_eq!(ports(&cluster, &[1]).await, [1]);
        config.endpoint(0).health = HealthStatus::Draining;
        cluster.update(config.build());
        rest().await;
        assert_eq!(ports(&cluster, &[1]).await, [if stays { 1 } else { 2 }]);
        assert_eq!(leaving.dials(), 1, "its connection is kept, or goes");
        let _ = (leaving.hits(), other.hits());
        for _ in 0..10 {
            call(&cluster).await.unwrap();
        }
        assert_eq!((leaving.hits(), other.hits()), (0, 10), "new calls go elsewhere");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_unhealthy_and_loses_its_sessions_until_it_is_back() {
    for (statuses, stays) in [(OverrideHostStatus::default(), false), (and(HealthStatus::Unhealthy), true)] {
        let net = Net::default();
        let [bad, _good] = net.servers();
        let mut config = Config::of(&[1, 2]);
        config.cluster.lb_options.override_host_status = statuses;
        config.cluster.outlier_detection = Some(OutlierDetection {
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 100,
            consecutive_5xx: Some(Consecutive { threshold: 3, enforcing: 100 }),
            ..OutlierDetection::default()
        });
        let cluster = config.spawn(&net);
        bad.answer(Answer::Status(Code::Unavailable));
        for _ in 0..3 {
            assert_eq!(port(&cluster, &mut session(&[1], None)).await, 1);
        }
        rest().await;
        bad.answer(Answer::Status(Code::Ok));
        assert_eq!(ports(&cluster, &[1]).await, [if stays { 1 } else { 2 }]);
        pass(Duration::from_secs(60)).await;
        assert_eq!(ports(&cluster, &[1]).await, [1], "it is back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_bound_to_the_session_unless_that_is_strict() {
    let net = Net::default();
    let _servers: [_; 3] = net.servers();
    let cluster = Config::of(&[1, 2, 3]).spawn(&net);
    rest().await;
    for (strict, bound) in [(None, false), (Some(503), true)] {
        let mut context = session(&[1], strict);
        let mut seen = Vec::new();
        for _ in 0..6 {
            context.session.as_mut().unwrap().repeats(true);
            seen.push(port(&cluster, &mut context).await);
        }
        assert_eq!(seen.iter().all(|port| *port == 1), bound, "{seen:?}");
        context.session.as_mut().unwrap().repeats(false);
        assert_eq!(port(&cluster, &mut context).await, 1, "a call that was not processed is no retry");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_endpoint_cannot_be_had_goes_elsewhere_or_fails_with_the_reason() {
    let net = Net::default();
    let [refusing, sick, _good] = net.servers();
    refusing.door(Door::Refuses);
    let mut config = Config::of(&[1, 2, 3]);
    config.endpoint(1).health = HealthStatus::Unhealthy;
    let cluster = config.spawn(&net);
    rest().await;
    for (of, strict, code, reason) in [
        (1, 503, Code::Unavailable, "127.0.0.1:1: it cannot be connected to"),
        (1, 404, Code::Unavailable, "127.0.0.1:1: it cannot be connected to"),
        (2, 404, Code::Unavailable, "127.0.0.1:2: its status is none that sessions may ask for"),
        (9, 503, Code::Unavailable, "127.0.0.1:9, which is not there"),
        (9, 404, Code::Unimplemented, "127.0.0.1:9, which is not there"),
    ] {
        assert_eq!(ports(&cluster, &[of]).await, [3], "{of}");
        let error = attempt(&cluster, &mut session(&[of], Some(strict))).await.unwrap_err();
        assert_eq!((error.kind, error.status.code()), (AttemptErrorKind::SessionLost, code), "{of} {strict}");
        assert!(error.status.message().contains(reason), "{}", error.status);
        assert!(error.request.is_some());
    }
    assert_eq!(sick.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_while_its_endpoint_has_as_many_streams_as_it_may() {
    let net = Net::default();
    let [full, _other] = net.servers();
    let mut config = Config::of(&[1, 2]);
    config.cluster.connection.max_concurrent_streams = Some(1);
    let cluster = config.spawn(&net);
    assert_eq!(port(&cluster, &mut session(&[1], None)).await, 1);
    let held = attempt(&cluster, &mut session(&[1], None)).await.unwrap();
    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move { port(&cluster, &mut session(&[1], None)).await })
    };
    rest().await;
    assert!(!waiting.is_finished(), "another endpoint would not do");
    drop(held);
    assert_eq!(waiting.await.unwrap(), 1);
    assert!(full.hits() > 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_sessions_before_the_first_and_after_the_last() {
    let net = Net::default();
    let [_first, standby] = net.servers();
    let cluster = Config::with_priorities(&[&[1], &[2]]).spawn(&net);
    call(&cluster).await.unwrap();
    rest().await;
    assert!(cluster.shared.snapshot.load().hosts.is_none());
    assert_eq!(port(&cluster, &mut session(&[2], None)).await, 2);
    pass(Duration::from_secs(15 * 60 + 1)).await;
    assert!(cluster.shared.snapshot.load().hosts.is_some(), "there was one since");
    pass(Duration::from_secs(15 * 60)).await;
    assert!(cluster.shared.snapshot.load().hosts.is_none());
    assert_eq!(port(&cluster, &mut session(&[2], None)).await, 2, "and is asked for again");
    assert_eq!(standby.dials(), 2, "its connection was let go meanwhile");
}
