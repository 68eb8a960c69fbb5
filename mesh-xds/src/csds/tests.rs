//! What is told of each state, to whom.

use super::*;
use crate::server::{NackStatus, Variant};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    DoubleMatcher, NodeMatcher, RegexMatcher, StringMatcher as StringMatcherProto, StructMatcher,
    ValueMatcher,
    string_matcher::MatchPattern,
    struct_matcher::{PathSegment, path_segment::Segment},
    value_matcher::MatchPattern as ValuePattern,
};

fn status(state: ResourceState) -> ResourceStatus {
    ResourceStatus {
        resource_type: ResourceType::Cluster,
        kind: "CDS",
        name: "c".into(),
        server: "cp:1".into(),
        version: Some("v1".into()),
        body: Some(vec![1, 2, 3].into()),
        from_cache: None,
        state,
        error: Some(ErrorStatus { text: "was rejected: bad".into(), version: "v2".into(), at: 20.25 }),
        updated: Some(10.5),
    }
}

#[test]
fn a_rejected_resource_shows_the_version_in_use_and_what_was_wrong_with_the_last() {
    let shown = of_resource(status(ResourceState::Nacked));
    assert_eq!((shown.type_url.as_str(), shown.name.as_str()), (ResourceType::Cluster.url(), "c"));
    assert_eq!((shown.version_info.as_str(), shown.client_status()), ("v1", ClientResourceStatus::Nacked));
    let body = shown.xds_config.unwrap();
    assert_eq!(
        (body.type_url.as_str(), body.value.as_slice()),
        (ResourceType::Cluster.url(), &[1, 2, 3][..])
    );
    assert_eq!(shown.last_updated.unwrap(), Timestamp { seconds: 10, nanos: 500_000_000 });
    let error = shown.error_state.unwrap();
    assert_eq!((error.details.as_str(), error.version_info.as_str()), ("was rejected: bad", "v2"));
    assert_eq!(error.last_update_attempt.unwrap(), Timestamp { seconds: 20, nanos: 250_000_000 });
}

#[test]
fn every_state_has_its_name() {
    let states = [
        (ResourceState::Requested, "REQUESTED"),
        (ResourceState::DoesNotExist, "DOES_NOT_EXIST"),
        (ResourceState::Acked, "ACKED"),
        (ResourceState::Nacked, "NACKED"),
        (ResourceState::ReceivedError, "RECEIVED_ERROR"),
        (ResourceState::Timeout, "TIMEOUT"),
    ];
    for (state, name) in states {
        assert_eq!(of_resource(status(state)).client_status().as_str_name(), name);
    }
}

fn of(kind: &'static str, change: impl FnOnce(&mut TypeStatus)) -> TypeStatus {
    let mut status = TypeStatus {
        kind,
        wildcard: false,
        names: vec!["a".into(), "b".into()],
        held: 1,
        sent_revision: Some("7".into()),
        acked_revision: Some("6".into()),
        outstanding: false,
        last_nack: None,
        rejected: vec![],
        resources: vec![],
    };
    change(&mut status);
    status
}

fn streams() -> Vec<StreamStatus> {
    let said = |node: &str, labels: &[(&str, &str)]| ServerNode {
        id: node.into(),
        metadata: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..ServerNode::default()
    };
    let stream = |id, node: &str, labels, types| StreamStatus {
        id,
        said: said(node, labels).into(),
        node: node.into(),
        cluster: "reviews".into(),
        user_agent: "gRPC Go".into(),
        peer: "anonymous".into(),
        connected_since: 1.0,
        variant: Variant::Sotw,
        acked_revision: None,
        target_revision: "7".into(),
        types,
    };
    let nack = NackStatus { revision: "7".into(), text: "Cluster b: bad".into(), at: 3.0 };
    let types = vec![
        of("CDS", |kind| {
            kind.rejected = vec!["b".into()];
            kind.last_nack = Some(nack);
        }),
        of("EDS", |kind| kind.outstanding = true),
        of("LDS", |_| {}),
        of("RDS", |kind| kind.sent_revision = None),
    ];
    let a: &[_] = &[("NAMESPACE", "shop"), ("LABELS.app.kubernetes.io/name", "reviews"), ("DEBUG", "true")];
    vec![
        stream(1, "sidecar~a", a, types),
        stream(2, "sidecar~b", &[("NAMESPACE", "shop"), ("DEBUG", "false")], vec![]),
        stream(3, "router~c", &[], vec![]),
    ]
}

fn select(is_wanted: &dyn Fn(&ServerNode) -> bool, _: &mut usize) -> Vec<StreamStatus> {
    streams().into_iter().filter(|stream| is_wanted(&stream.said)).collect()
}

