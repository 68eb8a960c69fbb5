//! Priorities, ejection and panic, on the wire.

use super::net::*;
use crate::cluster::{AttemptContext, AttemptErrorKind};
use mesh_xds::{
    matcher::Fraction,
    resource::{
        cluster::{Consecutive, FailurePercentage, LbPolicy, OutlierDetection},
        endpoint::HealthStatus,
    },
};
use std::{num::NonZeroU32, time::Duration};
use tokio::time::Instant;
use tonic::Code;

fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        consecutive_5xx: Some(Consecutive { threshold: 5, enforcing: 100 }),
        consecutive_gateway_failure: None,
        consecutive_local_origin_failure: None,
        split_external_local_origin_errors: false,
        ..OutlierDetection::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_priority_gets_no_call_until_the_first_fails_and_none_after_it_is_back() {
    let net = Net::default();
    let [first, second, standby] = net.servers();
    let cluster = Config::with_priorities(&[&[1, 2], &[3]]).spawn(&net);
    rest().await;
    for _ in 0..50 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((first.hits() + second.hits(), standby.hits(), standby.dials()), (50, 0, 0));
    for server in [&first, &second] {
        server.door(Door::Refuses);
        server.kill();
    }
    rest().await;
    for _ in 0..10 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!(standby.hits(), 10);
    first.door(Door::Open);
    second.door(Door::Open);
    pass(Duration::from_secs(130)).await;
    for _ in 0..10 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((first.hits() + second.hits(), standby.hits()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_priority_that_lost_endpoints_spills_what_the_others_could_not_bear() {
    let net = Net::default();
    let servers: [_; 5] = net.servers();
    let cluster = Config::with_priorities(&[&[1, 2, 3, 4], &[5]]).spawn(&net);
    rest().await;
    let mut spilled = Vec::new();
    for server in servers.iter().take(4) {
        for _ in 0..500 {
            assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
        }
        spilled.push(servers[4].hits());
        server.door(Door::Refuses);
        server.kill();
        rest().await;
    }
    // 4, 3, 2 and 1 of 4 are available: 100 %, 105 %, 70 % and 35 %.
    for (spilled, expected) in spilled.iter().zip([0_usize, 0, 150, 325]) {
        assert!(spilled.abs_diff(expected) < 45, "{spilled}, not {expected}");
    }
    assert_eq!(&spilled[..2], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_priority_that_hangs_is_passed_over_after_ten_seconds() {
    let net = Net::default();
    let [hanging, standby] = net.servers();
    hanging.door(Door::Hangs);
    let mut config = Config::with_priorities(&[&[1], &[2]]);
    config.cluster.connection.connect_timeout = Duration::from_secs(60);
    let cluster = config.spawn(&net);
    let started = Instant::now();
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!((started.elapsed().as_secs(), standby.hits()), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn localities_get_their_shares_and_endpoints_theirs() {
    let net = Net::default();
    let servers: [_; 3] = net.servers();
    let mut config = Config::of(&[]);
    let mut heavy = endpoint(2);
    heavy.weight = NonZeroU32::new(3).unwrap();
    config.endpoints.priorities = vec![mesh_xds::resource::endpoint::Priority {
        localities: vec![
            locality("a", 80, vec![endpoint(1)]),
            locality("b", 20, vec![heavy, endpoint(3)]),
            locality("empty", 900, vec![]),
        ],
    }];
    for lb in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::least_request(2)] {
        config.cluster.lb = lb;
        let cluster = config.spawn(&net);
        rest().await;
        for _ in 0..2000 {
            call(&cluster).await.unwrap();
        }
        let shares = servers.each_ref().map(|server| server.hits());
        for (share, expected) in shares.into_iter().zip([1600_usize, 300, 100]) {
            // At most 4.5 standard deviations.
            assert!(share.abs_diff(expected) < 80, "{:?}: {shares:?}", config.cluster.lb);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_always_fails_is_ejected_and_comes_back() {
    let net = Net::default();
    let [good, bad] = net.servers();
    bad.answer(Answer::Status(Code::Unavailable));
    let mut config = Config::of(&[1, 2]);
    config.cluster.outlier_detection = Some(outlier_detection());
    let cluster = config.spawn(&net);
    rest().await;
    let mut failures = 0;
    for _ in 0..100 {
        failures += i32::from(call(&cluster).await.unwrap() != Code::Ok);
        rest().await;
    }
    assert_eq!((failures, bad.hits(), good.hits()), (5, 5, 95));
    bad.answer(Answer::Status(Code::Ok));
    pass(Duration::from_secs(29)).await;
    call(&cluster).await.unwrap();
    assert_eq!(bad.hits(), 0);
    pass(Duration::from_secs(12)).await;
    for _ in 0..10 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!((bad.hits(), bad.dials()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_ejected_for_the_codes_that_are_errors_and_for_no_others() {
    let calls_of_the_failing = |codes: Option<&'static [u16]>, answer| async move {
        let net = Net::default();
        let [good, bad] = net.servers();
        bad.answer(answer);
        let mut config = Config::of(&[1, 2]);
        let errors = codes.map(|codes| codes.iter().copied().collect());
        config.cluster.outlier_detection = Some(OutlierDetection { errors, ..outlier_detection() });
        let cluster = config.spawn(&net);
        rest().await;
        for _ in 0..40 {
            call(&cluster).await.unwrap();
            rest().await;
        }
        let (well, failed) = (good.hits(), bad.hits());
        assert_eq!(well + failed, 40);
        failed
    };
    const CODES: Option<&[u16]> = Some(&[429]);
    let (busy, broken) = (Code::ResourceExhausted, Code::Internal);
    for (codes, answer, ejected) in [
        (None, Answer::Status(busy), false),
        (CODES, Answer::Status(busy), true),
        (CODES, Answer::TrailersOnly(busy), true),
        (CODES, Answer::Http(429), true),
        (CODES, Answer::Status(broken), false),
        (CODES, Answer::Http(500), false),
        (None, Answer::Status(broken), true),
    ] {
        let expected = if ejected { 5 } else { 20 };
        assert_eq!(calls_of_the_failing(codes, answer).await, expected, "{codes:?} {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_in_trailers_and_lost_calls_count_and_cancelled_ones_do_not() {
    for answer in [
        Answer::Status(Code::Internal),
        Answer::TrailersOnly(Code::Unknown),
        Answer::Http(503),
        Answer::Reset,
        Answer::Silent,
    ] {
        let net = Net::default();
        let [server] = net.servers();
        server.answer(answer);
        let mut config = Config::of(&[1]);
        config.cluster.outlier_detection = Some(outlier_detection());
        let cluster = config.spawn(&net);
        for _ in 0..20 {
            // Given up by the caller: no verdict.
            let calling = tokio::time::timeout(Duration::from_millis(1), async {
                server.answer(Answer::Silent);
                call(&cluster).await
            });
            assert!(calling.await.is_err());
        }
        server.answer(answer);
        for _ in 0..5 {
            let deadline = Some(Instant::now() + Duration::from_millis(5));
            let mut context = AttemptContext { deadline, ..AttemptContext::default() };
            if let Ok(response) = attempt(&cluster, &mut context).await {
                status(response).await;
            }
        }
        rest().await;
        let error = call(&cluster).await.unwrap_err();
        assert_eq!(error.kind, AttemptErrorKind::NoEndpoint, "{answer:?}");
        assert_eq!(
            error.status.message(),
            "cluster reviews: no ready endpoint (1 ejected as outliers)",
            "{answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_share_is_ejected_by_the_sweep() {
    let net = Net::default();
    let [_good, bad] = net.servers();
    bad.answer(Answer::Status(Code::NotFound));
    let mut config = Config::of(&[1, 2]);
    config.cluster.outlier_detection = Some(OutlierDetection {
        failure_percentage: Some(FailurePercentage {
            threshold: 50,
            enforcing: 100,
            minimum_hosts: 2,
            request_volume: 5,
        }),
        ..outlier_detection()
    });
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..20 {
        call(&cluster).await.unwrap();
    }
    assert_eq!(bad.hits(), 10);
    pass(Duration::from_secs(11)).await;
    for _ in 0..20 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    }
    assert_eq!(bad.hits(), 0);
}

#[tokio::test(start_paused = true)]
async fn ejection_makes_the_next_priority_take_over() {
    let net = Net::default();
    let [bad, standby] = net.servers();
    bad.answer(Answer::Status(Code::Internal));
    let mut config = Config::with_priorities(&[&[1], &[2]]);
    config.cluster.outlier_detection = Some(outlier_detection());
    let cluster = config.spawn(&net);
    for _ in 0..5 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Internal);
    }
    rest().await;
    assert_eq!(call(&cluster).await.unwrap(), Code::Ok);
    assert_eq!(standby.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn ejection_does_not_touch_pick_first() {
    let net = Net::default();
    let [bad] = net.servers();
    bad.answer(Answer::Status(Code::Internal));
    let mut config = Config::of(&[1]);
    config.cluster.lb = LbPolicy::PickFirst { shuffle: false };
    config.cluster.outlier_detection = Some(outlier_detection());
    let cluster = config.spawn(&net);
    for _ in 0..20 {
        assert_eq!(call(&cluster).await.unwrap(), Code::Internal);
        rest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn below_the_panic_threshold_health_is_ignored() {
    let net = Net::default();
    let [healthy, sick, sicker] = net.servers();
    let mut config = Config::of(&[1, 2, 3]);
    config.endpoint(1).health = HealthStatus::Unhealthy;
    config.endpoint(2).health = HealthStatus::Unhealthy;
    config.cluster.panic_threshold = Some(Fraction::per_million(300_000));
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..30 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((healthy.hits(), sick.hits(), sicker.hits()), (30, 0, 0));
    config.cluster.panic_threshold = Some(Fraction::per_million(500_000));
    cluster.update(config.build());
    rest().await;
    for _ in 0..30 {
        call(&cluster).await.unwrap();
    }
    assert_eq!((healthy.hits(), sick.hits(), sicker.hits()), (10, 10, 10));
}

#[tokio::test(start_paused = true)]
async fn degraded_endpoints_count_against_panic_and_are_like_others_in_it() {
    let net = Net::default();
    let servers: [_; 4] = net.servers();
    let mut config = Config::of(&[1, 2, 3, 4]);
    config.endpoint(0).health = HealthStatus::Degraded;
    for index in 1..4 {
        config.endpoint(index).health = HealthStatus::Unhealthy;
    }
    // One of four may be picked: that is 25 %.
    for (threshold, shares) in [(250_000, [40, 0, 0, 0]), (250_001, [10; 4])] {
        config.cluster.panic_threshold = Some(Fraction::per_million(threshold));
        let cluster = config.spawn(&net);
        rest().await;
        for _ in 0..40 {
            call(&cluster).await.unwrap();
        }
        assert_eq!(servers.each_ref().map(|server| server.hits()), shares, "{threshold}");
    }
}

#[tokio::test(start_paused = true)]
async fn degraded_endpoints_of_the_first_priority_come_after_healthy_ones_of_the_second() {
    let net = Net::default();
    let [degraded, lost, standby, gone] = net.servers();
    let mut config = Config::with_priorities(&[&[1, 2], &[3, 4]]);
    config.endpoint(0).health = HealthStatus::Degraded;
    config.endpoint(1).health = HealthStatus::Unhealthy;
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..100 {
        call(&cluster).await.unwrap();
    }
    assert_eq!([&degraded, &lost, &standby, &gone].map(|server| server.hits()), [0, 0, 50, 50]);
    // Half of the second priority is left, and bears 70 %.
    config.endpoint(3).health = HealthStatus::Unhealthy;
    cluster.update(config.build());
    rest().await;
    for _ in 0..1000 {
        call(&cluster).await.unwrap();
    }
    let shares = [&degraded, &lost, &standby, &gone].map(|server| server.hits());
    assert!(shares[0].abs_diff(300) < 60 && shares[1] + shares[3] == 0, "{shares:?}");
    assert_eq!(shares[0] + shares[2], 1000);
}

#[tokio::test(start_paused = true)]
async fn one_failure_may_reach_two_limits_and_each_is_enforced_by_its_own_share() {
    for (gateway, server_error, ejected) in [(0, 100, true), (100, 0, true), (0, 0, false)] {
        let net = Net::default();
        let [bad, good] = net.servers();
        bad.answer(Answer::Status(Code::Unavailable));
        let limit = |enforcing| Some(Consecutive { threshold: 3, enforcing });
        let mut config = Config::of(&[1, 2]);
        config.cluster.lb = LbPolicy::RoundRobin;
        config.cluster.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: limit(server_error),
            consecutive_gateway_failure: limit(gateway),
            ..outlier_detection()
        });
        let cluster = config.spawn(&net);
        rest().await;
        for _ in 0..20 {
            call(&cluster).await.unwrap();
            rest().await;
        }
        let expected = if ejected { 3 } else { 10 };
        assert_eq!((bad.hits(), good.hits()), (expected, 20 - expected), "{gateway} {server_error}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_made_here_eject_by_their_own_limit_and_answers_do_not() {
    for answer in [Answer::Reset, Answer::Status(Code::Unavailable)] {
        let net = Net::default();
        let [bad, good] = net.servers();
        bad.answer(answer);
        let mut config = Config::of(&[1, 2]);
        config.cluster.lb = LbPolicy::RoundRobin;
        config.cluster.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: None,
            split_external_local_origin_errors: true,
            consecutive_local_origin_failure: Some(Consecutive { threshold: 3, enforcing: 100 }),
            ..outlier_detection()
        });
        let cluster = config.spawn(&net);
        rest().await;
        for _ in 0..20 {
            let _ = call(&cluster).await;
            rest().await;
        }
        let expected = if answer == Answer::Reset { 3 } else { 10 };
        assert_eq!((bad.hits(), good.hits()), (expected, 20 - expected), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_statistics_of_failures_made_here_do_not_see_what_servers_answer() {
    let net = Net::default();
    let [resets, fails, good] = net.servers();
    resets.answer(Answer::Reset);
    fails.answer(Answer::Status(Code::Unavailable));
    let share = FailurePercentage { threshold: 50, enforcing: 100, minimum_hosts: 3, request_volume: 10 };
    let mut config = Config::of(&[1, 2, 3]);
    config.cluster.lb = LbPolicy::RoundRobin;
    let mut rules = OutlierDetection {
        consecutive_5xx: None,
        split_external_local_origin_errors: true,
        ..outlier_detection()
    };
    rules.local_origin.failure_percentage = Some(share);
    config.cluster.outlier_detection = Some(rules);
    let cluster = config.spawn(&net);
    rest().await;
    for _ in 0..60 {
        let _ = call(&cluster).await;
    }
    assert_eq!((resets.hits(), fails.hits(), good.hits()), (20, 20, 20));
    pass(Duration::from_secs(10)).await;
    for _ in 0..60 {
        let _ = call(&cluster).await;
    }
    assert_eq!((resets.hits(), fails.hits(), good.hits()), (0, 30, 30));
}
