//! The mesh's configuration as its owner would write it: Istio's Bookinfo, on port 9080.

/// Kubernetes Services, Istio's `destination-rule-all` and mesh-wide STRICT mTLS: always there.
pub(crate) const BASE: &str = include_str!("yaml/base.yaml");

/// A VirtualService of `host` with these HTTP routes (a YAML list, unindented).
pub(crate) fn virtual_service(host: &str, http: &str) -> String {
    let http: String = http.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {host}\nspec:\n  \
         hosts: [{host}]\n  http:\n{http}"
    )
}

/// Routes of `host`: shares by subset.
pub(crate) fn weights(host: &str, shares: &[(&str, u32)]) -> String {
    let mut http = String::from("- route:\n");
    for (subset, weight) in shares {
        http += &format!("  - destination: {{host: {host}, subset: {subset}}}\n    weight: {weight}\n");
    }
    virtual_service(host, &http)
}

/// Joins documents into one file.
pub(crate) fn documents<'a>(documents: impl IntoIterator<Item = &'a str>) -> String {
    documents.into_iter().collect::<Vec<_>>().join("---\n")
}
