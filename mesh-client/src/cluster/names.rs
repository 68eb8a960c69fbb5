//! The names of a DNS cluster: when each is resolved, and what it stands for meanwhile. Sans-IO.
//!
//! Promises: a name is asked about again a refresh interval after its answer, or after a back-off when there
//! was none; a failure never costs the addresses that were known; at most one question about a name at a time.
//! An answer with the same addresses in another order, as round-robin DNS gives them, is no change; when some
//! stay, the one that identified the endpoint does. A literal address is its own answer.
//!
//! Who resolves is [`Resolve`]: outside tests the operating system, so that `/etc/hosts`, search domains and
//! whatever else the machine is set up with hold. It does not tell the time to live of an answer, so
//! `respect_dns_ttl` has nothing to respect, and the refresh rate holds.

use mesh_xds::resource::cluster::{DnsLookupFamily, DnsResolution, HostPort};
use std::{
    collections::BTreeMap, fmt::Write, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration,
};
use tokio::time::Instant;

/// An answer that does not come within this is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Whatever is configured: a resolver must not be asked all the time.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Broken connections make a name be resolved again, but not sooner than this after the last time (gRPC).
const RERESOLUTION: Duration = Duration::from_secs(30);

/// A question that is being answered.
pub(crate) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of names; the seam for tests.
pub(crate) trait Resolve: Send + Sync {
    fn resolve(&self, host: &str) -> Resolving;
}

/// The operating system's resolver.
#[derive(Debug, Default)]
pub(crate) struct System;

impl Resolve for System {
    fn resolve(&self, host: &str) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// What is known of one name.
#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Why the last question failed.
    failure: Option<Arc<str>>,
    failures: u32,
    asked_at: Option<Instant>,
    /// `None`: being asked.
    next_at: Option<Instant>,
}

/// The names of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Names {
    settings: DnsResolution,
    hosts: BTreeMap<HostPort, Known>,
}

