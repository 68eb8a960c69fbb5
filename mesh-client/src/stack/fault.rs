//! Fault injection (gRFC A33): a delay, then an abort, drawn independently, once per call.
//!
//! The delay does not extend the deadline, and an abort is not retried. What is active counts against the
//! filter's limit in the whole process; only faults that happen count. Where there are several filters, a request comes
//! to the next when the one before has let it pass. A call to which nothing happens pays for the draw alone.

use super::{Answered, Call, Core, Opening};
use crate::{
    call::{BoundedBody, Upstream},
    retry::policy::of_http,
    table::{Choice, Compiled},
};
use http::{HeaderMap, Uri};
use mesh_xds::{
    matcher::{Fraction, Headers},
    resource::fault::{AbortKind, DelayKind, Fault},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status};

/// A fault that happens to a call.
#[derive(Debug)]
pub(crate) struct Struck {
    /// Which of its route's clusters the call goes to, and which of that one's filters this is.
    choice: usize,
    filter: usize,
    injection: Injection,
    active: ActiveFault,
}

impl<U: Upstream> Core<U> {
    /// As [`Core::enter`], for a call that has its cluster: it is not drawn again.
    pub(super) fn enter_struck<'a>(
        &'a self,
        compiled: &'a Compiled<U>,
        uri: &Uri,
        struck: &Struck,
        opening: &mut Opening,
    ) -> Result<Call<'a, U>, Status> {
        let mut call = self.enter(compiled, uri, opening)?;
        call.choice = call.forwarding.choices().get(struck.choice).unwrap_or(call.choice);
        Ok(call)
    }
}

impl<U: Upstream> Call<'_, U> {
    /// Draws until a fault happens, from this filter on.
    pub(super) fn strike(&self, from: usize, uri: &Uri, headers: &HeaderMap) -> Option<Struck> {
        let faults = self.choice.faults.get(from..).filter(|faults| !faults.is_empty())?;
        let seen = self.core.seen(uri, headers);
        let mut rng = self.core.dice.roll();
        for (filter, fault) in (from..).zip(faults) {
            let injection = Injection::draw(fault, &seen, &mut rng);
            if injection.is_none() {
                continue;
            }
            let Some(active) = self.core.settings.faults.begin(fault.max_active) else {
                self.core.counters.faults_over_limit.add_one();
                continue;
            };
            let is_it = |choice: &Choice<U>| std::ptr::eq(choice, self.choice);
            let choice = self.forwarding.choices().iter().position(is_it).unwrap_or_default();
            return Some(Struck { choice, filter, injection, active });
        }
        None
    }

    /// Delays, and ends the call early where an abort is drawn. `struck` is what was drawn already.
    pub(super) async fn inject_faults(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        struck: Option<Struck>,
    ) -> Result<Option<Answered<U>>, Status> {
        let counters = &self.core.counters;
        let mut next = struck.or_else(|| self.strike(0, uri, headers));
        while let Some(Struck { filter, injection, active, .. }) = next {
            if let Some(delay) = injection.delay {
                counters.faults_delayed.add_one();
                let end = Instant::now() + delay;
                match self.deadline.filter(|deadline| deadline.at < end) {
                    None => tokio::time::sleep_until(end).await,
                    Some(deadline) => {
                        tokio::time::sleep_until(deadline.at).await;
                        let what = format!("an injected delay of {delay:?} had not ended");
                        return Err(deadline.exceeded(&self.core.target, &what));
                    }
                }
            }
            if let Some(code) = injection.abort {
                counters.faults_aborted.add_one();
                if code == Code::Ok {
                    return Ok(Some(Status::ok("").into_http::<()>().map(|()| BoundedBody::ended())));
                }
                return Err(self.explain(Status::new(code, "fault injected by configuration"), 0, None));
            }
            drop(active);
            next = self.strike(filter + 1, uri, headers);
        }
        Ok(None)
    }
}

/// Faults active in the process.
#[derive(Clone, Debug)]
pub(crate) struct ActiveFaults(Arc<AtomicU32>);

/// One of them, until dropped.
#[derive(Debug)]
pub(crate) struct ActiveFault(Arc<AtomicU32>);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl ActiveFaults {
    pub(crate) fn new() -> Self {
        let active = Arc::new(AtomicU32::new(0));
        #[cfg(test)]
        crate::testing::held::watch(&active, |active| [("faults", active.load(Relaxed).into())]);
        Self(active)
    }

