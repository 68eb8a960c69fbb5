//! Injected delays and aborts.

use super::*;
use mesh_xds::resource::{
    fault::{AbortKind, DelayKind, Fault, FaultAbort, FaultDelay},
    filter::{FilterConfig, HttpFilter},
};

fn faulty(fault: Fault) -> XdsConfig {
    let mut http = http();
    let config_of = FilterConfig::Fault(Arc::new(fault));
    http.filters.insert(0, HttpFilter { name: "fault".into(), config: config_of, disabled: false });
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
