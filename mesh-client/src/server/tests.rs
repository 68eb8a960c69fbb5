//! The server side as a whole: real tonic servers and clients over loopback.

mod wired;
mod world;

use super::{ConnectInfo, ServerBuilder, ServerError, ServingState, connection::Security};
use crate::testing::{
    control_plane::{revision, serve},
    ending,
};
use mesh_xds::resource::{
    listener::{ListenerKind, ServerListener},
    rbac::{Principal, RbacAction},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::Instant,
};
use tonic::Code;
use world::*;

fn allow(accounts: &[&str]) -> Vec<mesh_xds::resource::rbac::Rules> {
    vec![rules(RbacAction::Allow, accounts.iter().map(|name| account(name)).collect())]
}

#[tokio::test]
async fn strict_serves_a_mesh_client_and_knows_who_it_is() {
    let world = World::start().await;
    world.configure(strict(vec![])).await;
    let client = world.client("productpage").await;
    assert_eq!(say(&client).await.unwrap(), id("productpage"));
    assert_eq!(world.status().serving, ServingState::Serving);
}

#[tokio::test]
async fn strict_refuses_plaintext_foreign_certificates_and_clients_without_one() {
    let world = World::start().await;
    world.configure(strict(vec![])).await;
    assert!(say(&world.plaintext()).await.is_err());
    let foreign = authority();
    assert!(say(&world.client_of(&foreign, "productpage").await).await.is_err());
    assert!(say(&world.anonymous()).await.is_err());
    assert!(world.status().refused_connections >= 3);
    assert_eq!(world.status().connections, 0);
}

#[tokio::test]
async fn permissive_serves_both_and_only_the_certificate_makes_an_identity() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    assert_eq!(say(&world.client("productpage").await).await.unwrap(), id("productpage"));
    assert_eq!(say(&world.plaintext()).await.unwrap(), "nobody");
    // A certificate that is presented must be sound, even where none is needed.
    assert!(say(&world.client_of(&authority(), "productpage").await).await.is_err());
}

#[tokio::test]
async fn a_tls_client_of_a_plaintext_server_is_refused() {
    let world = World::start().await;
    world.configure(disabled(vec![])).await;
    assert_eq!(say(&world.plaintext()).await.unwrap(), "nobody");
    assert!(say(&world.client("productpage").await).await.is_err());
}

#[tokio::test]
async fn a_policy_change_decides_the_next_call_of_an_open_connection() {
    let world = World::start().await;
    world.configure(strict(allow(&["productpage"]))).await;
    let productpage = world.client("productpage").await;
    let ratings = world.client("ratings").await;
    assert!(say(&productpage).await.is_ok());
    let denied = say(&ratings).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "RBAC: access denied"));
    assert_eq!(world.status().connections, 2);

    world.configure(strict(allow(&["ratings"]))).await;
    assert_eq!(code(say(&productpage).await), Code::PermissionDenied);
    assert!(say(&ratings).await.is_ok());
    assert_eq!(world.status().connections, 2, "the connections are those of before");
    assert_eq!(world.status().denied_requests, 2);
}

#[tokio::test]
async fn every_policy_filter_must_let_a_call_pass() {
    let world = World::start().await;
    let deny = rules(RbacAction::Deny, vec![account("ratings")]);
    let both = rules(RbacAction::Allow, vec![account("ratings"), account("productpage")]);
    world.configure(strict(vec![deny, both])).await;
    assert!(say(&world.client("productpage").await).await.is_ok());
    assert_eq!(code(say(&world.client("ratings").await).await), Code::PermissionDenied);
    assert_eq!(code(say(&world.client("details").await).await), Code::PermissionDenied);
}

#[tokio::test]
async fn a_negative_rule_admits_a_plaintext_peer_and_a_positive_one_never_does() {
    let world = World::start().await;
    let not_ratings = Principal::Not(Box::new(account("ratings")));
    world.configure(permissive(vec![rules(RbacAction::Allow, vec![not_ratings])])).await;
    let plaintext = world.plaintext();
    assert!(say(&plaintext).await.is_ok());
    world.configure(permissive(vec![rules(RbacAction::Allow, vec![Principal::Authenticated(None)])])).await;
    assert_eq!(code(say(&plaintext).await), Code::PermissionDenied);
    assert!(say(&world.client("productpage").await).await.is_ok());
}

#[tokio::test]
async fn before_the_first_configuration_connections_wait_for_it() {
    let world = World::start().await;
    let client = world.client("productpage").await;
    let call = tokio::spawn(async move { say(&client).await });
    let mut probe = TcpStream::connect(world.address()).await.unwrap();
    assert_eq!(world.status().serving, ServingState::Waiting);
    world.configure(strict(vec![])).await;
    assert_eq!(call.await.unwrap().unwrap(), id("productpage"));
    probe.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(closed(&mut probe).await, 0, "plaintext is refused without an answer");
}

