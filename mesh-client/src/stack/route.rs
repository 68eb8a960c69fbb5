//! Finding the route, and waiting for the first configuration.

use super::{Core, Opening, deadline::Deadline, shown};
use crate::{
    call::Upstream,
    retry::policy::of_http,
    snapshot::State,
    table::{Action, Answer, Choice, Compiled, Forwarding, Reply, RouteTable},
};
use http::{HeaderMap, Uri};
use mesh_xds::{
    config::{XdsError, XdsErrorCause},
    matcher::Headers,
    name::ResourceType,
};
use std::sync::Arc;
use tonic::{Status, metadata::MetadataMap};

/// What the configuration says about a request.
pub(super) enum Found<U> {
    Route(Arc<Compiled<U>>),
    /// The control plane does not know the target.
    UnknownHost(XdsError),
}

/// Whether the control plane has answered that there is no such target.
pub(crate) fn is_unknown_host(error: &XdsError) -> bool {
    error.resource_type == ResourceType::Listener && matches!(error.cause, XdsErrorCause::DoesNotExist(_))
}

impl<U: Upstream> Core<U> {
    /// What matchers see of a request.
    pub(super) fn seen<'a>(&'a self, uri: &'a Uri, headers: &'a HeaderMap) -> Headers<'a> {
        Headers { map: headers, authority: self.authority.as_str(), path: uri.path(), scheme: "http" }
    }

    /// The route of a request. Waits for the first answer of the control plane; one that cannot be reached
    /// fails the call at once, unless it wants to wait.
    pub(super) async fn route(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        deadline: Option<Deadline>,
        wait_for_ready: bool,
    ) -> Result<Found<U>, Status> {
        if let Some(found) = self.look(uri, headers, wait_for_ready)? {
            return Ok(found);
        }
        let mut changes = self.snapshot.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(found) = self.look(uri, headers, wait_for_ready)? {
                return Ok(found);
            }
            // The sender lives as long as this target: an error cannot be.
            let change = async { changes.changed().await.is_ok() };
            match deadline {
                None => {
                    change.await;
                }
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline.at, change).await.is_err() {
                        let what =
                            format!("no configuration had come from the control plane{}", self.last_error());
                        return Err(deadline.exceeded(&self.target, &what));
                    }
                }
            }
        }
    }

    /// None: there is something to wait for.
    pub(super) fn look(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        wait_for_ready: bool,
    ) -> Result<Option<Found<U>>, Status> {
        match &**self.snapshot.load() {
            State::Pending => Ok(None),
            State::Table(table) => self.find(table, uri, headers).map(|route| Some(Found::Route(route))),
            State::Failed(error) if is_unknown_host(error) => Ok(Some(Found::UnknownHost(error.clone()))),
            State::Failed(error)
                if wait_for_ready && matches!(error.cause, XdsErrorCause::Unreachable(_)) =>
            {
                Ok(None)
            }
            State::Failed(error) => Err(self.failed(error)),
            State::Closed => {
                Err(Status::unavailable(format!("target {}: the mesh has been shut down", self.target)))
            }
        }
    }

    fn find(
        &self,
        table: &RouteTable<U>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Arc<Compiled<U>>, Status> {
        let found = table.route(&self.seen(uri, headers), uri.query(), || self.dice.roll());
        found.cloned().ok_or_else(|| {
            Status::unavailable(format!(
                "target {}: none of the {} routes of virtual host {} matches {} [configuration {}]",
                self.target,
                table.routes().len(),
                table.virtual_host,
                uri.path(),
                self.snapshot.version()
            ))
        })
    }

    /// The way and the cluster of a call that has its route.
    pub(super) fn choose<'a>(
        &self,
        compiled: &'a Compiled<U>,
        uri: &Uri,
    ) -> Result<(&'a Forwarding<U>, &'a Choice<U>), Status> {
        let reason = match &compiled.action {
            Action::Forward(forwarding) => match forwarding.choose(|| self.dice.roll()) {
                Some(choice) => return Ok((forwarding, choice)),
                None => "it has no cluster",
            },
            Action::Answer(answer) => return Err(self.answered(compiled, answer, uri)),
            Action::Fail(reason) => reason,
        };
        Err(Status::unavailable(format!(
            "target {}: {}the route cannot be used by a client: {reason}",
            self.target,
            shown(compiled)
        )))
    }

    /// The way and the cluster of a call whose cluster its request names (Envoy's `cluster_header`; gRPC passes over such
    /// routes). Waits until it is known; a cluster that nobody has fails the call with what the control plane said.
    pub(super) async fn named<'a>(
        &self,
        compiled: &'a Compiled<U>,
        headers: &HeaderMap,
        opening: &mut Opening,
    ) -> Result<Option<(&'a Forwarding<U>, Choice<U>)>, Status> {
        let Action::Forward(forwarding) = &compiled.action else { return Ok(None) };
        let Some(by_header) = &forwarding.by_header else { return Ok(None) };
        let unavailable =
            |why: &str| Status::unavailable(format!("target {}: {}{why}", self.target, shown(compiled)));
        let name = by_header.name(headers).map_err(|why| unavailable(&why))?;
        let deadline = Deadline::within(opening.deadline, forwarding.limit, || opening.began());
        let found = self.named.cluster(name);
        let found = match deadline {
            None => found.await,
            Some(deadline) => tokio::time::timeout_at(deadline.at, found).await.map_err(|_| {
                let what =
                    format!("the control plane had not said what cluster {name} is, which the request names");
                deadline.exceeded(&self.target, &what)
            })?,
        };
        let cluster =
            found.map_err(|why| unavailable(&format!("cluster {name}, which the request names: {why}")))?;
        Ok(Some((forwarding, by_header.choice(name, Ok(cluster)))))
    }

    /// The status that stands for an answer of HTTP: what gRPC makes of its code, for no message follows. So a
    /// direct response of 200 is UNKNOWN.
    fn answered(&self, compiled: &Compiled<U>, answer: &Answer, uri: &Uri) -> Status {
        let (status, what) = match &answer.reply {
            Reply::Direct(response) => {
                let body = String::from_utf8_lossy(&response.body);
                let body = if body.is_empty() { body } else { format!(": {body}").into() };
                (response.status, format!("answered by the route with HTTP status {}{body}", response.status))
            }
            Reply::Redirect(redirect) => {
                let matched = &compiled.route.matches.path;
                let authority = self.authority.as_str();
                let location = redirect.location("http", authority, uri.path(), uri.query(), matched);
                (redirect.status, format!("redirected (HTTP status {}) to {location}", redirect.status))
            }
        };
        let message = format!("target {}: {}{what}", self.target, shown(compiled));
        let mut headers = HeaderMap::new();
        for mutation in &answer.response {
            mutation.apply(&mut headers);
        }
        Status::with_metadata(of_http(status), message, MetadataMap::from_headers(headers))
    }

    /// The status for a target without configuration.
    pub(crate) fn failed(&self, error: &XdsError) -> Status {
        Status::unavailable(format!("target {}: {error}", self.target))
    }

    /// The status for a target that the control plane does not know and that nobody else may serve.
    pub(crate) fn refused(&self, error: &XdsError) -> Status {
        Status::unavailable(format!(
            "target {}: {error}; calls to hosts outside the mesh are refused (REGISTRY_ONLY)",
            self.target
        ))
    }

    fn last_error(&self) -> String {
        match &**self.snapshot.load() {
            State::Failed(error) => format!(" ({error})"),
            State::Pending | State::Table(_) | State::Closed => String::new(),
        }
    }
}
