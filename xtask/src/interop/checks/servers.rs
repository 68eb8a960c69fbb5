//! A server on gRPC's C-core that our control plane configures: in plaintext, with mTLS, and whom it lets
//! in; and that its clients follow.

use crate::interop::{
    Lab, Outcome,
    control_plane::{ControlPlane, Member, Security},
    peer::{Client, Grpc, Server, Target},
    ports,
    report::Report,
    yaml,
};

const CALLS: u32 = 100;
const APP: &str = "reviews";

pub(super) fn core(lab: &Lab, report: &mut Report) -> Outcome {
    let port = ports::free()?;
    let services = yaml::service(APP) + &yaml::workload(APP, APP, port);
    let files = [("services.yaml", services), ("security.yaml", yaml::mtls(APP, "DISABLE"))];
    let control_plane = ControlPlane::start(lab, &files)?;
    let member = Member { name: APP, labels: &[("app", APP)] };
    let bootstrap = control_plane.bootstrap(&member, &Security::Files)?;
    let _server = Server::xds(lab, APP, port, &bootstrap)?;
    let start = |name: &str, grpc: Grpc, security: &Security| {
        let bootstrap = control_plane.bootstrap(&Member { name, labels: &[] }, security)?;
        Client::start(lab, name, grpc, &Target::XdsCredentials("reviews:9080"), Some(&bootstrap))
    };
    let mut alice = start("alice", Grpc::Core, &Security::Files)?;
    let mut bob = start("bob", Grpc::Core, &Security::Files)?;
    let mut node = start("node", Grpc::Js, &Security::PlaintextWithFiles)?;
    let mut ours = start("ours", Grpc::Mesh, &Security::Token)?;
    let mut plaintext =
        Client::start(lab, "plaintext", Grpc::Core, &Target::Port(port, "reviews:9080"), None)?;

    alice.until("an answer", |batch| batch.is_from(&[APP]))?;
    report.check("DISABLE: a C-core client", alice.call(CALLS, &[])?.exactly(&[APP]));
    report.check("DISABLE: a grpc-js client", node.call(CALLS, &[])?.exactly(&[APP]));
    report.check("DISABLE: a client on mesh-client", ours.call(CALLS, &[])?.exactly(&[APP]));
    report.check("DISABLE: a client without the mesh", plaintext.call(CALLS, &[])?.exactly(&[APP]));

    control_plane.apply("security.yaml", &yaml::mtls(APP, "STRICT"))?;
    plaintext.until("plaintext refused", |batch| batch.is_refused("UNAVAILABLE"))?;
    report.check("STRICT: plaintext refused", plaintext.call(CALLS, &[])?.refused_with("UNAVAILABLE"));
    for (name, client) in [("C-core", &mut alice), ("grpc-js", &mut node), ("mesh-client", &mut ours)] {
        // Server and client are told at the same moment, and neither waits for the other.
        client.until("an answer over mTLS", |batch| batch.is_from(&[APP]))?;
        report.check(format_args!("STRICT: a {name} client"), client.call(CALLS, &[])?.exactly(&[APP]));
    }

    let policy = yaml::mtls(APP, "STRICT") + &yaml::only(APP, "alice");
    control_plane.apply("security.yaml", &policy)?;
    for (name, client) in [("C-core", &mut bob), ("grpc-js", &mut node), ("mesh-client", &mut ours)] {
        // With the policy the server closes its connections: a caller may see that first.
        client.until("another principal refused", |batch| batch.is_refused("PERMISSION_DENIED"))?;
        let refused = client.call(CALLS, &[])?.refused_with("PERMISSION_DENIED");
        report.check(format_args!("policy: another principal refused, {name}"), refused);
    }
    report.check("policy: the principal allowed", alice.call(CALLS, &[])?.exactly(&[APP]));
    let policy = yaml::mtls(APP, "STRICT") + &yaml::only(APP, "ours");
    control_plane.apply("security.yaml", &policy)?;
    ours.until("our client let in", |batch| batch.is_from(&[APP]))?;
    report.check("policy: the principal allowed, mesh-client", ours.call(CALLS, &[])?.exactly(&[APP]));
    for member in [APP, "alice", "node", "ours"] {
        report.check(format_args!("nothing rejected by {member}"), control_plane.acknowledged(member));
    }
    Ok(())
}

/// A server with a sound certificate, but not that of the service account which the mesh knows for it.
pub(super) fn impostor(lab: &Lab, report: &mut Report) -> Outcome {
    let port = ports::free()?;
    let services = yaml::service(APP) + &yaml::workload(APP, APP, port) + &yaml::mtls(APP, "STRICT");
    let control_plane = ControlPlane::start(lab, &[("services.yaml", services)])?;
    let member = Member { name: "impostor", labels: &[("app", APP)] };
    let bootstrap = control_plane.bootstrap(&member, &Security::Files)?;
    let _server = Server::xds(lab, "impostor", port, &bootstrap)?;
    let clients = [
        (Grpc::Core, Security::Files),
        (Grpc::Js, Security::PlaintextWithFiles),
        (Grpc::Mesh, Security::Token),
    ];
    let mut started = Vec::new();
    for (grpc, security) in clients {
        let member = Member { name: grpc.name(), labels: &[] };
        let bootstrap = control_plane.bootstrap(&member, &security)?;
        let target = Target::XdsCredentials("reviews:9080");
        let mut client = Client::start(lab, grpc.name(), grpc, &target, Some(&bootstrap))?;
        let refused = client.call(3, &[])?.refused_with("UNAVAILABLE");
        report.check(format_args!("refused by {}", grpc.name()), refused);
        started.push((grpc, client));
    }
    // The proof that only the name was wrong.
    let known = yaml::service(APP) + &yaml::workload(APP, "impostor", port) + &yaml::mtls(APP, "STRICT");
    control_plane.apply("services.yaml", &known)?;
    for (grpc, mut client) in started {
        client.until("an answer", |batch| batch.is_from(&["impostor"]))?;
        let accepted = client.call(CALLS, &[])?.exactly(&["impostor"]);
        report.check(format_args!("accepted by {} once its name is known", grpc.name()), accepted);
    }
    Ok(())
}
