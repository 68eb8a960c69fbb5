//! A gRPC client, configured by our control plane alone, follows what is configured. Ours is held to the same
//! checks as the others.

use super::policies;
use crate::interop::{
    Lab, Outcome,
    control_plane::{ControlPlane, Member, Security},
    csds,
    peer::{Client, Grpc, Server, Target},
    report::Report,
    yaml,
};
use std::collections::BTreeSet;

const CALLS: u32 = 400;

pub(super) fn core(lab: &Lab, report: &mut Report) -> Outcome {
    client(lab, report, Grpc::Core, &Security::None)
}

pub(super) fn js(lab: &Lab, report: &mut Report) -> Outcome {
    client(lab, report, Grpc::Js, &Security::None)
}

pub(super) fn ours(lab: &Lab, report: &mut Report) -> Outcome {
    client(lab, report, Grpc::Mesh, &Security::Token)
}

fn client(lab: &Lab, report: &mut Report, grpc: Grpc, security: &Security) -> Outcome {
    let reviews = Reviews::start(lab)?;
    let member = Member { name: grpc.name(), labels: &[] };
    let bootstrap = reviews.control_plane.bootstrap(&member, security)?;
    let target = Target::Xds("reviews:9080");
    let mut client = Client::start(lab, grpc.name(), grpc, &target, Some(&bootstrap))?;
    reviews.followed_by(&mut client, grpc.name(), report)?;
    let status =
        csds::ask(lab, reviews.control_plane.xds_plaintext).and_then(|all| listed(&all, grpc.name()));
    report.check("client status of the control plane", status);
    Ok(())
}

/// The control plane tells of one client, which holds all that it asked for.
fn listed(clients: &[csds::ClientStatus], member: &str) -> Outcome {
    let [client] = clients else { return Err(format!("expected one client, got {clients:?}").into()) };
    let kinds: BTreeSet<&str> = client.resources.iter().map(|one| one.kind.as_str()).collect();
    let synced = client.resources.iter().all(|one| one.sync == "SYNCED");
    if client.node.contains(member) && kinds.len() == 4 && synced {
        return Ok(());
    }
    Err(format!("expected four synced types of {member}, got {client:?}").into())
}

/// `reviews` with plain servers in two versions, 80 % to v1.
pub(super) struct Reviews {
    pub(super) control_plane: ControlPlane,
    /// Another replica of v1, which no slice names at first.
    spare: Server,
    _servers: [Server; 2],
}

impl Reviews {
    pub(super) fn start(lab: &Lab) -> Outcome<Self> {
        let [v1, v2, spare] =
            [Server::plain(lab, "v1")?, Server::plain(lab, "v2")?, Server::plain(lab, "v1-spare")?];
        let services = yaml::service("reviews")
            + &yaml::slice("reviews-v1", "v1", v1.port)
            + &yaml::slice("reviews-v2", "v2", v2.port);
        let routes = yaml::SUBSETS.to_owned() + &yaml::weights(80, 20);
        let files = [("services.yaml", services), ("routes.yaml", routes)];
        Ok(Self { control_plane: ControlPlane::start(lab, &files)?, spare, _servers: [v1, v2] })
    }

    /// Weights, header routes and endpoints as `client` sees them, while they change; `member` is who
    /// acknowledges them.
    pub(super) fn followed_by(&self, client: &mut Client, member: &str, report: &mut Report) -> Outcome {
        let weighted = client.call(CALLS, &[])?;
        report.check("weights 80/20", weighted.share("v1", 80).and_then(|()| weighted.share("v2", 20)));
        report.check("header route", client.call(CALLS / 4, &["end-user=jason"])?.exactly(&["v2"]));

        self.control_plane.apply("routes.yaml", &(yaml::SUBSETS.to_owned() + &yaml::weights(100, 0)))?;
        let changing = client.until("v1 alone", |batch| batch.is_from(&["v1"]))?;
        report.check("no failed call while weights change", changing.complete());
        report.check("weights 100/0", client.call(CALLS, &[])?.exactly(&["v1"]));

        let slice = yaml::slice("reviews-v1-spare", "v1", self.spare.port);
        self.control_plane.apply("spare.yaml", &slice)?;
        let changing = client.until("the added endpoint", |batch| batch.has("v1-spare"))?;
        report.check("no failed call while an endpoint is added", changing.complete());
        report.check("endpoint added", client.call(CALLS, &[])?.exactly(&["v1", "v1-spare"]));

        self.control_plane.remove("spare.yaml")?;
        let changing = client.until("the endpoint gone", |batch| !batch.has("v1-spare"))?;
        report.check("no failed call while an endpoint is removed", changing.complete());
        report.check("endpoint removed", client.call(CALLS, &[])?.exactly(&["v1"]));

        for balancing in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] {
            self.control_plane.apply("routes.yaml", &yaml::everything(balancing))?;
            let accepted = self.control_plane.acknowledged(member);
            report.check(format_args!("much at once with {balancing}: nothing rejected"), accepted);
            let calls = client.call(CALLS, &[])?.exactly(&["v1"]);
            report.check(format_args!("much at once with {balancing}: no failed call"), calls);
        }
        let aborted = client.call(CALLS / 10, &["x-fault=yes"])?.refused_with("RESOURCE_EXHAUSTED");
        report.check("abort fault", aborted);

        let slice = yaml::slice("reviews-v1-spare", "v1", self.spare.port);
        self.control_plane.apply("spare.yaml", &slice)?;
        self.control_plane.apply("routes.yaml", &(yaml::hashed("x-key") + &yaml::weights(100, 0)))?;
        report.check("consistentHash: nothing rejected", self.control_plane.acknowledged(member));
        client.until("the ring", |batch| batch.is_from(&["v1", "v1-spare"]))?;
        policies::hashed(client, ["v1", "v1-spare"], report)?;
        Ok(())
    }
}
