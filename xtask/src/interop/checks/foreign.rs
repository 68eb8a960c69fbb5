//! Our client on a control plane that is not ours: one on gRPC's C-core and Google's protobuf, both ways of ADS.

use crate::interop::{
    Lab, Outcome, csds,
    front::Front,
    peer::{Client, Server},
    ports,
    process::Process,
    report::Report,
};
use serde_json::{Value, json};
use std::path::PathBuf;

const CALLS: u32 = 100;
const HOST: &str = "reviews:9080";

pub(super) fn state_of_the_world(lab: &Lab, report: &mut Report) -> Outcome {
    followed(lab, report, &[], "StreamAggregatedResources")
}

pub(super) fn delta(lab: &Lab, report: &mut Report) -> Outcome {
    followed(lab, report, &["xds_delta"], "DeltaAggregatedResources")
}

fn followed(lab: &Lab, report: &mut Report, features: &[&str], method: &str) -> Outcome {
    let [v1, v2] = [Server::plain(lab, "v1")?, Server::plain(lab, "v2")?];
    let to = |cluster: &str| vec![listener(), route(cluster, "/"), cluster_of("v1"), cluster_of("v2")];
    let endpoints = || vec![endpoints_of("v1", v1.port), endpoints_of("v2", v2.port)];
    let all = |cluster: &str| [to(cluster), endpoints()].concat();
    let mut remote = Remote::start(lab)?;
    remote.serve(&all("v1"))?;
    let bootstrap = remote.bootstrap(features)?;
    let status = ports::free()?;
    let mut client = Client::observed(lab, HOST, &bootstrap, status)?;

    report.check(
        "listener, routes, cluster and endpoints are followed",
        client.call(CALLS, &[])?.exactly(&["v1"]),
    );
    report.check("by the way of ADS that was asked for", remote.was_opened_by(method));

    remote.serve(&all("v2"))?;
    let changing = client.until("v2 after the routes changed", |batch| batch.is_from(&["v2"]))?;
    report.check("no failed call while the routes change", changing.complete());
    report.check("a change of routes", client.call(CALLS, &[])?.exactly(&["v2"]));

    // A regular expression that is none, in a resource whose neighbours change for the better.
    let mut broken = all("v2");
    broken[1] = regex_route("v1", "a(b");
    broken[5] = endpoints_of("v2", v1.port);
    remote.serve(&broken)?;
    let text = remote.process.line("rejected RDS:")?;
    report.check(
        "a rejection says what and where",
        says(&text, &["routes", "virtual_hosts[0].routes[0]", "a(b"]),
    );
    let changing = client.until("the neighbour's change", |batch| batch.is_from(&["v1"]))?;
    report.check("a rejection costs no call, and not its neighbours", changing.complete());

    report
        .check("client status tells the rejection", csds::ask(lab, status).and_then(|status| told(&status)));

    // What is in use stays when its deletion is said: gRFC A88's default.
    remote.serve(&all("v2"))?;
    client.until("v2 again", |batch| batch.is_from(&["v2"]))?;
    let revision = remote.serve(&[all("v2")[..2].to_vec(), endpoints()].concat())?;
    remote.process.line(&format!("acknowledged CDS {revision}"))?;
    report.check("a deletion costs no call", client.call(CALLS, &[])?.exactly(&["v2"]));

    // Another process, with other nonces, that has changed its mind.
    let port = remote.port;
    drop(remote);
    report.check("no control plane, no failed call", client.call(CALLS, &[])?.exactly(&["v2"]));
    let mut remote = Remote::start_at(lab, port)?;
    report.check("the same way again after the restart", remote.was_opened_by(method));
    remote.serve(&all("v1"))?;
    let changing = client.until("v1 after the restart", |batch| batch.is_from(&["v1"]))?;
    report.check("no failed call over a restart", changing.complete());
    report.check("a restarted control plane is followed", client.call(CALLS, &[])?.exactly(&["v1"]));
    Ok(())
}

/// gRFC A86: an Envoy is the proxy, and the only one that knows where the endpoint is.
pub(super) fn http_connect(lab: &Lab, report: &mut Report) -> Outcome {
    let server = Server::plain(lab, "v1")?;
    let dir = tempfile::tempdir()?;
    let front = Front::start(lab, dir.path(), server.port)?;
    let mut remote = Remote::start(lab)?;
    let mut cluster = cluster_of("v1");
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.http_11_proxy",
        "typed_config": {
            "@type": url("extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport"),
        },
    });
    let mut endpoints = endpoints_of("v1", 9080);
    let [locality] = endpoints["endpoints"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default() else {
        return Err("expected one locality".into());
    };
    // Nobody can be reached there (RFC 5737).
    locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = json!("192.0.2.1");
    locality["metadata"] = json!({"typed_filter_metadata": {
        "envoy.http11_proxy_transport_socket.proxy_address": {
            "@type": url("config.core.v3.Address"),
            "socket_address": {"address": "127.0.0.1", "port_value": front.connect},
        },
    }});
    remote.serve(&[listener(), route("v1", "/"), cluster, endpoints])?;
    let bootstrap = remote.bootstrap(&[])?;
    let mut client = Client::observed(lab, HOST, &bootstrap, ports::free()?)?;
    report.check("through an Envoy", client.call(CALLS, &[])?.exactly(&["v1"]));
    Ok(())
}

