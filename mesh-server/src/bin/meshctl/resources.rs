//! `meshctl resources`: what a control plane serves to a node.

use crate::{
    Outcome,
    bootstrap::label,
    output::{show, show_json, show_on, show_value},
};
use clap::{Args, ValueEnum};
use mesh_server::{
    join::{Join, Security},
    resources::Inventory,
};
use mesh_xds::{
    bootstrap::{Bootstrap, CertificateProvider},
    name::ResourceType,
};
use std::{path::PathBuf, process::ExitCode};

/// Show what a control plane serves to a node.
///
/// Asks a control plane for every cluster and every listener that it has for a node (a wildcard subscription), and
/// shows the state and version of each, and what is wrong with it. It asks as that node's client would: while it does,
/// the control plane counts one client more. Exits with 1 when something is wrong with a resource, and with 2 when it
/// cannot look.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  meshctl resources --server 127.0.0.1:15010 --plaintext --namespace default --type cluster\n  \
                        meshctl resources --bootstrap reviews.json --watch"
)]
pub(crate) struct Resources {
    /// `host:port` of the control plane.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "bootstrap")]
    server: Option<String>,
    /// The bootstrap of a workload (`meshctl bootstrap`): whom to ask, and as whom. A certificate must be in files that
    /// it names (`channel_creds`). One that istio-agent made needs --take-over-stream.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "plaintext", "ca_file", "cert_file", "key_file", "sotw"])]
    bootstrap: Option<PathBuf>,
    /// Ask over a socket of this machine (`unix:`), though that may end another stream. istio-agent has such a socket
    /// for one workload and passes on one ADS stream: when another one opens, it ends the workload's own, which opens
    /// anew and ends this one in turn.
    #[arg(long)]
    take_over_stream: bool,
    /// Only these. May be repeated. Default: both.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<Type>,
    /// Print JSON; with --watch an object for each event.
    #[arg(long)]
    json: bool,
    /// Go on, and show what changes, until interrupted. Without it the first response of each type is shown, which may be
    /// a part of all there is: a control plane may send in pieces, and does not say when it is done.
    #[arg(long)]
    watch: bool,
    /// Speak to the control plane without TLS.
    #[arg(long, conflicts_with_all = ["ca_file", "cert_file"])]
    plaintext: bool,
    /// The mesh's root certificate, for TLS.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["plaintext", "bootstrap"])]
    ca_file: Option<PathBuf>,
    /// Own certificate chain (`meshctl cert issue`). `mesh-server` asks for one over TLS, of the namespace and service
    /// account below.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Key of the certificate.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Name of the workload.
    #[arg(long, value_name = "NAME", default_value = "meshctl", conflicts_with = "bootstrap")]
    workload: String,
    /// Its namespace, which decides what it may see.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "bootstrap")]
    namespace: String,
    /// Its service account.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "bootstrap")]
    service_account: String,
    /// A label of it: `app=reviews`. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with = "bootstrap")]
    labels: Vec<(String, String)>,
    /// What follows `.svc.` in the names of services.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", conflicts_with = "bootstrap")]
    domain: String,
    /// Ask for the state of the world instead of what changed: for a control plane that has no incremental variant.
    #[arg(long)]
    sotw: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    /// CDS.
    Cluster,
    /// LDS.
    Listener,
}

impl Type {
    fn resource_type(self) -> ResourceType {
        match self {
            Self::Cluster => ResourceType::Cluster,
            Self::Listener => ResourceType::Listener,
        }
    }
}

impl Resources {
    pub(crate) fn run(self) -> Outcome {
        let bootstrap = self.who()?;
        self.admits(&bootstrap)?;
        let asked = if self.types.is_empty() { Type::value_variants() } else { &self.types };
        let types: Vec<_> = asked.iter().map(|asked| asked.resource_type()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut inventory = Inventory::start(&bootstrap, &types);
            if self.watch {
                return self.follow(&mut inventory).await;
            }
            let found = inventory.inventoried().await?;
            if self.json {
                show_value(&found)?;
            } else {
                show(&found.to_string())?;
            }
            Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }

    async fn follow(&self, inventory: &mut Inventory) -> Outcome {
        while let Some(events) = inventory.changed().await {
            let is_read = if self.json {
                let objects = events.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
                show_json(&objects.join("\n"))?
            } else {
                show_on(&events.iter().map(|event| format!("{event}\n")).collect::<String>())?
            };
            if !is_read {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Whose socket it is cannot be known: asking may do harm, so that it takes a word.
    fn admits(&self, bootstrap: &Bootstrap) -> Result<(), String> {
        let socket = bootstrap.servers.iter().find(|server| server.socket().is_some());
        let Some(socket) = socket.filter(|_| !self.take_over_stream) else { return Ok(()) };
        let file =
            self.bootstrap.as_deref().map_or_else(|| "--server".into(), |file| file.display().to_string());
        Err(format!(
            "{file}: the control plane {socket} is a socket of this machine. If it is istio-agent's, asking there ends \
             the ADS stream of the workload: an agent passes on one. Ask the control plane behind it (--server \
             host:port), or give --take-over-stream if that stream may end"
        ))
    }

    fn who(&self) -> Result<Bootstrap, Box<dyn std::error::Error>> {
        if let Some(path) = &self.bootstrap {
            return Ok(Bootstrap::from_file(path)?);
        }
        // clap asks for it; said again for whoever changes its attributes.
        let server = self.server.as_deref().ok_or("--server or --bootstrap is missing")?;
        let security = match (self.plaintext, &self.ca_file, &self.cert_file, &self.key_file) {
            (true, ..) => Security::Plaintext,
            (_, Some(roots), Some(certificate), Some(key)) => {
                let (roots, certificate, key) = (roots.clone(), certificate.clone(), key.clone());
                Security::Files { roots, certificate, key }
            }
            (_, Some(roots), ..) => Security::Token { roots: roots.clone(), token: None, lifetime: None },
            (_, None, ..) => return Err("--ca-file or --plaintext is missing".into()),
        };
        let mut join = Join::new(server, self.workload.as_str(), security);
        join.namespace.clone_from(&self.namespace);
        join.service_account.clone_from(&self.service_account);
        join.labels = self.labels.iter().cloned().collect();
        join.domain.clone_from(&self.domain);
        join.delta = !self.sotw;
        let bootstrap = join.bootstrap()?;
        // What names a provider of certificates is sound: nothing here uses it.
        Ok(bootstrap.with_certificate_provider("default", CertificateProvider::Given))
    }
}