fn by_id(pattern: Option<MatchPattern>) -> NodeMatcher {
    NodeMatcher {
        node_id: Some(StringMatcherProto { match_pattern: pattern, ignore_case: false }),
        node_metadatas: vec![],
    }
}

/// Ids of the nodes that a control plane tells of.
fn told(matchers: Vec<NodeMatcher>) -> Result<Vec<String>, Status> {
    let clients = StreamsStatus::new(select, |_| Ok(()));
    let request = ClientStatusRequest { node_matchers: matchers, ..Default::default() };
    let told = clients.clients(&Extensions::new(), &request)?;
    Ok(told.into_iter().map(|client| client.node.unwrap().id).collect())
}

#[test]
fn a_control_plane_tells_of_each_type_and_of_what_was_rejected() {
    let clients = StreamsStatus::new(select, |_| Ok(()));
    let all = clients.clients(&Extensions::new(), &ClientStatusRequest::default()).unwrap();
    assert_eq!(all.len(), 3);
    let shown: Vec<_> = all[0]
        .generic_xds_configs
        .iter()
        .map(|one| {
            (one.type_url.rsplit('.').next().unwrap(), one.name.as_str(), one.config_status().as_str_name())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("Cluster", "", "ERROR"),
            ("Cluster", "b", "ERROR"),
            ("ClusterLoadAssignment", "", "STALE"),
            ("Listener", "", "SYNCED"),
            ("RouteConfiguration", "", "NOT_SENT"),
        ]
    );
    let error = all[0].generic_xds_configs[1].error_state.clone().unwrap();
    assert_eq!((error.details.as_str(), error.version_info.as_str()), ("Cluster b: bad", "7"));
    assert_eq!(all[0].node.as_ref().unwrap().user_agent_name, "gRPC Go");
}

#[test]
fn a_control_plane_tells_each_resource_with_the_version_that_was_accepted() {
    use ResourceState::{Acked, DoesNotExist, Nacked, ReceivedError, Requested};
    let held = |name: &str, state| HeldStatus {
        name: name.into(),
        version: (state == Acked).then(|| format!("h:{name}").into()),
        state,
        reason: (state == ReceivedError).then(|| "a.yaml:1: bad".into()),
    };
    let rows = |kind: &TypeStatus| -> Vec<_> {
        let row = |one: GenericXdsConfig| {
            let (client, sync) = (one.client_status().as_str_name(), one.config_status().as_str_name());
            let error = one.error_state.map(|error| error.details).unwrap_or_default();
            format!("{} {} {client} {sync} {error}", one.name, one.version_info).trim().to_owned()
        };
        of_type(kind).into_iter().skip(1).map(row).collect()
    };
    let mut status = of("CDS", |kind| {
        kind.rejected = vec!["b".into()];
        kind.last_nack = Some(NackStatus { revision: "7".into(), text: "Cluster b: bad".into(), at: 3.0 });
        kind.resources =
            vec![held("a", Acked), held("b", Nacked), held("c", Requested), held("d", DoesNotExist)];
        kind.resources.push(held("e", ReceivedError));
    });
    assert_eq!(
        rows(&status),
        [
            "a h:a ACKED SYNCED",
            "b 6 NACKED ERROR Cluster b: bad",
            "c  REQUESTED NOT_SENT",
            "d  DOES_NOT_EXIST SYNCED",
            "e  RECEIVED_ERROR SYNCED a.yaml:1: bad"
        ]
    );
    status.outstanding = true;
    assert_eq!(rows(&status)[2], "c  REQUESTED STALE");
    status.resources.clear();
    assert_eq!(rows(&status), ["b 6 NACKED ERROR Cluster b: bad"], "where there is no room for all");
}

