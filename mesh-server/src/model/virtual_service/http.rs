//! HTTPRoute from YAML: where requests go and what happens to them on the way.

use super::matching::http_match;
use super::read::Around;
use super::retry::{fault, retries};
use super::{
    Destination, HeaderChanges, HeaderOps, HttpAction, HttpMatch, HttpRoute, Mirror, Rewrite,
    RouteDestination, UriRewrite, answer,
};
use crate::analysis::{Code, Position};
use crate::model::node::Node;
use crate::model::read::{self, Map, Report, located};
use crate::model::schema;
use crate::model::value::{self, PerMillion};
use crate::model::written::Written;
use mesh_xds::resource::origin::ROUTE_SETTINGS;
use mesh_xds::resource::route::RegexRewrite;

const ROUTE: &[&str] = &[
    "corsPolicy",
    "delegate",
    "directResponse",
    "fault",
    "headers",
    "match",
    "mirror",
    "mirrorPercent",
    "mirrorPercentage",
    "mirrors",
    "name",
    "redirect",
    "retries",
    "rewrite",
    "route",
    "timeout",
];

pub(super) fn http_route(node: &Node, around: Around, report: &mut Report) -> Option<HttpRoute> {
    let map = report.map(node, "an HTTP route", ROUTE)?;
    if let Some(block) = map.get("corsPolicy") {
        schema::check(block, "corsPolicy", &schema::CORS, report);
    }
    actions(&map, around, report);
    map.ignored("corsPolicy", report, "`corsPolicy` (gRPC clients send no CORS requests)");

    let matches = map.many("match", report, |node, report| http_match(node, around, report));
    let action = action(&map, &matches, report);
    let destinations: &[RouteDestination] = match &action {
        Some(HttpAction::Route(destinations)) => destinations,
        _ => &[],
    };
    let total: u64 = destinations.iter().map(|destination| u64::from(destination.weight)).sum();
    if destinations.len() > 1 && total == 0 {
        report.error(map.key_at("route"), "the weights of the destinations sum to zero").help =
            Some("give at least one destination a weight above zero; they need not sum to 100".to_owned());
    }
    let headers = map.one("headers", report, header_changes).unwrap_or_default();
    let rewrite = map.one("rewrite", report, rewrite);
    let authorities = usize::from(rewrite.as_ref().is_some_and(|rewrite| rewrite.authority.is_some()))
        + usize::from(headers.authority.is_some())
        + usize::from(destinations.iter().any(|destination| destination.headers.authority.is_some()));
    if authorities > 1 {
        report.error(node.at, "the authority is rewritten in more than one place of this route");
    }
    Some(HttpRoute {
        name: map.one("name", report, read::text),
        at: node.at,
        written_in: None,
        matches,
        action: action?,
        rewrite,
        timeout: map.one("timeout", report, read::duration),
        retries: map.one("retries", report, retries),
        fault: map.one("fault", report, fault),
        mirrors: mirrors(&map, report),
        headers,
        written: Written::of(&map, ROUTE_SETTINGS, report),
    })
}

/// `None`: there is none, or it is wrong; that is reported.
fn action(map: &Map<'_>, matches: &[HttpMatch], report: &mut Report) -> Option<HttpAction> {
    if let Some(node) = map.get("delegate") {
        let value = answer::delegate(node, report)?;
        return Some(HttpAction::Delegate(value::Located { value, at: node.at }));
    }
    if let Some(node) = map.get("redirect") {
        return answer::redirect(node, matches, report).map(HttpAction::Redirect);
    }
    if let Some(node) = map.get("directResponse") {
        return answer::direct_response(node, report).map(HttpAction::DirectResponse);
    }
    map.get("route")?;
    Some(HttpAction::Route(map.many("route", report, route_destination)))
}

