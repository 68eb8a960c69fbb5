//! What is known of an endpoint, in a byte, and how many endpoints of a priority stand how.
//!
//! Promises: all that decides whether an endpoint gets connections and calls is in its [`Standing`], so that a
//! look at ten thousand of them reads ten kilobytes; what concerns a priority as a whole is in its [`Census`],
//! which is kept up to date change by change and answers without looking at any endpoint.

use crate::endpoint::{machine::Connectivity, task::Want};
use mesh_xds::{
    balancing,
    matcher::Fraction,
    resource::{cluster::OverrideHostStatus, endpoint::HealthStatus},
};

/// [`Connectivity`] without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Idle,
    Connecting,
    Ready,
    Failed,
}

impl From<&Connectivity> for Link {
    fn from(connectivity: &Connectivity) -> Self {
        match connectivity {
            Connectivity::Idle => Self::Idle,
            Connectivity::Connecting => Self::Connecting,
            Connectivity::Ready => Self::Ready,
            Connectivity::TransientFailure(_) => Self::Failed,
        }
    }
}

/// Connectivity, health, ejection, and whether connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing(u8);

const LINK: u8 = 0b11;
const DEGRADED: u8 = 0b01 << 2;
const DRAINING: u8 = 0b10 << 2;
const UNHEALTHY: u8 = 0b11 << 2;
const HEALTH: u8 = 0b11 << 2;
const EJECTED: u8 = 1 << 4;
const LAZILY: u8 = 1 << 5;
const NOW: u8 = 1 << 6;
const UNCHECKED: u8 = 1 << 7;
/// How many there are.
const ALL: usize = 1 << 8;

impl Standing {
    pub(crate) fn new(link: Link, health: HealthStatus, ejected: bool, want: Want) -> Self {
        let link = match link {
            Link::Idle => 0,
            Link::Connecting => 1,
            Link::Ready => 2,
            Link::Failed => 3,
        };
        let health = match health {
            HealthStatus::Unknown | HealthStatus::Healthy => 0,
            HealthStatus::Degraded => DEGRADED,
            HealthStatus::Draining => DRAINING,
            HealthStatus::Unhealthy => UNHEALTHY,
        };
        let want = match want {
            Want::No => 0,
            Want::Lazily => LAZILY,
            Want::Now => NOW,
            Want::Aside => LAZILY | NOW,
        };
        Self(link | health | if ejected { EJECTED } else { 0 } | want)
    }

    /// That of an endpoint whose first health check has not been answered.
    pub(crate) fn unchecked(self) -> Self {
        Self(self.0 | UNCHECKED)
    }

    pub(crate) fn is_unchecked(self) -> bool {
        self.0 & UNCHECKED != 0
    }

    pub(crate) fn link(self) -> Link {
        match self.0 & LINK {
            0 => Link::Idle,
            1 => Link::Connecting,
            2 => Link::Ready,
            _ => Link::Failed,
        }
    }

    pub(crate) fn want(self) -> Want {
        match self.0 & (LAZILY | NOW) {
            0 => Want::No,
            LAZILY => Want::Lazily,
            NOW => Want::Now,
            _ => Want::Aside,
        }
    }

    pub(crate) fn is_ejected(self) -> bool {
        self.0 & EJECTED != 0
    }

    pub(crate) fn is_as_healthy_as(self, other: Self) -> bool {
        self.0 & (HEALTH | UNCHECKED) == other.0 & (HEALTH | UNCHECKED)
    }

    /// Whether it may be that its status is one of these: UNKNOWN and HEALTHY are not told apart here.
    pub(crate) fn may_be_one_of(self, statuses: OverrideHostStatus) -> bool {
        let has = |status| statuses.contains(status);
        match self.0 & HEALTH {
            DRAINING => has(HealthStatus::Draining),
            UNHEALTHY => has(HealthStatus::Unhealthy),
            _ if self.is_ejected() || self.is_unchecked() => has(HealthStatus::Unhealthy),
            DEGRADED => has(HealthStatus::Degraded),
            _ => has(HealthStatus::Unknown) || has(HealthStatus::Healthy),
        }
    }

    fn is_draining(self) -> bool {
        self.0 & HEALTH == DRAINING
    }
}

/// How many endpoints stand how.
#[derive(Clone, Debug)]
pub(crate) struct Census([u32; ALL]);

impl Default for Census {
    fn default() -> Self {
        Self([0; ALL])
    }
}

impl Census {
    pub(crate) fn add(&mut self, standing: Standing) {
        if let Some(count) = self.0.get_mut(usize::from(standing.0)) {
            *count += 1;
        }
    }

    pub(crate) fn remove(&mut self, standing: Standing) {
        if let Some(count) = self.0.get_mut(usize::from(standing.0)) {
            *count = count.saturating_sub(1);
        }
    }

