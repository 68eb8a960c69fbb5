//! What the runner shows: a progress bar while it works, a table or one JSON object at the end.

use crate::scenario::Outcome;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::error::Error;

pub(crate) struct Report {
    bar: ProgressBar,
    quiet: bool,
    current: &'static str,
    rows: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// `quiet`: no bar; a line for each scenario instead.
    pub(crate) fn new(scenarios: usize, quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(scenarios as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self { bar, quiet, current: "", rows: Vec::new() }
    }

    pub(crate) fn step(&self, text: &'static str) {
        self.bar.set_message(text);
        if self.quiet {
            eprintln!("{text}");
        }
    }

    pub(crate) fn begin(&mut self, name: &'static str) {
        self.current = name;
        self.step(name);
    }

    pub(crate) fn end(&mut self, result: Result<Outcome, Box<dyn Error>>) {
        let outcome = result.unwrap_or_else(|error| Outcome {
            observed: format!("the scenario could not run: {error}"),
            ..Outcome::default()
        });
        let verdict = if outcome.ok { "ok" } else { "CONTRADICTED" };
        let line = format!("{verdict:<12} {}: {}", self.current, outcome.observed);
        if self.quiet {
            eprintln!("{line}")
        } else {
            self.bar.println(line)
        }
        self.rows.push((self.current, outcome));
        self.bar.inc(1);
    }

    /// Prints the result; true when everything was as configured.
    pub(crate) fn finish(&self, as_json: bool) -> bool {
        self.bar.finish_and_clear();
        let ok = self.rows.iter().all(|(_, outcome)| outcome.ok);
        if as_json {
            println!("{:#}", self.json(ok));
        } else {
            self.table(ok);
        }
        ok
    }

    fn json(&self, ok: bool) -> Value {
        let scenarios: Vec<_> = self
            .rows
            .iter()
            .map(|(name, o)| {
                json!({"name": name, "configured": o.configured, "sent": o.sent,
                       "observed": o.observed, "ok": o.ok})
            })
            .collect();
        json!({"scenarios": scenarios, "ok": ok})
    }

    fn table(&self, ok: bool) {
        for (name, outcome) in &self.rows {
            println!("{} {name}", if outcome.ok { "ok          " } else { "CONTRADICTED" });
            println!("    configured  {}", outcome.configured);
            println!("    sent        {}", outcome.sent);
            println!("    observed    {}", outcome.observed);
        }
        let right = self.rows.iter().filter(|(_, outcome)| outcome.ok).count();
        println!("\n{right} of {} scenarios as configured{}", self.rows.len(), if ok { "." } else { "!" });
    }
}
