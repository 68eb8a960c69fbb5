//! Where a call ends, and by whose word.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_server_is_told_what_is_left_and_the_callers_timeout_bounds_the_call() {
    let mesh = Mesh::new(&to_c(|_| {}), [Act::Hang]);
    let error = mesh.call(request(Some("250m"))).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(mesh.elapsed(), ms(250));
    assert!(error.message().contains("target reviews:9080"), "{error}");
    assert!(error.message().contains("250ms, the caller's grpc-timeout"), "{error}");
    assert!(error.message().contains("cluster c: no response"), "{error}");
    assert_eq!(mesh.seen()[0].headers["grpc-timeout"], "250000u");
}

#[tokio::test(start_paused = true)]
async fn the_route_bounds_a_call_that_has_no_timeout() {
    let mesh = Mesh::new(&to_c(|forward| forward.max_stream_duration = Some(ms(200))), [Act::Hang]);
    let error = mesh.call(request(None)).await.unwrap_err();
    assert_eq!(mesh.elapsed(), ms(200));
    assert!(error.message().contains("200ms, the route's timeout"), "{error}");
    assert_eq!(mesh.seen()[0].headers["grpc-timeout"], "200000u");
}

#[tokio::test(start_paused = true)]
async fn a_call_made_in_a_handler_ends_before_the_request_being_served() {
    let mesh = Mesh::new(&to_c(|_| {}), [Act::Hang]);
    let incoming = Incoming { deadline: Some(Instant::now() + ms(100)), ..Incoming::default() };
    let error = incoming.scope(mesh.call(request(Some("5S")))).await.unwrap_err();
    assert_eq!(mesh.elapsed(), ms(95), "what is kept back is for the answer's way");
    assert!(error.message().contains("the deadline of the request being served"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn propagation_can_be_declined() {
    let mut mesh = Mesh::new(&to_c(|_| {}), [Act::Code(Code::Ok, ms(500))]);
    Arc::get_mut(&mut mesh.core).unwrap().settings.propagate_deadlines = false;
    let incoming = Incoming { deadline: Some(Instant::now() + ms(100)), ..Incoming::default() };
    assert_eq!(code(&incoming.scope(mesh.call(request(None))).await.unwrap()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_over_is_not_sent() {
    let mesh = Mesh::new(&to_c(|_| {}), []);
    let error = mesh.call(request(Some("0m"))).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("was not sent"), "{error}");
    assert!(mesh.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_goes_on_too_long_is_cut_and_its_attempt_ended() {
    let mesh = Mesh::new(&to_c(|_| {}), [Act::Stream(ms(10_000))]);
    let error = mesh.call(request(Some("300m"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(300)));
    assert!(error.message().contains("the response had not ended"), "{error}");
    assert_eq!(mesh.world.open.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_messages_never_stop_is_cut_too() {
    let mesh = Mesh::new(&to_c(|_| {}), [Act::Flood]);
    let Outcome::Response(response) = mesh.core.call(request(Some("300m"))).await.unwrap() else {
        panic!("the host is known");
    };
    let mut body = Box::pin(response.into_body());
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().unwrap().is_data());
        tokio::time::advance(ms(100)).await;
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(300)));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_response_within_the_deadline_is_untouched() {
    let mesh = Mesh::new(&to_c(|_| {}), [Act::Stream(ms(200))]);
    let response = mesh.call(request(Some("300m"))).await.unwrap();
    assert_eq!(&response.body()[..], b"hello");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_first_configuration_is_inside_the_deadline() {
    let mesh = Mesh::pending([]);
    let error = mesh.call(request(Some("100m"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(100)));
    assert!(error.message().contains("no configuration had come from the control plane"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_attempts_and_the_waits_between_them() {
    let attempt = Act::Code(Code::Unavailable, ms(400));
    let mesh = Mesh::new(&retrying(|policy| policy.num_retries = 9), vec![attempt; 9]);
    let error = mesh.call(request(Some("1S"))).await.unwrap_err();
    assert_eq!((error.code(), mesh.elapsed()), (Code::DeadlineExceeded, ms(1000)));
    let timeouts: Vec<_> = mesh.seen().iter().map(|seen| seen.headers["grpc-timeout"].clone()).collect();
    assert_eq!(timeouts.len(), 3);
    assert!(timeouts.windows(2).all(|pair| pair[0] != pair[1]), "rewritten for each: {timeouts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_timeout_is_refused() {
    let mesh = Mesh::new(&to_c(|_| {}), []);
    assert_eq!(mesh.call(request(Some("soon"))).await.unwrap_err().code(), Code::Internal);
    assert!(mesh.seen().is_empty());
}
