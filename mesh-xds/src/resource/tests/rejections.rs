//! What is refused, where, and with which words: (mutation, path, reason) for each type.

mod balancing;
mod cluster;
mod discovery;
mod endpoint;
mod errors;
mod expressions;
mod files;
mod filter;
mod listener;
mod route;
mod secret;
mod socket;

use super::{super::*, context};
use crate::resource as model;
use prost::{Message, Name as MessageName};

/// A change to a good message, the path of the fault that it causes, and a part of the reason.
type Case<P> = (fn(&mut P), &'static str, &'static str);

/// Each change, alone, is refused with its fault, under the resource's name.
fn refuses<R: Resource<Proto = P>, P: Message + Default + Clone>(good: &P, cases: &[Case<P>]) {
    let parse = |message: &P| R::parse(&message.encode_to_vec(), &context());
    let name = parse(good).unwrap().name().clone();
    for (i, (change, path, reason)) in cases.iter().enumerate() {
        let mut message = good.clone();
        change(&mut message);
        let error = parse(&message).expect_err(&format!("case {i} ({path}: {reason}) is accepted"));
        assert_eq!(error.name.as_ref(), Some(&name), "case {i}: {error}");
        let found =
            error.rejected.faults.iter().any(|fault| fault.path == *path && fault.reason.contains(reason));
        assert!(found, "case {i} ({path}: {reason}): {error}");
    }
}

/// Changes the message inside an `Any`.
fn within<M: Message + MessageName + Default>(
    any: Option<&mut envoy_types::pb::google::protobuf::Any>,
    change: impl FnOnce(&mut M),
) {
    let any = any.unwrap();
    let mut message = M::decode(any.value.as_slice()).unwrap();
    change(&mut message);
    any.value = message.encode_to_vec();
}

#[test]
fn a_name_is_read_though_the_rest_cannot_be() {
    // Field 1, then a field 2 that promises more than there is: of a cluster, `foo`.
    let error = Cluster::parse(b"\x0a\x03foo\x22\x02\xff\xff", &context()).unwrap_err();
    assert_eq!(error.name.as_deref(), Some("foo"), "{error}");
    let small = ParseContext { max_size: 3, ..context() };
    let error = Cluster::parse(b"\x0a\x03foo", &small).unwrap_err();
    assert_eq!(error.to_string(), "foo: 5 bytes are more than the limit of 3");
    assert_eq!(Cluster::parse(b"", &context()).unwrap_err().name, None);
}
