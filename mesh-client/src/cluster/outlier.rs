//! Outlier detection: who is ejected, and when they come back. Sans-IO (gRFC A50; Envoy's consecutive errors).
//!
//! Promises: consecutive errors eject at once, statistics at the sweep; the share of ejected endpoints is
//! checked before each ejection, so that one always may be as long as the limit is above zero; an ejection
//! lasts the base time times how often it happened lately, capped, plus a jitter where one is configured, and ends
//! at a sweep. Failures that were made here have statistics of their own where they are split off (Envoy); what an
//! active health check says can take an endpoint back. An endpoint that is
//! removed frees its share, and one that comes back before its time is still ejected.

use super::outcome::Streak;
use mesh_xds::resource::cluster::{FailurePercentage, OutlierDetection, SuccessRate};
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    /// Part of the cluster now.
    present: bool,
    ejected_at: Option<Instant>,
    multiplier: u32,
    /// Of this ejection.
    jitter: Duration,
}

impl Host {
    /// How long an ejection lasts.
    fn time(&self, config: &OutlierDetection) -> Duration {
        let longest = config.max_ejection_time.max(config.base_ejection_time);
        config.base_ejection_time.saturating_mul(self.multiplier).min(longest) + self.jitter
    }
}

/// What one endpoint did since the last sweep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) endpoint: SocketAddr,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
}

impl Sample {
    fn volume(&self) -> u64 {
        self.successes + self.failures
    }
}

/// What all endpoints did since the last sweep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// By their answers; failures made here among them unless they are split off.
    pub(crate) external: Vec<Sample>,
    /// By failures made here, where they are split off.
    pub(crate) local: Vec<Sample>,
}

/// The ejections of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Ejector {
    config: Option<OutlierDetection>,
    /// How many endpoints there are.
    total: usize,
    /// Those that are ejected, or were lately.
    hosts: HashMap<SocketAddr, Host>,
    swept_at: Option<Instant>,
    /// Nothing was counted since the last sweep.
    quiet: bool,
}

impl Ejector {
    /// Takes in a configuration; the phase of the sweeps is kept. True: the counts so far do not matter any
    /// more, because statistics were just switched on. Switched off, nobody is ejected.
    pub(crate) fn configure(&mut self, now: Instant, config: Option<&OutlierDetection>) -> bool {
        let had = self.config.as_ref().is_some_and(has_statistics);
        self.config = config.cloned();
        if self.config.is_none() {
            self.hosts.clear();
            self.swept_at = None;
            return false;
        }
        self.swept_at.get_or_insert(now);
        self.quiet = false;
        !had && self.config.as_ref().is_some_and(has_statistics)
    }

    /// The endpoints of the cluster, of all priorities: how many, and who.
    pub(crate) fn populate(&mut self, total: usize, is_present: impl Fn(SocketAddr) -> bool) {
        self.total = total;
        self.hosts.iter_mut().for_each(|(endpoint, host)| host.present = is_present(*endpoint));
        self.hosts.retain(|_, host| host.present || host.ejected_at.is_some());
    }

    /// Those that are ejected.
    pub(crate) fn ejected(&self) -> impl Iterator<Item = SocketAddr> {
        let ejected = self.hosts.iter().filter(|(_, host)| host.ejected_at.is_some());
        ejected.map(|(endpoint, _)| *endpoint)
    }

    #[cfg(test)]
    fn is_ejected(&self, endpoint: SocketAddr) -> bool {
        self.hosts.get(&endpoint).is_some_and(|host| host.ejected_at.is_some())
    }

    /// How long an endpoint stays ejected (until the sweep after), and how often it was lately.
    pub(crate) fn ejection(&self, now: Instant, endpoint: SocketAddr) -> (Option<Duration>, u32) {
        let Some((host, config)) = self.hosts.get(&endpoint).zip(self.config.as_ref()) else {
            return (None, 0);
        };
        let left = host.ejected_at.map(|at| (at + host.time(config)).saturating_duration_since(now));
        (left, host.multiplier)
    }

    /// A consecutive limit was reached. True: the endpoint is ejected by it.
    pub(crate) fn on_streak(
        &mut self,
        now: Instant,
        endpoint: SocketAddr,
        streak: Streak,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let Some(config) = &self.config else { return false };
        let limit = match streak {
            Streak::ServerError => config.consecutive_5xx,
            Streak::Gateway => config.consecutive_gateway_failure,
            Streak::LocalOrigin => config.consecutive_local_origin_failure,
        };
        let percent = config.max_ejection_percent;
        limit.is_some_and(|limit| self.may_eject(percent) && self.eject(now, endpoint, limit.enforcing, rng))
    }

    /// An active health check of it passed: if it is ejected it is taken back at once, unless the configuration says
    /// otherwise (`successful_active_health_check_uneject_host`). True: it was, and its streaks are to be forgotten.
    pub(crate) fn on_healthy(&mut self, endpoint: SocketAddr) -> bool {
        let wanted = self.config.as_ref().is_some_and(|config| config.uneject_by_health_check);
        let host = self.hosts.get_mut(&endpoint).filter(|_| wanted);
        host.is_some_and(|host| host.ejected_at.take().is_some())
    }

