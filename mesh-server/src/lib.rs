//! The control plane of the mesh: Istio's configuration in, xDS out, and the certificate authority.

pub mod analysis;
pub mod model;
pub mod source;