impl Names {
    /// From now on these names are of interest. What is known of those that stay is kept.
    pub(crate) fn configure<'a>(
        &mut self,
        now: Instant,
        settings: DnsResolution,
        hosts: impl IntoIterator<Item = &'a HostPort>,
    ) {
        let mut before = std::mem::take(&mut self.hosts);
        if self.settings != settings {
            self.settings = settings;
            for known in before.values_mut().filter(|known| known.next_at.is_some()) {
                known.next_at = Some(now);
            }
        }
        let unknown = || Known {
            addresses: Vec::new(),
            failure: None,
            failures: 0,
            asked_at: None,
            next_at: Some(now),
        };
        for host in hosts {
            let known = before.remove(host).unwrap_or_else(unknown);
            self.hosts.insert(host.clone(), known);
        }
    }

    /// The names to be asked about now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<HostPort> {
        let mut due = Vec::new();
        for (host, known) in &mut self.hosts {
            if known.next_at.is_none_or(|at| at > now) {
                continue;
            }
            known.next_at = None;
            known.asked_at = Some(now);
            match host.host.parse::<IpAddr>() {
                // Never again.
                Ok(literal) => known.addresses = vec![literal],
                Err(_) => due.push(host.clone()),
            }
        }
        due
    }

    /// Takes in an answer. True: the addresses, or the failure, are news.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        host: &HostPort,
        answer: Result<Vec<IpAddr>, String>,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let settings = self.settings;
        // Gone from the configuration meanwhile.
        let Some(known) = self.hosts.get_mut(host) else { return false };
        let jitter = settings.jitter.mul_f64(rng.f64());
        let answer = answer.and_then(|addresses| {
            let addresses = of_family(&addresses, settings.family);
            if addresses.is_empty() {
                Err("it has no address of the family asked for".to_owned())
            } else {
                Ok(addresses)
            }
        });
        match answer {
            Ok(addresses) => {
                known.failures = 0;
                known.next_at = Some(now + settings.refresh_rate.max(SHORTEST_WAIT) + jitter);
                let recovered = known.failure.take().is_some();
                let addresses = in_order_of(&known.addresses, addresses);
                let changed = known.addresses != addresses;
                known.addresses = addresses;
                changed || recovered
            }
            Err(reason) => {
                known.failures = known.failures.saturating_add(1);
                let wait = match settings.failure_refresh {
                    None => settings.refresh_rate,
                    Some(back_off) => {
                        let doublings = known.failures.saturating_sub(1).min(16);
                        let longest = back_off.base.saturating_mul(1 << doublings).min(back_off.max);
                        longest.mul_f64(0.5 + rng.f64() / 2.0)
                    }
                };
                known.next_at = Some(now + wait.max(SHORTEST_WAIT) + jitter);
                let reason = reason.into();
                let news = known.failure.as_ref() != Some(&reason);
                known.failure = Some(reason);
                news
            }
        }
    }

    /// Connections fail: the names may stand for something else by now.
    pub(crate) fn on_broken(&mut self) {
        for known in self.hosts.values_mut() {
            if let (Some(asked), Some(next)) = (known.asked_at, known.next_at) {
                known.next_at = Some(next.min(asked + RERESOLUTION));
            }
        }
    }

    /// What a name stands for, as far as is known.
    pub(crate) fn addresses(&self, host: &HostPort) -> Vec<IpAddr> {
        self.hosts.get(host).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// A name was not answered yet, in whatever way.
    pub(crate) fn is_pending(&self) -> bool {
        self.hosts.values().any(|known| known.addresses.is_empty() && known.failure.is_none())
    }

    /// The failures, for the errors of calls.
    pub(crate) fn note(&self) -> Option<Arc<str>> {
        let mut note = String::new();
        for (host, known) in &self.hosts {
            if let Some(failure) = &known.failure {
                let comma = if note.is_empty() { "" } else { "; " };
                let _ = write!(note, "{comma}DNS: {}: {failure}", host.host);
                if !known.addresses.is_empty() {
                    note.push_str(" (the addresses known before are used)");
                }
            } else if known.addresses.is_empty() {
                let comma = if note.is_empty() { "" } else { "; " };
                let _ = write!(note, "{comma}DNS: {}: being resolved", host.host);
            }
        }
        (!note.is_empty()).then(|| note.into())
    }

    /// When [`Self::due`] has something.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.hosts.values().filter_map(|known| known.next_at).min()
    }
}

fn of_family(addresses: &[IpAddr], family: DnsLookupFamily) -> Vec<IpAddr> {
    let only = |v4: bool| -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| address.is_ipv4() == v4).collect()
    };
    let first = |v4: bool| {
        let preferred = only(v4);
        if preferred.is_empty() { only(!v4) } else { preferred }
    };
    match family {
        DnsLookupFamily::Auto => first(false),
        DnsLookupFamily::V4Preferred => first(true),
        DnsLookupFamily::V4Only => only(true),
        DnsLookupFamily::V6Only => only(false),
        DnsLookupFamily::All => addresses.to_vec(),
    }
}

/// The new addresses, in the old order as far as they were known before.
fn in_order_of(old: &[IpAddr], new: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ordered: Vec<IpAddr> = old.iter().copied().filter(|address| new.contains(address)).collect();
    for address in new {
        if !ordered.contains(&address) {
            ordered.push(address);
        }
    }
    ordered
}

/// The addresses of a name, or why there are none.
pub(crate) type Answer = (HostPort, Result<Vec<IpAddr>, String>);

