//! What `resource/fields` says of each field is so.

use super::{
    super::fields::{self, Message, Row, SECTIONS, State, extension::*, filter::*, listener::*, route::*},
    AnyResource, ParseContext, ParseError, ResourceType, Support, context,
};
use crate::resource as model;
use envoy_types::pb::envoy::{
    config::{
        core::v3::HttpProtocolOptions,
        listener::v3 as listener,
        route::v3::{
            self as route, RetryPolicy,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeader, RetryBackOff, RetryHostPredicate, RetryPriority,
                retry_priority,
            },
        },
    },
    extensions::{
        filters::network::http_connection_manager::v3 as hcm,
        retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
};
use fields::probe::Known;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::collections::{BTreeMap, BTreeSet};

mod accepted;
mod carriers;
mod clusters;
mod removal;

/// A good resource with a message in it.
struct Carrier {
    message: &'static Message,
    kind: ResourceType,
    good: Vec<u8>,
    /// Field numbers that lead to the message.
    at: &'static [u32],
}

/// The encoded message with `extra` at the end of the message that `path` leads to, by the first field of
/// each number. A message that is missing on the way is added.
fn with(message: &[u8], path: &[u32], extra: &[u8]) -> Vec<u8> {
    let [first, rest @ ..] = path else { return [message, extra].concat() };
    let (mut out, mut left, mut done) = (Vec::new(), message, false);
    while !left.is_empty() {
        let before = left;
        let (tag, kind) = decode_key(&mut left).unwrap();
        if kind != WireType::LengthDelimited {
            prost::encoding::skip_field(kind, tag, &mut left, Default::default()).unwrap();
            out.extend_from_slice(&before[..before.len() - left.len()]);
            continue;
        }
        let length = usize::try_from(decode_varint(&mut left).unwrap()).unwrap();
        let (value, after) = left.split_at(length);
        left = after;
        let value = if tag == *first && !done { with(value, rest, extra) } else { value.to_vec() };
        done |= tag == *first;
        encode_key(tag, kind, &mut out);
        encode_varint(value.len() as u64, &mut out);
        out.extend(value);
    }
    if !done {
        // Empty so far, and so not encoded.
        let value = with(&[], rest, extra);
        encode_key(*first, WireType::LengthDelimited, &mut out);
        encode_varint(value.len() as u64, &mut out);
        out.extend(value);
    }
    out
}

#[test]
fn every_field_of_every_message_is_said_something_of() {
    for section in SECTIONS {
        for message in section.messages {
            let mut known: Vec<_> = (message.known)().into_iter().map(|known| known.name).collect();
            let mut said: Vec<_> = message.fields().map(|(field, _)| field.to_owned()).collect();
            known.sort();
            said.sort();
            assert_eq!(said, known, "{} {}", (message.name)(), message.used);
        }
    }
}

#[test]
fn every_message_has_a_carrier() {
    let carried: Vec<*const Message> =
        carriers::all().iter().map(|c| std::ptr::from_ref(c.message)).collect();
    for message in SECTIONS.iter().flat_map(|section| section.messages) {
        assert!(carried.contains(&std::ptr::from_ref(*message)), "{} {}", (message.name)(), message.used);
    }
}

/// The outcome of a resource whose field is set, for each value of it.
fn outcomes(
    carrier: &Carrier,
    known: &Known,
    context: &ParseContext,
) -> Vec<Result<AnyResource, ParseError>> {
    let set = known.set.iter();
    set.map(|value| AnyResource::parse(carrier.kind, &with(&carrier.good, carrier.at, value), context))
        .collect()
}

/// What is wrong with a row, if anything.
fn wrong(carrier: &Carrier, known: &Known, row: &Row, samples: &[(ResourceType, Vec<u8>)]) -> Option<String> {
    let good = AnyResource::parse(carrier.kind, &carrier.good, &context());
    assert!(good.is_ok(), "{}: {good:?}", (carrier.message.name)());
    let found = outcomes(carrier, known, &context());
    // A refusal proves that a field is read, and not that any value of it is taken.
    let inert = || {
        let name = (carrier.message.name)();
        let field = decode_key(&mut known.set[0].as_slice()).unwrap().0;
        let is_taken = found.iter().any(|outcome| outcome.is_ok() && *outcome != good)
            || accepted::ELSEWHERE.contains(&(name.rsplit('.').next().unwrap(), &known.name))
            || removal::counts(carrier, field, samples);
        let refused = found.iter().find(|outcome| **outcome != good);
        (!is_taken).then(|| match refused {
            None => "changes nothing".to_owned(),
            refused => format!("no value is taken and makes a difference: {refused:?}"),
        })
    };
    match row.state {
        State::Supported | State::Carried | State::Fails => inert(),
        State::Ignored => {
            let changed = found.iter().find(|outcome| **outcome != good)?;
            Some(format!("changes something: {changed:?}"))
        }
        State::Rejected => {
            let named = |outcome: &Result<AnyResource, ParseError>| {
                outcome.as_ref().is_err_and(|error| {
                    error.rejected.faults.iter().any(|fault| {
                        fault.path.contains(&known.name)
                            && ["supported", "must "].iter().any(|word| fault.reason.contains(word))
                    })
                })
            };
            let problem = || format!("is not refused by its name: {:?}", found.first());
            (!found.iter().any(named)).then(problem)
        }
        State::Needs(feature) => {
            let others: Vec<_> = Support::all().iter().filter(|other| *other != feature).collect();
            let lacking = ParseContext { support: Support::of(&others), ..context() };
            let without = outcomes(carrier, known, &lacking);
            if let Some(problem) = inert() {
                return Some(problem);
            }
            (found == without).then(|| "is the same without the feature".to_owned())
        }
    }
}

/// Of a message with several carriers, such as one of clients and of servers, each has to be left as it is or refused;
/// one has to show that a value is taken.
#[test]
fn what_is_said_of_a_field_is_so() {
    let mut problems = BTreeMap::<_, Vec<_>>::new();
    let mut shown = BTreeSet::new();
    let samples = [accepted::samples(), removal::samples()].concat();
    for carrier in carriers::all() {
        let known: BTreeMap<_, _> =
            (carrier.message.known)().into_iter().map(|known| (known.name.clone(), known)).collect();
        for (field, row) in carrier.message.fields() {
            let name = (carrier.message.name)();
            if carriers::PROVEN_ELSEWHERE.contains(&(name.rsplit('.').next().unwrap(), field)) {
                continue;
            }
            let Some(known) = known.get(field) else { continue };
            let key = (name, carrier.message.used, field);
            match wrong(&carrier, known, row, &samples) {
                None if matches!(row.state, State::Ignored | State::Rejected) => {}
                None => drop(shown.insert(key)),
                Some(problem) => {
                    problems.entry(key).or_default().push(format!("({:?}): {problem}", row.state))
                }
            }
        }
    }
    problems.retain(|key, _| !shown.contains(key));
    assert!(problems.is_empty(), "{} fields:\n{problems:#?}", problems.len());
}
