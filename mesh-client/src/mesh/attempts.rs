//! What a program says of the attempts of its calls, as gRPC's service config would: throttling, hedging (gRPC A6).

use super::{MeshBuilder, MeshError};
use crate::retry::{
    hedging::{HedgingPolicies, HedgingPolicy},
    throttle::Throttling,
};
use std::sync::Arc;

impl MeshBuilder {
    /// Throttles the retries and hedges of each target (gRPC A6's `retryThrottling`): a target has `max_tokens` tokens,
    /// of which a failure that a retry or hedging policy names takes one and a success gives `token_ratio` back; while
    /// half of them or more are gone, calls make no further attempts. Default: none, as in a service config without it.
    ///
    /// `max_tokens` is in 1..=1000, `token_ratio` at least 0.001 (further digits do not count); [`Self::build`] fails
    /// otherwise.
    pub fn retry_throttling(mut self, max_tokens: u32, token_ratio: f64) -> Self {
        self.throttling = Some((max_tokens, token_ratio));
        self
    }

    /// Hedges the calls of these methods (gRPC A6's `hedgingPolicy`): `"package.Service/Method"`, `"package.Service"`
    /// for all methods of a service, or `"*"` for everything. Of several policies that fit, a call takes the one for its
    /// method, else the one for its service, else the one for everything, as in `methodConfig` of a service config. It
    /// holds whichever target the call goes to, and whichever route of it. Default: none.
    ///
    /// A call has a retry policy or a hedging policy, not both: of its route's `retries` (`retry_policy`,
    /// `hedge_policy`) nothing holds for such a call, `perTryTimeout` neither; the route's `timeout` does. A host that
    /// the control plane does not know ([`OutboundTrafficPolicy::AllowAny`](crate::OutboundTrafficPolicy::AllowAny)) gets
    /// one attempt, since the mesh does not make it.
    ///
    /// Hedges are sent to endpoints that the call has not tried, where there are such; they count against the cluster's
    /// retry budget or `max_retries`, and [`Self::retry_throttling`] ends them. A call made while the process serves a
    /// retry is not hedged ([`Self::retry_at_every_hop`]). Requests longer than 64 KiB are sent once.
    ///
    /// ```
    /// # use {mesh_client::{HedgingPolicy, Mesh}, std::time::Duration, tonic::Code};
    /// let builder = Mesh::builder().hedging(
    ///     "bookinfo.Reviews/List",
    ///     HedgingPolicy {
    ///         max_attempts: 3,
    ///         hedging_delay: Duration::from_millis(50),
    ///         non_fatal_status_codes: vec![Code::Unavailable, Code::Internal],
    ///     },
    /// );
    /// # drop(builder);
    /// ```
    ///
    /// [`Self::build`] fails where A6 does not allow a policy, on a name that is none, and on a second policy for the
    /// same name ([`MeshError::Hedging`]).
    pub fn hedging(mut self, methods: impl Into<String>, policy: HedgingPolicy) -> Self {
        self.hedging.push((methods.into(), policy));
        self
    }

    pub(super) fn throttles(&self) -> Result<Option<Throttling>, MeshError> {
        let Some((max_tokens, token_ratio)) = self.throttling else { return Ok(None) };
        match Throttling::new(max_tokens, token_ratio) {
            Some(throttling) => Ok(Some(throttling)),
            None => Err(MeshError::RetryThrottling { max_tokens, token_ratio }),
        }
    }

    pub(super) fn hedges(&self) -> Result<Option<Arc<HedgingPolicies>>, MeshError> {
        let mut policies = HedgingPolicies::default();
        for (methods, policy) in &self.hedging {
            let refused = |reason| MeshError::Hedging { methods: methods.clone(), reason };
            policies.add(methods, policy).map_err(refused)?;
        }
        Ok((!self.hedging.is_empty()).then(|| Arc::new(policies)))
    }
}
