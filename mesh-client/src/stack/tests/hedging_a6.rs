//! Hedging by the program's policy: gRPC A6, rule by rule.

use super::*;
use mesh_xds::resource::retry::HedgePolicy;
use std::num::NonZeroU32;

/// So many attempts, this far apart; UNAVAILABLE is not fatal.
fn every(delay: Duration, attempts: u32) -> HedgingPolicy {
    HedgingPolicy { hedging_delay: delay, ..HedgingPolicy::new(attempts, [Code::Unavailable]) }
}

/// Everything is hedged so, and goes to cluster `c`.
fn hedged(policy: HedgingPolicy, script: impl IntoIterator<Item = Act>) -> Mesh {
    throttled(None, policy, script)
}

fn throttled(
    throttling: Option<Throttling>,
    policy: HedgingPolicy,
    script: impl IntoIterator<Item = Act>,
) -> Mesh {
    let mesh = Mesh::hedging(&to_c(|_| {}), throttling, &[("*", policy)], script);
    mesh.world.permits.store(20, SeqCst);
    mesh
}

/// When each attempt was made.
fn times(mesh: &Mesh) -> Vec<Duration> {
    mesh.seen().iter().map(|seen| seen.at).collect()
}

fn assert_all_released(mesh: &Mesh) {
    assert_eq!((mesh.world.permits.load(SeqCst), mesh.world.open.load(SeqCst)), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_is_made_whenever_the_delay_has_passed_and_one_deadline_bounds_all() {
    let mesh = hedged(every(ms(500), 4), vec![Act::Hang; 9]);
    let error = mesh.call(request(Some("3S"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(3000)));
    assert_eq!(times(&mesh), [ms(0), ms(500), ms(1000), ms(1500)]);
    assert_eq!(previous(&mesh), [0, 1, 2, 3]);
    let told: Vec<_> = mesh.seen().iter().map(|seen| seen.headers["grpc-timeout"].clone()).collect();
    assert_eq!(told, ["3000000u", "2500000u", "2000000u", "1500000u"]);
    let counts = mesh.core.counters.read();
    assert_eq!((counts.hedges, counts.retries), (3, 0));
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn without_a_delay_all_attempts_are_made_at_once_and_there_are_five_at_most() {
    for (wanted, made) in [(2, 2), (4, 4), (5, 5), (100, 5)] {
        let mesh = hedged(every(ms(0), wanted), vec![Act::Hang; 9]);
        mesh.call(request(Some("1S"))).await.unwrap_err();
        assert_eq!(times(&mesh), vec![ms(0); made]);
        assert_all_released(&mesh);
    }
    let mesh = hedged(every(ms(100), 100), vec![Act::Hang; 9]);
    mesh.call(request(Some("2S"))).await.unwrap_err();
    assert_eq!(mesh.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_wins_and_everything_else_is_given_up() {
    let script = [Act::Hang, Act::Code(Code::Ok, ms(80)), Act::Code(Code::Ok, ms(10))];
    let mesh = hedged(every(ms(20), 5), script);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((times(&mesh), mesh.elapsed()), (vec![ms(0), ms(20), ms(40)], ms(50)));
    assert!(mesh.seen().iter().all(|seen| &seen.body[..] == b"message"), "each has the whole request");
    assert_all_released(&mesh);

    let mesh = hedged(every(ms(20), 5), [Act::Code(Code::Ok, ms(10))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.core.counters.read().hedges), (1, 0), "it was fast enough");
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_messages_wins_when_it_begins() {
    let mesh = hedged(every(ms(20), 3), [Act::Hang, Act::Stream(ms(50))]);
    let Outcome::Response(response) = mesh.core.call(request(None)).await.unwrap() else { panic!() };
    assert_eq!((mesh.elapsed(), mesh.world.permits.load(SeqCst)), (ms(20), 19), "a hedge, which lasts");
    response.into_body().collect().await.unwrap();
    assert_eq!((mesh.seen().len(), mesh.elapsed()), (2, ms(70)));
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_fatal_is_followed_at_once_and_the_delay_begins_anew() {
    let script = [Act::Code(Code::Unavailable, ms(100)), Act::Hang, Act::Hang, Act::Hang];
    let mesh = hedged(every(ms(500), 4), script);
    mesh.call(request(Some("2S"))).await.unwrap_err();
    assert_eq!(times(&mesh), [ms(0), ms(100), ms(600), ms(1100)]);
    assert_eq!(mesh.core.counters.read().hedges, 3, "whether another one was in flight or not");

    // Each of two failures is followed by one.
    let failing = |after| Act::Code(Code::Unavailable, ms(after));
    let mesh = hedged(every(ms(60), 5), [failing(100), failing(40), Act::Hang, Act::Hang, Act::Hang]);
    mesh.call(request(Some("1S"))).await.unwrap_err();
    assert_eq!(times(&mesh), [ms(0), ms(60), ms(100), ms(100), ms(160)]);

    // A failure without an answer has a status, too.
    let mesh = hedged(every(ms(500), 3), [Act::Fail(AttemptErrorKind::Reset), OK]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.elapsed()), (2, ms(0)));
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_calls_and_nothing_is_tried_again() {
    let mesh = hedged(every(ms(50), 3), vec![UNAVAILABLE; 9]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.elapsed()), (Code::Unavailable, ms(0)));
    assert_eq!(previous(&mesh), [0, 1, 2]);
    assert!(!response.headers().contains_key("mesh-retry-denied"), "nobody denied a fourth");
    assert_all_released(&mesh);

    let mesh = hedged(every(ms(50), 2), vec![Act::Fail(AttemptErrorKind::Reset); 9]);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert!(error.message().contains("Reset (attempt 2)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn any_other_status_ends_the_call_at_once_and_cancels_the_others() {
    let script = [Act::Code(Code::Ok, ms(500)), Act::Code(Code::NotFound, ms(5)), Act::Hang];
    let mesh = hedged(every(ms(20), 3), script);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::NotFound);
    assert_eq!((mesh.elapsed(), mesh.seen().len()), (ms(25), 2));
    assert_all_released(&mesh);

    // Also of an attempt without an answer.
    let internal = HedgingPolicy { hedging_delay: ms(20), ..HedgingPolicy::new(3, [Code::Internal]) };
    let mesh = hedged(internal, [Act::Code(Code::Ok, ms(500)), Act::Fail(AttemptErrorKind::Reset)]);
    assert_eq!(mesh.call(request(None)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!((mesh.elapsed(), mesh.seen().len()), (ms(20), 2));
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_here_never_ends_a_call_that_has_attempts_in_flight_and_is_not_repeated() {
    for kind in [AttemptErrorKind::LocalOverflow, AttemptErrorKind::Dropped, AttemptErrorKind::SessionLost] {
        let script = [Act::Code(Code::Ok, ms(50)), Act::Fail(kind), Act::Hang];
        let mesh = hedged(every(ms(20), 3), script);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok, "{kind:?}");
        assert_eq!(times(&mesh), [ms(0), ms(20), ms(40)]);
        assert_all_released(&mesh);

        let mesh = hedged(every(ms(20), 3), vec![Act::Fail(kind); 3]);
        mesh.call(request(None)).await.unwrap_err();
        assert_eq!((mesh.elapsed(), mesh.seen().len()), (ms(0), 1), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_pushback_delays_the_next_attempt_and_those_after_it() {
    let later = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "700");
    let mesh = hedged(every(ms(100), 4), [later.clone(), Act::Hang, Act::Hang, Act::Hang]);
    mesh.call(request(Some("2S"))).await.unwrap_err();
    assert_eq!(times(&mesh), [ms(0), ms(700), ms(800), ms(900)]);

    // A failure meanwhile does not shorten it.
    let mesh = hedged(every(ms(100), 4), [Act::Code(Code::Unavailable, ms(300)), later.clone(), OK]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(times(&mesh), [ms(0), ms(100), ms(800)]);

    // One that is shorter than the delay is no earlier than it says.
    let soon = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "30");
    let mesh = hedged(every(ms(100), 4), [soon, OK]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(times(&mesh), [ms(0), ms(30)]);

    // With no time left for it, the failure is the call's at once.
    let mesh = hedged(every(ms(100), 4), [later]);
    let response = mesh.call(request(Some("600m"))).await.unwrap();
    assert_eq!((code(&response), mesh.elapsed(), mesh.seen().len()), (Code::Unavailable, ms(0), 1));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("no time left"), "{why}");
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_servers_negative_pushback_ends_hedging_but_not_what_is_in_flight() {
    let stop = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "-1");
    let mesh = hedged(every(ms(20), 5), [Act::Code(Code::Ok, ms(500)), stop.clone(), Act::Hang]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.elapsed(), mesh.seen().len()), (ms(500), 2));

    let mesh = hedged(every(ms(20), 5), [Act::Code(Code::Unavailable, ms(500)), stop, Act::Hang]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.elapsed(), mesh.seen().len()), (Code::Unavailable, ms(500), 2));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("grpc-retry-pushback-ms"), "{why}");
    assert_all_released(&mesh);

    // Where there would be no other anyway it denies nothing.
    let stop = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "-1");
    let mesh = hedged(every(ms(20), 2), [UNAVAILABLE, stop]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 2));
    assert!(!response.headers().contains_key("mesh-retry-denied"));
}

#[tokio::test(start_paused = true)]
async fn at_half_of_the_tokens_there_are_no_further_attempts_and_those_in_flight_go_on() {
    // 4 tokens: the two failures take 2.
    let script = [Act::Code(Code::Ok, ms(500)), UNAVAILABLE, UNAVAILABLE, Act::Hang];
    let mesh = throttled(Throttling::new(4, 0.5), every(ms(20), 5), script);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((times(&mesh), mesh.elapsed()), (vec![ms(0), ms(20), ms(20)], ms(500)));
    let counts = mesh.core.counters.read();
    assert_eq!((counts.hedges, counts.retries_throttled), (2, 1));

    // The first attempt of a call always goes; its failure says why it is the only one.
    mesh.world.script.lock().unwrap().clear();
    mesh.world.script.lock().unwrap().extend([UNAVAILABLE, UNAVAILABLE]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 4));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("retry throttling"), "{why}");
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_not_fatal_take_a_token_and_successes_give_their_part() {
    let stop = |code| Act::With(code, "grpc-retry-pushback-ms", "-1");
    for (acts, left) in [
        (vec![UNAVAILABLE, UNAVAILABLE], 8000),
        (vec![Act::Fail(AttemptErrorKind::Reset), Act::Ends(Code::Unavailable)], 8000),
        (vec![stop(Code::NotFound)], 9000),
        (vec![stop(Code::Unavailable)], 9000),
        (vec![Act::Code(Code::NotFound, ms(0))], 10_000),
        (vec![Act::Ends(Code::NotFound)], 10_000),
        (vec![Act::Fail(AttemptErrorKind::LocalOverflow)], 10_000),
        (vec![UNAVAILABLE, OK], 9500),
        (vec![UNAVAILABLE, Act::Ends(Code::Ok)], 9500),
        // What no server has processed is no failure.
        (vec![UNAVAILABLE, Act::Fail(AttemptErrorKind::RefusedStream), OK], 9500),
    ] {
        let mesh = throttled(Throttling::new(10, 0.5), every(ms(20), 2), acts.clone());
        let _ = mesh.call(request(None)).await;
        assert_eq!(mesh.core.throttle.as_ref().unwrap().left(), left, "{acts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_need_room_in_the_clusters_limit_of_retries() {
    for (delay, made) in [(ms(0), vec![ms(0), ms(0)]), (ms(20), vec![ms(0), ms(20)])] {
        let mesh = hedged(every(delay, 5), [Act::Code(Code::Ok, ms(500)), Act::Hang]);
        mesh.world.permits.store(1, SeqCst);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
        assert_eq!((times(&mesh), mesh.elapsed()), (made, ms(500)));
        assert_eq!(mesh.core.counters.read().retries_denied, 1);
        assert_eq!(mesh.world.permits.load(SeqCst), 1);
    }
    // The next attempt takes the place of the one that failed, and so its permit.
    let mesh = hedged(every(ms(20), 4), [Act::Hang, UNAVAILABLE, UNAVAILABLE, OK]);
    mesh.world.permits.store(1, SeqCst);
    assert_eq!(code(&mesh.call(request(Some("1S"))).await.unwrap()), Code::Ok);
    assert_eq!((times(&mesh), mesh.world.permits.load(SeqCst)), (vec![ms(0), ms(20), ms(20), ms(20)], 1));
    // None is held for a hedge that waits for its time.
    let mesh = hedged(every(ms(20), 5), [Act::Code(Code::Ok, ms(10))]);
    let held = async {
        tokio::time::sleep(ms(5)).await;
        mesh.world.permits.load(SeqCst)
    };
    assert_eq!(futures_util::join!(mesh.call(request(None)), held).1, 20);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_no_server_processed_is_made_again_at_once_and_does_not_count() {
    let script =
        [Act::Fail(AttemptErrorKind::RefusedStream), Act::Hang, Act::Fail(AttemptErrorKind::NeverSent)];
    let mesh = hedged(every(ms(100), 2), script);
    mesh.call(request(Some("1S"))).await.unwrap();
    assert_eq!((times(&mesh), previous(&mesh)), (vec![ms(0), ms(0), ms(100), ms(100)], vec![0, 0, 1, 1]));
    let counts = mesh.core.counters.read();
    assert_eq!((counts.transparent_retries, counts.hedges), (2, 1));
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn of_a_request_too_long_to_keep_one_attempt_goes_on_and_the_others_end_at_once() {
    let mesh = hedged(every(ms(0), 3), [Act::Deaf, Act::Deaf, Act::Code(Code::Ok, ms(50))]);
    let frames = (0..32).map(|_| Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let mut call = std::pin::pin!(mesh.call(request(None).map(|_| body)));
    assert!(tokio::time::timeout(ms(10), &mut call).await.is_err());
    assert_eq!((mesh.world.open.load(SeqCst), mesh.world.permits.load(SeqCst)), (0, 19), "one is left");
    assert_eq!(code(&call.await.unwrap()), Code::Ok);
    let lengths: Vec<_> = mesh.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!((lengths, mesh.elapsed()), (vec![512 << 10], ms(50)));
    assert_all_released(&mesh);

    // It is not followed by another one either, and says so.
    let mesh = hedged(every(ms(20), 3), [Act::Code(Code::Unavailable, ms(50)), Act::Hang]);
    let frames = (0..32).map(|_| Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let response = mesh.call(request(None).map(|_| body)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("longer than what is kept"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_messages_is_sent_by_every_attempt_while_it_lasts() {
    let messages = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(ms(10)).await;
        (sent < 3).then(|| (Ok::<_, Status>(Frame::data(Bytes::from(vec![sent; 4]))), sent + 1))
    });
    let mesh = hedged(every(ms(25), 2), [Act::Hang, OK]);
    let body = Body::new(StreamBody::new(messages));
    assert_eq!(code(&mesh.call(request(None).map(|_| body)).await.unwrap()), Code::Ok);
    let bodies: Vec<_> = mesh.seen().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, [&b"\0\0\0\0\x01\x01\x01\x01\x02\x02\x02\x02"[..]; 2]);
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_where_one_went_that_had_to_wait_for_a_connection() {
    let config = config(http(), vec![route(PathMatcher::any(), forward("late"))]);
    let failing = Act::Code(Code::Unavailable, ms(50));
    for (delay, first, second_at) in [(ms(50), Act::Hang, ms(50)), (ms(500), failing, ms(60))] {
        let mesh = Mesh::hedging(&config, None, &[("*", every(delay, 2))], [first, OK]);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
        // It would wait as well if it knew of none.
        assert_eq!(times(&mesh), [ms(10), second_at]);
        assert_eq!(mesh.seen()[1].tried, Some(SocketAddr::from(([10, 0, 0, 1], 80))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_the_policy_for_its_method_before_its_services_and_that_before_everything() {
    let of = |attempts| every(ms(0), attempts);
    let policies = [("*", of(2)), ("r.Reviews", of(3)), ("r.Reviews/List", of(4))];
    for (path, made) in [("/r.Reviews/List", 4), ("/r.Reviews/Get", 3), ("/r.Ratings/List", 2)] {
        let mesh = Mesh::hedging(&to_c(|_| {}), None, &policies, vec![Act::Hang; 5]);
        let mut request = request(Some("1S"));
        *request.uri_mut() = path.parse().unwrap();
        mesh.call(request).await.unwrap_err();
        assert_eq!(mesh.seen().len(), made, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_programs_policy_takes_the_place_of_the_routes_and_other_methods_keep_that() {
    let mut retry = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    (retry.per_try_timeout, retry.num_retries) = (Some(ms(5)), 3);
    let config = to_c(|forward| {
        forward.retry = Some(Arc::new(retry));
        forward.hedge = Some(HedgePolicy {
            initial_requests: NonZeroU32::new(2).unwrap(),
            additional_request_chance: Fraction::ZERO,
            on_per_try_timeout: false,
        });
    });
    let internal = HedgingPolicy { hedging_delay: ms(20), ..HedgingPolicy::new(2, [Code::Internal]) };
    let policies = [("r.Reviews/List", internal)];
    let mesh = Mesh::hedging(&config, None, &policies, [Act::Hang, Act::Code(Code::Unavailable, ms(50))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable, "it is fatal here");
    assert_eq!(times(&mesh), [ms(0), ms(20)]);

    let mesh = Mesh::hedging(&config, None, &policies, [Act::Hang, Act::Code(Code::Ok, ms(1))]);
    let mut other = request(None);
    *other.uri_mut() = "/r.Reviews/Get".parse().unwrap();
    assert_eq!(code(&mesh.call(other).await.unwrap()), Code::Ok);
    assert_eq!(times(&mesh), [ms(0), ms(0)]);
}

#[tokio::test(start_paused = true)]
async fn the_routes_timeout_bounds_all_attempts() {
    let config = to_c(|forward| forward.max_stream_duration = Some(ms(300)));
    let mesh = Mesh::hedging(&config, None, &[("*", every(ms(200), 5))], vec![Act::Hang; 5]);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed(), mesh.seen().len()), (Code::DeadlineExceeded, ms(300), 2));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline_though_it_is_not_fatal() {
    let late = HedgingPolicy { hedging_delay: ms(200), ..HedgingPolicy::new(5, [Code::DeadlineExceeded]) };
    let mesh = hedged(late, vec![Act::Hang; 5]);
    let error = mesh.call(request(Some("100m"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed(), mesh.seen().len()), (Code::DeadlineExceeded, ms(100), 1));
    assert!(error.message().contains("the caller's grpc-timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_serves_a_retry_does_not_hedge() {
    let retry = Incoming { retry: true, ..Incoming::default() };
    for delay in [ms(0), ms(20)] {
        let mesh = hedged(every(delay, 3), vec![Act::Code(Code::Unavailable, ms(100)); 3]);
        let response = retry.clone().scope(mesh.call(request(None))).await.unwrap();
        assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
        let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
        assert!(why.contains("is itself a retry"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_takes_all_its_attempts_along() {
    let mesh = hedged(every(ms(10), 3), vec![Act::Hang; 3]);
    let given_up = tokio::time::timeout(ms(50), mesh.call(request(None))).await;
    assert!(given_up.is_err());
    assert_eq!(mesh.seen().len(), 3);
    assert_all_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_configuration_is_hedged_as_well() {
    let policies = [("*", every(ms(20), 3))];
    let config = to_c(|_| {});
    let mesh = Mesh::hedging(&config, None, &policies, [Act::Hang, OK]);
    mesh.core.snapshot.publish(State::Pending);
    let call = mesh.call(request(None));
    let published = async {
        tokio::time::sleep(ms(100)).await;
        mesh.publish(&config);
    };
    assert_eq!(code(&futures_util::join!(call, published).0.unwrap()), Code::Ok);
    assert_eq!(times(&mesh), [ms(100), ms(120)]);
}
