//! Where a resource was written, for whoever asks why: each setting with its own line, to our own clients.
//! Others would carry it for nothing; they get the object's place alone.

use super::Compiler;
use crate::{analysis::Place, model::ObjectId};
use mesh_xds::resource::Origin;

impl Compiler<'_> {
    pub(super) fn origin(
        &self,
        place: &Place,
        object: &ObjectId,
        settings: impl Iterator<Item = (String, Place)>,
    ) -> Origin {
        let place = format!("{place} {object}");
        if !self.client.is_mesh() {
            return place.as_str().into();
        }
        Origin::new(place, settings.map(|(setting, place)| (setting, place.to_string())))
    }
}

#[cfg(test)]
mod tests;