/// Reads until the other side closes; how many bytes came.
async fn closed(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(_) => bytes.len(),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            bytes.len()
        }
    }
}

#[tokio::test]
async fn an_unknown_listener_serves_nobody_and_says_why() {
    let world = World::start().await;
    world.publish(Err("not in the control plane's answer")).await;
    let ServingState::NotServing(why) = world.status().serving else { panic!("{:?}", world.status()) };
    assert!(why.contains(&format!("inbound/{}", world.address())) && why.contains("does not exist"), "{why}");
    assert!(say(&world.client("productpage").await).await.is_err());
    world.configure(strict(vec![])).await;
    assert!(say(&world.client("productpage").await).await.is_ok());
}

#[tokio::test]
async fn a_listener_for_another_address_serves_nobody() {
    let world = World::start().await;
    let port = world.address().port();
    let listener = |address: &str, port| {
        ListenerKind::Server(ServerListener {
            address: address.parse().unwrap(),
            port,
            filter_chains: disabled(vec![]),
            default_filter_chain: None,
        })
    };
    world.publish(Ok(listener("10.0.0.1", port))).await;
    let ServingState::NotServing(why) = world.status().serving else { panic!("{:?}", world.status()) };
    assert!(why.contains(&format!("10.0.0.1:{port}")), "{why}");
    world.publish(Ok(listener("127.0.0.1", 0))).await;
    assert!(say(&world.plaintext()).await.is_ok());
}

#[tokio::test]
async fn a_missing_certificate_provider_refuses_connections_and_is_never_plaintext() {
    let world = World::start().await;
    let mut chains = strict(vec![]);
    chains[0].tls = mutual(true).map(|mut tls| {
        tls.identity = "nowhere".into();
        tls
    });
    world.configure(chains).await;
    assert!(say(&world.client("productpage").await).await.is_err());
    assert!(say(&world.plaintext()).await.is_err());
}

#[tokio::test]
async fn when_tls_becomes_required_plaintext_connections_leave_and_may_not_call() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    let (plaintext, mesh) = (world.plaintext(), world.client("productpage").await);
    let mut running = stream(&plaintext).await.unwrap();
    assert!(say(&mesh).await.is_ok());

    world.configure(strict(vec![])).await;
    // The call that runs may finish; the connection takes no other.
    assert!(say(&plaintext).await.is_err());
    world.release.send_replace(true);
    assert_eq!(running.message().await.unwrap().as_deref(), Some("last"));
    assert_eq!(running.message().await.unwrap(), None);
    world.until(|status| status.connections == 1).await;
    assert!(say(&mesh).await.is_ok());
}

#[tokio::test]
async fn a_connection_whose_tls_changed_is_asked_to_leave_without_a_failed_call() {
    let world = World::start().await;
    world.configure(vec![chain(Default::default(), mutual(true), vec![])]).await;
    let client = world.client("productpage").await;
    let mut running = stream(&client).await.unwrap();
    world.configure(vec![chain(Default::default(), mutual(false), vec![])]).await;
    for _ in 0..20 {
        assert_eq!(say(&client).await.unwrap(), id("productpage"));
    }
    world.release.send_replace(true);
    assert_eq!(running.message().await.unwrap().as_deref(), Some("last"));
    world.until(|status| status.connections == 1).await;
    assert!(say(&world.anonymous()).await.is_ok());
}

