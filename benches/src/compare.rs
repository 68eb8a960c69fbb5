//! Arms against each other: windows that alternate, and the tables made of them.
//!
//! Every arm once a round, each round beginning with another arm, so that what happens to the machine happens to all
//! of them; what is reported as a difference or a ratio is the median of those *within* a round, with quartiles. One
//! arm of each base is there twice: how far the second strays from the first is what the run cannot tell apart.

use crate::{
    Outcome,
    stats::{paired, quantile, spread},
    window::{Load, Window},
};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// After one that warms up.
    pub rounds: usize,
    /// Length of a window.
    pub window: Duration,
}

impl Plan {
    /// `quick`: to see that it works, not to learn a number.
    pub fn new(quick: bool) -> Self {
        match quick {
            true => Self { rounds: 3, window: Duration::from_millis(20) },
            false => Self { rounds: 11, window: Duration::from_millis(200) },
        }
    }
}

/// What is compared.
pub trait Compared: Copy + PartialEq {
    /// What the tables call it.
    fn label(self) -> &'static str;
    /// What it is compared with; itself for what others are compared with.
    fn base(self) -> Self;
}

/// An arm's windows, one for each round.
#[derive(Debug)]
pub struct Measured<A> {
    /// The arm.
    pub arm: A,
    /// In order.
    pub windows: Vec<Window>,
}

impl<A: Compared> Measured<A> {
    /// A value of each window.
    pub fn each(&self, value: impl Fn(&Window) -> f64) -> Vec<f64> {
        self.windows.iter().map(value).collect()
    }

    /// The median of a value.
    fn median(&self, value: impl Fn(&Window) -> f64) -> f64 {
        spread(self.each(value)).median
    }

    /// That of the arm which this one is compared with.
    pub fn base<'a>(&self, all: &'a [Self]) -> Outcome<&'a Self> {
        measured(all, self.arm.base())
    }
}

/// What was measured of an arm.
pub fn measured<A: Compared>(all: &[Measured<A>], arm: A) -> Outcome<&Measured<A>> {
    Ok(all.iter().find(|one| one.arm == arm).ok_or("the arm to compare with is missing")?)
}

/// Measures these arms under this load.
pub fn rounds<A: Compared>(
    runtime: &Runtime,
    arms: &[A],
    load: Load,
    plan: Plan,
    run: impl AsyncFn(A, Load) -> Outcome<Window>,
) -> Outcome<Vec<Measured<A>>> {
    let mut results: Vec<_> = arms.iter().map(|&arm| Measured { arm, windows: Vec::new() }).collect();
    for round in 0..=plan.rounds {
        eprintln!("{load:?}: round {round} of {}", plan.rounds);
        let begin = round % results.len();
        let (before, after) = results.split_at_mut(begin);
        for result in after.iter_mut().chain(before) {
            let window = runtime
                .block_on(run(result.arm, load))
                .map_err(|error| format!("{}: {error}", result.arm.label()))?;
            if round > 0 {
                result.windows.push(window);
            }
        }
    }
    Ok(results)
}

/// Throughput, latency and processor time, as Markdown.
pub fn table<A: Compared>(results: &[Measured<A>]) -> Outcome<String> {
    let sidecars = results.iter().flat_map(|one| &one.windows).any(|window| !window.sidecars.is_zero());
    let (more, line) = if sidecars { (" sidecars' CPU µs/call |", "---|") } else { ("", "") };
    let mut text = format!(
        "| | calls/s | ratio | p50 µs | ratio | p99 µs | client CPU µs/call | ratio |{more}\n\
         |---|---|---|---|---|---|---|---|{line}\n"
    );
    for result in results {
        let base = result.base(results)?;
        let ratio = |value: &dyn Fn(&Window) -> f64| {
            let (of, base) = (result.each(value), base.each(value));
            let ratio = spread(paired(&of, &base, |of, base| of / base));
            format!("{:.3} [{:.3} .. {:.3}]", ratio.median, ratio.low, ratio.high)
        };
        let half = |window: &Window| latency(window, 0.5);
        text += &format!(
            "| {} | {:.0} | {} | {:.1} | {} | {:.1} | {:.2} | {} |",
            result.arm.label(),
            result.median(Window::throughput),
            ratio(&Window::throughput),
            result.median(half),
            ratio(&half),
            result.median(|window| latency(window, 0.99)),
            result.median(Window::cpu_per_call) / 1e3,
            ratio(&Window::cpu_per_call),
        );
        if sidecars {
            text += &format!(" {:.2} |", result.median(Window::sidecar_cpu_per_call) / 1e3);
        }
        text += "\n";
    }
    Ok(text)
}

/// In microseconds.
fn latency(window: &Window, share: f64) -> f64 {
    quantile(&window.latencies, share).map_or(f64::NAN, |nanoseconds| nanoseconds as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    struct Number(u64);

    impl Compared for Number {
        fn label(self) -> &'static str {
            if self.0 == 1 { "one" } else { "two" }
        }

        fn base(self) -> Self {
            Self(1)
        }
    }

    /// As if a window of arm n had n calls in n seconds, each of n µs.
    fn window(number: u64) -> Window {
        let (wall, cpu) = (Duration::from_secs(number), Duration::from_micros(number));
        Window { calls: number, wall, cpu, sidecars: Duration::ZERO, latencies: vec![number * 1000] }
    }

    #[test]
    fn rows_are_compared_with_their_base() {
        let measured =
            |number| Measured { arm: Number(number), windows: vec![window(number), window(number)] };
        let text = table(&[measured(1), measured(2)]).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        let same = "1.000 [1.000 .. 1.000]";
        assert_eq!(rows[0], format!("| one | 1 | {same} | 1.0 | {same} | 1.0 | 1.00 | {same} |"));
        assert_eq!(
            rows[1],
            format!("| two | 1 | {same} | 2.0 | 2.000 [2.000 .. 2.000] | 2.0 | 1.00 | {same} |")
        );
        assert!(table(&[measured(2)]).is_err(), "there is nothing to compare with");
    }

    #[test]
    fn every_round_begins_with_another_arm_and_the_first_counts_for_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let order = std::cell::RefCell::new(Vec::new());
        let load = Load::unary(1, 64, Duration::ZERO);
        let plan = Plan { rounds: 2, window: Duration::ZERO };
        let results = rounds(&runtime, &[Number(1), Number(2)], load, plan, async |arm, _| {
            order.borrow_mut().push(arm.0);
            Ok(window(arm.0))
        });
        assert_eq!(*order.borrow(), [1, 2, 2, 1, 1, 2]);
        assert!(results.unwrap().iter().all(|one| one.windows.len() == 2));
    }
}
