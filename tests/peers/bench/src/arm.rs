//! The arms: some of our own benches', and those of the peers.

use crate::{envoy::Sidecars, xds::TonicXds};
use mesh_bench::{
    Outcome,
    arm::{Arm as Ours, Arms as OurArms, run},
    compare::Compared,
    server::Addresses,
    window::{Length, Load, Window},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint};

/// Until a peer has its configuration and answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// One way to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// One that needs nothing of anybody else's.
    Ours(Ours),
    /// tonic-xds, configured by our control plane like `MeshChannel`: one route.
    TonicXds,
    /// The same, with Istio's default retry policy.
    TonicXdsRetry,
    /// tonic's `Channel` to an Envoy beside the client, which calls the server.
    Envoy,
    /// The same, and an Envoy beside the server; mTLS between the two.
    EnvoyTls,
}

impl Arm {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: &[Self] = &[
        Self::Ours(Ours::Plain),
        Self::Ours(Ours::Again),
        Self::Ours(Ours::Raw),
        Self::Ours(Ours::Mesh),
        Self::Ours(Ours::MeshRetry),
        Self::TonicXds,
        Self::TonicXdsRetry,
        Self::Envoy,
        Self::EnvoyTls,
        Self::Ours(Ours::Tls),
        Self::Ours(Ours::TlsAgain),
        Self::Ours(Ours::MeshTls),
    ];
}

impl Compared for Arm {
    fn label(self) -> &'static str {
        match self {
            Self::Ours(arm) => arm.label(),
            Self::TonicXds => "tonic-xds, one route",
            Self::TonicXdsRetry => "tonic-xds, default retries",
            Self::Envoy => "Envoy, one hop",
            Self::EnvoyTls => "Envoy, two hops with mTLS",
        }
    }

    fn base(self) -> Self {
        match self {
            Self::Ours(arm) => Self::Ours(arm.base()),
            _ => Self::Ours(Ours::Plain),
        }
    }
}

/// Arms, connected.
pub(crate) struct Arms {
    ours: OurArms,
    xds: TonicXds,
    xds_retry: TonicXds,
    envoy: Channel,
    envoy_tls: Channel,
    sidecars: Sidecars,
}

impl Arms {
    /// Connects all of them, each with connections of its own.
    pub(crate) async fn connect(
        control_plane: SocketAddr,
        servers: Addresses,
        sidecars: Sidecars,
    ) -> Outcome<Self> {
        let ours: Vec<Ours> = Arm::ALL
            .iter()
            .filter_map(|arm| match arm {
                Arm::Ours(arm) => Some(*arm),
                _ => None,
            })
            .collect();
        let to = async |address| -> Outcome<Channel> {
            Ok(Endpoint::from_shared(format!("http://{address}"))?.connect().await?)
        };
        let arms = Self {
            ours: OurArms::connect(&ours, control_plane, servers).await?,
            xds: TonicXds::new(control_plane, "xds:///once:9080")?,
            xds_retry: TonicXds::new(control_plane, "xds:///retried:9080")?,
            envoy: to(sidecars.plain).await?,
            envoy_tls: to(sidecars.tls).await?,
            sidecars,
        };
        for arm in Arm::ALL {
            arms.ready(*arm).await.map_err(|error| format!("{}: {error}", arm.label()))?;
        }
        Ok(arms)
    }

    /// Calls until a call succeeds.
    async fn ready(&self, arm: Arm) -> Outcome {
        let begun = Instant::now();
        let one = Load { length: Length::Calls(1), ..Load::unary(1, 0, Duration::ZERO) };
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            // A channel that has no endpoints may wait without end.
            match tokio::time::timeout(left, self.run(arm, one)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if left.is_zero() => return Err(error),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => return Err(format!("no answer within {PATIENCE:?}").into()),
            }
        }
    }

    /// One window of an arm.
    pub(crate) async fn run(&self, arm: Arm, load: Load) -> Outcome<Window> {
        let origin = http::Uri::default();
        match arm {
            Arm::Ours(arm) => self.ours.run(arm, load).await,
            Arm::TonicXds => run(self.xds.clone(), origin, load).await,
            Arm::TonicXdsRetry => run(self.xds_retry.clone(), origin, load).await,
            Arm::Envoy | Arm::EnvoyTls => {
                let channel = if arm == Arm::Envoy { &self.envoy } else { &self.envoy_tls };
                let before = self.sidecars.processor_time()?;
                let mut window = run(channel.clone(), origin, load).await?;
                window.sidecars = self.sidecars.processor_time()?.saturating_sub(before);
                Ok(window)
            }
        }
    }
}