    /// Something was counted after a quiet time.
    pub(crate) fn wake(&mut self, now: Instant) {
        if std::mem::take(&mut self.quiet) {
            self.swept_at = Some(now);
        }
    }

    /// When to sweep next; `None` while there is nothing to sweep.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let config = self.config.as_ref()?;
        let statistics = has_statistics(config) && !self.quiet;
        let recovering = !self.hosts.is_empty();
        (statistics || recovering).then_some(self.swept_at? + config.interval)
    }

    /// Whether the caller should ask to be woken by the next outcome.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The periodic sweep. True: who is ejected changed; `returned` gets those that came back.
    pub(crate) fn sweep(
        &mut self,
        now: Instant,
        samples: &Samples,
        rng: &mut fastrand::Rng,
        returned: &mut Vec<SocketAddr>,
    ) -> bool {
        let Some(config) = self.config.clone() else { return false };
        self.swept_at = Some(now);
        let Samples { external, local } = samples;
        self.quiet = external.iter().chain(local).all(|sample| sample.volume() == 0);
        let mut changed = false;
        for (samples, success_rate, failure_percentage) in [
            (external, &config.success_rate, &config.failure_percentage),
            (local, &config.local_origin.success_rate, &config.local_origin.failure_percentage),
        ] {
            if let Some(algorithm) = success_rate {
                changed |= self.sweep_success_rate(now, &config, algorithm, samples, rng);
            }
            if let Some(algorithm) = failure_percentage {
                changed |= self.sweep_failure_percentage(now, &config, algorithm, samples, rng);
            }
        }
        for (endpoint, host) in &mut self.hosts {
            match host.ejected_at {
                None => host.multiplier = host.multiplier.saturating_sub(1),
                Some(at) => {
                    if now > at + host.time(&config) {
                        host.ejected_at = None;
                        returned.push(*endpoint);
                        changed = true;
                    }
                }
            }
        }
        self.hosts.retain(|_, host| host.ejected_at.is_some() || (host.present && host.multiplier > 0));
        changed
    }

    fn sweep_success_rate(
        &mut self,
        now: Instant,
        config: &OutlierDetection,
        algorithm: &SuccessRate,
        samples: &[Sample],
        rng: &mut fastrand::Rng,
    ) -> bool {
        let volume = u64::from(algorithm.request_volume);
        let rates: Vec<(SocketAddr, f64)> = samples
            .iter()
            .filter(|sample| sample.volume() > 0 && sample.volume() >= volume)
            .map(|sample| (sample.endpoint, ratio(sample.successes, sample.volume())))
            .collect();
        if rates.is_empty() || rates.len() < count(algorithm.minimum_hosts) {
            return false;
        }
        let hosts = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / hosts;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / hosts;
        let least = mean - variance.sqrt() * f64::from(algorithm.stdev_factor) / 1000.0;
        let mut changed = false;
        for (endpoint, rate) in rates {
            if !self.may_eject(config.max_ejection_percent) {
                break;
            }
            changed |= rate < least && self.eject(now, endpoint, algorithm.enforcing, rng);
        }
        changed
    }

    fn sweep_failure_percentage(
        &mut self,
        now: Instant,
        config: &OutlierDetection,
        algorithm: &FailurePercentage,
        samples: &[Sample],
        rng: &mut fastrand::Rng,
    ) -> bool {
        let volume = u64::from(algorithm.request_volume);
        let enough = |sample: &&Sample| sample.volume() > 0 && sample.volume() >= volume;
        if samples.iter().filter(enough).count() < count(algorithm.minimum_hosts) {
            return false;
        }
        let mut changed = false;
        for sample in samples.iter().filter(enough) {
            if !self.may_eject(config.max_ejection_percent) {
                break;
            }
            // Multiplied, not divided: 101 of 200 is more than 50 %.
            let failing = sample.failures * 100 > u64::from(algorithm.threshold) * sample.volume();
            changed |= failing && self.eject(now, sample.endpoint, algorithm.enforcing, rng);
        }
        changed
    }

    fn may_eject(&self, max_percent: u32) -> bool {
        let ejected = self.hosts.values().filter(|host| host.present && host.ejected_at.is_some()).count();
        ejected as u64 * 100 < u64::from(max_percent) * self.total as u64
    }

    fn eject(&mut self, now: Instant, endpoint: SocketAddr, enforcing: u32, rng: &mut fastrand::Rng) -> bool {
        let known = self.hosts.get(&endpoint);
        if known.is_some_and(|host| host.ejected_at.is_some()) || rng.u32(0..100) >= enforcing {
            return false;
        }
        let host = self.hosts.entry(endpoint).or_default();
        host.present = true;
        host.ejected_at = Some(now);
        host.multiplier = host.multiplier.saturating_add(1);
        let longest = self.config.as_ref().map_or(Duration::ZERO, |config| config.max_ejection_time_jitter);
        host.jitter = match u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            longest => Duration::from_millis(rng.u64(0..=longest)),
        };
        true
    }
}

fn has_statistics(config: &OutlierDetection) -> bool {
    let local = &config.local_origin;
    config.success_rate.is_some()
        || config.failure_percentage.is_some()
        || local.success_rate.is_some()
        || local.failure_percentage.is_some()
}

fn count(minimum: u32) -> usize {
    usize::try_from(minimum).unwrap_or(usize::MAX)
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests;
