//! What a server says of itself, read: with what its certificate proves, and what its group lends it.

use crate::{
    model::{Health, Locality, Model, RegisteredWorkload, is_dns_label, is_label_key, is_label_value},
    proto::registration as proto,
    publish::Peer,
};
use std::{collections::BTreeMap, net::IpAddr};
use tonic::Status;

/// Istio's mark of a workload that speaks the mesh's mTLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Labels, and ports, of a workload: each is kept, and looked up.
const MOST_LABELS: usize = 128;

pub(super) fn health(value: i32) -> Result<Health, Status> {
    match proto::Health::try_from(value) {
        Ok(proto::Health::Healthy) => Ok(Health::Healthy),
        Ok(proto::Health::Unhealthy) => Ok(Health::Unhealthy),
        Ok(proto::Health::Draining) => Ok(Health::Draining),
        Err(_) => Err(Status::invalid_argument(format!("health {value} is not one this version knows"))),
    }
}

/// Reads a workload, with what its group lends it.
pub(super) fn parse(
    said: &proto::Workload,
    peer: &Peer,
    model: &Model,
) -> Result<RegisteredWorkload, Status> {
    let invalid = |text: String| Status::invalid_argument(format!("workload {:?}: {text}", said.name));
    peer.may_be(Some(&said.namespace), Some(&said.service_account))?;
    let own = |said: &str, verified: Option<&str>, default: &str| match (said, verified) {
        ("", Some(verified)) => verified.to_owned(),
        ("", None) => default.to_owned(),
        (said, _) => said.to_owned(),
    };
    let identity = peer.identity.as_ref();
    let namespace = own(&said.namespace, identity.and_then(|id| id.namespace()), "default");
    let service_account = own(&said.service_account, identity.and_then(|id| id.service_account()), "default");
    if !is_dns_label(&namespace) {
        return Err(invalid(format!("{namespace:?} is not a namespace")));
    }
    let address: IpAddr = said
        .address
        .parse()
        .map_err(|_| invalid(format!("address {:?} is not a literal IP address", said.address)))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(invalid(format!("address {address} is not one that clients can connect to")));
    }
    let group = match said.group.as_str() {
        "" => None,
        name => Some(model.config.workload_group(&namespace, name).ok_or_else(|| {
            Status::failed_precondition(format!(
                "workload {:?}: WorkloadGroup {namespace}/{name} does not exist; apply it, or register without a group",
                said.name
            ))
        })?),
    };
    if let Some(wanted) = group.and_then(|group| group.service_account.as_ref())
        && *wanted != service_account
    {
        return Err(Status::permission_denied(format!(
            "workload {:?}: WorkloadGroup {namespace}/{} is for service account {wanted}, not {service_account}",
            said.name, said.group
        )));
    }
    let base = if said.group.is_empty() { &said.name } else { &said.group };
    if !is_dns_label(base) {
        return Err(invalid("it needs a name (a DNS label), or a group".to_owned()));
    }
    for (what, count) in [("labels", said.labels.len()), ("ports", said.ports.len())] {
        if count > MOST_LABELS {
            return Err(invalid(format!("it has {count} {what}, and {MOST_LABELS} are the limit")));
        }
    }
    let mut ports: BTreeMap<String, u16> = group.map(|group| group.ports.clone()).unwrap_or_default();
    for (name, port) in &said.ports {
        let port = u16::try_from(*port).ok().filter(|port| *port > 0);
        ports.insert(
            name.clone(),
            port.ok_or_else(|| invalid(format!("port {name:?} is not one: 1 to 65535 are")))?,
        );
    }
    if ports.is_empty() {
        return Err(invalid("it names no port".to_owned()));
    }
    let mut labels = group.map(|group| group.labels.clone()).unwrap_or_default();
    for (key, value) in &said.labels {
        if !is_label_key(key) || !is_label_value(value) {
            return Err(invalid(format!("{key:?}: {value:?} is not a label")));
        }
        labels.insert(key.clone(), value.clone());
    }
    // Who proved its identity has the certificate to serve with: it cannot ask its clients for plaintext.
    if identity.is_some() {
        labels.insert(TLS_MODE.to_owned(), "istio".to_owned());
    } else {
        // In development, where certificates are for the asking: so unless it says otherwise.
        labels.entry(TLS_MODE.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    let locality = match said.locality.as_str() {
        "" => group.map(|group| group.locality.clone()).unwrap_or_default(),
        text => Locality::parse(text),
    };
    let weight = match said.weight {
        0 => group.map_or(1, |group| group.weight),
        weight => weight,
    };
    Ok(RegisteredWorkload {
        name: RegisteredWorkload::name_at(base, address),
        namespace,
        service_account,
        address,
        ports,
        labels,
        locality,
        weight,
        health: Health::Healthy,
        group: (!said.group.is_empty()).then(|| said.group.clone()),
    })
}
