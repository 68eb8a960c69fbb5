//! The control plane's own identity, issued by the authority in the same process.

use super::{
    authority::{Authority, ServerNames},
    request::SigningRequest,
};
use crate::{
    csr,
    key::PrivateKey,
    rotation::Schedule,
    source::{Source, SourceError},
    spiffe_id::SpiffeId,
    svid::X509Svid,
    workload::Identity,
};
use std::{fmt::Display, sync::Arc};

/// An authority as a source of identity for its own process.
#[derive(Debug)]
pub struct OwnSource {
    authority: Arc<Authority>,
    id: SpiffeId,
    names: ServerNames,
}

impl OwnSource {
    /// Certificates of the policy's default lifetime for `id` and `names`.
    pub fn new(authority: Arc<Authority>, id: SpiffeId, names: ServerNames) -> Self {
        Self { authority, id, names }
    }
}

impl Source for OwnSource {
    fn origin(&self) -> String {
        "the authority in this process".to_owned()
    }

    fn schedule(&self) -> Schedule {
        Schedule::HALF_LIFE
    }

    async fn fetch(&mut self, _held: Option<&Arc<Identity>>) -> Result<Arc<Identity>, SourceError> {
        let failed =
            |error: &dyn Display| SourceError::invalid(format!("own certificate for {}: {error}", self.id));
        let key = PrivateKey::generate().map_err(|e| failed(&e))?;
        let csr = csr::request(&key, Some(&self.id)).map_err(|e| failed(&e))?;
        let request = SigningRequest::parse(&csr).map_err(|e| failed(&e))?;
        let lifetime = self.authority.policy().default_lifetime;
        let issued =
            self.authority.issue(&request, &self.id, lifetime, &self.names).map_err(|e| failed(&e))?;
        let svid = X509Svid::new(vec![issued.leaf], key).map_err(|e| failed(&e))?;
        Identity::new(svid, self.authority.bundles()).map(Arc::new).map_err(|e| failed(&e))
    }
}
