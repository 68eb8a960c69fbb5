//! Explanations of a process that is running, with its endpoints as they are.

use super::{
    within,
    world::{Echo, Plane, ask, free_address, reviews},
};
use crate::{
    Mesh,
    explain::{Explanation, Hashed, Verdict},
};
use http::{HeaderValue, request::Parts};
use mesh_xds::{
    matcher::{HeaderMatcher, HeaderOrPseudo, Headers, StringMatcher},
    resource::Origin,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Status, transport::Server};
use tonic_prost::ProstCodec;

fn head(uri: &str) -> Parts {
    http::Request::builder().uri(uri).body(()).unwrap().into_parts().0
}

#[tokio::test]
async fn each_endpoint_says_whether_it_would_be_picked_and_why_not() {
    let (plane, echo, nobody) = (Plane::start().await, Echo::start("v1").await, free_address());
    let mut published = reviews([("v1", vec![echo.address, nobody])]);
    published.route(|route| route.origin = Some(Origin::new("r.yaml:3:5 X", [("timeout", "r.yaml:4:5")])));
    plane.publish(&published);
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();
    let explanation = within(async {
        loop {
            let explanation = channel.explain(&head("/a.B/C")).await;
            let live = explanation.clusters[0].endpoints.iter().filter_map(|one| one.live.as_ref());
            if live.clone().any(|live| live.connectivity == "backing off") {
                return explanation;
            }
        }
    })
    .await;
    assert!(explanation.is_routed());
    assert_eq!(explanation.routes[0].origin.as_deref(), Some("r.yaml:3:5 X"));
    let [cluster] = explanation.clusters.as_slice() else { panic!("{explanation}") };
    let state = cluster.live.as_ref().unwrap();
    assert_eq!((state.in_flight, state.priority, &state.unavailable), (0, Some(0), &None));
    for endpoint in &cluster.endpoints {
        let live = endpoint.live.as_ref().unwrap();
        if endpoint.address == echo.address {
            assert_eq!((live.connectivity, &endpoint.not_picked), ("ready", &None));
        } else {
            let why = endpoint.not_picked.as_deref().unwrap();
            assert!(why.starts_with("no connection: ") && why.contains("refused"), "{why}");
            assert!(live.last_failure.as_deref().unwrap().contains("refused"));
        }
    }
    let text = explanation.to_string();
    let source = format!("\nconfiguration r1 of control plane {}\n", plane.address);
    assert!(text.contains(&source), "{text}");
    assert!(text.contains("endpoints: 1 of 2 may be picked"), "{text}");
}

#[tokio::test]
async fn a_mesh_explains_a_target_that_nothing_uses_yet_and_one_that_does_not_exist() {
    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    let mut published = reviews([("v1", vec![echo.address])]);
    published.route(|route| {
        let name = HeaderOrPseudo::parse("end-user").unwrap();
        route.matches.headers = vec![HeaderMatcher::string(name, StringMatcher::exact("jason", false))];
    });
    plane.publish(&published);
    let mesh = plane.join();
    let mut request = head("http://reviews:9080/a.B/C");
    let explanation = within(mesh.explain(&request)).await.unwrap();
    assert!(!explanation.is_routed());
    let reason = r#"header end-user is absent, want exact "jason""#.to_owned();
    assert_eq!(explanation.routes[0].verdict, Verdict::Rejected { reason });
    request.headers.insert("end-user", HeaderValue::from_static("jason"));
    assert!(within(mesh.explain(&request)).await.unwrap().is_routed());

    let unknown = within(mesh.explain(&head("http://nobody:1/a.B/C"))).await.unwrap();
    assert!(unknown.failure.unwrap().contains("Listener nobody:1 does not exist"));
    assert!(mesh.explain(&head("/a.B/C")).await.is_err(), "no target is named");
    mesh.shutdown();
    let closed = within(mesh.explain(&request)).await.unwrap();
    assert_eq!(closed.failure.as_deref(), Some("the mesh has been shut down"));
}

