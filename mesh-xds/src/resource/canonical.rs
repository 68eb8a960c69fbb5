//! One encoding for equal messages: map entries in order of their bytes.
//!
//! A protobuf map has no order, and the generated types keep theirs in hash maps. Versions are hashes of
//! bytes, so the entries of every map are sorted after encoding. Where the maps are is said by [`Shape`]s.

/// Where the maps of a message are.
pub(super) struct Shape(pub(super) &'static [(u32, Inside)]);

/// What a field holds.
pub(super) enum Inside {
    /// A message with maps inside.
    Message(&'static Shape),
    /// A map whose values have no maps inside.
    Map,
    /// A map of messages with maps inside.
    MapOf(&'static Shape),
}

/// `google.protobuf.Struct`, as deep as we write it.
pub(super) static STRUCT: Shape = Shape(&[(1, Inside::MapOf(&VALUE))]);
static VALUE: Shape = Shape(&[(5, Inside::Message(&FLAT_STRUCT))]);
static FLAT_STRUCT: Shape = Shape(&[(1, Inside::Map)]);

/// `envoy.config.core.v3.Metadata`
pub(super) static METADATA: Shape = Shape(&[(1, Inside::MapOf(&STRUCT)), (2, Inside::Map)]);

const LENGTH_DELIMITED: u64 = 2;

/// The same message with the entries of its maps in order. Bytes that are no message are kept as they are.
pub(super) fn sorted(message: &[u8], shape: &Shape) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    if shape.0.is_empty() || walk(message, shape, &mut out).is_none() {
        return message.to_vec();
    }
    out
}

fn walk(mut rest: &[u8], shape: &Shape, out: &mut Vec<u8>) -> Option<()> {
    // The entries of the map that is being read: a message's fields are encoded field after field.
    let mut map: (u64, Vec<Vec<u8>>) = (0, Vec::new());
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        if key & 7 != LENGTH_DELIMITED {
            skip(key & 7, &mut rest)?;
            flush(&mut map, out);
            out.extend_from_slice(&start[..start.len() - rest.len()]);
            continue;
        }
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let value = rest.get(..length)?;
        rest = &rest[length..];
        let inside =
            shape.0.iter().find(|(field, _)| u64::from(*field) == key >> 3).map(|(_, inside)| inside);
        let entry = match inside {
            None => {
                flush(&mut map, out);
                out.extend_from_slice(&start[..start.len() - rest.len()]);
                continue;
            }
            Some(Inside::Message(shape)) => {
                flush(&mut map, out);
                write(key, &sorted(value, shape), out);
                continue;
            }
            Some(Inside::Map) => value.to_vec(),
            Some(Inside::MapOf(shape)) => sorted_value(value, shape)?,
        };
        if map.0 != key {
            flush(&mut map, out);
            map.0 = key;
        }
        map.1.push(entry);
    }
    flush(&mut map, out);
    Some(())
}

/// A map entry, its value (field 2) sorted inside.
fn sorted_value(mut entry: &[u8], shape: &Shape) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(entry.len());
    while !entry.is_empty() {
        let key = varint(&mut entry)?;
        if key & 7 != LENGTH_DELIMITED {
            return None;
        }
        let length = usize::try_from(varint(&mut entry)?).ok()?;
        let value = entry.get(..length)?;
        entry = &entry[length..];
        if key >> 3 == 2 { write(key, &sorted(value, shape), &mut out) } else { write(key, value, &mut out) }
    }
    Some(out)
}

fn flush(map: &mut (u64, Vec<Vec<u8>>), out: &mut Vec<u8>) {
    let (key, mut entries) = std::mem::take(map);
    entries.sort();
    for entry in entries {
        write(key, &entry, out);
    }
}

fn write(key: u64, value: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(key, out);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

/// Skips a value that is not length-delimited; groups are not in proto3.
fn skip(wire_type: u64, rest: &mut &[u8]) -> Option<()> {
    match wire_type {
        0 => varint(rest).map(drop),
        1 => rest.get(8..).map(|after| *rest = after),
        5 => rest.get(4..).map(|after| *rest = after),
        _ => None,
    }
}
