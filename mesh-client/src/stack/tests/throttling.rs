//! Retries and hedges while many calls fail (gRPC A6's `retryThrottling`).

use super::*;
use mesh_xds::resource::retry::HedgePolicy;
use std::num::NonZeroU32;

fn of(max_tokens: u32, token_ratio: f64) -> Throttling {
    Throttling::new(max_tokens, token_ratio).unwrap()
}

fn hedging(initial: u32, num_retries: u32) -> XdsConfig {
    let mut policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    policy.num_retries = num_retries;
    to_c(|forward| {
        forward.retry = Some(Arc::new(policy));
        forward.hedge = Some(HedgePolicy {
            initial_requests: NonZeroU32::new(initial).unwrap(),
            additional_request_chance: Fraction::ZERO,
            on_per_try_timeout: false,
        });
    })
}

#[tokio::test(start_paused = true)]
async fn at_half_of_the_tokens_calls_are_not_retried_and_successes_let_them_again() {
    // The first call takes 2 of 4 tokens.
    let script = [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE];
    let mesh = Mesh::throttled(&retrying(|_| {}), of(4, 0.5), script);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 2));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("retry throttling"), "{why}");
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 3), "1 of 4");
    let counts = mesh.core.counters.read();
    assert_eq!((counts.retries, counts.retries_throttled, counts.retries_denied), (1, 2, 0));
    assert_eq!(mesh.world.permits.load(SeqCst), 3);

    let ok = async |calls: usize| {
        for _ in 0..calls {
            assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
        }
    };
    ok(3).await;
    mesh.world.script.lock().unwrap().extend([UNAVAILABLE]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable, "2.5 - 1 of 4");
    ok(4).await;
    mesh.world.script.lock().unwrap().extend([UNAVAILABLE, OK]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok, "3.5 - 1 of 4");
}

#[tokio::test(start_paused = true)]
async fn without_it_nothing_is_throttled() {
    let mesh = Mesh::new(&retrying(|_| {}), vec![UNAVAILABLE; 3 * 50]);
    for _ in 0..50 {
        mesh.call(request(None)).await.unwrap();
    }
    assert_eq!((mesh.seen().len(), mesh.core.counters.read().retries_throttled), (150, 0));
}

#[tokio::test(start_paused = true)]
async fn named_failures_take_a_token_and_successes_give_their_part_when_they_have_ended() {
    let stop = |code| Act::With(code, "grpc-retry-pushback-ms", "-1");
    for (acts, left) in [
        (vec![UNAVAILABLE], 7000),
        (vec![Act::Fail(AttemptErrorKind::Reset)], 7000),
        (vec![stop(Code::NotFound)], 7000),
        (vec![stop(Code::Unavailable)], 7000),
        (vec![Act::Ends(Code::Unavailable)], 7000),
        (vec![Act::Code(Code::NotFound, Duration::ZERO)], 8000),
        (vec![Act::Ends(Code::NotFound)], 8000),
        (vec![Act::Fail(AttemptErrorKind::LocalOverflow)], 8000),
        (vec![Act::Stream(ms(1))], 8000),
        (vec![OK], 8500),
        (vec![Act::Ends(Code::Ok)], 8500),
        // What no server has processed is no failure.
        (vec![Act::Fail(AttemptErrorKind::NeverSent), Act::Fail(AttemptErrorKind::RefusedStream), OK], 8500),
    ] {
        let plain = retrying(|policy| policy.num_retries = 0);
        for config in [plain, hedging(1, 0)] {
            let script = [vec![UNAVAILABLE; 2], acts.clone()].concat();
            let mesh = Mesh::throttled(&config, of(10, 0.5), script);
            for _ in 0..3 {
                let _ = mesh.call(request(None)).await;
            }
            let tokens = mesh.core.throttle.as_ref().unwrap().left();
            assert_eq!(tokens, left, "{acts:?} {}", mesh.seen().len());
            assert_eq!(mesh.core.counters.read().retries_throttled, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_given_up_counts_as_neither_and_one_that_is_late_as_its_status() {
    let late = |policy: &mut RetryPolicy| policy.on.deadline_exceeded = true;
    let mesh = Mesh::throttled(&retrying(late), of(10, 0.5), vec![Act::Stream(ms(500)); 2]);
    let Outcome::Response(response) = mesh.core.call(request(None)).await.unwrap() else { panic!() };
    drop(response);
    assert_eq!(mesh.core.throttle.as_ref().unwrap().left(), 10_000);
    mesh.call(request(Some("100m"))).await.unwrap_err();
    assert_eq!(mesh.core.throttle.as_ref().unwrap().left(), 9000);
}

#[tokio::test(start_paused = true)]
async fn what_no_server_processed_is_sent_again_though_retries_are_throttled() {
    let refused = Act::Fail(AttemptErrorKind::RefusedStream);
    let mesh = Mesh::throttled(&retrying(|_| {}), of(2, 0.001), [UNAVAILABLE, refused]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.core.counters.read().transparent_retries, 1);
}

#[tokio::test(start_paused = true)]
async fn at_half_of_the_tokens_the_first_attempt_is_the_only_one() {
    let mesh = Mesh::throttled(&hedging(3, 0), of(6, 0.5), vec![UNAVAILABLE; 3]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable);
    assert_eq!(mesh.seen().len(), 3, "3 of 6 are left");
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.core.counters.read().retries_throttled), (4, 1));
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.core.counters.read().hedges, 4, "3.5 of 6");
    assert_eq!(mesh.world.permits.load(SeqCst), 3);

    let mesh = Mesh::throttled(&hedging(1, 2), of(2, 0.5), vec![UNAVAILABLE; 2]);
    let response = mesh.call(request(None)).await.unwrap();
    let throttled = mesh.core.counters.read().retries_throttled;
    assert_eq!((code(&response), mesh.seen().len(), throttled), (Code::Unavailable, 1, 1));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("retry throttling"), "{why}");
}
