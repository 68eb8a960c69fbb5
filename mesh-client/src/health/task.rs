//! The task of one endpoint's health checks; it ends when it is dropped.
//!
//! Promises: one check at a time, each bounded by `timeout`; the endpoint's actor is told of every answer; changes of
//! the configuration that concern checks hold for the next one, and others disturb nothing.

use super::{
    Answer, Checked, Machine,
    probe::{self, Link, To},
};
use crate::endpoint::{
    Endpoint, What,
    connect::Dialler,
    task::{Spec, Surroundings},
    way::Way,
};
use mesh_xds::resource::{
    cluster::{ConnectionOptions, HealthCheck, HealthProbe},
    tls::UpstreamTls,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// Asks one endpoint again and again.
pub(crate) struct Checker {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) spec: watch::Receiver<Spec>,
    /// The cluster has had a call. Shared by its checkers, each of which sees the calls of one endpoint.
    pub(crate) used: Arc<AtomicBool>,
    pub(crate) rng: fastrand::Rng,
}

/// All that a check depends on.
#[derive(Clone, PartialEq)]
struct Plan {
    check: Arc<HealthCheck>,
    addresses: Vec<SocketAddr>,
    authority: Arc<str>,
    hostname: Option<Arc<str>>,
    way: Way,
    tls: Option<Arc<UpstreamTls>>,
    options: ConnectionOptions,
}

impl Plan {
    /// `None`: it is not to be checked.
    fn of(spec: &Spec) -> Option<Self> {
        let (cluster, endpoint) = (&spec.cluster, &spec.endpoint);
        let check = cluster.health_check.as_ref().filter(|_| is_checked(spec))?;
        let own = endpoint.health_check.as_deref();
        let port = own.and_then(|own| own.port).or(check.alt_port);
        let mut addresses = endpoint.addresses.clone();
        if let Some(port) = port {
            addresses.iter_mut().for_each(|address| address.set_port(port));
        }
        if let Some(address) = own.and_then(|own| own.address) {
            addresses = vec![address];
        }
        let authority = match &check.probe {
            HealthProbe::Grpc { authority, .. } => authority.as_ref(),
            HealthProbe::Tcp { .. } => None,
        };
        let authority = own.and_then(|own| own.hostname.as_ref()).or(authority).unwrap_or(&cluster.name);
        Some(Self {
            check: Arc::clone(check),
            addresses,
            authority: Arc::clone(authority),
            hostname: endpoint.hostname.clone(),
            way: spec.way().for_checks(),
            tls: spec.tls().cloned(),
            options: cluster.connection.clone(),
        })
    }
}

/// Whether an endpoint of this description is checked.
pub(crate) fn is_checked(spec: &Spec) -> bool {
    let own = spec.endpoint.health_check.as_ref();
    spec.cluster.health_check.is_some() && own.is_none_or(|own| !own.disabled)
}

impl Checker {
    /// Runs until the sender of its spec, or the future, is dropped.
    pub(crate) async fn run(mut self) {
        let mut machine = None;
        loop {
            let plan = Plan::of(&self.spec.borrow_and_update());
            let goes_on = match plan {
                Some(plan) => {
                    let now = Instant::now();
                    let machine = match &mut machine {
                        Some(machine) => {
                            Machine::reconfigure(machine, now, &plan.check);
                            machine
                        }
                        None => machine.insert(Machine::new(now, &plan.check, &mut self.rng)),
                    };
                    self.follow(plan, machine).await
                }
                None => {
                    machine = None;
                    self.endpoint.tell(What::Checked { state: Checked::Not, success: false });
                    self.spec.changed().await.is_ok()
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Checks as planned until there is another plan. False: the endpoint is gone.
    async fn follow(&mut self, plan: Plan, machine: &mut Machine) -> bool {
        let dialler = Dialler {
            addresses: plan.addresses.clone(),
            hostname: plan.hostname.clone(),
            way: plan.way.clone(),
            tls: plan.tls.clone(),
            options: plan.options.clone(),
            patience: 1,
            connect: Arc::clone(&self.around.connect),
            tls_configs: Arc::clone(&self.around.tls),
            secrets: Arc::clone(&self.around.secrets),
        };
        // A process that has just started has no certificate yet: that is not the endpoint's fault.
        if let Some(tls) = &plan.tls {
            let _ = timeout(plan.options.connect_timeout, self.around.tls.settled(tls)).await;
        }
        let address = plan.addresses.first().copied().unwrap_or(self.endpoint.address);
        let to = To { dialler: &dialler, address, authority: &plan.authority };
        let mut link = Link::None;
        loop {
            tokio::select! {
                changed = self.spec.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    if Plan::of(&self.spec.borrow_and_update()).as_ref() != Some(&plan) {
                        return true;
                    }
                    continue;
                }
                () = sleep_until(machine.due()) => {}
            }
            let limit = plan.check.timeout;
            let asked = timeout(limit, probe::ask(&plan.check.probe, &to, &mut link)).await;
            let answer =
                asked.unwrap_or_else(|_| Answer::Failed(format!("no answer within {limit:?}").into()));
            if !plan.check.reuse_connection {
                link = Link::None;
            }
            self.take_in(answer, machine, &plan.check);
        }
    }

    fn take_in(&mut self, answer: Answer, machine: &mut Machine, check: &HealthCheck) {
        if self.endpoint.has_been_called() {
            self.used.store(true, Relaxed);
        }
        let success = answer == Answer::Serving;
        let changed = machine.on(Instant::now(), answer, check, self.used.load(Relaxed), &mut self.rng);
        let state = machine.state().clone();
        if changed {
            let (cluster, endpoint) = (&self.endpoint.cluster, self.endpoint.address);
            match &state {
                Checked::Unhealthy(reason) => {
                    tracing::warn!(%cluster, %endpoint, %reason, "endpoint is unhealthy by its health check");
                }
                _ => tracing::info!(%cluster, %endpoint, "endpoint is healthy by its health check"),
            }
        }
        self.endpoint.tell(What::Checked { state, success });
    }
}
