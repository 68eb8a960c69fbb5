//! A service mesh with no proxy: routing, resilience, load balancing and mTLS inside a tonic program.
//!
//! A process joins by a bootstrap ([`Mesh::from_env`]) and from then on follows the mesh's configuration
//! (xDS). [`Mesh::channel`] gives a channel for a generated client, [`Mesh::layer`] wraps one that is there,
//! [`Mesh::server`] serves.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = mesh_client::Mesh::from_env()?;
//! let channel = mesh.channel("xds:///reviews:9080")?;
//! // let mut client = ReviewsClient::new(channel);
//! # drop(channel);
//! # Ok(())
//! # }
//! ```

mod body;
mod call;
mod channel;
mod cluster;
pub mod connector;
pub mod context;
mod endpoint;
pub mod explain;
mod health;
mod layer;
mod lb;
mod mesh;
pub mod orca;
pub mod registration;
mod retry;
pub mod server;
mod snapshot;
mod stack;
mod table;
mod target;
mod telemetry;
#[cfg(test)]
mod testing;
mod timeout;
pub mod tls;

pub use call::MeshBody;
pub use channel::{CallFuture, MeshChannel};
pub use cluster::{EmptyEndpoints, WeightedRoundRobinStatus};
pub use layer::{MeshLayer, MeshService};
pub use mesh::{
    BreakerStatus, ClusterStatus, FEATURES, IdentityStatus, LoadReportStatus, Mesh, MeshBuilder, MeshError,
    MeshStatus, OutboundTrafficPolicy, TargetStatus,
};
pub use retry::hedging::HedgingPolicy;
pub use server::{InboundLayer as ServerLayer, MeshServer};
pub use stack::WaitForReady;
pub use target::{InvalidTarget, Target};
pub use telemetry::CallCounts;
