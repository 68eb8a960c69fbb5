//! Active health checks, on the wire.

use super::net::*;
use crate::cluster::AttemptErrorKind;
use mesh_xds::{
    matcher::Fraction,
    resource::{
        cluster::{Consecutive, HealthCheck, HealthProbe, OutlierDetection},
        endpoint::{EndpointHealthCheck, HealthStatus},
    },
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

const SECOND: Duration = Duration::from_secs(1);

fn check() -> HealthCheck {
    HealthCheck { no_traffic_interval: 10 * SECOND, ..crate::health::tests::check() }
}

/// These endpoints, checked every 10 s.
fn checked(ports: &[u16], change: impl FnOnce(&mut HealthCheck)) -> Config {
    let mut config = Config::of(ports);
    let mut check = check();
    change(&mut check);
    config.cluster.health_check = Some(Arc::new(check));
    config
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_the_first_check_and_go_to_healthy_endpoints_only() {
    let net = Net::default();
    let [well, ill] = net.servers();
    ill.health(Health::Says(2));
    let cluster = checked(&[1, 2], |_| {}).spawn(&net);
    assert_eq!(shares(&cluster, [&well, &ill]).await, [100, 0]);
    assert_eq!((well.checks.load(SeqCst), ill.checks.load(SeqCst)), (1, 1));
    assert_eq!(well.checked_for(), ["http://reviews/grpc.health.v1.Health/Check "]);

    // It needs two successes to come back, 10 s apart.
    ill.health(Health::Says(1));
    pass(15 * SECOND).await;
    assert_eq!(shares(&cluster, [&well, &ill]).await, [100, 0]);
    pass(10 * SECOND).await;
    assert_eq!(shares(&cluster, [&well, &ill]).await, [50, 50]);

    // A word is enough to go.
    well.health(Health::Says(2));
    pass(10 * SECOND).await;
    assert_eq!(shares(&cluster, [&well, &ill]).await, [0, 100]);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_up_to_the_threshold() {
    let net = Net::default();
    let [one, other] = net.servers();
    let cluster = checked(&[1, 2], |_| {}).spawn(&net);
    assert_eq!(shares(&cluster, [&one, &other]).await, [50, 50]);
    other.health(Health::Silent);
    // Checks at 10, 21 and 32 s: each fails after one second.
    pass(32 * SECOND).await;
    assert_eq!(shares(&cluster, [&one, &other]).await, [50, 50]);
    pass(2 * SECOND).await;
    assert_eq!(shares(&cluster, [&one, &other]).await, [100, 0]);
}

#[tokio::test(start_paused = true)]
async fn when_none_is_healthy_a_call_fails_at_once_and_is_told_why() {
    let net = Net::default();
    let [one] = net.servers();
    for (health, reason) in [
        (Health::Says(2), "it says NOT_SERVING"),
        (Health::Says(3), "it says SERVICE_UNKNOWN: its health service does not know the service ``"),
        (
            Health::Status(Code::Unimplemented),
            "it has no grpc.health.v1.Health service (UNIMPLEMENTED): add one",
        ),
        (Health::Status(Code::NotFound), "does not know the service (NOT_FOUND)"),
        (Health::Status(Code::Internal), "Internal: on purpose"),
        (Health::Http(503), "HTTP status 503"),
        (Health::Garbage, "not one uncompressed message"),
        (Health::Endless, "longer than 1024 bytes"),
        (Health::Silent, "no answer within 1s"),
    ] {
        one.health(health);
        let cluster = checked(&[1], |_| {}).spawn(&net);
        let began = Instant::now();
        let error = call(&cluster).await.unwrap_err();
        assert!(began.elapsed() <= SECOND + Duration::from_millis(1));
        assert_eq!((error.kind, error.status.code()), (AttemptErrorKind::NoEndpoint, Code::Unavailable));
        let text = error.status.message();
        assert!(text.contains("1 not usable by their health status: 127.0.0.1:1: health check: "), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    one.door(Door::Refuses);
    let error = call(&checked(&[1], |_| {}).spawn(&net)).await.unwrap_err();
    assert!(error.status.message().contains("connection refused"), "{}", error.status);
    assert_eq!(one.hits(), 0, "no call reached it");
}

#[tokio::test(start_paused = true)]
async fn in_panic_unhealthy_endpoints_are_used_and_unchecked_ones_at_the_start_are_not() {
    let net = Net::default();
    let [one, two, three] = net.servers();
    for server in [&one, &two] {
        server.health(Health::Says(2));
    }
    let mut config = checked(&[1, 2, 3], |_| {});
    config.cluster.panic_threshold = Some(Fraction::per_million(500_000));
    let cluster = config.spawn(&net);
    // Nobody is used unasked; then one of three is healthy, which is less than half.
    let shares = shares(&cluster, [&one, &two, &three]).await;
    assert!(shares.iter().all(|share| *share > 20), "{shares:?}");
    three.hits();
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_waits_for_its_check_and_one_that_is_not_to_be_checked_does_not() {
    let net = Net::default();
    let [one, slow, free] = net.servers();
    slow.health(Health::Silent);
    let cluster = checked(&[1], |_| {}).spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    let mut more = checked(&[1, 2, 3], |_| {});
    let off = EndpointHealthCheck { disabled: true, ..EndpointHealthCheck::default() };
    more.endpoint(2).health_check = Some(Arc::new(off));
    cluster.update(more.build());
    rest().await;
    assert_eq!(shares(&cluster, [&one, &slow, &free]).await, [50, 0, 50]);
    assert_eq!(free.checks.load(SeqCst), 0);

    // Without checks everybody is as healthy as the control plane says, and nobody is asked.
    cluster.update(Config::of(&[1, 2, 3]).build());
    rest().await;
    slow.health(Health::Says(2));
    let before = [&one, &slow].map(|server| server.checks.load(SeqCst));
    pass(60 * SECOND).await;
    assert_eq!([&one, &slow].map(|server| server.checks.load(SeqCst)), before);
    let [a, b, c] = shares(&cluster, [&one, &slow, &free]).await;
    assert!(a > 30 && b > 30 && c > 30);

    // Switched on again, those that are used stay in use until they are found to be ill.
    cluster.update(checked(&[1, 2, 3], |_| {}).build());
    rest().await;
    let [_, ill, _] = shares(&cluster, [&one, &slow, &free]).await;
    assert_eq!(ill, 0);
}

#[tokio::test(start_paused = true)]
async fn a_check_is_no_call_and_has_a_connection_of_its_own() {
    let net = Net::default();
    let [one] = net.servers();
    let mut config = checked(&[1], |_| {});
    config.cluster.circuit_breakers.max_requests = 0;
    config.cluster.connection.max_requests_per_connection = 1;
    let cluster = config.spawn(&net);
    pass(95 * SECOND).await;
    // One for checks, one for calls.
    assert_eq!((one.checks.load(SeqCst), one.dials()), (10, 2));
    let error = call(&cluster).await.unwrap_err();
    assert_eq!(error.kind, AttemptErrorKind::LocalOverflow);
    assert_eq!(cluster.in_flight(), 0);

    drop(cluster);
    rest().await;
    let alone = checked(&[1], |check| check.reuse_connection = false).spawn(&net);
    let (before, checks) = (one.dials(), one.checks.load(SeqCst));
    pass(45 * SECOND).await;
    let checks = one.checks.load(SeqCst) - checks;
    assert_eq!(one.dials() - before, checks + 1, "each has its own, and calls have one");
    // Nothing goes on when the cluster is gone.
    drop(alone);
    rest().await;
    let last = one.checks.load(SeqCst);
    pass(100 * SECOND).await;
    assert_eq!(one.checks.load(SeqCst), last);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_or_a_goaway_between_checks_is_no_failure() {
    let net = Net::default();
    let [one] = net.servers();
    let cluster = checked(&[1], |check| check.unhealthy_threshold = 1).spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    for _ in 0..3 {
        one.go_away();
        pass(10 * SECOND).await;
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        one.kill();
        pass(10 * SECOND).await;
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn the_check_goes_where_and_asks_for_what_it_is_told() {
    let net = Net::default();
    let (one, probe) = (net.server(1), net.server(7));
    let mut config = checked(&[1], |check| {
        check.probe = HealthProbe::Grpc {
            service_name: "reviews.Reviews".into(),
            authority: Some("health.example".into()),
            metadata: vec![("x-check".parse().unwrap(), "yes".parse().unwrap())],
        };
        check.alt_port = Some(7);
    });
    let cluster = config.spawn(&net);
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(probe.checked_for(), ["http://health.example/grpc.health.v1.Health/Check reviews.Reviews"]);
    assert_eq!((one.checks.load(SeqCst), one.hits(), probe.hits()), (0, 1, 0));

    let own = EndpointHealthCheck {
        port: Some(1),
        hostname: Some("own.example".into()),
        ..EndpointHealthCheck::default()
    };
    config.endpoint(0).health_check = Some(Arc::new(own));
    cluster.update(config.build());
    pass(11 * SECOND).await;
    assert_eq!(one.checked_for(), ["http://own.example/grpc.health.v1.Health/Check reviews.Reviews"]);
}

#[tokio::test(start_paused = true)]
async fn a_check_over_tcp_needs_a_connection_and_perhaps_words() {
    let net = Net::default();
    let [one, shut] = net.servers();
    shut.door(Door::Refuses);
    let tcp = |send: &'static [u8], receive: &[&'static [u8]]| HealthProbe::Tcp {
        send: send.into(),
        receive: receive.iter().map(|part| (*part).into()).collect(),
    };
    let cluster = checked(&[1, 2], |check| check.probe = tcp(b"", &[])).spawn(&net);
    assert_eq!(shares(&cluster, [&one, &shut]).await, [100, 0]);
    // What an HTTP/2 server says first is SETTINGS: nine bytes, of which the fourth is their type.
    let settings = checked(&[1], |check| check.probe = tcp(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[&[4, 0]]));
    assert_eq!(call(&settings.spawn(&net)).await.unwrap(), Code::Ok);
    let never = checked(&[1], |check| check.probe = tcp(b"", &[b"+PONG"])).spawn(&net);
    let error = call(&never).await.unwrap_err();
    assert!(error.status.message().contains("health check: "), "{}", error.status);
}

#[tokio::test(start_paused = true)]
async fn the_control_planes_word_counts_beside_the_check() {
    let net = Net::default();
    let [one, ill, draining] = net.servers();
    let mut config = checked(&[1, 2, 3], |_| {});
    config.endpoint(1).health = HealthStatus::Unhealthy;
    config.endpoint(2).health = HealthStatus::Draining;
    let cluster = config.spawn(&net);
    assert_eq!(shares(&cluster, [&one, &ill, &draining]).await, [100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_priority_without_a_healthy_endpoint_gives_way() {
    let net = Net::default();
    let [first, second] = net.servers();
    let mut config = Config::with_priorities(&[&[1], &[2]]);
    config.cluster.health_check = Some(Arc::new(check()));
    let cluster = config.spawn(&net);
    assert_eq!(shares(&cluster, [&first, &second]).await, [100, 0]);
    first.health(Health::Says(2));
    pass(11 * SECOND).await;
    assert_eq!(shares(&cluster, [&first, &second]).await, [0, 100]);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_an_ejection_unless_told_otherwise() {
    let net = Net::default();
    let [one, flaky] = net.servers();
    for (ends, expected) in [(true, 50), (false, 0)] {
        let mut config = checked(&[1, 2], |_| {});
        config.cluster.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: Some(Consecutive { threshold: 3, enforcing: 100 }),
            max_ejection_percent: 100,
            base_ejection_time: 100 * SECOND,
            uneject_by_health_check: ends,
            ..OutlierDetection::default()
        });
        let cluster = config.spawn(&net);
        flaky.answer(Answer::TrailersOnly(Code::Unavailable));
        for _ in 0..20 {
            call(&cluster).await.unwrap();
        }
        flaky.answer(Answer::Status(Code::Ok));
        assert_eq!(shares(&cluster, [&one, &flaky]).await, [100, 0], "it is ejected");
        pass(11 * SECOND).await;
        assert_eq!(shares(&cluster, [&one, &flaky]).await[1], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_explanation_names_the_check() {
    let net = Net::default();
    let [_well, ill] = net.servers();
    ill.health(Health::Says(2));
    let cluster = checked(&[1, 2], |_| {}).spawn(&net);
    call(&cluster).await.unwrap();
    let description = cluster.describe().await.unwrap();
    let (_, reason) = &description.endpoints[&address(2)];
    assert_eq!(reason.as_deref(), Some("its health check failed: it says NOT_SERVING"));
}
