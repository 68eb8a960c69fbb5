//! How it is told, and how long it takes.

use super::*;
use crate::join::{Join, Security};
use futures_util::{FutureExt, StreamExt};
use hyper_util::rt::TokioIo;
use mesh_xds::{
    bootstrap::ServerConfig,
    proto::{DiscoveryRequest, DiscoveryResponse},
};
use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService, StreamingService},
    transport::{Channel, Endpoint, Server},
};

fn row(kind: &'static str, name: &str, version: Option<&str>, error: Option<&str>) -> Row {
    Row {
        kind,
        name: name.into(),
        version: version.map(Into::into),
        state: if error.is_some() { ResourceState::Nacked } else { ResourceState::Acked },
        error: error.map(str::to_owned),
        rejected_version: error.map(|_| "v9".into()),
    }
}

#[test]
fn each_resource_is_a_row_and_what_is_wrong_comes_below() {
    let mut told = Inventoried {
        server: "cp:1".into(),
        node: "me".into(),
        types: vec!["CDS", "LDS"],
        resources: vec![
            row("CDS", "one", Some("v1"), None),
            row("CDS", "two", None, Some("was rejected: tls_context: bad")),
        ],
        notes: vec!["the control plane is away".to_owned()],
    };
    assert_eq!(
        told.to_string(),
        "TYPE  STATE   VERSION  NAME\n\
         CDS   ACKED   v1       one\n\
         CDS   NACKED  -        two\n\
         2 CDS, 0 LDS from cp:1 for me\n\n\
         CDS two of version v9\n  was rejected: tls_context: bad\n\n\
         the control plane is away\n"
    );
    assert!(!told.is_sound());
    told.notes.clear();
    told.resources.truncate(1);
    assert!(told.is_sound());
}

#[test]
fn each_event_is_a_line_and_an_object() {
    let cases = [
        (
            Event::Added(row("CDS", "one", Some("v1"), None)),
            "+ CDS ACKED v1 one",
            r#"{"event":"added","type":"CDS","name":"one","version":"v1","state":"ACKED"}"#,
        ),
        (
            Event::Changed(row("LDS", "one", None, Some("was rejected"))),
            "~ LDS NACKED - one\n  was rejected",
            r#"{"event":"changed","type":"LDS","name":"one","version":null,"state":"NACKED","error":"was rejected","rejected_version":"v9"}"#,
        ),
        (
            Event::Removed { kind: "CDS", name: "one".into() },
            "- CDS one",
            r#"{"event":"removed","type":"CDS","name":"one"}"#,
        ),
        (
            Event::Trouble { kind: "CDS", error: "away".into() },
            "! CDS away",
            r#"{"event":"trouble","type":"CDS","error":"away"}"#,
        ),
        (
            Event::Recovered { kind: "CDS" },
            "! CDS is up to date again",
            r#"{"event":"recovered","type":"CDS"}"#,
        ),
    ];
    for (event, text, json) in cases {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
    }
}

/// Begins lines, drives a terminal, and turns what is read.
const HOSTILE: &str = "x\nCDS  ACKED  v1  forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}y";
const ESCAPED: &str = r"x\nCDS  ACKED  v1  forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}y";

#[test]
fn what_the_control_plane_said_begins_no_line_and_drives_no_terminal() {
    let bad = || Row {
        rejected_version: Some(HOSTILE.into()),
        ..row("CDS", HOSTILE, Some(HOSTILE), Some(HOSTILE))
    };
    let told = Inventoried {
        server: HOSTILE.into(),
        node: HOSTILE.into(),
        types: vec!["CDS"],
        resources: vec![bad(), row("CDS", "one", Some("v1"), None)],
        notes: vec![HOSTILE.to_owned()],
    };
    let width = ESCAPED.len();
    assert_eq!(
        told.to_string(),
        format!(
            "TYPE  STATE   {:width$}  NAME\n\
             CDS   NACKED  {ESCAPED}  {ESCAPED}\n\
             CDS   ACKED   {:width$}  one\n\
             2 CDS from {ESCAPED} for {ESCAPED}\n\n\
             CDS {ESCAPED} of version {ESCAPED}\n  {ESCAPED}\n\n\
             {ESCAPED}\n",
            "VERSION", "v1"
        )
    );
    for (event, text) in [
        (Event::Changed(bad()), format!("~ CDS NACKED {ESCAPED} {ESCAPED}\n  {ESCAPED}")),
        (Event::Removed { kind: "CDS", name: HOSTILE.into() }, format!("- CDS {ESCAPED}")),
        (Event::Trouble { kind: "CDS", error: HOSTILE.into() }, format!("! CDS {ESCAPED}")),
    ] {
        assert_eq!(event.to_string(), text);
    }
}

/// A control plane that has nothing of either type, and says so of listeners first.
#[derive(Clone)]
struct ListenersFirst;

impl NamedService for ListenersFirst {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for ListenersFirst {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = tonic_prost::ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).streaming(Self, request).await) })
    }
}

impl StreamingService<DiscoveryRequest> for ListenersFirst {
    type Response = DiscoveryResponse;
    type ResponseStream = Pin<Box<dyn futures_util::Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, requests: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let answers = [ResourceType::Listener, ResourceType::Cluster].map(|kind| {
            let (nonce, type_url) = (kind.abbreviation().to_owned(), kind.url().to_owned());
            Ok(DiscoveryResponse { version_info: "1".to_owned(), nonce, type_url, ..Default::default() })
        });
        let mut requests = requests.into_inner();
        let responses = async move {
            // Both are asked for.
            requests.by_ref().take(2).count().await;
            futures_util::stream::iter(answers).chain(requests.filter_map(|_| ready(None)))
        };
        ready(Ok(Response::new(Box::pin(responses.flatten_stream()))))
    }
}

impl Connector for ListenersFirst {
    fn connect(&self, _: &ServerConfig) -> Result<Channel, String> {
        Ok(Endpoint::from_static("http://cp").connect_with_connector_lazy(tower::service_fn(
            |_: http::Uri| {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                let incoming = futures_util::stream::iter([Ok::<_, std::io::Error>(theirs)]);
                tokio::spawn(Server::builder().add_service(ListenersFirst).serve_with_incoming(incoming));
                ready(Ok::<_, std::io::Error>(TokioIo::new(ours)))
            },
        )))
    }
}

/// A stream is read on when what came was looked at, or 5 s after.
#[tokio::test(start_paused = true)]
async fn types_are_waited_for_together_whichever_is_answered_first() {
    let mut join = Join::new("cp:1", "me", Security::Development);
    join.delta = false;
    let types = [ResourceType::Cluster, ResourceType::Listener];
    let begun = tokio::time::Instant::now();
    let mut inventory = Inventory::over(Arc::new(ListenersFirst), &join.bootstrap().unwrap(), &types);
    let found = inventory.inventoried().await.unwrap();
    assert_eq!((found.types, found.resources), (vec!["CDS", "LDS"], vec![]));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