/// Asks, within [`PATIENCE`].
pub(crate) async fn ask(host: HostPort, resolving: Resolving) -> Answer {
    let answer = match tokio::time::timeout(PATIENCE, resolving).await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    };
    (host, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::resource::cluster::DnsRefresh;

    fn host(name: &str) -> HostPort {
        HostPort { host: name.into(), port: 80 }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    struct Bench {
        names: Names,
        now: Instant,
        rng: fastrand::Rng,
    }

    impl Bench {
        fn new(settings: DnsResolution, hosts: &[&str]) -> Self {
            let mut bench =
                Self { names: Names::default(), now: Instant::now(), rng: fastrand::Rng::with_seed(1) };
            bench.configure(settings, hosts);
            bench
        }

        fn configure(&mut self, settings: DnsResolution, hosts: &[&str]) {
            let hosts: Vec<_> = hosts.iter().map(|name| host(name)).collect();
            self.names.configure(self.now, settings, &hosts);
        }

        fn due(&mut self) -> Vec<String> {
            self.names.due(self.now).iter().map(|host| host.host.to_string()).collect()
        }

        fn answer(&mut self, name: &str, answer: Result<&[&str], &str>) -> bool {
            let answer = answer.map(ips).map_err(str::to_owned);
            self.names.on_answer(self.now, &host(name), answer, &mut self.rng)
        }

        /// How long until something is due.
        fn sleep(&mut self) -> Duration {
            let at = self.names.wake_at().unwrap();
            let slept = at - self.now;
            self.now = at;
            slept
        }

        fn known(&self, name: &str) -> Vec<IpAddr> {
            self.names.addresses(&host(name))
        }
    }

    #[test]
    fn a_name_is_asked_about_at_once_and_again_a_refresh_interval_after_its_answer() {
        let mut bench = Bench::new(DnsResolution::default(), &["a.example"]);
        assert_eq!(bench.due(), ["a.example"]);
        assert!(bench.due().is_empty() && bench.names.wake_at().is_none(), "one question at a time");
        assert!(bench.names.is_pending());
        assert_eq!(bench.names.note().unwrap().as_ref(), "DNS: a.example: being resolved");
        assert!(bench.answer("a.example", Ok(&["10.0.0.1"])));
        assert_eq!((bench.known("a.example"), bench.names.note()), (ips(&["10.0.0.1"]), None));
        assert_eq!(bench.sleep(), Duration::from_secs(5));
        assert_eq!(bench.due(), ["a.example"]);
    }

    #[test]
    fn a_failure_keeps_what_was_known_and_is_told() {
        let back_off = DnsRefresh { base: Duration::from_secs(2), max: Duration::from_secs(10) };
        let settings = DnsResolution { failure_refresh: Some(back_off), ..DnsResolution::default() };
        let mut bench = Bench::new(settings, &["a.example"]);
        bench.due();
        bench.answer("a.example", Ok(&["10.0.0.1"]));
        bench.sleep();
        bench.due();
        assert!(bench.answer("a.example", Err("no such host")));
        assert_eq!(bench.known("a.example"), ips(&["10.0.0.1"]));
        assert_eq!(
            bench.names.note().unwrap().as_ref(),
            "DNS: a.example: no such host (the addresses known before are used)"
        );
        for longest in [2, 4, 8, 10, 10] {
            let longest = Duration::from_secs(longest);
            let slept = bench.sleep();
            assert!(slept >= longest / 2 && slept <= longest, "{slept:?} of {longest:?}");
            assert_eq!(bench.due(), ["a.example"]);
            assert!(!bench.answer("a.example", Err("no such host")), "the same failure is no news");
        }
        assert!(bench.answer("a.example", Ok(&["10.0.0.1"])), "that it is over is");
        assert_eq!(bench.names.note(), None);
        assert_eq!(bench.sleep(), Duration::from_secs(5));
    }

    #[test]
    fn the_same_addresses_in_another_order_are_no_news_and_what_stays_keeps_its_place() {
        let mut bench = Bench::new(DnsResolution::default(), &["a.example"]);
        bench.due();
        bench.answer("a.example", Ok(&["10.0.0.1", "10.0.0.2"]));
        assert!(!bench.answer("a.example", Ok(&["10.0.0.2", "10.0.0.1"])));
        assert!(bench.answer("a.example", Ok(&["10.0.0.3", "10.0.0.2"])));
        assert_eq!(bench.known("a.example"), ips(&["10.0.0.2", "10.0.0.3"]));
    }

    #[test]
    fn families_are_chosen_as_configured() {
        let mixed = ["fd00::1", "10.0.0.1"];
        for (family, answer, expected) in [
            (DnsLookupFamily::Auto, &mixed[..], &["fd00::1"][..]),
            (DnsLookupFamily::Auto, &["10.0.0.1"], &["10.0.0.1"]),
            (DnsLookupFamily::V4Preferred, &mixed, &["10.0.0.1"]),
            (DnsLookupFamily::V4Preferred, &["fd00::1"], &["fd00::1"]),
            (DnsLookupFamily::V4Only, &mixed, &["10.0.0.1"]),
            (DnsLookupFamily::V6Only, &mixed, &["fd00::1"]),
            (DnsLookupFamily::All, &mixed, &mixed),
            (DnsLookupFamily::V6Only, &["10.0.0.1"], &[]),
        ] {
            let mut bench = Bench::new(DnsResolution { family, ..Default::default() }, &["a.example"]);
            bench.due();
            bench.answer("a.example", Ok(answer));
            assert_eq!(bench.known("a.example"), ips(expected), "{family:?}");
            assert_eq!(bench.names.note().is_some(), expected.is_empty());
        }
    }

    #[test]
    fn a_literal_address_needs_no_resolver() {
        let mut bench = Bench::new(DnsResolution::default(), &["10.1.2.3", "fd00::7"]);
        assert!(bench.due().is_empty() && !bench.names.is_pending());
        assert_eq!(bench.known("fd00::7"), ips(&["fd00::7"]));
        assert_eq!(bench.names.wake_at(), None);
    }

    #[test]
    fn names_that_stay_in_the_configuration_keep_what_is_known() {
        let mut bench = Bench::new(DnsResolution::default(), &["a.example", "b.example"]);
        bench.due();
        bench.answer("a.example", Ok(&["10.0.0.1"]));
        bench.configure(DnsResolution::default(), &["a.example", "c.example"]);
        assert_eq!(bench.known("a.example"), ips(&["10.0.0.1"]));
        assert_eq!(bench.due(), ["c.example"]);
        assert!(!bench.answer("b.example", Ok(&["10.0.0.2"])), "nobody asks any more");
        bench.configure(DnsResolution { family: DnsLookupFamily::All, ..Default::default() }, &["a.example"]);
        assert_eq!(bench.due(), ["a.example"], "what was answered for other settings is asked again");
    }

    #[test]
    fn broken_connections_ask_sooner_but_not_all_the_time() {
        let settings = DnsResolution { refresh_rate: Duration::from_secs(300), ..Default::default() };
        let mut bench = Bench::new(settings, &["a.example"]);
        bench.due();
        bench.answer("a.example", Ok(&["10.0.0.1"]));
        bench.names.on_broken();
        assert_eq!(bench.sleep(), Duration::from_secs(30));
    }

    #[test]
    fn waits_are_jittered_and_never_nothing() {
        let settings = DnsResolution {
            refresh_rate: Duration::ZERO,
            jitter: Duration::from_secs(1),
            ..Default::default()
        };
        let mut bench = Bench::new(settings, &["a.example"]);
        let mut waits = Vec::new();
        for _ in 0..20 {
            bench.due();
            bench.answer("a.example", Ok(&["10.0.0.1"]));
            waits.push(bench.sleep());
        }
        assert!(waits.iter().all(|wait| *wait >= SHORTEST_WAIT && *wait < Duration::from_millis(1100)));
        assert!(waits.iter().max().unwrap() > waits.iter().min().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_a_failure() {
        let (_, answer) = ask(host("a.example"), Box::pin(std::future::pending())).await;
        assert_eq!(answer.unwrap_err(), "no answer within 10s");
    }

    #[tokio::test]
    async fn the_operating_system_knows_localhost() {
        let found = System.resolve("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }
}
