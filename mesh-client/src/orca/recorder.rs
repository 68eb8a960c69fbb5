//! Where a program says what its load is.
//!
//! Promises: values out of their range are ignored, as in gRPC; 0 is the same as not set; what a call says goes
//! before what the server says.

use mesh_xds::orca::LoadReport;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The load of a whole server. Clones are the same; all methods may be called at any time.
#[derive(Clone, Debug, Default)]
pub struct ServerMetricsRecorder(Arc<Mutex<LoadReport>>);

/// The load of one call, as its handler finds it in the extensions of the request, while [`CallMetricsLayer`] is
/// there. Clones are the same; what is said after the call's status is lost.
///
/// [`CallMetricsLayer`]: super::CallMetricsLayer
#[derive(Clone, Debug, Default)]
pub struct CallMetricsRecorder(Arc<Mutex<LoadReport>>);

fn lock(report: &Mutex<LoadReport>) -> MutexGuard<'_, LoadReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_load(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $set:ident: $field:ident if $is_valid:ident,)+) => {
        $(
            $(#[doc = $doc])+
            pub fn $set(&self, value: f64) {
                if $is_valid(value) {
                    lock(&self.0).$field = value;
                }
            }
        )+

        /// A utilization by name, in 0..=1.
        pub fn set_named_utilization(&self, name: impl Into<String>, value: f64) {
            if is_share(value) {
                lock(&self.0).utilization.insert(name.into(), value);
            }
        }

        /// Any number by name, except NaN.
        pub fn set_named_metric(&self, name: impl Into<String>, value: f64) {
            if !value.is_nan() {
                lock(&self.0).named_metrics.insert(name.into(), value);
            }
        }
    };
}

impl ServerMetricsRecorder {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    numbers! {
        /// Share of the processors in use; 0 or more, and more than 1 when there is too much.
        set_cpu_utilization: cpu_utilization if is_load,
        /// Share of the memory in use, in 0..=1.
        set_memory_utilization: mem_utilization if is_share,
        /// Share of what the application can do; 0 or more, and more than 1 when there is too much.
        set_application_utilization: application_utilization if is_load,
        /// Calls a second.
        set_qps: rps_fractional if is_load,
        /// Failed calls a second.
        set_eps: eps if is_load,
    }

    /// Forgets a utilization.
    pub fn clear_named_utilization(&self, name: &str) {
        lock(&self.0).utilization.remove(name);
    }

    /// Forgets a number.
    pub fn clear_named_metric(&self, name: &str) {
        lock(&self.0).named_metrics.remove(name);
    }

    pub(super) fn report(&self) -> LoadReport {
        lock(&self.0).clone()
    }
}

impl CallMetricsRecorder {
    numbers! {
        /// Share of the processors in use; 0 or more, and more than 1 when there is too much.
        set_cpu_utilization: cpu_utilization if is_load,
        /// Share of the memory in use, in 0..=1.
        set_memory_utilization: mem_utilization if is_share,
        /// Share of what the application can do; 0 or more, and more than 1 when there is too much.
        set_application_utilization: application_utilization if is_load,
        /// Calls a second.
        set_qps: rps_fractional if is_load,
        /// Failed calls a second.
        set_eps: eps if is_load,
    }

    /// What this call cost, by name; any number, except NaN.
    pub fn set_request_cost(&self, name: impl Into<String>, value: f64) {
        if !value.is_nan() {
            lock(&self.0).request_cost.insert(name.into(), value);
        }
    }

    /// With what the server says; none if nobody says anything.
    pub(super) fn report(&self, server: Option<&ServerMetricsRecorder>) -> Option<LoadReport> {
        let (call, server) = (lock(&self.0).clone(), server.map(ServerMetricsRecorder::report));
        let report = over(call, server.unwrap_or_default());
        (report != LoadReport::default()).then_some(report)
    }
}

/// What a call says, and where it says nothing what the server says.
fn over(call: LoadReport, server: LoadReport) -> LoadReport {
    let first = |call: f64, server: f64| if call > 0.0 { call } else { server };
    let both = |call: HashMap<String, f64>, mut server: HashMap<String, f64>| {
        server.extend(call);
        server
    };
    LoadReport {
        cpu_utilization: first(call.cpu_utilization, server.cpu_utilization),
        mem_utilization: first(call.mem_utilization, server.mem_utilization),
        request_cost: call.request_cost,
        utilization: both(call.utilization, server.utilization),
        rps_fractional: first(call.rps_fractional, server.rps_fractional),
        eps: first(call.eps, server.eps),
        named_metrics: both(call.named_metrics, server.named_metrics),
        application_utilization: first(call.application_utilization, server.application_utilization),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_ignored() {
        let load = ServerMetricsRecorder::new();
        for good in [0.5, 3.0] {
            load.set_cpu_utilization(good);
            load.set_application_utilization(good);
            load.set_qps(good);
            load.set_eps(good);
            load.set_memory_utilization(good);
            load.set_named_utilization("disk", good);
        }
        load.set_named_metric("depth", -7.0);
        let expected = LoadReport {
            cpu_utilization: 3.0,
            application_utilization: 3.0,
            rps_fractional: 3.0,
            eps: 3.0,
            mem_utilization: 0.5,
            utilization: [("disk".to_owned(), 0.5)].into(),
            named_metrics: [("depth".to_owned(), -7.0)].into(),
            ..LoadReport::default()
        };
        assert_eq!(load.report(), expected);
        for bad in [-0.1, f64::NAN, f64::INFINITY] {
            load.set_cpu_utilization(bad);
            load.set_application_utilization(bad);
            load.set_qps(bad);
            load.set_eps(bad);
            load.set_memory_utilization(bad);
            load.set_named_utilization("disk", bad);
        }
        load.set_named_metric("depth", f64::NAN);
        assert_eq!(load.report(), expected);
        load.clear_named_metric("depth");
        load.clear_named_utilization("disk");
        assert!(load.report().named_metrics.is_empty() && load.report().utilization.is_empty());
    }

    #[test]
    fn what_a_call_says_goes_before_what_the_server_says() {
        let (call, server) = (CallMetricsRecorder::default(), ServerMetricsRecorder::new());
        assert_eq!(call.report(Some(&server)), None);
        assert_eq!(call.report(None), None);
        server.set_qps(100.0);
        server.set_cpu_utilization(0.2);
        server.set_named_metric("a", 1.0);
        server.set_named_metric("b", 1.0);
        call.set_cpu_utilization(0.7);
        call.set_named_metric("b", 2.0);
        call.set_request_cost("rows", 9.0);
        let report = call.report(Some(&server)).unwrap();
        assert_eq!((report.rps_fractional, report.cpu_utilization), (100.0, 0.7));
        assert_eq!(report.named_metrics, [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)].into());
        assert_eq!(report.request_cost, [("rows".to_owned(), 9.0)].into());
        assert_eq!(call.report(None).unwrap().rps_fractional, 0.0);
    }
}
