//! The HTTP port: health, metrics, and what the control plane thinks.
//!
//! | Path | Shows |
//! |---|---|
//! | `/healthz` | 200 while the process works |
//! | `/readyz` | 200 while it serves; 503 from the moment it goes down, and while a file cannot be read at all |
//! | `/metrics` | Prometheus (OpenMetrics) |
//! | `/debug/syncz` | every connected stream, what it has acknowledged, its last rejection |
//! | `/debug/load` | what clients reported of their calls, by cluster and locality |
//! | `/debug/config_dump` | every resource of one kind of client: `?namespace=default&client=mesh\|grpc\|envoy` |
//! | `/debug/findings` | what there is to say about the configuration |
//! | `POST /confirm-deletion` | lets a held deletion of everything happen |
//!
//! None of it is secret, and none of it is for strangers: the port is meant for loopback.

use crate::{
    analysis::{Finding, Severity},
    app::{Gauges, Status},
    compile::{
        Compiler,
        client::{Client, ClientKind, EnvoyOptions},
    },
    model::ClientScope,
};
use axum::{
    Router,
    extract::{Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, ORIGIN},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_xds::{
    name::ResourceType,
    printable,
    resource::Locality,
    server::{AdsService, StreamStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

/// The routes of the port.
pub(crate) fn router(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/syncz", get(syncz))
        .route("/debug/load", get(load))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/findings", get(findings))
        .route("/confirm-deletion", post(confirm_deletion))
        .with_state(Arc::new(status))
}

type App = State<Arc<Status>>;

/// JSON that may be shown on a terminal: clients' own words are in it.
fn shown(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/json")], printable::json(&text).into_owned()).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(status): App) -> Response {
    if *status.stop.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    if status.loaded.borrow().incomplete {
        // What is served is whole, but older than the directory, which may hold a new policy.
        let text = "the configuration is incomplete: what was served before still is, see /debug/findings\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    format!("ok, revision {}\n", status.publisher.current().revision).into_response()
}

async fn metrics(State(status): App) -> Response {
    let snapshot = status.publisher.current();
    let number = |severity| snapshot.findings.iter().filter(|finding| finding.severity == severity).count();
    let expires = status.authority.root_not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
    let gauges = Gauges {
        streams: status.ads.iter().map(AdsService::stream_count).sum(),
        services: snapshot.model.config.services().count(),
        virtual_services: snapshot.model.config.virtual_services().len(),
        workloads: snapshot.model.workloads.len(),
        findings: [
            ("error", number(Severity::Error)),
            ("warning", number(Severity::Warning)),
            ("info", number(Severity::Info)),
        ],
        root_expires: i64::try_from(expires.as_secs()).unwrap_or(i64::MAX),
    };
    let load = status.load.as_ref().map(|load| load.sums()).unwrap_or_default();
    match status.metrics.text(&gauges, &load) {
        Ok(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A stream, and whether it has what it should have.
#[derive(Serialize)]
struct Synced {
    synced: bool,
    #[serde(flatten)]
    stream: StreamStatus,
}

async fn syncz(State(status): App) -> Response {
    let snapshot = status.publisher.current();
    let streams = status.ads.iter().flat_map(|ads| ads.streams());
    let streams: Vec<Synced> = streams
        .map(|stream| Synced {
            synced: stream.acked_revision.as_ref() == Some(&snapshot.revision)
                && stream.types.iter().all(|kind| kind.rejected.is_empty()),
            stream,
        })
        .collect();
    shown(&json!({
        "revision": &*snapshot.revision,
        "config_revision": status.loaded.borrow().revision,
        "streams": streams,
    }))
}

async fn load(State(status): App) -> Response {
    match &status.load {
        Some(load) => shown(&load.sums()),
        None => {
            (StatusCode::NOT_FOUND, "clients are not asked to report: see --load-reports\n").into_response()
        }
    }
}

async fn findings(State(status): App) -> Response {
    let loaded = status.loaded.borrow().clone();
    let findings: &[Finding] = &loaded.findings;
    shown(&json!({ "config_revision": loaded.revision, "findings": findings }))
}

/// A page that is open in a browser on this machine can make it ask as well, but not without the browser saying so.
async fn confirm_deletion(State(status): App, headers: HeaderMap) -> Response {
    if headers.contains_key(ORIGIN) {
        return (StatusCode::FORBIDDEN, "a web page may not confirm a deletion: use curl\n").into_response();
    }
    status.directory.confirm_deletion();
    "confirmed\n".into_response()
}

/// Whose configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    client: Kind,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Mesh,
    Grpc,
    Envoy,
}

async fn config_dump(State(status): App, Query(whose): Query<Whose>) -> Response {
    let snapshot = status.publisher.current();
    let client = Client {
        kind: match whose.client {
            Kind::Mesh => ClientKind::Mesh,
            Kind::Grpc => ClientKind::Grpc { least_request: false },
            Kind::Envoy => ClientKind::Envoy(EnvoyOptions { proxy_port: Some(15007), certificate: None }),
        },
        scope: ClientScope {
            namespace: whose.namespace.unwrap_or_else(|| "default".to_owned()),
            labels: BTreeMap::new(),
        },
        service_account: None,
        workload: None,
        group: None,
        domain: snapshot.model.config.settings().domain.clone(),
        locality: Locality::default(),
    };
    let compiler = Compiler::new(&snapshot.model, status.publisher.mesh(), &client);
    let mut types = Map::new();
    for kind in ResourceType::ALL.into_iter().filter(|kind| kind.is_public()) {
        let resources: Vec<Value> = compiler
            .names(kind)
            .iter()
            .filter_map(|name| {
                let compiled = compiler.resource(kind, name)?;
                let content = format!("{compiled:#?}");
                Some(json!({ "name": &**name, "content": content.lines().collect::<Vec<_>>() }))
            })
            .collect();
        types.insert(kind.abbreviation().to_owned(), resources.into());
    }
    shown(
        &json!({ "revision": &*snapshot.revision, "client": format!("{:?}", client.kind), "resources": types }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_clients_say_does_not_drive_the_terminal_that_shows_it() {
        let said = json!({ "node": "\u{1b}[2J\u{9b}1A\u{202e}evil\u{7f}" });
        let body = axum::body::to_bytes(shown(&said).into_body(), 1 << 10).await.unwrap();
        let text = str::from_utf8(&body).unwrap();
        assert!(text.chars().all(|char| (' '..='~').contains(&char)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), said, "and nothing is lost");
    }
}
