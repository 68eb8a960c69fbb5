//! What stands between a stream of bytes and TLS: the way through a proxy, and the header that says who comes.
//!
//! Promises: the proxy is asked first and the header follows through its tunnel, so that the endpoint reads it; TLS and
//! HTTP/2 begin when both are done; nothing goes to an endpoint past the proxy that it is configured to be behind.

use super::{http_connect, io::cause, proxy_protocol};
use crate::connector::{BoxIo, Connect, Destination};
use mesh_xds::resource::{
    Cluster,
    cluster::{ProxyProtocol, TcpKeepalive, Tlv},
    endpoint::Endpoint,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::io::AsyncWriteExt;

/// How an endpoint is reached. Connections that were made in another way are replaced.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Way {
    /// The HTTP CONNECT proxy in front of it (gRFC A86).
    proxy: Option<SocketAddr>,
    /// What a connection begins with.
    header: Option<ProxyProtocol>,
    /// What the header says of this endpoint alone; nothing unless it can say it.
    own: Option<Arc<[Tlv]>>,
    /// It is made to look whether the endpoint is well, and for nobody's sake.
    is_check: bool,
}

impl Way {
    pub(crate) fn of(cluster: &Cluster, endpoint: &Endpoint) -> Self {
        let header = cluster.proxy_protocol.clone();
        let own = endpoint.tlvs.clone().filter(|_| matches!(header, Some(ProxyProtocol::V2 { .. })));
        Self { proxy: cluster.proxy_to(endpoint), header, own, is_check: false }
    }

    /// The same, for health checks.
    pub(crate) fn for_checks(self) -> Self {
        Self { is_check: true, ..self }
    }

    /// Names the proxy, if there is one, at the end of a sentence.
    pub(super) fn through(&self) -> String {
        self.proxy.map(|proxy| format!(" through HTTP CONNECT proxy {proxy}")).unwrap_or_default()
    }

    /// Opens a stream to this address of the endpoint and goes the way.
    pub(super) async fn open(
        &self,
        connect: &dyn Connect,
        address: SocketAddr,
        hostname: Option<&str>,
        tcp_keepalive: Option<TcpKeepalive>,
    ) -> Result<BoxIo, String> {
        let to = match self.proxy {
            None => Destination { address, hostname, proxy_to: None, tcp_keepalive },
            Some(proxy) => {
                Destination { address: proxy, hostname: None, proxy_to: Some(address), tcp_keepalive }
            }
        };
        let opened = connect.connect(to).await.map_err(|error| cause(&error));
        let (mut io, local) = match self.proxy {
            None => opened?.into_parts(),
            Some(proxy) => {
                let failed = |reason| format!("HTTP CONNECT proxy {proxy}: {reason}");
                let (io, local) = opened.map_err(failed)?.into_parts();
                (http_connect::tunnel(io, address).await.map_err(failed)?, local)
            }
        };
        if let Some(header) = &self.header {
            let own = self.own.as_deref().unwrap_or_default();
            let bytes = proxy_protocol::header(header, own, local, address, self.is_check);
            let failed = |error| format!("PROXY protocol: {}", cause(&error));
            io.write_all(&bytes).await.map_err(failed)?;
            // Nothing else may be to be written: a check may only look whether it opens.
            io.flush().await.map_err(failed)?;
        }
        Ok(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_xds::resource::cluster::HttpConnect;

    #[test]
    fn an_endpoints_own_proxy_goes_before_that_of_the_cluster_and_none_counts_unless_the_cluster_asks() {
        let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let way = |http_connect, proxy| {
            let cluster = Cluster { http_connect, ..Cluster::eds("c") };
            Way::of(&cluster, &Endpoint { proxy, ..Endpoint::new(vec![address(80)]) }).proxy
        };
        let asked = |default_proxy| Some(HttpConnect { default_proxy });
        let (own, default) = (Some(address(1)), Some(address(2)));
        assert_eq!(way(asked(default), own), own);
        assert_eq!(way(asked(None), own), own);
        assert_eq!(way(asked(default), None), default);
        assert_eq!(way(asked(None), None), None);
        assert_eq!(way(None, own), None);
    }
}
