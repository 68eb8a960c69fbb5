//! HTTPRetry and HTTPFaultInjection from YAML.

use super::http::percentage;
use super::{Abort, AbortStatus, Delay, Fault, Retries, RetryOn};
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::read::{self, Map, Report, meant};
use crate::model::value::PerMillion;

/// Envoy's words for what is worth another attempt.
const CONDITIONS: &[&str] = &[
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

pub(super) fn retries(node: &Node, report: &mut Report) -> Option<Retries> {
    const FIELDS: &[&str] = &[
        "attempts",
        "backoff",
        "perTryTimeout",
        "retryIgnorePreviousHosts",
        "retryOn",
        "retryRemoteLocalities",
    ];
    let map = report.map(node, "retries", FIELDS)?;
    let attempts = map.one("attempts", report, read::count).unwrap_or(0);
    if attempts == 0 {
        for key in ["perTryTimeout", "retryOn", "retryRemoteLocalities"] {
            if map.has(key) {
                report.error(map.key_at(key), format!("`{key}` needs `attempts` above zero"));
            }
        }
    }
    Some(Retries {
        attempts,
        per_try_timeout: map.one("perTryTimeout", report, read::duration),
        on: map.one("retryOn", report, retry_on).unwrap_or_default(),
        ignore_previous_hosts: map.one("retryIgnorePreviousHosts", report, read::boolean),
        remote_localities: map.one("retryRemoteLocalities", report, read::boolean).unwrap_or(false),
        backoff: map.one("backoff", report, read::duration),
    })
}

fn retry_on(node: &Node, report: &mut Report) -> Option<Vec<RetryOn>> {
    let text = read::text(node, report)?;
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut on = Vec::new();
    for word in text.split(',') {
        if let Some(condition) = CONDITIONS.iter().find(|condition| **condition == word) {
            if *condition == "http3-post-connect-failure" {
                report.ignored(node.at, "`http3-post-connect-failure` (there is no HTTP/3)");
            }
            on.push(RetryOn::Condition(condition));
        } else if let Some(status) = word.parse().ok().filter(|status| (100..600).contains(status)) {
            on.push(RetryOn::Status(status));
        } else {
            let help = if word.trim() == word {
                meant(word, CONDITIONS)
            } else {
                "write the conditions with commas and without blanks".to_owned()
            };
            report.error(node.at, format!("{word:?} is not a retry condition")).help = Some(help);
        }
    }
    Some(on)
}

pub(super) fn fault(node: &Node, report: &mut Report) -> Option<Fault> {
    let map = report.map(node, "fault", &["delay", "abort"])?;
    if !map.has("delay") && !map.has("abort") {
        report.error(node.at, "fault needs `delay` or `abort`");
    }
    Some(Fault { delay: map.one("delay", report, delay), abort: map.one("abort", report, abort).flatten() })
}

fn delay(node: &Node, report: &mut Report) -> Option<Delay> {
    let map = report.map(node, "delay", &["percentage", "percent", "fixedDelay", "exponentialDelay"])?;
    if map.has("exponentialDelay") {
        report
            .error(map.key_at("exponentialDelay"), "`exponentialDelay` is not implemented, use `fixedDelay`");
    }
    let share = share(&map, "delay", report);
    Some(Delay { fixed: map.required("fixedDelay", "delay", report, read::duration)?, share })
}

/// `Some(None)`: nothing to abort with, which Istio accepts with a warning.
fn abort(node: &Node, report: &mut Report) -> Option<Option<Abort>> {
    let map =
        report.map(node, "abort", &["percentage", "percent", "httpStatus", "grpcStatus", "http2Error"])?;
    map.exclusive(&["httpStatus", "grpcStatus", "http2Error"], report);
    if map.has("http2Error") {
        report.error(map.key_at("http2Error"), "`http2Error` is not implemented, use `grpcStatus`");
    }
    let share = share(&map, "abort", report);
    let http = map.one("httpStatus", report, read::integer::<u16>(200..=599)).map(AbortStatus::Http);
    let grpc = map.one("grpcStatus", report, grpc_status).map(AbortStatus::Grpc);
    let status = http.or(grpc);
    if !["httpStatus", "grpcStatus", "http2Error"].iter().any(|key| map.has(key)) {
        report.warn(Code::SchemaWarning, node.at, "abort has no effect without `httpStatus` or `grpcStatus`");
    }
    Some(status.map(|status| Abort { status, share }))
}

fn share(map: &Map<'_>, what: &str, report: &mut Report) -> PerMillion {
    let percentage = map.one("percentage", report, percentage);
    let percent = map.one("percent", report, read::integer::<u8>(0..=100));
    if map.has("percent") {
        report.warn(
            Code::Deprecated,
            map.key_at("percent"),
            "`percent` is deprecated: write `percentage: {value: …}`",
        );
    } else if !map.has("percentage") {
        let message = format!("{what} without `percentage` never happens");
        report.warn(Code::SchemaWarning, map.at, message).help =
            Some("add `percentage: {value: 100}`".to_owned());
    }
    percentage.or_else(|| PerMillion::from_percent(f64::from(percent?))).unwrap_or_default()
}

const STATUSES: [(&str, tonic::Code); 17] = [
    ("OK", tonic::Code::Ok),
    ("CANCELLED", tonic::Code::Cancelled),
    ("UNKNOWN", tonic::Code::Unknown),
    ("INVALID_ARGUMENT", tonic::Code::InvalidArgument),
    ("DEADLINE_EXCEEDED", tonic::Code::DeadlineExceeded),
    ("NOT_FOUND", tonic::Code::NotFound),
    ("ALREADY_EXISTS", tonic::Code::AlreadyExists),
    ("PERMISSION_DENIED", tonic::Code::PermissionDenied),
    ("RESOURCE_EXHAUSTED", tonic::Code::ResourceExhausted),
    ("FAILED_PRECONDITION", tonic::Code::FailedPrecondition),
    ("ABORTED", tonic::Code::Aborted),
    ("OUT_OF_RANGE", tonic::Code::OutOfRange),
    ("UNIMPLEMENTED", tonic::Code::Unimplemented),
    ("INTERNAL", tonic::Code::Internal),
    ("UNAVAILABLE", tonic::Code::Unavailable),
    ("DATA_LOSS", tonic::Code::DataLoss),
    ("UNAUTHENTICATED", tonic::Code::Unauthenticated),
];

fn grpc_status(node: &Node, report: &mut Report) -> Option<tonic::Code> {
    read::word("gRPC status", &STATUSES)(node, report)
}
