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

/// A workload with the name and label `app` of `name`, which speaks the mesh's mTLS.
pub(super) fn workload(name: &str, account: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}}}
spec:
  address: 127.0.0.1
  ports: {{grpc: {port}}}
  labels: {{app: {name}, security.istio.io/tlsMode: istio}}
  serviceAccount: {account}
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

/// The same versions; the endpoint of a call is chosen by the hash of a header.
pub(super) fn hashed(header: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: {header}}}}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
"
    )
}

/// Connections to the Service begin with the PROXY protocol.
pub(super) fn proxy_protocol(name: &str, version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  trafficPolicy: {{proxyProtocol: {{version: {version}}}}}
---
"
    )
}

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

/// Much at once, most of it for calls that nobody makes; `balancing` for all.
pub(super) fn everything(balancing: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - name: faults
    match:
    - headers: {{x-fault: {{regex: y.*s}}}}
      withoutHeaders: {{x-none: {{prefix: z}}}}
      uri: {{prefix: /bookinfo}}
    - authority: {{exact: elsewhere}}
      method: {{exact: POST}}
    fault:
      delay: {{percentage: {{value: 10}}, fixedDelay: 50ms}}
      abort: {{percentage: {{value: 100}}, grpcStatus: RESOURCE_EXHAUSTED}}
    route: [{{destination: {{host: reviews, subset: v2}}}}]
  - name: others
    timeout: 8s
    retries: {{attempts: 3, perTryTimeout: 2s, retryOn: \"unavailable,cancelled,503\"}}
    headers: {{request: {{set: {{x-from: mesh}}, remove: [x-old]}}, response: {{add: {{x-by: mesh}}}}}}
    route: [{{destination: {{host: reviews, subset: v1}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {{simple: {balancing}}}
    outlierDetection: {{consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 50}}
    connectionPool:
      tcp: {{maxConnections: 10, connectTimeout: 2s}}
      http: {{http2MaxRequests: 100, maxRequestsPerConnection: 50, maxRetries: 5}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
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
