//! Weights made of load reports, on the wire: with calls and by themselves.

use super::net::*;
use crate::cluster::{Cluster, WeightedRoundRobinStatus};
use mesh_xds::{
    orca::LoadReport,
    resource::cluster::{
        ClientSideWeightedRoundRobin, Consecutive, LbPolicy, OutlierDetection, ReportedMetrics, SlowStart,
    },
};
use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

/// Of chi-square with two degrees of freedom, at p = 0.001.
const CRITICAL: f64 = 13.82;
const SECOND: Duration = Duration::from_secs(1);

fn policy(change: impl FnOnce(&mut ClientSideWeightedRoundRobin)) -> LbPolicy {
    let mut policy = ClientSideWeightedRoundRobin::default();
    change(&mut policy);
    LbPolicy::ClientSideWeightedRoundRobin(Box::new(policy))
}

fn out_of_band(seconds: u64) -> LbPolicy {
    policy(|policy| policy.out_of_band = Some(Duration::from_secs(seconds)))
}

fn config(lb: LbPolicy) -> Config {
    let mut config = Config::of(&[1, 2, 3]);
    config.cluster.lb = lb;
    config
}

fn load(server: &Server, qps: f64, utilization: f64, eps: f64) {
    let report = LoadReport {
        rps_fractional: qps,
        application_utilization: utilization,
        eps,
        ..LoadReport::default()
    };
    *server.load.lock().unwrap() = Some(report);
}

/// 1500 calls, of which each server gets its part.
async fn assert_shares(cluster: &Cluster, servers: &[Arc<Server>; 3], parts: [f64; 3]) {
    for server in servers {
        let _ = server.hits();
    }
    for _ in 0..1500 {
        assert_eq!(call(cluster).await.unwrap(), Code::Ok);
    }
    let hits = servers.each_ref().map(|server| server.hits());
    let sum: f64 = parts.iter().sum();
    let term = |(hits, part): (&usize, f64)| {
        let expected = 1500.0 * part / sum;
        (*hits as f64 - expected).powi(2) / expected
    };
    let chi: f64 = hits.iter().zip(parts).map(term).sum();
    assert!(chi < CRITICAL, "{hits:?}, not as {parts:?}: chi-square {chi}");
}

fn begun(server: &Server) -> usize {
    server.report_streams.lock().unwrap().len()
}

fn open(server: &Server) -> usize {
    Arc::strong_count(&server.open_report_streams) - 1
}

#[tokio::test(start_paused = true)]
async fn calls_go_where_reports_with_calls_say_after_the_blackout() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    // 300, 100 and, by its errors, 50: 100 / (0.5 + 30 / 100 * 5).
    load(&servers[0], 150.0, 0.5, 0.0);
    load(&servers[1], 50.0, 0.5, 0.0);
    load(&servers[2], 100.0, 0.5, 30.0);
    let mut config = config(policy(|policy| policy.error_utilization_penalty = 5.0));
    // Such weights are not looked at.
    config.endpoint(1).weight = NonZeroU32::new(50).unwrap();
    let cluster = config.spawn(&net);
    rest().await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    pass(9 * SECOND).await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    pass(2 * SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    let WeightedRoundRobinStatus { updates, rr_fallback, weighted_endpoints, .. } =
        cluster.weighed().unwrap();
    assert_eq!((updates, rr_fallback, weighted_endpoints), (11, 10, 3));
    // An error's report counts as any other.
    load(&servers[0], 25.0, 0.5, 0.0);
    servers[0].answer(Answer::TrailersOnly(Code::Internal));
    while call(&cluster).await.unwrap() == Code::Ok {}
    servers[0].answer(Answer::Status(Code::Ok));
    *servers[0].load.lock().unwrap() = None;
    pass(SECOND).await;
    assert_shares(&cluster, &servers, [50.0, 100.0, 50.0]).await;
    assert_eq!(servers.iter().map(|server| begun(server)).sum::<usize>(), 0, "nobody is asked for reports");
}

