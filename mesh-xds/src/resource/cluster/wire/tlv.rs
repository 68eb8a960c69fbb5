//! What else a header of the PROXY protocol says, to and from protobuf: of a cluster, and of an endpoint of its own.

use crate::{
    field_path::{Faults, Path},
    resource::{cluster::Tlv, wire},
};
use envoy_types::pb::envoy::config::core::v3::TlvEntry;
use std::sync::Arc;

pub(in crate::resource) fn parse(
    entries: &[TlvEntry],
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Arc<[Tlv]>> {
    let tlvs = wire::every(entries, at, faults, entry)?;
    if tlvs.iter().map(Tlv::len).sum::<usize>() > Tlv::MOST {
        return faults.reject(at, format_args!("must be at most {} bytes together", Tlv::MOST));
    }
    Some(tlvs.into())
}

fn entry(entry: &TlvEntry, at: &Path<'_>, faults: &mut Faults) -> Option<Tlv> {
    if entry.format_string.is_some() {
        let reason = "is not supported: there is no request yet that could be formatted; write a value";
        faults.reject::<()>(&at.field("format_string"), reason);
    }
    let kind = match u8::try_from(entry.r#type) {
        Ok(kind) => Some(kind),
        Err(_) => faults.reject(&at.field("type"), format_args!("{} must be less than 256", entry.r#type)),
    };
    if entry.value.is_empty() {
        return faults.reject(&at.field("value"), "must not be empty");
    }
    Some(Tlv { kind: kind?, value: Arc::from(entry.value.as_slice()) })
}

pub(in crate::resource) fn proto(tlvs: &[Tlv]) -> Vec<TlvEntry> {
    let entry =
        |tlv: &Tlv| TlvEntry { r#type: tlv.kind.into(), value: tlv.value.to_vec(), ..TlvEntry::default() };
    tlvs.iter().map(entry).collect()
}
