//! Load balancing: which locality, and which endpoint in it.

use crate::{matcher::Fraction, resource::endpoint::HealthStatus};
use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

/// How an endpoint is picked among the ready ones of a priority.
#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded of `choices` random ones (gRFC A48).
    LeastRequest {
        /// How many are compared; 2..=10.
        choices: u32,
        /// How much calls in flight count against an endpoint's weight; default 1, not negative. gRPC does not
        /// know it (A48): always 1 where the data path does not either.
        active_request_bias: f64,
    },
    /// Any, by weight.
    Random,
    /// One, until it fails (gRFC A62).
    PickFirst {
        /// Addresses are shuffled first, by weight (A113).
        shuffle: bool,
    },
    /// Consistent hashing over a ring (gRFC A42, A76).
    RingHash(RingHash),
    /// Consistent hashing by Maglev's table (Envoy).
    Maglev(Maglev),
    /// In turn, by weights made of the load that endpoints report (gRFC A58, A114).
    ClientSideWeightedRoundRobin(Box<ClientSideWeightedRoundRobin>),
}

impl LbPolicy {
    /// Least request with the default bias.
    pub const fn least_request(choices: u32) -> Self {
        Self::LeastRequest { choices, active_request_bias: 1.0 }
    }
}

/// `ring_hash`: its hash is XXH64. An endpoint's key is its `hash_key`, else its hostname when
/// `use_hostname`, else its address; its weight is that of the locality times its own (A42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingHash {
    /// Entries at least; 1..=`max_size`. Default 1024.
    pub min_size: u32,
    /// Entries at most; `min_size`..=8,388,608, which is the default.
    pub max_size: u32,
    /// The endpoint's hostname is its key.
    pub use_hostname: bool,
}

impl RingHash {
    /// The largest ring that can be asked for.
    pub const LIMIT: u32 = 8 << 20;
}

impl Default for RingHash {
    fn default() -> Self {
        Self { min_size: 1024, max_size: Self::LIMIT, use_hostname: false }
    }
}

/// `maglev`: keys and weights as for [`RingHash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// Entries; a prime number, at most 5,000,011. Default 65,537.
    pub table_size: u32,
    /// The endpoint's hostname is its key.
    pub use_hostname: bool,
}

impl Maglev {
    /// The largest table that can be asked for.
    pub const LIMIT: u32 = 5_000_011;
}

impl Default for Maglev {
    fn default() -> Self {
        Self { table_size: 65_537, use_hostname: false }
    }
}

/// `client_side_weighted_round_robin` (gRFC A58).
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSideWeightedRoundRobin {
    /// Endpoints report on a stream of their own, this often; absent: with each response (A51).
    pub out_of_band: Option<Duration>,
    /// How long reports must have come before they are used. Default 10 s.
    pub blackout_period: Duration,
    /// How long a report is used. Default 180 s.
    pub weight_expiration_period: Duration,
    /// Between computations of the weights; at least 100 ms. Default 1 s.
    pub weight_update_period: Duration,
    /// Errors per call count as this much utilization; finite, not negative. Default 1.
    pub error_utilization_penalty: f32,
    /// What is utilization, the largest of these; empty: `application_utilization`, else `cpu_utilization`
    /// (A114).
    pub utilization: Vec<Utilization>,
}

impl Default for ClientSideWeightedRoundRobin {
    fn default() -> Self {
        Self {
            out_of_band: None,
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
            utilization: Vec::new(),
        }
    }
}

/// A metric of an endpoint's load report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Utilization {
    /// `application_utilization`
    Application,
    /// `cpu_utilization`
    Cpu,
    /// `mem_utilization`
    Memory,
    /// `utilization.<key>`
    Named(Arc<str>),
    /// `named_metrics.<key>`
    NamedMetric(Arc<str>),
}

impl fmt::Display for Utilization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application => f.write_str("application_utilization"),
            Self::Cpu => f.write_str("cpu_utilization"),
            Self::Memory => f.write_str("mem_utilization"),
            Self::Named(key) => write!(f, "utilization.{key}"),
            Self::NamedMetric(key) => write!(f, "named_metrics.{key}"),
        }
    }
}

/// What balancing does besides the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LbOptions {
    /// How a locality is chosen.
    pub localities: LocalityLb,
    /// Only some endpoints are used at all; absent: all of them (gRFC A68).
    pub subsetting: Option<Subsetting>,
    /// New endpoints get their share little by little; of [`LbPolicy::RoundRobin`], [`LbPolicy::LeastRequest`]
    /// and [`LbPolicy::ClientSideWeightedRoundRobin`]. Absent (always so for others): at once.
    pub slow_start: Option<SlowStart>,
    /// What an endpoint's health may be when a session asks for it (gRFC A55).
    pub override_host_status: OverrideHostStatus,
}

/// How a locality is chosen among those of a priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalityLb {
    /// Drawn by its weight (gRPC's `wrr_locality`, Envoy's `locality_weighted_lb_config`).
    #[default]
    Weighted,
    /// Not at all: the endpoints of a priority are one list. Ring hash and Maglev multiply the locality's weight
    /// into the endpoint's (A42); others look at the endpoint's only.
    Flat,
    /// The own zone first (Envoy's `zone_aware_lb_config`); of round robin, least request and random only.
    ZoneAware(ZoneAware),
}

/// Envoy's zone-aware routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// Share of calls that prefer the own zone. Default 100 %.
    pub routing_enabled: Fraction,
    /// With fewer endpoints all zones are alike. Default 6.
    pub min_cluster_size: u64,
    /// In panic, calls fail.
    pub fail_traffic_on_panic: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: Fraction::per_million(1_000_000),
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
        }
    }
}

/// Random subsetting (gRFC A68).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsetting {
    /// How many endpoints are kept.
    pub size: NonZeroU32,
    /// Of what.
    pub scope: SubsetScope,
}

/// What a subset is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetScope {
    /// All endpoints of a priority.
    Priority,
    /// Each locality.
    Locality,
}

/// New endpoints warm up: `weight * max(min_weight, (age / window) ^ (1 / aggression))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long an endpoint is new; not zero.
    pub window: Duration,
    /// How the share grows; 1 is linearly, more is faster at first. Positive and finite.
    pub aggression: f64,
    /// Share of its weight at least. Default 10 %.
    pub min_weight: Fraction,
}

/// A set of health statuses; gRPC's default is UNKNOWN and HEALTHY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OverrideHostStatus(u8);

impl OverrideHostStatus {
    /// These.
    pub fn of(statuses: impl IntoIterator<Item = HealthStatus>) -> Self {
        Self(statuses.into_iter().fold(0, |bits, status| bits | 1 << status as u8))
    }

    /// Whether an endpoint with this status may be taken.
    pub const fn contains(self, status: HealthStatus) -> bool {
        self.0 & (1 << status as u8) != 0
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = HealthStatus> {
        HealthStatus::ALL.into_iter().filter(move |status| self.contains(*status))
    }
}

impl Default for OverrideHostStatus {
    fn default() -> Self {
        Self::of([HealthStatus::Unknown, HealthStatus::Healthy])
    }
}

impl fmt::Debug for OverrideHostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
