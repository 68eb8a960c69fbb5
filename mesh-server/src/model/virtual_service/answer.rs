//! What an HTTPRoute may do instead of sending a request on: redirect, direct response, delegate.

use super::{Delegate, DirectResponse, HttpMatch, Redirect, RedirectPath, RedirectPort};
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::read::{self, Report, meant};
use crate::model::value::StringMatch;
use base64::Engine;

/// The redirects that Istio can translate.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// A longer body is refused, and one longer than a tenth of it warned of, as in Istio.
const LONGEST_BODY: usize = 1 << 20;

pub(super) fn delegate(node: &Node, report: &mut Report) -> Option<Delegate> {
    let map = report.map(node, "a delegate", &["name", "namespace"])?;
    let name = map.required("name", "a delegate", report, read::some_text);
    let namespace = map.one("namespace", report, read::text).filter(|text| !text.is_empty());
    Some(Delegate { name: name?, namespace: namespace.unwrap_or_else(|| report.id.namespace.clone()) })
}

pub(super) fn redirect(node: &Node, matches: &[HttpMatch], report: &mut Report) -> Option<Redirect> {
    const FIELDS: &[&str] =
        &["authority", "derivePort", "port", "prefixRewrite", "redirectCode", "scheme", "uri"];
    let map = report.map(node, "a redirect", FIELDS)?;
    map.exclusive(&["uri", "prefixRewrite"], report);
    map.exclusive(&["port", "derivePort"], report);
    if !FIELDS.iter().any(|field| *field != "redirectCode" && map.has(field)) {
        return report
            .fail(node.at, "a redirect must change something: `uri`, `authority`, `port` or `scheme`");
    }
    let whole = map.one("uri", report, read::some_text).map(RedirectPath::Whole);
    let prefix = map.one("prefixRewrite", report, read::some_text).map(RedirectPath::Prefix);
    let by_prefix = |one: &HttpMatch| matches!(one.uri, Some(StringMatch::Prefix(_)));
    if prefix.is_some() && (matches.is_empty() || !matches.iter().all(by_prefix)) {
        report.error(map.key_at("prefixRewrite"), "`prefixRewrite` needs a prefix match of `uri` to replace");
    }
    let code = match map.get("redirectCode") {
        None => 301,
        Some(code) => {
            let value: u16 = read::integer(300..=399)(code, report)?;
            if !REDIRECTS.contains(&value) {
                return report.fail(code.at, format!("{value} is not one of 301, 302, 303, 307 and 308"));
            }
            value
        }
    };
    let scheme = match map.get("scheme") {
        None => None,
        Some(node) => match read::text(node, report)?.as_str() {
            scheme @ ("http" | "https") => Some(scheme.to_owned()),
            other => return report.fail(node.at, format!("scheme {other:?} is neither http nor https")),
        },
    };
    let port = map.one("port", report, read::port).map(RedirectPort::Number);
    Some(Redirect {
        path: whole.or(prefix),
        authority: map.one("authority", report, read::some_text),
        port: port.or_else(|| map.one("derivePort", report, derived_port)),
        scheme,
        code,
    })
}

fn derived_port(node: &Node, report: &mut Report) -> Option<RedirectPort> {
    const NAMES: [&str; 2] = ["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"];
    match read::text(node, report)?.as_str() {
        "FROM_PROTOCOL_DEFAULT" => Some(RedirectPort::ProtocolDefault),
        "FROM_REQUEST_PORT" => Some(RedirectPort::OfRequest),
        other => {
            let finding = report.error(node.at, format!("`{other}` is not a way to derive a port"));
            finding.help = Some(meant(other, &NAMES));
            None
        }
    }
}

pub(super) fn direct_response(node: &Node, report: &mut Report) -> Option<DirectResponse> {
    let map = report.map(node, "a direct response", &["status", "body"])?;
    let status = map.required("status", "a direct response", report, read::integer(200..=599));
    let body = match map.get("body") {
        None => Vec::new(),
        Some(node) => body(node, report)?,
    };
    Some(DirectResponse { status: status?, body })
}

fn body(node: &Node, report: &mut Report) -> Option<Vec<u8>> {
    let map = report.map(node, "a body", &["string", "bytes"])?;
    map.exclusive(&["string", "bytes"], report);
    let text = map.one("string", report, read::text).map(String::into_bytes);
    let bytes = map.one("bytes", report, |node, report| {
        let text = read::text(node, report)?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        decoded.map_err(|error| report.error(node.at, format!("`bytes` must be base64: {error}"))).ok()
    });
    let body = text.or(bytes).unwrap_or_default();
    if body.len() > LONGEST_BODY {
        return report.fail(node.at, format!("a body of {} bytes is longer than 1 MiB", body.len()));
    }
    if body.len() > LONGEST_BODY / 10 {
        let message = format!("a body of {} bytes is sent to every client of this route", body.len());
        report.warn(Code::SchemaWarning, node.at, message);
    }
    Some(body)
}