#[tokio::test]
async fn the_same_configuration_again_disturbs_nothing() {
    let world = World::start().await;
    world.configure(strict(vec![])).await;
    let client = world.client("productpage").await;
    let mut running = stream(&client).await.unwrap();
    let mut served = world.server.owner.shared.watch_serving();
    served.mark_unchanged();
    let again = world.config.borrow().clone().unwrap().unwrap();
    world.config.send_replace(Some(Ok(std::sync::Arc::new((*again).clone()))));
    // A change that matters comes after it, so that there is something to wait for.
    world.configure(strict(allow(&["productpage"]))).await;
    served.changed().await.unwrap();
    assert!(!served.has_changed().unwrap(), "one publication, not two");
    world.release.send_replace(true);
    assert_eq!(running.message().await.unwrap().as_deref(), Some("last"));
    assert_eq!(world.status().connections, 1);
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    let mut silent = Vec::new();
    for first in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00", b"PRI"] {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(first).await.unwrap();
        silent.push(stream);
    }
    assert!(say(&world.client("productpage").await).await.is_ok());
    assert!(say(&world.plaintext()).await.is_ok());
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_is_cut_off() {
    let world = World::start().await;
    world.configure(disabled(vec![])).await;
    let mut http1 = TcpStream::connect(world.address()).await.unwrap();
    http1.write_all(b"POST /test.Echo/Say HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    closed(&mut http1).await;
    world.until(|status| status.connections == 0).await;
}

#[tokio::test]
async fn what_is_not_the_path_of_a_grpc_call_never_reaches_a_policy() {
    let world = World::start().await;
    world.configure(permissive(vec![rules(RbacAction::Allow, vec![Principal::Any])])).await;
    let client = world.plaintext();
    for path in ["/test.Echo//Say", "/test.Echo/Say?x=y", "/test.Echo%2fSay", "/test.Echo/Say/", "/"] {
        assert_eq!(code(call(&client, path, |_| {}).await), Code::Unimplemented, "{path}");
    }
    assert_eq!(world.status().denied_requests, 0);
}

#[tokio::test]
async fn what_a_peer_says_of_itself_does_not_reach_the_handler_and_its_deadline_does() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    let client = world.plaintext();
    let answer = call(&client, SAY, |request| {
        for name in ["x-mesh-peer", "x-forwarded-client-cert"] {
            request
                .metadata_mut()
                .insert(name, "spiffe://cluster.local/ns/default/sa/admin".parse().unwrap());
        }
        request.set_timeout(Duration::from_secs(60));
    });
    assert_eq!(answer.await.unwrap(), "nobody in a hurry");
    let malformed = call(&client, SAY, |request| {
        request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    });
    assert_eq!(code(malformed.await), Code::Internal);
}

