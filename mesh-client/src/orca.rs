//! What a server says of its own load, so that clients can weigh it (ORCA; gRFC A51).
//!
//! Clients whose clusters have the policy `client_side_weighted_round_robin` read reports with responses, or on a
//! stream of their own. For the first a server has [`CallMetricsLayer`], for the second [`OpenRcaService`]; both
//! work with and without a mesh. A client makes a weight of `qps` and a utilization: a server must say both.
//!
//! ```no_run
//! use mesh_client::orca::{CallMetricsLayer, OpenRcaService, ServerMetricsRecorder};
//! use tonic::{service::Routes, transport::Server};
//!
//! # async fn run(services: Routes) -> Result<(), Box<dyn std::error::Error>> {
//! let load = ServerMetricsRecorder::new();
//! load.set_qps(120.0);
//! load.set_application_utilization(0.4);
//! Server::builder()
//!     .layer(CallMetricsLayer::with_server_metrics(load.clone()))
//!     .add_routes(services)
//!     .add_service(OpenRcaService::new(load))
//!     .serve("127.0.0.1:8080".parse()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```

mod layer;
mod recorder;
mod service;
#[cfg(test)]
mod tests;

pub use layer::{CallMetrics, CallMetricsBody, CallMetricsFuture, CallMetricsLayer};
pub use recorder::{CallMetricsRecorder, ServerMetricsRecorder};
pub use service::OpenRcaService;
