//! What every resource promises.

mod fields;
pub(crate) mod generators;
mod recorded;
mod rejections;

use super::*;
use proptest::prelude::*;

/// Trusted, with the provider that the generators name.
fn context() -> ParseContext {
    ParseContext {
        certificate_providers: [Arc::from("default")].into(),
        trusted: true,
        support: Support::all(),
        ..ParseContext::default()
    }
}

fn comes_back<R: Resource>(resource: &R) {
    let bytes = resource.to_proto();
    let parsed = R::parse(&bytes, &context());
    assert_eq!(parsed.as_ref(), Ok(resource));
    assert_eq!(parsed.unwrap().to_proto(), bytes, "equal values have equal bytes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_listener_comes_back_from_its_bytes(listener in generators::listener()) {
        comes_back(&listener);
    }

    #[test]
    fn a_route_configuration_comes_back_from_its_bytes(routes in generators::route_configuration()) {
        comes_back(&routes);
    }

    #[test]
    fn a_cluster_comes_back_from_its_bytes(cluster in generators::cluster()) {
        comes_back(&cluster);
    }

    #[test]
    fn an_assignment_comes_back_from_its_bytes(assignment in generators::assignment()) {
        comes_back(&assignment);
    }

    #[test]
    fn arbitrary_bytes_are_parsed_or_refused_without_panic(bytes: Vec<u8>) {
        for kind in ResourceType::ALL {
            let _ = AnyResource::parse(kind, &bytes, &context());
        }
    }

    /// Every byte of a good resource changed in turn: whatever is still a resource also comes back.
    #[test]
    fn damaged_resources_are_parsed_or_refused_without_panic(
        routes in generators::route_configuration(),
        listener in generators::listener(),
        position: prop::sample::Index,
        byte: u8,
    ) {
        for (kind, bytes) in [
            (ResourceType::RouteConfiguration, routes.to_proto()),
            (ResourceType::Listener, listener.to_proto()),
        ] {
            let mut bytes = bytes.to_vec();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(parsed) = AnyResource::parse(kind, &bytes, &context()) {
                let again = AnyResource::parse(kind, &parsed.to_proto(), &context());
                prop_assert_eq!(again, Ok(parsed));
            }
        }
    }
}