#[test]
fn nodes_are_selected_by_their_id() {
    let exact = by_id(Some(MatchPattern::Exact("router~c".into())));
    let prefix = by_id(Some(MatchPattern::Prefix("sidecar~".into())));
    let regex = |regex: &str| {
        by_id(Some(MatchPattern::SafeRegex(RegexMatcher { regex: regex.into(), ..Default::default() })))
    };
    assert_eq!(told(vec![]).unwrap().len(), 3);
    assert_eq!(told(vec![exact.clone()]).unwrap(), ["router~c"]);
    assert_eq!(told(vec![exact, prefix]).unwrap().len(), 3, "any of them");
    assert_eq!(told(vec![regex("sidecar~[b-z]")]).unwrap(), ["sidecar~b"]);
    let ignoring_case = |pattern| {
        let id = StringMatcherProto { match_pattern: Some(pattern), ignore_case: true };
        NodeMatcher { node_id: Some(id), node_metadatas: vec![] }
    };
    for pattern in [
        MatchPattern::Exact("ROUTER~C".into()),
        MatchPattern::Prefix("Router".into()),
        MatchPattern::Suffix("~C".into()),
        MatchPattern::Contains("OUT".into()),
    ] {
        assert_eq!(told(vec![ignoring_case(pattern)]).unwrap(), ["router~c"]);
    }
    for (matcher, why) in [
        (NodeMatcher::default(), "node_matchers[0]: one of node_id and node_metadatas is required"),
        (by_id(None), "one of exact"),
        (regex("("), "node_matchers[0].node_id: "),
    ] {
        let status = told(vec![matcher]).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
}

#[test]
fn what_the_expressions_of_a_request_may_take_is_bounded() {
    let costly = |i| {
        MatchPattern::SafeRegex(RegexMatcher {
            regex: format!("{}{i}", ".{1000}".repeat(16)),
            ..Default::default()
        })
    };
    let status = told((0..5).map(|i| by_id(Some(costly(i)))).collect()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let told = status.message();
    assert!(told.contains("node_matchers[4].node_id") && told.contains("more than 64 MiB"), "{told}");
}

fn by_metadata(path: &[&str], value: Option<ValuePattern>) -> StructMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(Segment::Key((*key).to_owned())) };
    StructMatcher {
        path: path.iter().map(segment).collect(),
        value: value.map(|pattern| ValueMatcher { match_pattern: Some(pattern) }),
    }
}

fn text(pattern: MatchPattern) -> Option<ValuePattern> {
    let matcher = StringMatcherProto { match_pattern: Some(pattern), ignore_case: false };
    Some(ValuePattern::StringMatch(matcher))
}

#[test]
fn nodes_are_selected_by_their_metadata_too_and_every_word_of_a_matcher_counts() {
    let with = |node_metadatas| NodeMatcher { node_id: None, node_metadatas };
    let shop = || by_metadata(&["NAMESPACE"], text(MatchPattern::Exact("shop".into())));
    let name =
        || by_metadata(&["LABELS", "app.kubernetes.io/name"], text(MatchPattern::Prefix("rev".into())));
    let debug = |flag| by_metadata(&["DEBUG"], Some(ValuePattern::BoolMatch(flag)));
    let present = |is| by_metadata(&["NAMESPACE"], Some(ValuePattern::PresentMatch(is)));
    assert_eq!(told(vec![with(vec![shop()])]).unwrap(), ["sidecar~a", "sidecar~b"]);
    assert_eq!(told(vec![with(vec![name()])]).unwrap(), ["sidecar~a"]);
    assert_eq!(told(vec![with(vec![shop(), debug(false)])]).unwrap(), ["sidecar~b"]);
    assert_eq!(
        told(vec![with(vec![name()]), with(vec![present(false)])]).unwrap(),
        ["sidecar~a", "router~c"]
    );
    assert_eq!(told(vec![with(vec![present(true)])]).unwrap().len(), 2);
    let both = NodeMatcher { node_metadatas: vec![shop()], ..by_id(Some(MatchPattern::Suffix("b".into()))) };
    assert_eq!(told(vec![both]).unwrap(), ["sidecar~b"]);

    let number = ValuePattern::DoubleMatch(DoubleMatcher::default());
    for (matcher, why) in [
        (by_metadata(&[], text(MatchPattern::Exact("x".into()))), "node_metadatas[0].path: "),
        (by_metadata(&["a", "b", "c"], text(MatchPattern::Exact("x".into()))), "kept two levels deep"),
        (
            StructMatcher { path: vec![PathSegment { segment: None }], value: None },
            "path[0]: key is required",
        ),
        (by_metadata(&["a"], None), "value: is required"),
        (by_metadata(&["a"], Some(number)), "only string_match, bool_match and present_match"),
        (by_metadata(&["a"], text(MatchPattern::Prefix(String::new()))), "value.string_match: "),
    ] {
        let status = told(vec![with(vec![shop()]), with(vec![matcher])]).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with("node_matchers[1].node_metadatas[0]."), "{status}");
        assert!(status.message().contains(why), "{status}");
    }
}

#[test]
fn who_is_not_admitted_is_told_nothing() {
    let clients = StreamsStatus::new(select, |_| Err(Status::permission_denied("not you")));
    let refusal = clients.clients(&Extensions::new(), &ClientStatusRequest::default()).unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
}
