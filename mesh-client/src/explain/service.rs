//! `mesh.v1.Explain`: explanations for `meshctl explain --at`.

use crate::Mesh;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use proto::{ExplainRequest, ExplainResponse, explain_server};
use tonic::{Request, Response, Status};

/// Generated from `proto/explain.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub, dead_code, rustdoc::all)]
#[rustfmt::skip]
pub(crate) mod proto {
    include!("../proto/explain.rs");
}

/// The service, for `add_service` of a tonic server.
pub type ExplainService = explain_server::ExplainServer<Explainer>;

/// What [`ExplainService`] answers with.
#[derive(Clone, Debug)]
pub struct Explainer(Mesh);

pub(super) fn new(mesh: Mesh) -> ExplainService {
    explain_server::ExplainServer::new(Explainer(mesh))
}

#[tonic::async_trait]
impl explain_server::Explain for Explainer {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { target, path, headers } = request.into_inner();
        let Some(subscription) = self.0.in_use(&target) else {
            let used = self.0.targets_in_use().join(", ");
            let used = if used.is_empty() { "it uses none".to_owned() } else { format!("it uses {used}") };
            return Err(Status::not_found(format!("this process has no channel for {target:?}: {used}")));
        };
        let uri: Uri = path.parse().ok().filter(|_| path.starts_with('/')).ok_or_else(|| {
            Status::invalid_argument(format!("{path:?} is not a path: /package.Service/Method"))
        })?;
        let mut map = HeaderMap::new();
        for header in &headers {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&header.value)) else {
                return Err(Status::invalid_argument(format!("{:?} is not a header", header.name)));
            };
            map.try_append(name, value).map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = uri;
        parts.headers = map;
        let explanation = subscription.explain(&parts).await;
        let json =
            serde_json::to_string(&explanation).map_err(|error| Status::internal(error.to_string()))?;
        let (text, routed) = (explanation.to_string(), explanation.is_routed());
        Ok(Response::new(ExplainResponse { text, json, routed }))
    }
}
