//! VirtualService from YAML: the object itself; its routes are in `http`.

use super::VirtualService;
use super::http::http_route;
use crate::analysis::Code;
use crate::model::node::Node;
use crate::model::object::{Metadata, spec};
use crate::model::read::{self, Report, located};
use crate::model::schema;
use crate::model::value::{ExportTo, Host, Located};

/// What the readers of routes must know about the object around them.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub(super) for_mesh: bool,
    pub(super) is_delegate: bool,
}

impl VirtualService {
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Self> {
        let map = spec(node, report, &["hosts", "gateways", "http", "tls", "tcp", "exportTo"])?;
        let named = map.many("gateways", report, located(read::some_text));
        let for_mesh = named.is_empty() || named.iter().any(|gateway| gateway.value == "mesh");
        let hosts = map.many("hosts", report, located(read::short_host));
        let around = Around { for_mesh, is_delegate: !map.has("hosts") };

        if around.is_delegate {
            for key in ["gateways", "tls", "tcp"] {
                if map.has(key) {
                    report.error(map.key_at(key), format!("a delegate (no `hosts`) must not have `{key}`"));
                }
            }
        } else if for_mesh {
            for host in &hosts {
                mesh_host(host, report);
            }
        }
        overlapping(&hosts, report);
        let gateways: Vec<_> = named.into_iter().filter(|gateway| gateway.value != "mesh").collect();
        if let Some(first) = gateways.first() {
            report.ignored(first.at, "binding to a gateway");
        }

        if !["http", "tls", "tcp"].iter().any(|key| map.has(key)) {
            report.error(metadata.origin.position, "a VirtualService needs `http`, `tls` or `tcp` routes");
        }
        for (key, shape) in [("tls", &schema::TLS_ROUTES), ("tcp", &schema::TCP_ROUTES)] {
            if let Some(routes) = map.get(key) {
                schema::check(routes, key, shape, report);
                report.ignored(map.key_at(key), &format!("`{key}` routes"));
            }
        }
        let http = map.many("http", report, |node, report| http_route(node, around, report));
        Some(Self {
            origin: metadata.origin,
            hosts,
            gateways: gateways.into_iter().map(|gateway| qualify(gateway, report)).collect(),
            for_mesh,
            export_to: map.one("exportTo", report, read::export_to(false)).unwrap_or(ExportTo::All),
            http,
        })
    }
}

fn mesh_host(host: &Located<Host>, report: &mut Report) {
    match &host.value {
        Host::Wildcard(suffix) if suffix.is_empty() => {
            report.error(host.at, "host `*` is only for gateways, not for the mesh's own clients");
        }
        Host::Exact(name) if name.parse::<std::net::IpAddr>().is_ok() => {
            report.error(host.at, format!("host {name} is an IP address, which only gateways can route"));
        }
        _ => {}
    }
}

fn overlapping(hosts: &[Located<Host>], report: &mut Report) {
    for (index, host) in hosts.iter().enumerate() {
        if let Some(earlier) = hosts[..index].iter().find(|earlier| earlier.value.overlaps(&host.value)) {
            let message =
                format!("host `{}` overlaps host `{}` of the same object", host.value, earlier.value);
            report.error(host.at, message);
        }
    }
}

/// `name` is the object's namespace's, `./name` too, `name.ns.svc…` is the legacy form.
fn qualify(gateway: Located<String>, report: &mut Report) -> Located<String> {
    let own = &report.id.namespace;
    let name = gateway.value.strip_prefix("./").unwrap_or(&gateway.value);
    let value = match name.split_once('.') {
        _ if name.contains('/') => name.to_owned(),
        None => format!("{own}/{name}"),
        Some((name, rest)) => {
            let namespace = rest.split('.').next().unwrap_or(rest);
            let value = format!("{namespace}/{name}");
            report.warn(Code::Deprecated, gateway.at, format!("write this gateway as `{value}`"));
            value
        }
    };
    Located { value, at: gateway.at }
}
