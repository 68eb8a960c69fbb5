//! The secrets that a cluster's TLS context names: a cluster is complete only with them.

use super::{Walk, XdsError, also, or_equal};
use crate::{
    client::Known,
    config::{ClusterSecrets, Lookup},
    name::{Name, ResourceType},
    resource::{
        AnyResource, Cluster, Secret,
        tls::{Identity, Roots},
    },
};
use std::sync::Arc;

/// Secrets, and what is wrong though they can be used.
type Noted<T> = (T, Option<Arc<str>>);

impl<L: Lookup> Walk<'_, L> {
    /// The secrets of a cluster; `None` while one of them is not known. Looks at both even when one is missing, so
    /// that both are asked for at once. Keeps the `Arc`s of `before` where nothing differs.
    pub(super) fn secrets(
        &mut self,
        cluster: &Cluster,
        before: Option<&ClusterSecrets>,
    ) -> Option<Result<Noted<ClusterSecrets>, XdsError>> {
        let Some(tls) = &cluster.tls else { return Some(Ok((ClusterSecrets::default(), None))) };
        let identity = match &tls.identity {
            Some(Identity::Secret(name)) => self.secret(
                cluster,
                name,
                "tls_certificate",
                before.and_then(|before| before.identity.as_ref()),
            ),
            Some(Identity::Provider(_) | Identity::Files(_)) | None => Some(Ok((None, None))),
        };
        let roots = match &tls.roots {
            Roots::Secret(name) => self.secret(
                cluster,
                name,
                "validation_context",
                before.and_then(|before| before.roots.as_ref()),
            ),
            Roots::Provider(_) | Roots::System | Roots::File(_) => Some(Ok((None, None))),
        };
        Some(match (identity?, roots?) {
            (Ok((identity, one)), Ok((roots, other))) => {
                Ok((ClusterSecrets { identity, roots }, also(one, other)))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        })
    }

    /// One secret that must be of this kind; otherwise the cluster is an error that names both.
    fn secret(
        &mut self,
        cluster: &Cluster,
        name: &Name,
        wanted: &str,
        before: Option<&Arc<Secret>>,
    ) -> Option<Result<Noted<Option<Arc<Secret>>>, XdsError>> {
        let why = match self.known(ResourceType::Secret, name) {
            Known::Pending => return None,
            Known::Good { resource: AnyResource::Secret(secret), note } => {
                let kind = secret.content.kind();
                if kind == wanted {
                    return Some(Ok((Some(or_equal(secret, before)), note)));
                }
                format!("its TLS context needs secret {name} to be a {wanted}, and it is a {kind}")
            }
            Known::Good { .. } => format!("secret {name} has another type"),
            Known::Bad(error) => format!("its TLS context needs a secret: {error}"),
        };
        Some(Err(self.misfit(ResourceType::Cluster, &cluster.name, why)))
    }
}