/// `ads.py`, running.
struct Remote {
    process: Process,
    dir: tempfile::TempDir,
    port: u16,
}

impl Remote {
    fn start(lab: &Lab) -> Outcome<Self> {
        Self::start_at(lab, ports::free()?)
    }

    fn start_at(lab: &Lab, port: u16) -> Outcome<Self> {
        let mut command = lab.peers.python("ads.py");
        let mut process = Process::start("ads", command.arg(port.to_string()), &lab.logs)?;
        process.line("ready")?;
        Ok(Self { process, dir: tempfile::tempdir()?, port })
    }

    /// Returns the revision.
    fn serve(&mut self, resources: &[Value]) -> Outcome<String> {
        let file = self.dir.path().join("resources.json");
        std::fs::write(&file, serde_json::to_vec(resources)?)?;
        self.process.tell(&format!("serve {}", file.display()))?;
        self.process.line("serving")
    }

    /// The next stream that it says was opened is of this method of ADS.
    fn was_opened_by(&mut self, method: &str) -> Outcome {
        let opened = self.process.line("opened ")?;
        if opened == method {
            Ok(())
        } else {
            Err(format!("expected a stream of {method}, got one of {opened}").into())
        }
    }

    fn bootstrap(&self, features: &[&str]) -> Outcome<PathBuf> {
        // It must outlive this process.
        let file = self.dir.path().with_extension("bootstrap.json");
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": format!("127.0.0.1:{}", self.port),
                "channel_creds": [{"type": "insecure"}],
                "server_features": features,
            }],
            "node": {"id": "mesh-client"},
        });
        std::fs::write(&file, serde_json::to_vec(&bootstrap)?)?;
        Ok(file)
    }
}

/// Of everything that is watched, the routes alone are rejected, and the version in use is told with the reason.
fn told(clients: &[csds::ClientStatus]) -> Outcome {
    let [client] = clients else { return Err(format!("expected one client, got {clients:?}").into()) };
    let all = || client.resources.iter();
    let routes = all().find(|one| one.kind == "RouteConfiguration");
    let others = all().filter(|one| one.kind != "RouteConfiguration");
    let right = client.node == "mesh-client"
        && others.clone().count() == 3
        && others.clone().all(|one| one.status == "ACKED" && one.told && one.error.is_empty())
        && routes.is_some_and(|one| {
            one.name == "routes"
                && one.status == "NACKED"
                && !one.version.is_empty()
                && one.error.contains("a(b")
        });
    if right { Ok(()) } else { Err(format!("expected rejected routes, got {client:?}").into()) }
}

fn says(text: &str, words: &[&str]) -> Outcome {
    match words.iter().find(|word| !text.contains(**word)) {
        Some(missing) => Err(format!("expected {missing:?} in the rejection, got {text:?}").into()),
        None => Ok(()),
    }
}

fn url(message: &str) -> String {
    format!("type.googleapis.com/envoy.{message}")
}

fn listener() -> Value {
    json!({
        "@type": url("config.listener.v3.Listener"),
        "name": HOST,
        "api_listener": {"api_listener": {
            "@type": url("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "rds": {"route_config_name": "routes", "config_source": {"ads": {}}},
            "http_filters": [{
                "name": "router",
                "typed_config": {"@type": url("extensions.filters.http.router.v3.Router")},
            }],
        }},
    })
}

fn route(cluster: &str, prefix: &str) -> Value {
    routes(&json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}}))
}

fn regex_route(cluster: &str, regex: &str) -> Value {
    routes(&json!({"match": {"safe_regex": {"regex": regex}}, "route": {"cluster": cluster}}))
}

fn routes(route: &Value) -> Value {
    json!({
        "@type": url("config.route.v3.RouteConfiguration"),
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    })
}

fn cluster_of(name: &str) -> Value {
    json!({
        "@type": url("config.cluster.v3.Cluster"),
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
    })
}

fn endpoints_of(name: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({
        "@type": url("config.endpoint.v3.ClusterLoadAssignment"),
        "cluster_name": name,
        "endpoints": [{
            "locality": {"region": "here"},
            "load_balancing_weight": 1,
            "lb_endpoints": [{"endpoint": {"address": address}}],
        }],
    })
}
