//! Load reports (LRS; gRFC A27, A64, A85): what calls did, from the processes that make them to the control plane.
//!
//! The data path counts into a [`LoadStore`], with atomic additions only. [`Reporter`] is the asking side of the
//! protocol, without IO; [`LoadReporter`] is the handle of the task that does the IO: a stream to each control plane
//! that speaks for a cluster that is counted. [`LoadReportService`] is the other side: it asks every client for all of its clusters and sums
//! up what they say ([`LoadSums`]), within bounds that no client can exceed.

mod load;
mod machine;
mod report;
mod reported;
mod service;
mod sums;
mod task;
#[cfg(test)]
mod tests;
mod wire;

pub use load::{Claim, ClusterLoad, InProgress, LoadStore, LocalityLoad};
pub use machine::{Input, Outputs, Reporter, Wanted};
pub use service::{
    Admission, KnownClusters, LoadReportServer, LoadReportService, LoadReportSettings, Reporting,
};
pub use sums::{ClusterSums, LoadSums, MetricSums, Sums};
pub use task::LoadReporter;

/// Node feature of a client that reports all clusters when asked to.
pub const SEND_ALL_CLUSTERS_FEATURE: &str = "envoy.lrs.supports_send_all_clusters";
