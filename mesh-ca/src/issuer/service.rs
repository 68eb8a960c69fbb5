//! `istio.v1.auth.IstioCertificateService`: certificates for whoever proves who they are.
//!
//! As Istio's `security/pkg/server/ca`: attestors in order, none means `UNAUTHENTICATED`; the name is
//! the proven one; the request contributes a public key and a lifetime. What cannot be honoured is
//! refused, not ignored. Limits and the request's own soundness come before attestation, so that a
//! broken request does not use up a join token.

use super::{
    PeerInfo,
    attest::{Attestors, Evidence},
    authority::{Authority, IssueError, ServerNames},
    request::{LARGEST_CSR, SigningRequest},
};
use crate::{
    clock,
    proto::istio_ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
    },
};
use std::sync::Arc;
use tonic::{
    Request, Response, Status,
    metadata::{KeyAndValueRef, MetadataMap},
};

/// Headers of an honest request are far smaller (bytes, all keys and values).
const LARGEST_METADATA: usize = 16 * 1024;
/// A request of the largest CSR and some metadata.
const LARGEST_MESSAGE: usize = 2 * LARGEST_CSR;

/// Request metadata that asks for what we do not do. Istio has it; ignoring it would issue something
/// other than was asked for.
const UNSUPPORTED: [&str; 2] = ["CertSigner", "ImpersonatedIdentity"];

/// The service, to be added to a tonic server.
#[derive(Clone, Debug)]
pub struct CertificateService {
    authority: Arc<Authority>,
    attestors: Attestors,
}

impl CertificateService {
    /// Signs with `authority` for whoever `attestors` prove.
    pub fn new(authority: Arc<Authority>, attestors: Attestors) -> Self {
        Self { authority, attestors }
    }

    /// The tonic service, with the limits on message size.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(LARGEST_MESSAGE)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        refuse_large(request.metadata())?;
        let wanted = request.get_ref();
        refuse_unsupported(wanted)?;
        let signing =
            SigningRequest::parse(&wanted.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let lifetime = self
            .authority
            .policy()
            .lifetime(wanted.validity_duration)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;

        let unknown = PeerInfo::default();
        let peer = request.extensions().get::<PeerInfo>().unwrap_or(&unknown);
        let evidence = Evidence { metadata: request.metadata(), peer };
        let (id, proof) = self.attestors.attest(&evidence).await.map_err(|reasons| {
            tracing::warn!(peer = ?peer.address, %reasons, "certificate refused: caller not authenticated");
            Status::unauthenticated("request authenticate failure")
        })?;

        let issued =
            self.authority.issue(&signing, &id, lifetime, &ServerNames::default()).map_err(|error| {
                tracing::error!(%id, %error, "certificate not issued");
                match error {
                    IssueError::OtherTrustDomain { .. } | IssueError::NoPath(_) => {
                        Status::permission_denied(error.to_string())
                    }
                    IssueError::RootExpired(_) => Status::unavailable(error.to_string()),
                    _ => Status::internal("the certificate could not be signed; see the server's log"),
                }
            })?;
        tracing::info!(%id, proof, until = %clock::utc(issued.not_after), "certificate issued");
        let mut cert_chain = issued.chain;
        cert_chain.push(issued.roots);
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

fn refuse_large(metadata: &MetadataMap) -> Result<(), Status> {
    let size: usize = metadata
        .iter()
        .map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => key.as_str().len() + value.as_encoded_bytes().len(),
            KeyAndValueRef::Binary(key, value) => key.as_str().len() + value.as_encoded_bytes().len(),
        })
        .sum();
    if size > LARGEST_METADATA {
        let text = format!("the request's headers have {size} bytes; at most {LARGEST_METADATA} are read");
        return Err(Status::resource_exhausted(text));
    }
    Ok(())
}

fn refuse_unsupported(request: &IstioCertificateRequest) -> Result<(), Status> {
    let fields = request.metadata.as_ref().map(|metadata| &metadata.fields);
    match UNSUPPORTED.into_iter().find(|key| fields.is_some_and(|fields| fields.contains_key(*key))) {
        Some(key) => Err(Status::invalid_argument(format!("request metadata `{key}` is not supported"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