    /// The standings that somebody has, with how many.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Standing, usize)> {
        let standings = (0..=u8::MAX).map(Standing).zip(&self.0).filter(|(_, count)| **count > 0);
        standings.map(|(standing, count)| (standing, usize::try_from(*count).unwrap_or(usize::MAX)))
    }

    pub(crate) fn count(&self, which: impl Fn(Standing) -> bool) -> usize {
        self.iter().filter(|(standing, _)| which(*standing)).map(|(_, count)| count).sum()
    }

    pub(crate) fn any(&self, which: impl Fn(Standing) -> bool) -> bool {
        self.iter().any(|(standing, _)| which(standing))
    }
}

/// How the endpoints of one priority are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Judge {
    /// Ejected endpoints get no calls.
    ejection: bool,
    /// Those whose first health check has not been answered count as unhealthy; otherwise they do not count.
    unchecked: bool,
    panicking: bool,
}

impl Judge {
    pub(crate) fn new(
        census: &Census,
        ejection: bool,
        unchecked: bool,
        panic_threshold: Option<Fraction>,
    ) -> Self {
        let calm = Self { ejection, unchecked, panicking: false };
        let healthy = census.count(|standing| calm.is_offered(standing));
        let panicking = balancing::is_panic(healthy, calm.total(census), panic_threshold);
        Self { panicking, ..calm }
    }

    /// All, those that drain left out.
    pub(crate) fn total(self, census: &Census) -> usize {
        census.count(|standing| !standing.is_draining() && (self.unchecked || !standing.is_unchecked()))
    }

    /// Whether connections to it are wanted.
    pub(crate) fn is_usable(self, standing: Standing) -> bool {
        match standing.0 & HEALTH {
            DRAINING => false,
            _ if standing.is_unchecked() => self.panicking && self.unchecked,
            UNHEALTHY => self.panicking,
            _ => true,
        }
    }

    pub(crate) fn is_ejected(self, standing: Standing) -> bool {
        self.ejection && !self.panicking && standing.is_ejected()
    }

    pub(crate) fn is_offered(self, standing: Standing) -> bool {
        self.is_usable(standing) && !self.is_ejected(standing)
    }

    /// Whether it takes what others leave.
    pub(crate) fn is_degraded(self, standing: Standing) -> bool {
        !self.panicking && standing.0 & HEALTH == DEGRADED
    }

    /// Health and ejection are ignored: too few would be left.
    pub(crate) fn is_panicking(self) -> bool {
        self.panicking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: [Link; 4] = [Link::Idle, Link::Connecting, Link::Ready, Link::Failed];
    const HEALTHS: [HealthStatus; 5] = [
        HealthStatus::Unknown,
        HealthStatus::Healthy,
        HealthStatus::Degraded,
        HealthStatus::Draining,
        HealthStatus::Unhealthy,
    ];

    #[test]
    fn a_standing_says_all_that_it_was_made_of() {
        let calm = Judge { ejection: true, unchecked: false, panicking: false };
        for link in LINKS {
            for health in HEALTHS {
                for ejected in [false, true] {
                    for want in [Want::No, Want::Lazily, Want::Now, Want::Aside] {
                        let standing = Standing::new(link, health, ejected, want);
                        assert_eq!((standing.link(), standing.want()), (link, want));
                        assert_eq!(calm.is_usable(standing), health.is_usable());
                        assert_eq!(calm.is_ejected(standing), ejected);
                        assert_eq!(calm.is_degraded(standing), health == HealthStatus::Degraded);
                        assert_eq!(standing.is_draining(), health == HealthStatus::Draining);
                        let mut census = Census::default();
                        census.add(standing);
                        assert_eq!(census.iter().collect::<Vec<_>>(), [(standing, 1)]);
                        census.remove(standing);
                        assert_eq!(census.iter().count(), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn panic_ignores_health_and_ejection_but_not_that_an_endpoint_drains() {
        let standing = |health, ejected| Standing::new(Link::Ready, health, ejected, Want::Now);
        let mut census = Census::default();
        for (health, ejected) in [
            (HealthStatus::Healthy, false),
            (HealthStatus::Healthy, true),
            (HealthStatus::Unhealthy, false),
            (HealthStatus::Draining, false),
        ] {
            census.add(standing(health, ejected));
        }
        // One of the three that do not drain is offered.
        let at =
            |percent: u32| Judge::new(&census, true, false, Some(Fraction::per_million(percent * 10_000)));
        assert!(!at(33).is_panicking() && at(34).is_panicking());
        assert!(!Judge::new(&census, false, false, Some(Fraction::per_million(500_000))).is_panicking());
        assert!(at(34).is_offered(standing(HealthStatus::Unhealthy, true)));
        assert!(!at(34).is_offered(standing(HealthStatus::Draining, false)));
        assert!(!at(33).is_offered(standing(HealthStatus::Healthy, true)));
    }
}
