//! What the checks found: a line each, as soon as it is known.

use super::Outcome;
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Instant,
};

#[derive(Default)]
pub(super) struct Report {
    scenario: &'static str,
    logs: PathBuf,
    since: Option<Instant>,
    failed_here: bool,
    passed: usize,
    failed: usize,
}

impl Report {
    /// What follows belongs to this scenario.
    pub(super) fn begin(&mut self, scenario: &'static str, logs: &Path) {
        *self = Self {
            scenario,
            logs: logs.to_owned(),
            since: Some(Instant::now()),
            failed_here: false,
            ..*self
        };
    }

    /// One check: the error says what was expected and what was seen.
    pub(super) fn check(&mut self, what: impl Display, outcome: Outcome) {
        let seconds = self.since.replace(Instant::now()).map_or(0.0, |since| since.elapsed().as_secs_f64());
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {}: {what} ({seconds:.1} s)", self.scenario);
            }
            Err(why) => {
                self.failed += 1;
                self.failed_here = true;
                println!("FAILED {}: {what}: {why}", self.scenario);
            }
        }
    }

    /// The scenario is over; an error is what kept it from going on, and counts as one failed check.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if outcome.is_err() {
            self.check("going on", outcome);
        }
        if self.failed_here {
            println!("  logs: {}", self.logs.display());
        }
    }

    /// The last line. False: some check failed, or there was none.
    pub(super) fn finish(self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_cannot_go_on_is_a_failure() {
        let mut report = Report::default();
        report.begin("s", Path::new("logs"));
        report.check("works", Ok(()));
        report.end(Err("no".into()));
        assert_eq!((report.passed, report.failed), (1, 1));
        assert!(!report.finish());
    }

    #[test]
    fn no_check_at_all_is_no_success() {
        assert!(!Report::default().finish());
    }
}
