//! Attempts beside one another: how many, who wins, and what is left of the others.

use super::*;
use mesh_xds::resource::retry::HedgePolicy;
use std::num::NonZeroU32;

/// So many attempts at once, UNAVAILABLE is retried; the rest is changed.
fn hedging(initial: u32, change: impl FnOnce(&mut RetryPolicy, &mut HedgePolicy)) -> XdsConfig {
    let mut policy = retry_policy(RetryOn { unavailable: true, ..RetryOn::default() });
    let mut hedge = HedgePolicy {
        initial_requests: NonZeroU32::new(initial).unwrap(),
        additional_request_chance: Fraction::ZERO,
        on_per_try_timeout: false,
    };
    change(&mut policy, &mut hedge);
    to_c(|forward| {
        forward.retry = Some(Arc::new(policy));
        forward.hedge = Some(hedge);
    })
}

/// An attempt after 100 ms without an answer, as many as there may be.
fn when_slow() -> XdsConfig {
    hedging(1, |policy, hedge| {
        policy.per_try_timeout = Some(ms(100));
        hedge.on_per_try_timeout = true;
    })
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_of_several_attempts_wins_and_the_others_are_given_up() {
    let mesh = Mesh::new(
        &hedging(3, |_, _| {}),
        [Act::Hang, Act::Code(Code::Ok, ms(80)), Act::Code(Code::Ok, ms(10))],
    );
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.elapsed(), previous(&mesh)), (ms(10), vec![0, 1, 2]));
    assert!(mesh.seen().iter().all(|seen| &seen.body[..] == b"message"), "each has the whole request");
    let counts = mesh.core.counters.read();
    assert_eq!((counts.hedges, counts.retries), (2, 0));
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_wins_with_its_headers() {
    let mesh = Mesh::new(&hedging(2, |_, _| {}), [Act::Hang, Act::Stream(ms(50))]);
    let Outcome::Response(response) = mesh.core.call(request(None)).await.unwrap() else { panic!() };
    assert_eq!(mesh.elapsed(), ms(0));
    assert_eq!(mesh.world.permits.load(SeqCst), 2, "it was a second attempt, which lasts");
    response.into_body().collect().await.unwrap();
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_goes_on_beside_the_next_and_may_still_win() {
    let answers = [Act::Code(Code::Ok, ms(150)), Act::Hang];
    let mesh = Mesh::new(&when_slow(), answers);
    assert_eq!(code(&mesh.call(request(Some("2S"))).await.unwrap()), Code::Ok);
    assert_eq!((mesh.elapsed(), previous(&mesh)), (ms(150), vec![0, 1]));
    let seen = mesh.seen();
    assert_eq!(seen[0].headers["grpc-timeout"], "2000000u", "it has all the time of the call");
    assert!(seen[1].at >= ms(100) && seen[1].at <= ms(125), "after the back-off: {:?}", seen[1].at);
    assert_released(&mesh);

    let mesh = Mesh::new(&when_slow(), [Act::Hang, Act::Code(Code::Ok, ms(5))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert!(mesh.elapsed() <= ms(130));
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_attempts_than_the_policies_allow() {
    let mesh = Mesh::new(&when_slow(), vec![Act::Hang; 9]);
    let error = mesh.call(request(Some("2S"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(2000)), "one deadline for all");
    assert_eq!(previous(&mesh), [0, 1, 2], "num_retries 2");
    assert_released(&mesh);

    let mesh = Mesh::new(&hedging(2, |_, _| {}), vec![UNAVAILABLE; 9]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), previous(&mesh)), (Code::Unavailable, vec![0, 1, 2, 3]));
    assert_released(&mesh);

    let mesh = Mesh::new(&hedging(1000, |policy, _| policy.num_retries = 1), vec![Act::Hang; 9]);
    mesh.world.permits.store(100, SeqCst);
    mesh.call(request(Some("1S"))).await.unwrap_err();
    assert_eq!(mesh.seen().len(), 5, "as in A6");
}

#[tokio::test(start_paused = true)]
async fn the_chance_of_one_more_is_drawn_for_each_call() {
    let half = |_: &mut RetryPolicy, hedge: &mut HedgePolicy| {
        hedge.additional_request_chance = Fraction::per_million(500_000);
    };
    let mesh = Mesh::new(&hedging(1, half), []);
    for _ in 0..400 {
        mesh.call(request(None)).await.unwrap();
    }
    let hedges = mesh.core.counters.read().hedges;
    assert!((150..250).contains(&hedges), "{hedges} of 400");
}

#[tokio::test(start_paused = true)]
async fn attempts_beyond_the_first_need_room_in_the_clusters_limit_of_retries() {
    let mesh = Mesh::new(&hedging(3, |_, _| {}), vec![Act::Code(Code::Ok, ms(5)); 3]);
    mesh.world.permits.store(1, SeqCst);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.core.counters.read().retries_denied), (2, 1));

    let mesh = Mesh::new(&when_slow(), [Act::Code(Code::Ok, ms(500))]);
    mesh.world.permits.store(0, SeqCst);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.elapsed()), (1, ms(500)), "the first goes on");

    // A retry takes the place of the attempt that failed, and so its permit.
    let mesh =
        Mesh::new(&hedging(2, |_, _| {}), [Act::Hang, UNAVAILABLE, UNAVAILABLE, Act::Code(Code::Ok, ms(0))]);
    mesh.world.permits.store(1, SeqCst);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen().len(), mesh.world.permits.load(SeqCst)), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_policy_does_not_name_ends_the_call_and_one_that_it_names_does_not() {
    let not_found = Act::Code(Code::NotFound, ms(5));
    let mesh = Mesh::new(&hedging(2, |_, _| {}), [not_found, Act::Code(Code::Ok, ms(80))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::NotFound);
    assert_eq!(mesh.elapsed(), ms(5));
    assert_released(&mesh);

    let mesh = Mesh::new(
        &hedging(2, |policy, _| policy.num_retries = 1),
        [UNAVAILABLE, Act::Code(Code::Ok, ms(80)), Act::Hang],
    );
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.elapsed(), mesh.seen().len()), (ms(80), 3), "and was tried again meanwhile");
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_an_answer_ends_the_call_only_when_nothing_else_is_left() {
    for kind in [AttemptErrorKind::LocalOverflow, AttemptErrorKind::Dropped, AttemptErrorKind::Reset] {
        let mut config = hedging(2, |_, _| {});
        let nothing = hedging(2, |policy, _| policy.on = RetryOn::default());
        if kind == AttemptErrorKind::Reset {
            config = nothing;
        }
        let mesh = Mesh::new(&config, [Act::Fail(kind), Act::Code(Code::Ok, ms(80))]);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok, "{kind:?}");
        assert_eq!(mesh.seen().len(), 2);
        let mesh = Mesh::new(&config, vec![Act::Fail(kind); 9]);
        let error = mesh.call(request(None)).await.unwrap_err();
        assert!(error.message().contains(&format!("{kind:?} (attempt 2)")), "{error}");
        assert_eq!(mesh.seen().len(), 2);
        assert_released(&mesh);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_an_attempt_that_was_slow_is_followed_by_nothing_more() {
    let mesh = Mesh::new(&when_slow(), [Act::Code(Code::Unavailable, ms(150)), Act::Code(Code::Ok, ms(90))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.seen().len(), 2);
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_servers_pushback_stops_or_delays_what_was_not_sent() {
    let stop = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "-1");
    let slowly = |policy: &mut RetryPolicy, hedge: &mut HedgePolicy| {
        policy.per_try_timeout = Some(ms(100));
        hedge.on_per_try_timeout = true;
    };
    let mesh = Mesh::new(&hedging(2, slowly), [Act::Code(Code::Unavailable, ms(500)), stop]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len(), mesh.elapsed()), (Code::Unavailable, 2, ms(500)));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("grpc-retry-pushback-ms"), "{why}");
    assert_released(&mesh);

    // The other attempt would be followed by a third after 100 ms.
    let later = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "700");
    let mesh = Mesh::new(&hedging(2, slowly), [Act::Hang, later]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!((mesh.seen()[2].at, mesh.elapsed()), (ms(700), ms(700)));
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn after_a_servers_pushback_waits_begin_anew() {
    let mesh = waits_begin_anew_after_a_pushback(&hedging(1, |policy, _| policy.num_retries = 5)).await;
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_no_server_processed_is_made_again_once_without_counting() {
    let refused = Act::Fail(AttemptErrorKind::RefusedStream);
    let nothing = |policy: &mut RetryPolicy, _: &mut HedgePolicy| policy.on = RetryOn::default();
    let mesh = Mesh::new(&hedging(2, nothing), [Act::Hang, refused.clone(), Act::Code(Code::Ok, ms(5))]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(previous(&mesh), [0, 1, 1]);
    assert_eq!(mesh.core.counters.read().transparent_retries, 1);
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_serves_a_retry_does_not_hedge() {
    let retry = Incoming { retry: true, ..Incoming::default() };
    let mesh = Mesh::new(&hedging(3, |_, _| {}), vec![UNAVAILABLE; 3]);
    let response = retry.scope(mesh.call(request(None))).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_takes_all_its_attempts_along() {
    let mesh = Mesh::new(&hedging(3, |_, _| {}), vec![Act::Hang; 3]);
    let given_up = tokio::time::timeout(ms(50), mesh.call(request(None))).await;
    assert!(given_up.is_err());
    assert_eq!(mesh.seen().len(), 3);
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_to_keep_is_seen_through_by_one_attempt() {
    let mesh = Mesh::new(&hedging(2, |_, _| {}), [Act::Code(Code::Ok, ms(1))]);
    let frames = (0..32).map(|_| Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let response = mesh.call(request(None).map(|_| body)).await.unwrap();
    assert_eq!(code(&response), Code::Ok);
    let lengths: Vec<_> = mesh.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!((lengths, mesh.elapsed()), (vec![512 << 10], ms(1)));
    assert_released(&mesh);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_does_not_take_the_request_from_the_others_when_it_outgrows_what_is_kept() {
    for kind in [AttemptErrorKind::Reset, AttemptErrorKind::NoEndpoint] {
        let script = [Act::Abandons(kind), Act::Code(Code::Ok, ms(1))];
        let mesh = Mesh::new(&hedging(2, |_, _| {}), script);
        // Nothing for 10 ms, which all of them wait for, then more than is kept.
        let frames = futures_util::stream::unfold(0, |step| async move {
            if step == 0 {
                tokio::time::sleep(ms(10)).await;
            }
            (step < 32).then(|| (Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))), step + 1))
        });
        let body = Body::new(StreamBody::new(frames));
        let response = mesh.call(request(None).map(|_| body)).await.unwrap();
        assert_eq!(code(&response), Code::Ok, "{kind:?}");
        let lengths: Vec<_> = mesh.seen().iter().map(|seen| seen.body.len()).collect();
        assert_eq!((lengths, mesh.elapsed()), (vec![512 << 10], ms(11)), "{kind:?}");
        assert_released(&mesh);
    }
}
