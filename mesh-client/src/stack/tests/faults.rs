//! Injected delays and aborts.

use super::*;
use crate::stack::Begun;
use mesh_xds::{
    matcher::{HeaderMatcher, HeaderOrPseudo},
    resource::{
        fault::{AbortKind, DelayKind, Fault, FaultAbort, FaultDelay},
        filter::{FilterConfig, FilterOverride, HttpFilter},
        route::{Destination, WeightedCluster},
    },
};
use std::num::NonZeroU32;

fn filter(name: &str, fault: Fault) -> HttpFilter {
    HttpFilter { name: name.into(), config: FilterConfig::Fault(Arc::new(fault)), disabled: false }
}

fn faulty(fault: Fault) -> XdsConfig {
    let mut http = http();
    http.filters.insert(0, filter("fault", fault));
    let mut retry = forward("c");
    retry.retry = Some(Arc::new(retry_policy(RetryOn { unavailable: true, ..RetryOn::default() })));
    config(http, vec![route(PathMatcher::any(), retry)])
}

fn fault(delay: Option<u64>, abort: Option<AbortKind>) -> Fault {
    let delay =
        delay.map(|millis| FaultDelay { kind: DelayKind::Fixed(ms(millis)), fraction: Fraction::ONE });
    let abort = abort.map(|kind| FaultAbort { kind, fraction: Fraction::ONE });
    Fault { delay, abort, headers: Vec::new(), max_active: None }
}

#[tokio::test(start_paused = true)]
async fn a_delay_comes_before_the_call_and_counts_against_its_deadline() {
    let mesh = Mesh::new(&faulty(fault(Some(7_000), None)), []);
    assert_eq!(code(&mesh.call(request(Some("10S"))).await.unwrap()), Code::Ok);
    let seen = &mesh.seen()[0];
    assert_eq!(seen.at, ms(7_000));
    assert_eq!(seen.headers["grpc-timeout"], "3000000u");

    let error = mesh.call(request(Some("3S"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(10_000)));
    assert!(error.message().contains("injected delay of 7s"), "{error}");
    assert_eq!(mesh.seen().len(), 1, "the second was not sent");
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_the_call_unsent_and_is_not_retried() {
    let mesh = Mesh::new(&faulty(fault(Some(100), Some(AbortKind::Http(503)))), []);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::Unavailable, ms(100)));
    assert!(error.message().contains("fault injected"), "{error}");
    assert!(error.message().contains("target reviews:9080: route r: "), "{error}");
    assert!(mesh.seen().is_empty());
    let counts = mesh.core.counters.read();
    assert_eq!((counts.faults_delayed, counts.faults_aborted, counts.retries), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_abort_with_status_ok_is_an_empty_answer() {
    let mesh = Mesh::new(&faulty(fault(None, Some(AbortKind::Grpc(0)))), []);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), response.body().len()), (Code::Ok, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_faults_are_active_than_configured() {
    let mut limited = fault(Some(1_000), None);
    limited.max_active = Some(1);
    let mesh = Mesh::new(&faulty(limited), []);
    let (one, other) = tokio::join!(mesh.call(request(None)), mesh.call(request(None)));
    assert!(one.is_ok() && other.is_ok());
    let at: Vec<_> = mesh.seen().iter().map(|seen| seen.at).collect();
    assert_eq!(at, [ms(0), ms(1_000)]);
    assert_eq!(mesh.core.counters.read().faults_over_limit, 1);
    mesh.call(request(None)).await.unwrap();
    assert_eq!(mesh.elapsed(), ms(2_000), "the first one's place is free again");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_which_nothing_happens_is_sent_at_once() {
    let share = |fraction| {
        let mut fault = fault(Some(1_000), Some(AbortKind::Http(503)));
        fault.delay.as_mut().unwrap().fraction = fraction;
        fault.abort.as_mut().unwrap().fraction = fraction;
        fault
    };
    let of_users = HeaderMatcher::present(HeaderOrPseudo::parse("end-user").unwrap());
    let others = Fault { headers: vec![of_users], ..share(Fraction::ONE) };
    let none = Fault { max_active: Some(0), ..share(Fraction::ONE) };
    for (fault, at_once) in
        [(share(Fraction::ZERO), true), (others, true), (none, true), (share(Fraction::ONE), false)]
    {
        let mesh = Mesh::new(&faulty(fault.clone()), []);
        let begun = mesh.core.begin(request(None));
        assert_eq!(matches!(begun, Begun::Flight(_)), at_once, "{fault:?}");
        let over_limit = mesh.core.counters.read().faults_over_limit;
        assert_eq!(over_limit, u64::from(fault.max_active == Some(0)));
        if let Begun::Flight(flight) = begun {
            flight.await.map(drop).unwrap();
            assert_eq!(mesh.seen().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_cluster_whose_fault_happens_is_the_one_that_is_called() {
    let slow = FilterConfig::Fault(Arc::new(fault(Some(1_000), None)));
    let weighted = |cluster: &str, overrides| WeightedCluster {
        cluster: cluster.into(),
        weight: NonZeroU32::MIN,
        headers: Default::default(),
        overrides,
        authority: None,
    };
    let both = vec![
        weighted("fast", Default::default()),
        weighted("slow", [("fault".into(), FilterOverride::Config(slow))].into()),
    ];
    let mut http = http();
    http.filters.insert(0, filter("fault", fault(None, None)));
    let to_both = Forward { destination: Destination::Weighted(both), ..forward("fast") };
    let mesh = Mesh::new(&config(http, vec![route(PathMatcher::any(), to_both)]), []);
    for _ in 0..60 {
        let began = mesh.elapsed();
        mesh.call(request(None)).await.unwrap();
        let seen = mesh.seen().pop().unwrap();
        assert_eq!(seen.at - began, if seen.cluster == "slow" { ms(1_000) } else { ms(0) });
    }
    let delayed = mesh.core.counters.read().faults_delayed;
    assert!((10..50).contains(&delayed), "{delayed}");
}

#[tokio::test(start_paused = true)]
async fn a_request_comes_to_each_fault_filter_when_the_one_before_has_let_it_pass() {
    let mut config = faulty(fault(Some(1_000), None));
    let aborts = Fault { max_active: Some(2), ..fault(Some(500), Some(AbortKind::Grpc(8))) };
    Arc::make_mut(&mut config.http).filters.insert(1, filter("second", aborts));
    let mesh = Mesh::new(&config, []);
    let call = || mesh.call(request(None));
    let later = async {
        tokio::time::sleep(ms(600)).await;
        call().await
    };
    let (one, other) = tokio::join!(call(), later);
    assert_eq!(
        (one.unwrap_err().code(), other.unwrap_err().code()),
        (Code::ResourceExhausted, Code::ResourceExhausted)
    );
    assert_eq!(mesh.elapsed(), ms(2_100), "what waits in the first filter is not counted in the second");
}
