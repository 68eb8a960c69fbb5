//! Where the settings of an object were written, one by one: kept so that whoever is told what holds is also
//! told which line to change.

use super::read::{Map, Report};
use crate::analysis::Place;

/// The places of settings, by their path inside the block (`retries.attempts`); only those that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(Vec<(&'static str, Place)>);

impl Written {
    /// Looks these settings up.
    pub(crate) fn of(map: &Map<'_>, settings: &'static [&'static str], report: &Report) -> Self {
        let place = |position| Place { file: report.file.clone(), position };
        let found = settings.iter().filter_map(|path| Some((*path, place(map.written(path)?))));
        Self(found.collect())
    }

    /// In the order of [`mesh_xds::resource::origin`]'s lists.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        self.0.iter().map(|(setting, place)| (*setting, place))
    }

    /// Forgets a block, and takes over what another says of it.
    pub(crate) fn replace(&mut self, block: &str, by: Option<&Self>) {
        self.0.retain(|(setting, _)| !is_of(setting, block));
        let taken = by.into_iter().flat_map(|by| &by.0).filter(|(setting, _)| is_of(setting, block));
        self.0.extend(taken.cloned());
    }
}

fn is_of(setting: &str, block: &str) -> bool {
    setting.strip_prefix(block).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
