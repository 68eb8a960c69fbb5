//! Copies: sent beside the call, and never in its way.

use super::*;
use mesh_xds::resource::route::{Mirror, RouteAction};

fn mirrored(fraction: Fraction) -> XdsConfig {
    to_c(|forward| forward.mirrors = vec![Mirror { cluster: "shadow".into(), fraction, shadow_host: false }])
}

fn to(mesh: &Mesh, cluster: &str) -> Vec<Seen> {
    mesh.seen().into_iter().filter(|seen| seen.cluster == cluster).collect()
}

/// Lets the copies go.
async fn settle() {
    tokio::time::sleep(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_sent_and_its_answer_forgotten() {
    let mesh = Mesh::new(&mirrored(Fraction::ONE), [Act::Code(Code::Ok, Duration::ZERO), Act::Hang]);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.elapsed(), ms(0), "the copy hangs, the call does not");
    settle().await;
    let copies = to(&mesh, "shadow");
    assert_eq!(copies.len(), 1);
    assert_eq!(&copies[0].body[..], b"message");
    assert_eq!(copies[0].uri, "http://reviews:9080/r.Reviews/List");
    assert_eq!(copies[0].headers["grpc-timeout"], "15000000u", "whoever serves it knows when nobody waits");
    assert_eq!(mesh.core.mirrors.under_way(), 1);
    tokio::time::sleep(ms(15_001)).await;
    assert_eq!(mesh.core.mirrors.under_way(), 0, "it is given up then");
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_marked_in_its_host_name_when_asked_for() {
    let mut config = mirrored(Fraction::ONE);
    let routes = &mut Arc::make_mut(&mut config.virtual_host).routes;
    match &mut Arc::make_mut(&mut routes[0]).action {
        RouteAction::Forward(forward) => forward.mirrors[0].shadow_host = true,
        other => panic!("{other:?}"),
    }
    let mesh = Mesh::new(&config, []);
    mesh.call(request(None)).await.unwrap();
    settle().await;
    assert_eq!(to(&mesh, "shadow")[0].uri, "http://reviews-shadow:9080/r.Reviews/List");
    assert_eq!(to(&mesh, "c")[0].uri, "http://reviews:9080/r.Reviews/List");
}

#[tokio::test(start_paused = true)]
async fn a_failing_copy_changes_nothing() {
    let mesh = Mesh::new(
        &mirrored(Fraction::ONE),
        [Act::Code(Code::Ok, Duration::ZERO), Act::Fail(AttemptErrorKind::NoEndpoint)],
    );
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    settle().await;
    assert_eq!(to(&mesh, "c").len(), 1);
    assert_eq!(mesh.core.counters.read().failed_here, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_counted_by_whether_it_was_sent() {
    for (act, sent) in [
        (Act::Code(Code::Unavailable, Duration::ZERO), true),
        (Act::Stream(ms(50)), true),
        (Act::Hang, true),
        (Act::Fail(AttemptErrorKind::Reset), true),
        (Act::Fail(AttemptErrorKind::RefusedStream), true),
        (Act::Fail(AttemptErrorKind::NeverSent), false),
        (Act::Fail(AttemptErrorKind::RequestBody), false),
        (Act::Fail(AttemptErrorKind::LocalOverflow), false),
        (Act::Fail(AttemptErrorKind::Dropped), false),
        (Act::Fail(AttemptErrorKind::NoEndpoint), false),
        (Act::Fail(AttemptErrorKind::SessionLost), false),
        (Act::Unsent(AttemptErrorKind::DeadlineExceeded), false),
    ] {
        let mesh = Mesh::new(&mirrored(Fraction::ONE), [Act::Code(Code::Ok, Duration::ZERO), act.clone()]);
        mesh.call(request(None)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let counts = mesh.core.counters.read();
        assert_eq!((counts.mirrored, counts.not_mirrored), if sent { (1, 0) } else { (0, 1) }, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_copy_is_made_when_the_draw_says_so() {
    let mesh = Mesh::new(&mirrored(Fraction::ZERO), []);
    mesh.call(request(None)).await.unwrap();
    settle().await;
    assert!(to(&mesh, "shadow").is_empty());
    let counts = mesh.core.counters.read();
    assert_eq!((counts.mirrored, counts.not_mirrored), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_not_copied_and_that_is_counted() {
    let mesh = Mesh::new(&mirrored(Fraction::ONE), []);
    let frames = (0..8).map(|_| Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 16 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    mesh.call(request(None).map(|_| body)).await.unwrap();
    settle().await;
    assert!(to(&mesh, "shadow").is_empty());
    assert_eq!(to(&mesh, "c")[0].body.len(), 128 << 10);
    assert_eq!(mesh.core.counters.read().not_mirrored, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_to_a_missing_cluster_is_no_failure_of_the_call() {
    let mut config = mirrored(Fraction::ONE);
    config.clusters.remove("shadow");
    let mesh = Mesh::new(&config, []);
    assert_eq!(code(&mesh.call(request(None)).await.unwrap()), Code::Ok);
    assert_eq!(mesh.core.counters.read().not_mirrored, 1);
}
