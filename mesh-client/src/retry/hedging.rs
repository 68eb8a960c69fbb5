//! Hedging as gRPC A6 has it in service configs: which calls, how many attempts, how far apart.
//!
//! Promises: of the policies that a program gives, a call takes the one for its method, else the one for its service,
//! else the one for everything, as a service config's `methodConfig` is matched; which one is found by its service,
//! however many there are. What A6 does not allow is refused when they are read.

use super::codes::Codes;
use std::{collections::HashMap, fmt, time::Duration};
use tonic::Code;

/// A6's bound of a call's attempts.
pub(crate) const MOST: u32 = 5;
/// What stands for every method.
const EVERYTHING: &str = "*";

/// How calls are hedged: the same request to several endpoints, the first good answer wins (`hedgingPolicy` of gRPC's
/// service config, gRFC A6).
///
/// The first attempt goes at once, and another one whenever `hedging_delay` has passed and there is no answer. An
/// answer with one of `non_fatal_status_codes` is followed by the next attempt at once; every other one is the call's,
/// and cancels the attempts that are in flight. For methods only that may be carried out several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HedgingPolicy {
    /// How many attempts there are at most, the first one included: at least 2. More than 5 count as 5, as in gRPC.
    pub max_attempts: u32,
    /// Time between one attempt and the next; zero: all of them at once.
    pub hedging_delay: Duration,
    /// Statuses after which other attempts may still succeed: at least one, and not OK.
    pub non_fatal_status_codes: Vec<Code>,
}

impl HedgingPolicy {
    /// So many attempts, all of them at once.
    pub fn new(max_attempts: u32, non_fatal_status_codes: impl IntoIterator<Item = Code>) -> Self {
        let non_fatal_status_codes = non_fatal_status_codes.into_iter().collect();
        Self { max_attempts, hedging_delay: Duration::ZERO, non_fatal_status_codes }
    }

    fn read(&self) -> Result<Hedging, String> {
        let Self { max_attempts, hedging_delay, non_fatal_status_codes } = self;
        if *max_attempts < 2 {
            return Err(format!(
                "max_attempts is {max_attempts}; it must be 2 or more, the first one included"
            ));
        }
        let non_fatal: Codes = non_fatal_status_codes.iter().copied().collect();
        if non_fatal.is_empty() {
            return Err("non_fatal_status_codes is empty; name what other attempts may still mend, as \
                        Code::Unavailable"
                .to_owned());
        }
        if non_fatal.has(Code::Ok) {
            return Err("non_fatal_status_codes has OK, which ends every call; take it out".to_owned());
        }
        Ok(Hedging { attempts: (*max_attempts).min(MOST), delay: *hedging_delay, non_fatal })
    }
}

/// A policy, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hedging {
    /// At most, the first one included.
    pub(crate) attempts: u32,
    pub(crate) delay: Duration,
    pub(crate) non_fatal: Codes,
}

impl fmt::Display for Hedging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, delay, non_fatal } = self;
        match delay.is_zero() {
            true => write!(f, "{attempts} attempts at once, of which {non_fatal} does not end the call"),
            false => {
                write!(f, "up to {attempts} attempts, one each {delay:?}, and at once after {non_fatal}")
            }
        }
    }
}

/// A policy, and what it was given for.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) methods: Box<str>,
    pub(crate) hedging: Hedging,
}

/// The policies of a program.
#[derive(Debug, Default)]
pub(crate) struct HedgingPolicies {
    services: HashMap<Box<str>, Service>,
    everything: Option<Entry>,
}

#[derive(Debug, Default)]
struct Service {
    methods: HashMap<Box<str>, Entry>,
    all: Option<Entry>,
}