/// Exactly one of route, redirect and directResponse; none but a delegate may replace them.
fn actions(map: &Map<'_>, around: Around, report: &mut Report) {
    const ACTIONS: [&str; 3] = ["route", "redirect", "directResponse"];
    map.exclusive(&ACTIONS, report);
    if map.has("delegate") {
        if around.is_delegate {
            report.error(map.key_at("delegate"), "a delegate must not delegate further");
        }
        for action in ACTIONS {
            if map.has(action) {
                report.error(map.key_at(action), format!("`{action}` excludes `delegate`"));
            }
        }
    } else if !ACTIONS.iter().any(|action| map.has(action)) {
        report.error(map.at, "an HTTP route needs one of `route`, `redirect` and `directResponse`");
    } else if map.has("route") && map.get("route").is_some_and(is_empty_list) {
        report.error(map.key_at("route"), "a route needs at least one destination");
    }
    for pair in [
        ["redirect", "fault"],
        ["redirect", "rewrite"],
        ["directResponse", "fault"],
        ["directResponse", "rewrite"],
        ["mirror", "mirrors"],
    ] {
        map.exclusive(&pair, report);
    }
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, crate::model::node::Value::List(items) if items.is_empty())
}

fn route_destination(node: &Node, report: &mut Report) -> Option<RouteDestination> {
    let map = report.map(node, "a route destination", &["destination", "weight", "headers"])?;
    Some(RouteDestination {
        destination: map.required("destination", "a route destination", report, destination)?,
        weight: map.one("weight", report, read::count).unwrap_or(0),
        headers: map.one("headers", report, header_changes).unwrap_or_default(),
    })
}

pub(super) fn destination(node: &Node, report: &mut Report) -> Option<Destination> {
    let map = report.map(node, "a destination", &["host", "subset", "port"])?;
    let host = map.required("host", "a destination", report, located(read::short_host));
    let subset = map.one("subset", report, located(read::dns_label));
    let port = map.one("port", report, located(read::port_selector));
    let host = host?;
    let Some(name) = host.value.exact() else {
        let message = format!("a destination must be one host, `{}` is a wildcard", host.value);
        return report.fail(host.at, message);
    };
    Some(Destination { host: value::Located { value: name.to_owned(), at: host.at }, subset, port })
}

fn rewrite(node: &Node, report: &mut Report) -> Option<Rewrite> {
    let map = report.map(node, "rewrite", &["uri", "authority", "uriRegexRewrite"])?;
    map.exclusive(&["uri", "uriRegexRewrite"], report);
    if !["uri", "uriRegexRewrite", "authority"].iter().any(|key| map.has(key)) {
        report.error(node.at, "rewrite needs `uri`, `uriRegexRewrite` or `authority`");
    }
    let prefix = map.one("uri", report, read::some_text).map(UriRewrite::Prefix);
    Some(Rewrite {
        uri: prefix.or_else(|| map.one("uriRegexRewrite", report, regex_rewrite)),
        authority: map.one("authority", report, read::some_text),
    })
}

fn regex_rewrite(node: &Node, report: &mut Report) -> Option<UriRewrite> {
    let map = report.map(node, "uriRegexRewrite", &["match", "rewrite"])?;
    let pattern = map.required("match", "uriRegexRewrite", report, read::some_text);
    let substitution = map.required("rewrite", "uriRegexRewrite", report, read::some_text);
    let (pattern, substitution) = (pattern?, substitution?);
    if let Err(error) = RegexRewrite::new(&pattern, &substitution) {
        return report.fail(node.at, error.to_string());
    }
    Some(UriRewrite::Regex { pattern, substitution })
}

