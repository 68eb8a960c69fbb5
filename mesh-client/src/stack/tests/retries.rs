//! What is tried again, when, and with what.

use super::*;
use mesh_xds::resource::{
    fault::Fault,
    filter::{FilterConfig, HttpFilter},
    retry::{RateLimitedBackOff, ResetFormat},
};

#[tokio::test(start_paused = true)]
async fn a_failure_is_hidden_and_the_request_sent_again_whole() {
    let mesh = Mesh::new(&retrying(|_| {}), [UNAVAILABLE, Act::Fail(AttemptErrorKind::Reset)]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    let seen = mesh.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| &seen.body[..] == b"message"));
    let previous: Vec<_> = seen.iter().map(|seen| seen.headers.get("grpc-previous-rpc-attempts")).collect();
    assert_eq!(previous, [None, Some(&HeaderValue::from(1)), Some(&HeaderValue::from(2))]);
    assert!(seen[1].at <= ms(25) && seen[2].at - seen[1].at <= ms(50), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn when_retries_are_used_up_the_last_failure_is_the_answer() {
    let mesh = Mesh::new(&retrying(|_| {}), vec![UNAVAILABLE; 5]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 3));
    assert_eq!(response.headers()["grpc-message"], "said%20the%20server");

    let mesh = Mesh::new(&retrying(|_| {}), vec![Act::Fail(AttemptErrorKind::NoEndpoint); 5]);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!(
        error.message(),
        "target reviews:9080: route r: cluster c: NoEndpoint (attempt 3) [configuration 7]"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_does_not_name_is_not_retried() {
    let mesh = Mesh::new(&retrying(|_| {}), [Act::Code(Code::Internal, Duration::ZERO)]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Internal);
    let mesh = Mesh::new(&to_c(|_| {}), [UNAVAILABLE]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable, "no policy");
    assert_eq!(mesh.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_circuit_breaker_is_not_retried() {
    let mesh = Mesh::new(&retrying(|_| {}), [Act::Fail(AttemptErrorKind::LocalOverflow)]);
    assert_eq!(mesh.call(request(None)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(mesh.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_with_messages_is_final() {
    let policy = |policy: &mut RetryPolicy| policy.on.server_error = true;
    let mesh = Mesh::new(&retrying(policy), [Act::Stream(ms(5))]);
    assert_eq!(&mesh.call(request(None)).await.unwrap().body()[..], b"hello");
    assert_eq!(mesh.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_decides_when_to_come_back_or_whether_at_all() {
    let after = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "700");
    let mesh = Mesh::new(&retrying(|_| {}), [after]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.seen()[1].at, ms(700));

    let stop = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "-1");
    let mesh = Mesh::new(&retrying(|_| {}), [stop]);
    let response = mesh.call(request(None)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
    let why = response.headers()["mesh-retry-denied"].to_str().unwrap();
    assert!(why.contains("grpc-retry-pushback-ms"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_cannot_be_in_time_is_not_waited_for() {
    let after = Act::With(Code::Unavailable, "grpc-retry-pushback-ms", "700");
    let mesh = Mesh::new(&retrying(|_| {}), [after]);
    let response = mesh.call(request(Some("500m"))).await.unwrap();
    assert_eq!((code(&response), mesh.elapsed()), (Code::Unavailable, ms(0)));
    assert_eq!(response.headers()["mesh-retry-denied"], "there is no time left for it");
}

#[tokio::test(start_paused = true)]
async fn a_retry_beyond_the_clusters_limit_is_denied_and_says_so() {
    let mesh = Mesh::new(&retrying(|_| {}), [Act::Fail(AttemptErrorKind::Reset)]);
    mesh.world.permits.store(0, SeqCst);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert!(error.message().contains("not retried: the cluster has as many retries"), "{error}");
    assert!(error.metadata().contains_key("mesh-retry-denied"));
    assert_eq!((mesh.seen().len(), mesh.core.counters.read().retries_denied), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_counts_until_its_response_has_ended() {
    let mesh = Mesh::new(&retrying(|_| {}), [UNAVAILABLE, Act::Stream(ms(50))]);
    let Outcome::Response(response) = mesh.core.call(request(None)).await.unwrap() else { panic!() };
    assert_eq!(mesh.world.permits.load(SeqCst), 2);
    response.into_body().collect().await.unwrap();
    assert_eq!(mesh.world.permits.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_bound_of_its_own() {
    let policy = |policy: &mut RetryPolicy| {
        policy.per_try_timeout = Some(ms(100));
        policy.on.deadline_exceeded = true;
    };
    let mesh = Mesh::new(&retrying(policy), [Act::Hang]);
    assert_eq!(code(&mesh.call(request(Some("2S"))).await.unwrap()), Code::Ok);
    let seen = mesh.seen();
    assert_eq!(seen[0].headers["grpc-timeout"], "100000u");
    assert!(seen[1].at >= ms(100) && seen[1].at <= ms(125));

    let mesh = Mesh::new(&retrying(policy), vec![Act::Hang; 3]);
    let error = mesh.call(request(Some("2S"))).await.unwrap_err();
    assert!(error.message().contains("per_try_timeout 100ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_falls_silent_is_ended() {
    let policy = |policy: &mut RetryPolicy| policy.per_try_idle_timeout = Some(ms(80));
    let mesh = Mesh::new(&retrying(policy), [Act::Stream(ms(500))]);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(80)));
    assert!(error.message().contains("per_try_idle_timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_nothing_of_the_silence_that_is_borne() {
    let policy = |policy: &mut RetryPolicy| {
        policy.per_try_timeout = Some(ms(200));
        policy.per_try_idle_timeout = Some(ms(80));
        policy.num_retries = 0;
    };
    let mesh = Mesh::new(&retrying(policy), [Act::Hang]);
    let error = mesh.call(request(Some("2S"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(80)));
    assert!(error.message().contains("(per_try_idle_timeout 80ms)"), "{error}");
    assert_eq!(mesh.seen()[0].headers["grpc-timeout"], "200000u");

    let policy = |policy: &mut RetryPolicy| policy.per_try_idle_timeout = Some(ms(80));
    let mesh = Mesh::new(&retrying(policy), []);
    mesh.call(request(None)).await.unwrap();
    assert!(!mesh.seen()[0].headers.contains_key("grpc-timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_server_processed_is_sent_again_once_without_counting() {
    let refused = Act::Fail(AttemptErrorKind::RefusedStream);
    let policy = |policy: &mut RetryPolicy| policy.on = RetryOn { cancelled: true, ..RetryOn::default() };
    let mesh = Mesh::new(&retrying(policy), [refused.clone()]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.elapsed(), ms(0), "at once");
    assert!(!mesh.seen()[1].headers.contains_key("grpc-previous-rpc-attempts"));

    let mesh = Mesh::new(&retrying(policy), vec![refused; 2]);
    assert_eq!(mesh.call(request(None)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(mesh.seen().len(), 2);
    assert_eq!(mesh.core.counters.read().transparent_retries, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_too_what_no_server_processed_is_sent_again() {
    let (refused, unsent) =
        (Act::Fail(AttemptErrorKind::RefusedStream), Act::Fail(AttemptErrorKind::NeverSent));
    for faults in [false, true] {
        let of = |script: Vec<Act>| {
            let mut http = http();
            if faults {
                // It makes it the long way.
                let fault = Fault { delay: None, abort: None, headers: Vec::new(), max_active: None };
                let config = FilterConfig::Fault(Arc::new(fault));
                http.filters.insert(0, HttpFilter { name: "fault".into(), config, disabled: false });
            }
            Mesh::new(&config(http, vec![route(PathMatcher::any(), forward("c"))]), script)
        };
        let mesh = of(vec![refused.clone()]);
        assert_eq!(code(&mesh.call(request(Some("1S"))).await.unwrap()), Code::Ok);
        let seen = mesh.seen();
        assert_eq!((seen.len(), mesh.elapsed()), (2, ms(0)), "at once");
        assert_eq!((&seen[1].body[..], &seen[1].uri), (&b"message"[..], &seen[0].uri));
        assert_eq!(seen[1].headers, seen[0].headers, "nothing says that it is another attempt");
        assert_eq!(mesh.core.counters.read().transparent_retries, 1);

        let mesh = of(vec![refused.clone(); 2]);
        let error = mesh.call(request(None)).await.unwrap_err();
        assert_eq!((error.code(), mesh.seen().len()), (Code::Unavailable, 2), "once");
        assert!(error.message().contains("(attempt 2)"), "{error}");

        // What was never written, as long as there is time; and a refusal between.
        let script = vec![unsent.clone(), unsent.clone(), refused.clone(), unsent.clone(), unsent.clone()];
        let mesh = of(script);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
        assert_eq!((mesh.seen().len(), mesh.core.counters.read().transparent_retries), (6, 5));

        // What may have been processed is not.
        for kind in [AttemptErrorKind::Reset, AttemptErrorKind::NoEndpoint, AttemptErrorKind::LocalOverflow] {
            let mesh = of(vec![Act::Fail(kind)]);
            assert_eq!(mesh.call(request(None)).await.unwrap_err().code(), Code::Unavailable, "{kind:?}");
            assert_eq!(mesh.seen().len(), 1, "{kind:?}");
        }
        assert_eq!(mesh.world.spares.left(), 1 << 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_to_keep_is_sent_once() {
    let mesh = Mesh::new(&retrying(|_| {}), [UNAVAILABLE]);
    let frames = (0..32).map(|_| Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    let response = mesh.call(request(None).map(|_| body)).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
    assert_eq!(mesh.seen()[0].body.len(), 512 << 10, "it arrives whole all the same");
    assert!(response.headers().contains_key("mesh-retry-denied"));
}

#[tokio::test(start_paused = true)]
async fn while_a_retry_is_served_nothing_is_retried_but_what_no_server_processed() {
    let retry = Incoming { retry: true, ..Incoming::default() };
    let mesh = Mesh::new(&retrying(|_| {}), vec![UNAVAILABLE; 3]);
    let response = retry.clone().scope(mesh.call(request(None))).await.unwrap();
    assert_eq!((code(&response), mesh.seen().len()), (Code::Unavailable, 1));
    assert_eq!(
        response.headers()[crate::stack::RETRY_DENIED],
        "the request being served is itself a retry, and its caller tries again"
    );
    assert_eq!(mesh.seen()[0].headers["x-mesh-retry"], "1", "the hops behind are told");

    let mesh = Mesh::new(&retrying(|_| {}), [Act::Fail(AttemptErrorKind::RefusedStream)]);
    assert_eq!(code(&retry.clone().scope(mesh.call(request(None))).await.unwrap()), Code::Ok);

    let mut mesh = Mesh::new(&retrying(|_| {}), [UNAVAILABLE]);
    Arc::get_mut(&mut mesh.core).unwrap().settings.retry_at_every_hop = true;
    assert_eq!(code(&retry.scope(mesh.call(request(None))).await.unwrap()), Code::Ok);
    assert!(mesh.seen().iter().all(|seen| !seen.headers.contains_key("x-mesh-retry")));
}

#[tokio::test(start_paused = true)]
async fn a_reset_header_decides_when_to_come_back_unless_there_is_pushback() {
    let limited = |policy: &mut RetryPolicy| {
        policy.on.resource_exhausted = true;
        policy.rate_limited = Some(RateLimitedBackOff {
            headers: vec![("retry-after".parse().unwrap(), ResetFormat::Seconds)],
            max: Duration::from_secs(10),
        });
    };
    let exhausted = |name, value| Act::With(Code::ResourceExhausted, name, value);
    for (answer, at) in [
        (exhausted("retry-after", "3"), 3000..=3000),
        (exhausted("grpc-retry-pushback-ms", "40"), 40..=40),
        (exhausted("retry-after", "11"), 0..=25),
        (exhausted("retry-after", "soon"), 0..=25),
    ] {
        let mesh = Mesh::new(&retrying(limited), [answer.clone()]);
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
        let waited = u64::try_from(mesh.seen()[1].at.as_millis()).unwrap();
        assert!(at.contains(&waited), "{answer:?}: {waited} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_are_spread_over_the_whole_of_a_bound_that_doubles_up_to_ten_times_the_base() {
    let mesh = Mesh::new(&retrying(|policy| policy.num_retries = 6), vec![UNAVAILABLE; 7 * 200]);
    for _ in 0..200 {
        assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Unavailable);
    }
    let seen = mesh.seen();
    for (retry, bound) in [25_u64, 50, 100, 200, 250, 250].into_iter().enumerate() {
        let waits = seen.chunks(7).map(|call| call[retry + 1].at - call[retry].at);
        let waits: Vec<Duration> = waits.collect();
        // Timers have a grain of a millisecond.
        assert!(waits.iter().all(|wait| *wait <= ms(bound + 1)), "{retry}: {waits:?}");
        assert!(
            waits.iter().any(|wait| *wait < ms(bound / 5))
                && waits.iter().any(|wait| *wait > ms(bound * 4 / 5))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_servers_pushback_waits_begin_anew() {
    waits_begin_anew_after_a_pushback(&retrying(|policy| policy.num_retries = 5)).await;
}
