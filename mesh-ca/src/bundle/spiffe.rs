//! A SPIFFE bundle map (gRFC A87): the roots of several trust domains in one JSON file.
//!
//! `{"trust_domains": {"example.com": {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": ["MII…"]}]}}}`. Anything
//! that is not so makes the whole of it unusable: half a map could be too much or too little trust. Keys for
//! JWTs, which SPIFFE allows beside the others, are no roots and are passed over.

use super::{InvalidBundle, Roots, TrustBundle, TrustBundles};
use crate::spiffe_id::TrustDomain;
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

impl TrustBundles {
    /// From the JSON of a SPIFFE bundle map.
    pub fn from_spiffe_bundle_map(json: &[u8]) -> Result<Self, InvalidBundle> {
        let map: Value = serde_json::from_slice(json).map_err(|error| invalid("it", error))?;
        let domains = map.get("trust_domains").and_then(Value::as_object);
        let domains = domains.ok_or_else(|| invalid("trust_domains", "must be an object"))?;
        if domains.is_empty() {
            return Err(invalid("trust_domains", "names none"));
        }
        let mut bundles = Self::default();
        for (name, bundle) in domains {
            let place = format!("trust_domains.{name}");
            let domain = TrustDomain::parse(name).map_err(|error| invalid(&place, error))?;
            bundles = bundles.with(TrustBundle::new(domain, roots(&place, bundle)?));
        }
        Ok(bundles)
    }
}

fn invalid(place: &str, reason: impl ToString) -> InvalidBundle {
    InvalidBundle::Map { place: place.to_owned(), reason: reason.to_string() }
}

fn roots(place: &str, bundle: &Value) -> Result<Roots, InvalidBundle> {
    let place = format!("{place}.keys");
    let keys =
        bundle.get("keys").and_then(Value::as_array).ok_or_else(|| invalid(&place, "must be a list"))?;
    let mut certificates = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let place = format!("{place}[{i}]");
        let text = |field: &str| key.get(field).and_then(Value::as_str);
        match text("use") {
            Some("x509-svid") => {}
            Some("jwt-svid") => continue,
            _ => return Err(invalid(&format!("{place}.use"), "must be `x509-svid`")),
        }
        if !matches!(text("kty"), Some("EC" | "RSA")) {
            return Err(invalid(&format!("{place}.kty"), "must be `EC` or `RSA`"));
        }
        let place = format!("{place}.x5c");
        let chain = key.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
        let Some([Value::String(certificate)]) = chain else {
            return Err(invalid(&place, "must be a list of one certificate"));
        };
        let der = BASE64_STANDARD.decode(certificate).map_err(|error| invalid(&place, error))?;
        certificates.push(CertificateDer::from(der));
    }
    Roots::new(certificates).map_err(|error| invalid(&place, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ca, Leaf};
    use serde_json::json;

    fn key(der: &[u8]) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "x5c": [BASE64_STANDARD.encode(der)]})
    }

    fn parse(map: &Value) -> Result<TrustBundles, InvalidBundle> {
        TrustBundles::from_spiffe_bundle_map(map.to_string().as_bytes())
    }

    #[test]
    fn each_domain_has_its_own_roots() {
        let (one, two, three) = (Ca::new("one"), Ca::new("two"), Ca::new("three"));
        let bundles = parse(&json!({"trust_domains": {
            "a.com": {"spiffe_sequence": 7, "spiffe_refresh_hint": 60,
                      "keys": [key(&one.der), {"use": "jwt-svid", "kty": "EC"}, key(&two.der)]},
            "b.com": {"keys": [key(&three.der)]},
        }}))
        .unwrap();
        let of =
            |name: &str| bundles.roots(&TrustDomain::parse(name).unwrap()).map(|r| r.certificates().to_vec());
        assert_eq!(of("a.com").unwrap(), [one.der, two.der]);
        assert_eq!(of("b.com").unwrap(), [three.der]);
        assert_eq!(of("c.com"), None);
    }

    #[test]
    fn one_fault_makes_the_whole_map_unusable_and_is_named() {
        let ca = Ca::new("ca");
        let good = key(&ca.der);
        let with = |field: &str, value: Value| {
            let mut key = good.clone();
            key[field] = value;
            json!({"trust_domains": {"a.com": {"keys": [good, key]}}})
        };
        let leaf = Leaf::new("spiffe://a.com/x").issue().der;
        let cases = [
            (json!([]), "trust_domains: must be an object"),
            (json!({"trust_domains": {}}), "trust_domains: names none"),
            (json!({"trust_domains": {"A B": {"keys": [good]}}}), "trust_domains.A B: "),
            (json!({"trust_domains": {"a.com": {}}}), "trust_domains.a.com.keys: must be a list"),
            (json!({"trust_domains": {"a.com": {"keys": []}}}), "trust_domains.a.com.keys: there is no root"),
            (with("use", json!(null)), "keys[1].use: must be `x509-svid`"),
            (with("kty", json!("oct")), "keys[1].kty: must be `EC` or `RSA`"),
            (with("x5c", json!([])), "keys[1].x5c: must be a list of one certificate"),
            (with("x5c", json!(["a", "b"])), "keys[1].x5c: must be a list of one certificate"),
            (with("x5c", json!(["?"])), "keys[1].x5c: "),
            (with("x5c", json!([BASE64_STANDARD.encode(leaf)])), "keys: root certificate 1 cannot be used"),
        ];
        for (map, expected) in cases {
            let error = parse(&map).unwrap_err().to_string();
            assert!(error.contains(expected), "{map}: {error}");
        }
        let error = TrustBundles::from_spiffe_bundle_map(b"{").unwrap_err().to_string();
        assert!(error.starts_with("not a SPIFFE bundle map"), "{error}");
    }
}