#[tokio::test]
async fn the_service_answers_for_the_targets_in_use_and_refuses_the_others() {
    use crate::explain::proto::{ExplainRequest, ExplainResponse, Header};

    let (plane, echo) = (Plane::start().await, Echo::start("v1").await);
    plane.publish(&reviews([("v1", vec![echo.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    within(ask(channel.clone(), None)).await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder().add_service(mesh.explain_service());
    let _serving = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    }));
    let asked = async |target: &str, path: &str, header: &str| -> Result<ExplainResponse, Status> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
        client.ready().await.unwrap();
        let headers = vec![Header { name: header.to_owned(), value: b"jason".to_vec() }];
        let request = ExplainRequest { target: target.to_owned(), path: path.to_owned(), headers };
        let rpc = http::uri::PathAndQuery::from_static("/mesh.v1.Explain/Explain");
        let codec = ProstCodec::<ExplainRequest, ExplainResponse>::default();
        Ok(client.unary(Request::new(request), rpc, codec).await?.into_inner())
    };
    let answer = within(asked("reviews:9080", "/a.B/C", "end-user")).await.unwrap();
    assert!(answer.routed);
    assert!(answer.text.contains("may be picked"), "{}", answer.text);
    let json: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
    assert_eq!(json["clusters"][0]["endpoints"][0]["live"]["connectivity"], "ready");

    let refused = within(asked("ratings:9080", "/a.B/C", "x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().ends_with("it uses reviews:9080"), "{refused}");
    assert_eq!(mesh.status().targets.len(), 1, "asking opens nothing");
    for (path, header) in [("a.B/C", "x"), ("/a b", "x"), ("/a.B/C", "a b")] {
        let error = within(asked("reviews:9080", path, header)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{path} {header}");
    }
}

#[tokio::test]
async fn an_explanation_of_a_cluster_that_nobody_answers_for_says_what_calls_are_told() {
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let error = within(ask(channel.clone(), None)).await.unwrap_err();
    let explanation: Explanation = within(channel.explain(&head("/a.B/C"))).await;
    let unavailable = explanation.clusters[0].live.as_ref().unwrap().unavailable.clone().unwrap();
    assert!(error.message().contains(&*unavailable), "{error} {unavailable}");
    assert!(unavailable.contains("no endpoints"), "{unavailable}");
}

#[tokio::test]
async fn endpoints_tell_their_weight_by_load_and_clusters_of_clusters_the_one_in_use() {
    use crate::orca::ServerMetricsRecorder;
    use mesh_xds::resource::cluster::{ClientSideWeightedRoundRobin, Discovery, LbPolicy};
    use std::time::Duration;

    let load = ServerMetricsRecorder::new();
    load.set_qps(30.0);
    load.set_application_utilization(0.5);
    let (reporting, silent) = (Echo::reporting("one", load).await, Echo::start("two").await);
    let plane = Plane::start().await;
    let addresses = vec![reporting.address, silent.address];
    plane.publish(&reviews([("all", vec![]), ("leaf", addresses)]).with_clusters(|cluster| {
        if &*cluster.name == "all" {
            cluster.discovery = Discovery::Aggregate(vec!["leaf".into()]);
        } else {
            cluster.lb = LbPolicy::ClientSideWeightedRoundRobin(Box::new(ClientSideWeightedRoundRobin {
                blackout_period: Duration::ZERO,
                ..Default::default()
            }));
        }
    }));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    let explanation = within(async {
        loop {
            ask(channel.clone(), None).await.unwrap();
            let explanation = channel.explain(&head("/a.B/C")).await;
            let leaf = explanation.clusters.iter().find(|cluster| &*cluster.name == "leaf").unwrap();
            let live = leaf.endpoints.iter().filter_map(|endpoint| endpoint.live.as_ref());
            if live.filter(|live| live.connectivity == "ready").any(|live| live.load_weight.is_some()) {
                return explanation;
            }
        }
    })
    .await;
    let [all, leaf] = explanation.clusters.as_slice() else { panic!("{explanation}") };
    assert_eq!(all.live.as_ref().unwrap().leaf.as_deref(), Some("leaf"));
    let of =
        |address| leaf.endpoints.iter().find(|one| one.address == address).unwrap().live.clone().unwrap();
    assert_eq!((of(reporting.address).load_weight, of(reporting.address).no_load_weight), (Some(60.0), None));
    assert_eq!(of(silent.address).load_weight, None);
    assert!(of(silent.address).no_load_weight.unwrap().starts_with("no load reported yet"));
    let text = explanation.to_string();
    assert!(text.contains("cluster leaf in use") && text.contains("weight 60.000 by its load"), "{text}");
}

/// What is told where no process is asked: `meshctl explain --config`.
fn by_configuration_alone(mesh: &Mesh, head: &Parts) -> Hashed {
    let config = mesh.subscribed("reviews:9080").unwrap().core.snapshot.config().unwrap();
    let (map, path) = (&head.headers, head.uri.path());
    let request = Headers { map, authority: "reviews:9080", path, scheme: "http" };
    let mut explanation = mesh_xds::explain::explain(Ok(&config), &request, None, "the same");
    explanation.lead(&config, &request, None);
    explanation.decisions[0].destinations[0].hashed.clone().unwrap()
}

#[tokio::test]
async fn the_endpoint_that_a_hash_leads_to_is_the_one_that_gets_the_call() {
    use crate::registration::proto::RegisterRequest;
    use mesh_xds::resource::{
        cluster::{LbPolicy, LocalityLb, Maglev, RingHash},
        route::{AppendAction, HashKey, HashPolicy, HeaderAddition},
    };

    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let by_ring: fn(&mut mesh_xds::resource::Cluster) = |cluster| {
        cluster.lb = LbPolicy::RingHash(RingHash::default());
        cluster.lb_options.localities = LocalityLb::Flat;
    };
    let by_table: fn(&mut mesh_xds::resource::Cluster) = |cluster| {
        cluster.lb = LbPolicy::Maglev(Maglev::default());
        cluster.lb_options.localities = LocalityLb::Flat;
    };
    for (cluster, how) in [("ring", by_ring), ("table", by_table)] {
        let plane = Plane::start().await;
        let mut published = reviews([(cluster, vec![one.address, two.address])]).with_clusters(how);
        published.forward(|forward| {
            forward.hash = ["x-user", "x-own"]
                .map(|name| HashPolicy {
                    key: HashKey::Header { name: name.parse().unwrap(), rewrite: None },
                    terminal: false,
                })
                .into();
        });
        // Hashed is what is sent.
        published.route(|route| {
            route.headers.request.add.push(HeaderAddition {
                name: "x-own".parse().unwrap(),
                value: HeaderValue::from_static("1"),
                action: AppendAction::OverwriteIfExistsOrAdd,
            });
        });
        plane.publish(&published);
        let mesh = plane.join();
        let channel = mesh.channel("reviews:9080").unwrap();
        let mut led = std::collections::BTreeSet::new();
        for user in 0..16 {
            let name = HeaderValue::from_str(&format!("user-{user}")).unwrap();
            let mut head = head("/a.B/C");
            head.headers.insert("x-user", name.clone());
            let explanation = within(channel.explain(&head)).await;
            let hashed = explanation.decisions[0].destinations[0].hashed.clone().unwrap();
            let endpoint = hashed.endpoint.unwrap();
            let by_configuration = by_configuration_alone(&mesh, &head);
            assert_eq!(by_configuration.endpoint, Some(endpoint));
            assert_eq!(by_configuration.hash, hashed.hash);
            if user == 0 {
                // Asking has connected nothing.
                let again = within(channel.explain(&head)).await;
                let live = again.clusters[0].endpoints.iter().filter_map(|one| one.live.as_ref());
                assert!(live.clone().all(|live| live.connectivity == "idle"), "{again}");
                let waits = format!("leads to {endpoint}, which is not connected: the call waits for it");
                assert!(again.to_string().contains(&waits), "{again}");
            }
            let mut request = Request::new(RegisterRequest::default());
            request.metadata_mut().insert("x-user", name.to_str().unwrap().parse().unwrap());
            let answer = within(ask(channel.clone(), Some(request))).await.unwrap();
            let of = [(&one, "one"), (&two, "two")].into_iter().find(|(echo, _)| echo.address == endpoint);
            assert_eq!(answer.server, of.unwrap().1, "{explanation}");
            led.insert(endpoint);
            let now = within(channel.explain(&head)).await;
            for found in &now.clusters[0].endpoints {
                let expected = (found.address != endpoint).then(|| format!("the hash leads to {endpoint}"));
                let told = found.not_picked.as_deref();
                // One that no call has needed is not connected either, which goes before.
                assert!(
                    told == expected.as_deref() || expected.is_some() && told.is_some(),
                    "{told:?} {expected:?}"
                );
            }
        }
        assert_eq!(led.len(), 2, "both have some");
        let text = within(channel.explain(&head("/a.B/C"))).await.to_string();
        assert!(text.contains("its hash"), "the header rule's own value is hashed: {text}");
    }
}
