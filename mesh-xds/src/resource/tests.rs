//! What every resource promises.

mod envoy;
mod fields;
pub(crate) mod generators;
mod recorded;
mod rejections;
mod verdicts;

use super::*;
use proptest::{prelude::*, test_runner::TestRunner};

/// Trusted, with the provider that the generators name.
fn context() -> ParseContext {
    ParseContext {
        certificate_providers: [Arc::from("default")].into(),
        trusted: true,
        support: Support::all(),
        ..ParseContext::default()
    }
}

fn comes_back<R: Resource>(resource: &R) -> Result<(), TestCaseError> {
    let bytes = resource.to_proto();
    let parsed = R::parse(&bytes, &context());
    prop_assert_eq!(parsed.as_ref(), Ok(resource));
    prop_assert_eq!(parsed.unwrap().to_proto(), bytes, "equal values have equal bytes");
    Ok(())
}

/// Runs a property on a thread of its own: strategies for whole resources are built on the stack, by value, which
/// the one of a test has no room for.
fn holds<S: Strategy>(
    strategy: impl FnOnce() -> S + Send + 'static,
    property: impl Fn(S::Value) -> Result<(), TestCaseError> + Send + 'static,
) {
    let config = ProptestConfig { cases: 192, source_file: Some(file!()), ..ProptestConfig::default() };
    let run =
        move || TestRunner::new(config).run(&strategy(), property).unwrap_or_else(|error| panic!("{error}"));
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(run).unwrap();
    if let Err(failure) = thread.join() {
        std::panic::resume_unwind(failure);
    }
}

#[test]
fn a_listener_comes_back_from_its_bytes() {
    holds(generators::listener, |listener| comes_back(&listener));
}

#[test]
fn a_route_configuration_comes_back_from_its_bytes() {
    holds(generators::route_configuration, |routes| comes_back(&routes));
}

#[test]
fn a_cluster_comes_back_from_its_bytes() {
    holds(generators::cluster, |cluster| comes_back(&cluster));
}

#[test]
fn an_assignment_comes_back_from_its_bytes() {
    holds(generators::assignment, |assignment| comes_back(&assignment));
}

#[test]
fn a_secret_comes_back_from_its_bytes() {
    holds(generators::secret, |secret| comes_back(&secret));
}

#[test]
fn arbitrary_bytes_are_parsed_or_refused_without_panic() {
    holds(any::<Vec<u8>>, |bytes| {
        for kind in ResourceType::ALL {
            let _ = AnyResource::parse(kind, &bytes, &context());
        }
        Ok(())
    });
}

/// A byte of a good resource changed: whatever is still a resource also comes back.
#[test]
fn damaged_resources_are_parsed_or_refused_without_panic() {
    let damaged = || {
        let bytes = prop_oneof![
            generators::route_configuration()
                .prop_map(|routes| (ResourceType::RouteConfiguration, routes.to_proto())),
            generators::listener().prop_map(|listener| (ResourceType::Listener, listener.to_proto())),
            generators::cluster().prop_map(|cluster| (ResourceType::Cluster, cluster.to_proto())),
            generators::assignment()
                .prop_map(|assignment| (ResourceType::ClusterLoadAssignment, assignment.to_proto())),
            generators::secret().prop_map(|secret| (ResourceType::Secret, secret.to_proto())),
        ];
        (bytes, any::<prop::sample::Index>(), any::<u8>())
    };
    holds(damaged, |((kind, bytes), position, byte)| {
        let mut bytes = bytes.to_vec();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(parsed) = AnyResource::parse(kind, &bytes, &context()) {
            let again = AnyResource::parse(kind, &parsed.to_proto(), &context());
            prop_assert_eq!(again, Ok(parsed));
        }
        Ok(())
    });
}