fn mirrors(map: &Map<'_>, report: &mut Report) -> Vec<Mirror> {
    let percentage = map.one("mirrorPercentage", report, percentage);
    let percent = map.one("mirrorPercent", report, read::integer::<u8>(0..=100));
    if map.has("mirrorPercent") {
        report.warn(
            Code::Deprecated,
            map.key_at("mirrorPercent"),
            "`mirrorPercent` is deprecated: write `mirrorPercentage: {value: …}`",
        );
    }
    let share =
        percentage.or_else(|| PerMillion::from_percent(f64::from(percent?))).unwrap_or(PerMillion::ALL);
    let single = map.one("mirror", report, destination).map(|destination| Mirror { destination, share });
    let several = map.many("mirrors", report, |node, report| {
        let map = report.map(node, "a mirror", &["destination", "percentage"])?;
        Some(Mirror {
            destination: map.required("destination", "a mirror", report, destination)?,
            share: map.one("percentage", report, self::percentage).unwrap_or(PerMillion::ALL),
        })
    });
    single.into_iter().chain(several).filter(|mirror| mirror.share.millionths() > 0).collect()
}

/// `{value: 12.5}`
pub(super) fn percentage(node: &Node, report: &mut Report) -> Option<PerMillion> {
    let map = report.map(node, "a percentage", &["value"])?;
    let Some(value) = map.get("value") else { return Some(PerMillion::default()) };
    let percent = read::number(value, report)?;
    match PerMillion::from_percent(percent) {
        Some(share) => Some(share),
        None => report.fail(value.at, format!("{percent} is not a percentage: 0, or 0.0001 to 100")),
    }
}

fn header_changes(node: &Node, report: &mut Report) -> Option<HeaderChanges> {
    let map = report.map(node, "headers", &["request", "response"])?;
    let mut authority = Vec::new();
    let request = map.one("request", report, |node, report| header_ops(node, Some(&mut authority), report));
    let response = map.one("response", report, |node, report| header_ops(node, None, report));
    if let [_, (at, _), ..] = authority.as_slice() {
        report.error(*at, "the authority is set twice");
    }
    Some(HeaderChanges {
        request: request.unwrap_or_default(),
        response: response.unwrap_or_default(),
        authority: authority.into_iter().next().map(|(_, value)| value),
    })
}

/// `authority` is where a request's `:authority` or `host` goes; a response has none.
fn header_ops(
    node: &Node,
    mut authority: Option<&mut Vec<(Position, String)>>,
    report: &mut Report,
) -> Option<HeaderOps> {
    let map = report.map(node, "header operations", &["set", "add", "remove"])?;
    let mut changes = [Vec::new(), Vec::new()];
    for (key, changes) in ["set", "add"].into_iter().zip(&mut changes) {
        let Some(block) = map.get(key) else { continue };
        for entry in report.entries(block, key).unwrap_or_default() {
            let name = entry.key.to_ascii_lowercase();
            let Some(value) = header_value(&entry.node, report) else { continue };
            match (name.as_str(), authority.as_deref_mut()) {
                (":authority" | "host", Some(authority)) => authority.push((entry.key_at, value)),
                _ if !value::is_header_name(&name) || name == "host" => {
                    report.error(entry.key_at, format!("header `{}` cannot be changed here", entry.key));
                }
                _ => changes.push((name, value)),
            }
        }
        changes.sort();
    }
    let remove = map.many("remove", report, |node, report| {
        let name = read::some_text(node, report)?.to_ascii_lowercase();
        if !value::is_header_name(&name) || name == "host" {
            return report.fail(node.at, format!("header `{name}` cannot be removed"));
        }
        Some(name)
    });
    let [set, add] = changes;
    Some(HeaderOps { set, add, remove })
}

/// A header's value: no control characters; Envoy's `%COMMANDS%` are known and not served.
fn header_value(node: &Node, report: &mut Report) -> Option<String> {
    let text = read::text(node, report)?;
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
        return report.fail(node.at, "a header's value must not have control characters");
    }
    let unescaped = text.replace("%%", "\0");
    if unescaped.contains('%') {
        if unescaped.matches('%').count() % 2 == 1 {
            return report.fail(node.at, "a `%` in a header's value must be written `%%`");
        }
        report.unsupported(node.at, "`%COMMAND%` in a header's value");
        return None;
    }
    Some(unescaped.replace('\0', "%"))
}