#[tokio::test(start_paused = true)]
async fn weights_expire_and_begin_anew_with_a_new_connection() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for (server, qps) in servers.iter().zip([300.0, 100.0, 50.0]) {
        load(server, qps, 1.0, 0.0);
    }
    let cluster = config(policy(|_| {})).spawn(&net);
    rest().await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    pass(11 * SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    servers[0].kill();
    pass(2 * SECOND).await;
    // The mean of the two others.
    assert_shares(&cluster, &servers, [75.0, 100.0, 50.0]).await;
    pass(11 * SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    for server in &servers {
        *server.load.lock().unwrap() = None;
    }
    pass(170 * SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    pass(11 * SECOND).await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    assert!(cluster.weighed().unwrap().endpoint_weight_stale >= 3);
}

#[tokio::test(start_paused = true)]
async fn another_policy_does_not_look_at_reports() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for (server, qps) in servers.iter().zip([300.0, 100.0, 50.0]) {
        load(server, qps, 1.0, 0.0);
        *server.reporting.lock().unwrap() = Reporting::Steadily;
    }
    let mut config = config(LbPolicy::RoundRobin);
    let cluster = config.spawn(&net);
    rest().await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    // Nothing was kept from before the policy changed.
    config.cluster.lb = policy(|policy| policy.blackout_period = Duration::ZERO);
    cluster.update(config.build());
    rest().await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    pass(SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    config.cluster.lb = LbPolicy::RoundRobin;
    cluster.update(config.build());
    rest().await;
    assert_shares(&cluster, &servers, [1.0; 3]).await;
    assert_eq!(servers.iter().map(|server| begun(server)).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn reports_that_come_by_themselves_weigh_and_are_no_calls() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for (server, qps) in servers.iter().zip([300.0, 100.0, 50.0]) {
        load(server, qps, 1.0, 0.0);
        *server.reporting.lock().unwrap() = Reporting::Steadily;
    }
    let mut config = config(out_of_band(7));
    config.cluster.load_reporting = Some(ReportedMetrics { cpu: true, ..ReportedMetrics::default() });
    config.cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: Some(Consecutive { threshold: 1, enforcing: 100 }),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    });
    let deps = deps(&net);
    let cluster = spawn(config.build(), &deps);
    pass(12 * SECOND).await;
    for server in &servers {
        assert_eq!((begun(server), open(server), server.dials()), (1, 1, 1));
        assert_eq!(server.report_streams.lock().unwrap()[0].1, Duration::from_secs(7));
    }
    assert_eq!(cluster.in_flight(), 0);
    let described = cluster.describe().await.unwrap();
    assert!(described.endpoints.values().all(|(state, _)| state.in_flight == 0 && state.ejections == 0));
    assert_shares(&cluster, &servers, [300.0, 100.0, 50.0]).await;
    // What comes with calls is not looked at; a new report is.
    load(&servers[1], 50.0, 1.0, 0.0);
    pass(4 * SECOND).await;
    assert_shares(&cluster, &servers, [300.0, 50.0, 50.0]).await;
    // A stream that fails is no failed call.
    servers[2].kill();
    pass(2 * SECOND).await;
    let described = cluster.describe().await.unwrap();
    assert!(described.endpoints.values().all(|(state, _)| state.connectivity == "ready"));
    assert!(described.endpoints.values().all(|(state, _)| state.ejections == 0));
    assert_eq!((begun(&servers[2]), open(&servers[2])), (2, 1), "it moves to the new connection");
    let stats = deps.loads.take(Instant::now().into_std(), |_| mesh_xds::lrs::Claim::Wanted);
    let localities = stats.iter().flat_map(|cluster| &cluster.upstream_locality_stats);
    let (mut issued, mut errors) = (0, 0);
    for locality in localities {
        issued += locality.total_issued_requests;
        errors += locality.total_error_requests;
    }
    assert_eq!((issued, errors), (3000, 0));
    drop(cluster);
    rest().await;
    assert_eq!(servers.each_ref().map(|server| open(server)), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn streams_follow_the_configuration() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for server in &servers {
        *server.reporting.lock().unwrap() = Reporting::Steadily;
    }
    let counts = || servers.each_ref().map(|server| (begun(server), open(server)));
    let mut config = config(policy(|_| {}));
    let cluster = config.spawn(&net);
    pass(SECOND).await;
    assert_eq!(counts(), [(0, 0); 3]);
    for (lb, expected) in [
        (out_of_band(10), (1, 1)),
        // What does not concern the streams leaves them alone.
        (
            policy(|policy| {
                policy.out_of_band = Some(10 * SECOND);
                policy.blackout_period = SECOND;
            }),
            (1, 1),
        ),
        (out_of_band(5), (2, 1)),
        (policy(|_| {}), (2, 0)),
        (out_of_band(5), (3, 1)),
        (LbPolicy::RoundRobin, (3, 0)),
    ] {
        config.cluster.lb = lb;
        cluster.update(config.build());
        pass(SECOND).await;
        assert_eq!(counts(), [expected; 3], "{:?}", config.cluster.lb);
    }
    assert_eq!(servers[0].report_streams.lock().unwrap()[1].1, 5 * SECOND);
    // An endpoint that goes takes its stream with it.
    config.cluster.lb = out_of_band(5);
    config.endpoints.priorities[0].localities[0].endpoints.pop();
    cluster.update(config.build());
    pass(SECOND).await;
    assert_eq!(counts(), [(4, 1), (4, 1), (3, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_opened_again_later_and_later_and_one_that_is_unknown_is_not() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    *servers[0].reporting.lock().unwrap() = Reporting::Fails(Code::Unavailable);
    *servers[1].reporting.lock().unwrap() = Reporting::Once;
    load(&servers[1], 1.0, 1.0, 0.0);
    let cluster = config(out_of_band(10)).spawn(&net);
    pass(1000 * SECOND).await;
    let gaps = |server: &Server| -> Vec<f64> {
        let begun = server.report_streams.lock().unwrap().clone();
        begun.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect()
    };
    let failing = gaps(&servers[0]);
    for (index, gap) in failing.iter().enumerate() {
        let expected = 1.6_f64.powi(i32::try_from(index).unwrap()).min(120.0);
        assert!((gap / expected - 1.0).abs() < 0.21, "{failing:?}");
    }
    assert!((12..20).contains(&failing.len()), "{failing:?}");
    // One that brought a report begins again from the start, but not at once.
    let once = gaps(&servers[1]);
    assert!(
        once.len() > 800 && once.iter().all(|gap| (0.79..1.21).contains(gap)),
        "{} {:?}",
        once.len(),
        &once[..9]
    );
    assert_eq!(begun(&servers[2]), 1);
    servers[2].kill();
    pass(1000 * SECOND).await;
    assert_eq!(begun(&servers[2]), 2, "once for each connection");
    assert_eq!(cluster.ready(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_no_connection_from_being_idle_and_takes_no_call_its_place() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for server in &servers {
        *server.reporting.lock().unwrap() = Reporting::Steadily;
        server.max_streams.store(2, SeqCst);
    }
    servers[1].max_streams.store(1, SeqCst);
    let mut config = config(out_of_band(10));
    config.cluster.connection.idle_timeout = Some(60 * SECOND);
    let cluster = config.spawn(&net);
    rest().await;
    // Where there is one stream only, it is for calls.
    assert_eq!(servers.each_ref().map(|server| open(server)), [1, 0, 1]);
    for _ in 0..9 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!(servers.each_ref().map(|server| server.hits()), [3; 3]);
    pass(130 * SECOND).await;
    assert_eq!(servers.each_ref().map(|server| open(server)), [0; 3]);
    assert_eq!(cluster.ready(), 0);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_has_just_come_warms_up_to_what_its_load_says() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    for (server, qps) in servers.iter().zip([100.0, 100.0, 100.0]) {
        load(server, qps, 1.0, 0.0);
    }
    let mut config = config(policy(|policy| policy.blackout_period = Duration::ZERO));
    config.cluster.lb_options.slow_start = Some(SlowStart {
        window: 100 * SECOND,
        aggression: 1.0,
        min_weight: mesh_xds::matcher::Fraction::per_million(100_000),
    });
    let late = config.endpoints.priorities[0].localities[0].endpoints.pop().unwrap();
    let cluster = config.spawn(&net);
    pass(200 * SECOND).await;
    config.endpoints.priorities[0].localities[0].endpoints.push(late);
    cluster.update(config.build());
    pass(50 * SECOND).await;
    assert_shares(&cluster, &servers, [100.0, 100.0, 50.0]).await;
    pass(60 * SECOND).await;
    assert_shares(&cluster, &servers, [100.0, 100.0, 100.0]).await;
}
