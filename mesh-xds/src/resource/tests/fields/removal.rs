//! A field counts if a resource that has it, and is accepted, is another without it: that proves what single values
//! that are made up (`fields/probe.rs`) cannot, since a parser wants sense in lists and messages.

use super::{Carrier, context};
use crate::resource::{AnyResource, Resource, ResourceType, tests::generators};
use proptest::{strategy::Strategy, strategy::ValueTree, test_runner::TestRunner};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// Of each type.
const SAMPLES: usize = 160;

/// Resources of the property tests, always the same.
pub(super) fn samples() -> Vec<(ResourceType, Vec<u8>)> {
    fn of<R: Resource>(
        runner: &mut TestRunner,
        strategy: impl Strategy<Value = R>,
    ) -> Vec<(ResourceType, Vec<u8>)> {
        let mut one = || strategy.new_tree(runner).unwrap().current().to_proto().to_vec();
        (0..SAMPLES).map(|_| (R::TYPE, one())).collect()
    }
    let all = || {
        let mut runner = TestRunner::deterministic();
        let mut all = of(&mut runner, generators::listener());
        all.extend(of(&mut runner, generators::route_configuration()));
        all.extend(of(&mut runner, generators::cluster()));
        all.extend(of(&mut runner, generators::assignment()));
        all.extend(of(&mut runner, generators::secret()));
        all
    };
    // Strategies for whole resources are built on the stack.
    std::thread::Builder::new().stack_size(16 << 20).spawn(all).unwrap().join().unwrap()
}

/// Whether a sample that has the field where the carrier has its message is another without it.
pub(super) fn counts(carrier: &Carrier, field: u32, samples: &[(ResourceType, Vec<u8>)]) -> bool {
    let of_kind = samples.iter().filter(|(kind, _)| *kind == carrier.kind).map(|(_, bytes)| bytes);
    of_kind.chain([&carrier.good]).any(|sample| {
        let less = without(sample, carrier.at, &carrier.good, field);
        less != *sample && {
            let parse = |bytes: &[u8]| AnyResource::parse(carrier.kind, bytes, &context());
            let whole = parse(sample);
            whole.is_ok() && whole != parse(&less)
        }
    })
}

/// The fields of a message: number, kind, value (of a length-delimited field without its length), all of it.
fn fields(mut left: &[u8]) -> Vec<(u32, WireType, &[u8], &[u8])> {
    let mut found = Vec::new();
    while !left.is_empty() {
        let before = left;
        let (tag, kind) = decode_key(&mut left).unwrap();
        let mut value = left;
        if kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut left).unwrap()).unwrap();
            (value, left) = left.split_at(length);
        } else {
            prost::encoding::skip_field(kind, tag, &mut left, Default::default()).unwrap();
        }
        found.push((tag, kind, value, &before[..before.len() - left.len()]));
    }
    found
}

/// The message without the field, in each message that `path` leads to and that is of the type that it leads to in
/// `good`.
fn without(message: &[u8], path: &[u32], good: &[u8], field: u32) -> Vec<u8> {
    let type_url = |message| {
        let url = fields(message).into_iter().find(|(tag, ..)| *tag == 1).map(|(_, _, value, _)| value);
        url.filter(|url| url.starts_with(b"type.googleapis.com/"))
    };
    if type_url(good) != type_url(message) {
        return message.to_vec();
    }
    let mut out = Vec::new();
    for (tag, kind, value, whole) in fields(message) {
        match path {
            [] if tag == field => {}
            [first, rest @ ..] if tag == *first => {
                let good = fields(good)
                    .into_iter()
                    .find(|(tag, ..)| tag == first)
                    .map_or(&[][..], |(_, _, value, _)| value);
                let value = without(value, rest, good, field);
                encode_key(tag, kind, &mut out);
                encode_varint(value.len() as u64, &mut out);
                out.extend(value);
            }
            _ => out.extend(whole),
        }
    }
    out
}
