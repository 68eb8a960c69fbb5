//! `meshctl bootstrap`: the file that `GRPC_XDS_BOOTSTRAP` names.

use crate::{Outcome, output::show_value};
use clap::Args;
use mesh_server::{
    join::{Join, Security},
    model::{Locality, is_dns_label, is_label_key, is_label_value},
};
use mesh_xds::resource;
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Print a bootstrap for a gRPC client or server (`GRPC_XDS_BOOTSTRAP`).
///
/// Certificates come from the CA (`--ca-file`, `--token-file`), from files that are renewed by somebody else
/// (`--cert-file`, `--key-file`: for every gRPC but ours), or not at all (`--plaintext`).
#[derive(Debug, Args)]
pub(crate) struct Bootstrap {
    /// `host:port` of the control plane.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    server: String,
    /// Name of the workload, unique in its namespace.
    #[arg(long, value_name = "NAME")]
    workload: String,
    /// Its namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Its service account.
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,
    /// A label, by which services select it: `app=reviews`. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where it runs: `region/zone/sub_zone`.
    #[arg(long, value_name = "LOCALITY")]
    locality: Option<String>,
    /// Its address, informational.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: String,
    /// What follows `.svc.` in the names of services.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    domain: String,
    /// The mesh's root certificate (`<data>/ca/root-cert.pem` of the server).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["plaintext", "dev"])]
    ca_file: Option<PathBuf>,
    /// File with a join token (`meshctl token create`).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plaintext", "dev", "cert_file"])]
    token_file: Option<PathBuf>,
    /// Lifetime of certificates to ask for: `24h`.
    #[arg(long, value_name = "DURATION", value_parser = mesh_server::cli::duration, conflicts_with_all = ["plaintext", "dev", "cert_file"])]
    lifetime: Option<Duration>,
    /// Own certificate chain (`meshctl cert issue`).
    #[arg(long, value_name = "FILE", requires = "key_file", requires = "ca_file")]
    cert_file: Option<PathBuf>,
    /// Key of the certificate.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Speak to the control plane without TLS (its plaintext port). For clients: servers register over TLS.
    #[arg(long)]
    plaintext: bool,
    /// For `mesh-server dev`: no TLS towards the control plane, certificates for the asking.
    #[arg(long, conflicts_with_all = ["plaintext", "cert_file", "ca_file"])]
    dev: bool,
    /// Do not ask for the incremental variant of ADS, which only mesh-client knows: for a control plane that does not
    /// have it.
    #[arg(long)]
    sotw: bool,
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if !is_label_key(key) || !is_label_value(value) {
        return Err("not a Kubernetes label".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Bootstrap {
    pub(crate) fn run(self) -> Outcome {
        for name in [&self.namespace, &self.workload] {
            if !is_dns_label(name) {
                return Err(format!("{name:?} is not a name: letters, digits and `-`, at most 63").into());
            }
        }
        let security = match (self.dev, self.plaintext, self.ca_file, self.cert_file, self.key_file) {
            (true, ..) => Security::Development,
            (_, true, Some(roots), Some(certificate), Some(key)) => {
                Security::PlaintextWithFiles { roots, certificate, key }
            }
            (_, true, ..) => Security::Plaintext,
            (_, _, Some(roots), Some(certificate), Some(key)) => Security::Files { roots, certificate, key },
            (_, _, Some(roots), ..) => {
                Security::Token { roots, token: self.token_file, lifetime: self.lifetime }
            }
            // clap asks for it; said again for whoever changes its attributes.
            (_, _, None, ..) => return Err("--ca-file is missing".into()),
        };
        let mut join = Join::new(self.server, self.workload, security);
        join.namespace = self.namespace;
        join.service_account = self.service_account;
        join.labels = self.labels.into_iter().collect();
        join.address = self.address;
        join.domain = self.domain;
        join.delta = !self.sotw;
        if let Some(text) = self.locality {
            let Locality { region, zone, sub_zone } = Locality::parse(&text);
            join.locality =
                resource::Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
        }
        show_value(&join.bootstrap()?.to_json())?;
        Ok(ExitCode::SUCCESS)
    }
}