    #[cfg(test)]
    pub(crate) fn active(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// One more, unless there are as many as may be.
    pub(crate) fn begin(&self, limit: Option<u32>) -> Option<ActiveFault> {
        let limit = limit.unwrap_or(u32::MAX);
        let begun = self.0.fetch_update(Relaxed, Relaxed, |active| (active < limit).then_some(active + 1));
        begun.is_ok().then(|| ActiveFault(self.0.clone()))
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Injection {
    pub(crate) delay: Option<Duration>,
    pub(crate) abort: Option<Code>,
}

impl Injection {
    /// Draws for one call, whose headers decide along.
    pub(crate) fn draw(fault: &Fault, request: &Headers<'_>, rng: &mut fastrand::Rng) -> Self {
        if !fault.headers.iter().all(|matcher| matcher.matches(request)) {
            return Self::default();
        }
        let mut hit = |fraction: Fraction| fraction.hit(rng.u32(0..1_000_000));
        let delay = fault.delay.as_ref().and_then(|delay| {
            let (length, fraction) = match delay.kind {
                DelayKind::Fixed(length) => (length, delay.fraction),
                DelayKind::Header => (
                    Duration::from_millis(number(request.map, "x-envoy-fault-delay-request")?),
                    lowered(request.map, "x-envoy-fault-delay-request-percentage", delay.fraction),
                ),
            };
            (!length.is_zero() && hit(fraction)).then_some(length)
        });
        let abort = fault.abort.as_ref().and_then(|abort| {
            let (code, fraction) = match abort.kind {
                AbortKind::Http(status) => (of_http(status), abort.fraction),
                AbortKind::Grpc(code) => (of_grpc(code), abort.fraction),
                AbortKind::Header => (
                    aborted_by(request.map)?,
                    lowered(request.map, "x-envoy-fault-abort-request-percentage", abort.fraction),
                ),
            };
            hit(fraction).then_some(code)
        });
        Self { delay, abort }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }
}

/// The last value of a header, as a number.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get_all(name).iter().next_back()?.to_str().ok()?.parse().ok()
}

/// The HTTP header goes before the gRPC one.
fn aborted_by(headers: &HeaderMap) -> Option<Code> {
    let http = number(headers, "x-envoy-fault-abort-request").and_then(|status| u16::try_from(status).ok());
    if let Some(status) = http.filter(|status| (200..600).contains(status)) {
        return Some(of_http(status));
    }
    number(headers, "x-envoy-fault-abort-grpc-request")
        .map(|code| of_grpc(u32::try_from(code).unwrap_or(u32::MAX)))
}

/// Codes that do not exist are UNKNOWN.
fn of_grpc(code: u32) -> Code {
    i32::try_from(code).map_or(Code::Unknown, Code::from_i32)
}

/// A header can lower the share that is configured, in percent, and not raise it.
fn lowered(headers: &HeaderMap, name: &str, configured: Fraction) -> Fraction {
    match number(headers, name) {
        Some(percent) => {
            let asked = u32::try_from(percent.saturating_mul(10_000)).unwrap_or(u32::MAX);
            configured.min(Fraction::per_million(asked))
        }
        None => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use mesh_xds::{
        matcher::{HeaderMatcher, HeaderOrPseudo},
        resource::fault::{FaultAbort, FaultDelay},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn fault(delay: Option<(DelayKind, Fraction)>, abort: Option<(AbortKind, Fraction)>) -> Fault {
        Fault {
            delay: delay.map(|(kind, fraction)| FaultDelay { kind, fraction }),
            abort: abort.map(|(kind, fraction)| FaultAbort { kind, fraction }),
            headers: Vec::new(),
            max_active: None,
        }
    }

    fn draw(fault: &Fault, entries: &[(&'static str, &'static str)], rng: &mut fastrand::Rng) -> Injection {
        let mut map = HeaderMap::new();
        for (name, value) in entries {
            map.append(*name, HeaderValue::from_static(value));
        }
        Injection::draw(fault, &Headers { map: &map, authority: "a", path: "/s/m", scheme: "http" }, rng)
    }

    #[test]
    fn delay_and_abort_are_drawn_independently() {
        let half = Fraction::per_million(500_000);
        let fault = fault(Some((DelayKind::Fixed(SECOND), half)), Some((AbortKind::Http(503), half)));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let Injection { delay, abort } = draw(&fault, &[], &mut rng);
            counts[usize::from(delay.is_some()) * 2 + usize::from(abort.is_some())] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn statuses_are_mapped_as_a33_says() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (kind, expected) in [
            (AbortKind::Http(400), Code::Internal),
            (AbortKind::Http(401), Code::Unauthenticated),
            (AbortKind::Http(403), Code::PermissionDenied),
            (AbortKind::Http(404), Code::Unimplemented),
            (AbortKind::Http(429), Code::Unavailable),
            (AbortKind::Http(503), Code::Unavailable),
            (AbortKind::Http(200), Code::Unknown),
            (AbortKind::Http(500), Code::Unknown),
            (AbortKind::Grpc(0), Code::Ok),
            (AbortKind::Grpc(7), Code::PermissionDenied),
            (AbortKind::Grpc(17), Code::Unknown),
            (AbortKind::Grpc(u32::MAX), Code::Unknown),
        ] {
            let fault = fault(None, Some((kind, Fraction::ONE)));
            assert_eq!(draw(&fault, &[], &mut rng).abort, Some(expected), "{kind:?}");
        }
    }

    #[test]
    fn headers_drive_faults_where_that_is_configured() {
        let mut rng = fastrand::Rng::with_seed(1);
        let fault = fault(Some((DelayKind::Header, Fraction::ONE)), Some((AbortKind::Header, Fraction::ONE)));
        for (headers, delay, abort) in [
            (&[][..], None, None),
            (&[("x-envoy-fault-delay-request", "7")], Some(7), None),
            (&[("x-envoy-fault-delay-request", "soon")], None, None),
            (&[("x-envoy-fault-delay-request", "7"), ("x-envoy-fault-delay-request", "9")], Some(9), None),
            (
                &[("x-envoy-fault-delay-request", "7"), ("x-envoy-fault-delay-request-percentage", "0")],
                None,
                None,
            ),
            (&[("x-envoy-fault-abort-request", "404")], None, Some(Code::Unimplemented)),
            (&[("x-envoy-fault-abort-grpc-request", "8")], None, Some(Code::ResourceExhausted)),
            (
                &[("x-envoy-fault-abort-grpc-request", "8"), ("x-envoy-fault-abort-request", "403")],
                None,
                Some(Code::PermissionDenied),
            ),
            (&[("x-envoy-fault-abort-request", "99")], None, None),
        ] {
            let expected = Injection { delay: delay.map(Duration::from_millis), abort };
            assert_eq!(draw(&fault, headers, &mut rng), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_percentage_header_lowers_the_share_and_never_raises_it() {
        let half = Fraction::per_million(500_000);
        for (configured, percent, share) in [
            (Fraction::ZERO, "100", 0..=0),
            (Fraction::ONE, "0", 0..=0),
            (Fraction::ONE, "30", 250..=350),
            (half, "30", 250..=350),
            (half, "80", 450..=550),
            (half, "18446744073709551615", 450..=550),
            (half, "some", 450..=550),
            (Fraction::ONE, "100", 1000..=1000),
        ] {
            let kinds = [
                (
                    fault(Some((DelayKind::Header, configured)), None),
                    [
                        ("x-envoy-fault-delay-request", "7"),
                        ("x-envoy-fault-delay-request-percentage", percent),
                    ],
                ),
                (
                    fault(None, Some((AbortKind::Header, configured))),
                    [
                        ("x-envoy-fault-abort-request", "503"),
                        ("x-envoy-fault-abort-request-percentage", percent),
                    ],
                ),
                (
                    fault(None, Some((AbortKind::Header, configured))),
                    [
                        ("x-envoy-fault-abort-grpc-request", "14"),
                        ("x-envoy-fault-abort-request-percentage", percent),
                    ],
                ),
            ];
            for (fault, headers) in kinds {
                let mut rng = fastrand::Rng::with_seed(1);
                let hits = (0..1000).filter(|_| !draw(&fault, &headers, &mut rng).is_none()).count();
                assert!(share.contains(&hits), "{configured:?} {headers:?}: {hits}");
            }
        }
    }

    #[test]
    fn the_percentage_of_a_delay_is_none_of_an_abort_and_configured_faults_heed_neither() {
        let mut rng = fastrand::Rng::with_seed(1);
        let by_header =
            fault(Some((DelayKind::Header, Fraction::ONE)), Some((AbortKind::Header, Fraction::ONE)));
        let seven = Some(Duration::from_millis(7));
        let asked = [("x-envoy-fault-delay-request", "7"), ("x-envoy-fault-abort-request", "503")];
        for (lowered, delay, abort) in [
            ("x-envoy-fault-abort-request-percentage", seven, None),
            ("x-envoy-fault-delay-request-percentage", None, Some(Code::Unavailable)),
        ] {
            let headers = [asked[0], asked[1], (lowered, "0")];
            assert_eq!(draw(&by_header, &headers, &mut rng), Injection { delay, abort });
        }
        let fixed = fault(None, Some((AbortKind::Http(503), Fraction::ONE)));
        let headers = [("x-envoy-fault-abort-request-percentage", "0")];
        assert_eq!(draw(&fixed, &headers, &mut rng).abort, Some(Code::Unavailable));
    }

    #[test]
    fn only_requests_with_the_headers_are_touched() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut fault = fault(None, Some((AbortKind::Http(503), Fraction::ONE)));
        fault.headers = vec![HeaderMatcher::present(HeaderOrPseudo::parse("end-user").unwrap())];
        assert!(draw(&fault, &[], &mut rng).is_none());
        assert!(!draw(&fault, &[("end-user", "jason")], &mut rng).is_none());
    }

    #[test]
    fn no_more_are_active_than_may_be() {
        let active = ActiveFaults::new();
        assert!(active.begin(Some(0)).is_none());
        let one = active.begin(Some(1));
        assert!(one.is_some() && active.begin(Some(1)).is_none());
        assert!(active.begin(None).is_some(), "another filter without a limit");
        drop(one);
        assert!(active.begin(Some(1)).is_some());
    }
}
