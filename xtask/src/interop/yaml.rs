//! The configurations of the scenarios: Istio's and Kubernetes' kinds, as text.

/// A Service on port 9080 whose endpoints are in slices or have the label `app: <name>`.
pub(super) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: grpc, port: 9080}}]
---
"
    )
}

/// The slice `name` of the Service `reviews`: one endpoint of a version.
pub(super) fn slice(name: &str, version: &str, port: u16) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  labels: {{kubernetes.io/service-name: reviews, version: {version}}}
addressType: IPv4
ports: [{{name: grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
"
    )
}

/// A workload with the name, label `app` and service account `name`, which speaks the mesh's mTLS.
pub(super) fn workload(name: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}}}
spec:
  address: 127.0.0.1
  ports: {{grpc: {port}}}
  labels: {{app: {name}, security.istio.io/tlsMode: istio}}
  serviceAccount: {name}
---
"
    )
}

/// Versions `v1` and `v2` of `reviews`.
pub(super) const SUBSETS: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
";

/// The header `end-user: jason` to `v2`, everybody else by weight.
pub(super) fn weights(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]
    route: [{{destination: {{host: reviews, subset: v2}}}}]
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}
"
    )
}

/// PeerAuthentication of the workloads of `app`.
pub(super) fn mtls(app: &str, mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {app}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  mtls: {{mode: {mode}}}
---
"
    )
}

/// Only this service account may call the workloads of `app`.
pub(super) fn only(app: &str, account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {app}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  action: ALLOW
  rules:
  - from: [{{source: {{principals: [cluster.local/ns/default/sa/{account}]}}}}]
---
"
    )
}