impl HedgingPolicies {
    /// Adds one for these methods: `service/method`, `service`, or `*`. An error says what is wrong with it.
    pub(crate) fn add(&mut self, methods: &str, policy: &HedgingPolicy) -> Result<(), String> {
        let hedging = policy.read()?;
        let entry = Entry { methods: methods.into(), hedging };
        let before = match methods.split_once('/') {
            None if methods == EVERYTHING => self.everything.replace(entry),
            None if is_name(methods) => self.service(methods).all.replace(entry),
            Some((service, method)) if is_name(service) && is_name(method) => {
                self.service(service).methods.insert(method.into(), entry)
            }
            _ => {
                return Err(
                    "that names no methods; write \"package.Service/Method\", \"package.Service\" for all \
                            methods of a service, or \"*\" for everything"
                        .to_owned(),
                );
            }
        };
        match before {
            None => Ok(()),
            Some(_) => Err("there is a policy for that already; give one".to_owned()),
        }
    }

    fn service(&mut self, name: &str) -> &mut Service {
        self.services.entry(name.into()).or_default()
    }

    /// The one for calls of this path: `/service/method`.
    pub(crate) fn of(&self, path: &str) -> Option<&Entry> {
        let named = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
        let own = named.and_then(|(service, method)| {
            let Service { methods, all } = self.services.get(service)?;
            let by_name = if methods.is_empty() { None } else { methods.get(method) };
            by_name.or(all.as_ref())
        });
        own.or(self.everything.as_ref())
    }
}

/// Whether it may be the name of a service or a method.
fn is_name(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '/' | '*');
    !text.is_empty() && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> HedgingPolicy {
        HedgingPolicy::new(3, [Code::Unavailable])
    }

    #[test]
    fn the_policy_for_the_method_goes_before_the_services_and_that_before_the_one_for_everything() {
        let mut policies = HedgingPolicies::default();
        let found =
            |policies: &HedgingPolicies, path| policies.of(path).map(|entry| entry.methods.to_string());
        for methods in ["r.Reviews/List", "r.Reviews", "r.Ratings/Get"] {
            policies.add(methods, &policy()).unwrap();
        }
        for (path, expected) in [
            ("/r.Reviews/List", Some("r.Reviews/List")),
            ("/r.Reviews/list", Some("r.Reviews")),
            ("/r.Reviews/", Some("r.Reviews")),
            ("/r.Ratings/Get", Some("r.Ratings/Get")),
            ("/r.Ratings/Put", None),
            ("/r.Other/List", None),
            ("/List", None),
            ("*", None),
        ] {
            assert_eq!(found(&policies, path).as_deref(), expected, "{path}");
            let mut with_default = HedgingPolicies::default();
            for methods in ["*", "r.Reviews", "r.Reviews/List", "r.Ratings/Get"] {
                with_default.add(methods, &policy()).unwrap();
            }
            assert_eq!(found(&with_default, path).as_deref(), expected.or(Some("*")), "{path}");
        }
    }

    #[test]
    fn what_a6_does_not_allow_and_names_of_nothing_are_refused() {
        let mut policies = HedgingPolicies::default();
        policies.add("r.Reviews", &policy()).unwrap();
        let with = |change: fn(&mut HedgingPolicy)| {
            let mut policy = policy();
            change(&mut policy);
            policy
        };
        for (methods, policy, expected) in [
            ("r.S", with(|policy| policy.max_attempts = 1), "max_attempts is 1; it must be 2 or more"),
            ("r.S", with(|policy| policy.non_fatal_status_codes.clear()), "non_fatal_status_codes is empty"),
            (
                "r.S",
                with(|policy| policy.non_fatal_status_codes.push(Code::Ok)),
                "non_fatal_status_codes has OK",
            ),
            ("r.Reviews", policy(), "there is a policy for that already"),
        ] {
            let error = policies.add(methods, &policy).unwrap_err();
            assert!(error.starts_with(expected), "{methods}: {error}");
        }
        for methods in ["", "/", "/r.S", "/r.S/M", "r.S/", "r.S/*", "*/M", "r.S/a/b", "r S", "r.*"] {
            let error = policies.add(methods, &policy()).unwrap_err();
            assert!(error.starts_with("that names no methods; write \"package.Service/Method\""), "{error}");
        }
    }

    #[test]
    fn more_attempts_than_five_are_five() {
        for (given, taken) in [(2, 2), (5, 5), (6, 5), (u32::MAX, 5)] {
            assert_eq!(HedgingPolicy::new(given, [Code::Internal]).read().unwrap().attempts, taken);
        }
    }
}