#[tokio::test]
async fn that_a_call_is_a_retry_is_believed_from_a_verified_peer() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    let retry = |request: &mut tonic::Request<String>| {
        request.metadata_mut().insert("grpc-previous-rpc-attempts", "1".parse().unwrap());
    };
    let member = world.client("productpage").await;
    assert!(call(&member, SAY, retry).await.unwrap().ends_with("sa/productpage again"));
    assert!(!call(&member, SAY, |_| {}).await.unwrap().ends_with("again"));
    assert_eq!(call(&world.plaintext(), SAY, retry).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_drain_finishes_the_calls_that_run_and_takes_no_connection() {
    let world = World::start().await;
    world.configure(strict(vec![])).await;
    let client = world.client("productpage").await;
    let mut running = stream(&client).await.unwrap();
    assert_eq!(world.status().in_flight, 1);
    let server = world.server.clone();
    let drain = tokio::spawn(async move { server.drain().await });
    world.server.drained().await;
    assert_eq!(world.status().serving, ServingState::Draining);
    world.release.send_replace(true);
    assert_eq!(running.message().await.unwrap().as_deref(), Some("last"));
    assert_eq!(running.message().await.unwrap(), None);
    drain.await.unwrap();
    assert_eq!((world.status().connections, world.status().in_flight), (0, 0));
    assert!(say(&world.client("productpage").await).await.is_err());
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_timeout_is_cut() {
    let world = World::start_with(|builder| builder.drain_timeout(Duration::ZERO)).await;
    world.configure(strict(vec![])).await;
    let mut running = stream(&world.client("productpage").await).await.unwrap();
    world.server.drain().await;
    assert!(running.message().await.is_err());
    world.until(|status| status.connections == 0).await;
}

#[tokio::test]
async fn tonic_ends_once_the_server_has_drained() {
    let mut world = World::start().await;
    world.configure(strict(vec![])).await;
    assert!(say(&world.client("productpage").await).await.is_ok());
    world.server.drain().await;
    (&mut world.serve).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_layer_without_the_connections_of_its_server_refuses_every_call() {
    let world = World::start().await;
    world.configure(disabled(vec![])).await;
    let other = World::start().await;
    other.configure(disabled(vec![])).await;
    let mut guarded = tower_layer::Layer::layer(
        &world.server.layer(),
        tower::service_fn(|_: http::Request<tonic::body::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
        }),
    );
    let request = http::Request::post(SAY).body(tonic::body::Body::empty()).unwrap();
    let response = tower_service::Service::call(&mut guarded, request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_is_given_up() {
    let world = World::start().await;
    world.configure(permissive(vec![])).await;
    for first in [&b""[..], b"\x16\x03\x01\x02\x00", b"PRI * HTTP"] {
        let mut slow = TcpStream::connect(world.address()).await.unwrap();
        slow.write_all(first).await.unwrap();
        closed(&mut slow).await;
    }
    assert_eq!(world.status().refused_connections, 3);
}

#[tokio::test]
async fn a_connection_that_does_not_leave_when_asked_is_cut() {
    let world = World::start_with(|builder| builder.connection_patience(Duration::ZERO)).await;
    world.configure(disabled(vec![])).await;
    let mut running = stream(&world.plaintext()).await.unwrap();
    world.configure(strict(vec![])).await;
    assert!(running.message().await.is_err());
    world.until(|status| status.connections == 0).await;
}

#[tokio::test]
async fn a_peer_whose_certificate_ends_is_asked_to_prove_itself_again() {
    let world = World::start().await;
    world.configure(strict(vec![])).await;
    let client = world.tls(Some(&ending(&world.authority, "productpage", Duration::from_secs(2))));
    let mut running = stream(&client).await.unwrap();
    let mut open = world.server.owner.shared.watch_open();
    assert_eq!(world.status().connections, 1);
    // What runs may end well; then the connection goes, although nobody asked for anything else.
    world.release.send_replace(true);
    assert_eq!(running.message().await.unwrap().as_deref(), Some("last"));
    open.wait_for(|open| *open == 0).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_ended_vouches_for_no_new_request_whatever_is_configured_since() {
    let world = World::start().await;
    let now = Instant::now();
    let shared = &world.server.owner.shared;
    for (expires, code) in
        [(None, None), (Some(now + Duration::from_secs(600)), None), (Some(now), Some(Code::Unavailable))]
    {
        world.configure(disabled(vec![])).await;
        let remote = "127.0.0.1:1".parse().unwrap();
        let admitted = shared.admit(remote, world.address(), Security::Plaintext, expires);
        let (connection, _registered) = admitted.unwrap();
        world.configure(permissive(vec![])).await;
        let mut guarded = tower_layer::Layer::layer(
            &world.server.layer(),
            tower::service_fn(|_: http::Request<tonic::body::Body>| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
            }),
        );
        let request = http::Request::post(format!("http://reviews{SAY}"))
            .extension(ConnectInfo(connection))
            .body(tonic::body::Body::empty())
            .unwrap();
        let response = tower_service::Service::call(&mut guarded, request).await.unwrap();
        let status = tonic::Status::from_header_map(response.headers());
        assert_eq!(status.map(|status| status.code()), code, "{expires:?}");
    }
}

#[tokio::test]
async fn clients_hear_of_a_drain_from_the_control_plane_before_they_are_asked_to_leave() {
    let (address, mut streams, _plane) = serve(None).await;
    let world = World::start_at(&[&address], |builder| {
        builder
            .drain_grace(Duration::ZERO)
            .port_name("grpc")
            .label("version", "v1")
            .weight(3)
            .group("reviews")
    })
    .await;
    world.configure(strict(vec![])).await;
    let (mut requests, answers) = streams.recv().await.unwrap();
    let workload = requests.message().await.unwrap().unwrap().workload.unwrap();
    assert_eq!(workload.address, "127.0.0.1");
    assert_eq!(workload.ports["grpc"], u32::from(world.address().port()));
    assert_eq!(
        (workload.labels["version"].as_str(), workload.weight, workload.group.as_str()),
        ("v1", 3, "reviews")
    );
    answers.send(Ok(revision("1"))).unwrap();
    world.server.registered().await.unwrap();

    let client = world.client("productpage").await;
    let drained = world.server.drained();
    let mut drained = std::pin::pin!(drained);
    let server = world.server.clone();
    let drain = tokio::spawn(async move { server.drain().await });
    let told = requests.message().await.unwrap().unwrap();
    assert_eq!(told.health, 2);
    // Until that is published, everything is served.
    assert!(say(&client).await.is_ok());
    assert!(futures_util::poll!(&mut drained).is_pending());
    answers.send(Ok(revision("2"))).unwrap();
    drained.await;
    drain.await.unwrap();
    assert!(world.status().registrations[0].state.to_string().starts_with("draining as"));
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let world = World::start().await;
    let (_config, watch) = watch::channel(None);
    let again = ServerBuilder::new(surroundings(&world.authority, watch).await, world.address()).await;
    let error = again.unwrap_err();
    assert!(matches!(error, ServerError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&world.address().to_string()) && text.contains("port 0"), "{text}");
}

#[tokio::test]
async fn without_a_listener_template_a_server_does_not_start() {
    let (_config, watch) = watch::channel(None);
    let mut surroundings = surroundings(&authority(), watch).await;
    surroundings.listener = Box::new(|_| None);
    let refused = ServerBuilder::new(surroundings, "127.0.0.1:0".parse().unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("server_listener_resource_name_template"));
}
