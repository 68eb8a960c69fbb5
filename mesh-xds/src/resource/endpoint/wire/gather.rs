//! The localities of one priority, as they come: each costs the same, however many there are before it.

use super::{
    super::{LocalityEndpoints, Priority},
    Place,
};
use crate::{
    field_path::{Faults, Path},
    resource::Locality,
};
use std::collections::{HashMap, hash_map::Entry};

/// What came so far.
pub(super) struct Gathered<A> {
    pub(super) priority: Priority<A>,
    places: HashMap<Locality, Known>,
    /// Of the localities together; 32 bits when nothing is wrong.
    weight: u64,
}

/// A locality that came.
struct Known {
    /// Among those of the priority.
    index: usize,
    /// Of its endpoints together, where more can come.
    weight: u64,
}

impl<A> Default for Gathered<A> {
    fn default() -> Self {
        Self { priority: Priority { localities: Vec::new() }, places: HashMap::new(), weight: 0 }
    }
}

impl<A> Gathered<A> {
    pub(super) fn add(
        &mut self,
        locality: LocalityEndpoints<A>,
        place: Place,
        at: &Path<'_>,
        faults: &mut Faults,
    ) {
        let most = u64::from(u32::MAX);
        let weight: u64 = locality.endpoints.iter().map(|endpoint| u64::from(endpoint.weight.get())).sum();
        let vacant = match self.places.entry(locality.locality.clone()) {
            Entry::Occupied(_) if place == Place::Discovered => {
                faults.reject::<()>(&at.field("locality"), "stands twice in one priority");
                return;
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                self.priority.localities[known.index].endpoints.extend(locality.endpoints);
                known.weight += weight;
                if known.weight > most {
                    faults.reject::<()>(at, "the weights of the locality sum to more than 4294967295");
                }
                return;
            }
            Entry::Vacant(vacant) => vacant,
        };
        self.weight += u64::from(locality.weight.get());
        if self.weight > most {
            let at = at.field("load_balancing_weight");
            faults.reject::<()>(&at, "the weights of the priority sum to more than 4294967295");
        }
        vacant.insert(Known { index: self.priority.localities.len(), weight });
        self.priority.localities.push(locality);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::endpoint::Endpoint;
    use std::{num::NonZeroU32, sync::Arc};

    fn locality(region: &str, weight: u32, endpoints: &[u32]) -> LocalityEndpoints<()> {
        let endpoint = |weight: &u32| {
            let weight = NonZeroU32::new(*weight).unwrap();
            Arc::new(Endpoint { weight, ..Endpoint::new(()) })
        };
        LocalityEndpoints {
            locality: Locality { region: region.into(), ..Locality::default() },
            weight: NonZeroU32::new(weight).unwrap(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn faults(faults: Faults) -> Vec<String> {
        faults
            .into_rejected()
            .faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.path, fault.reason))
            .collect()
    }

    /// As many as 1 MiB holds. What looked at all that came before would not come to an end.
    #[test]
    fn localities_may_be_many() {
        const MANY: u32 = 80_000;
        let (mut gathered, mut found) = (Gathered::default(), Faults::default());
        for i in 0..MANY {
            gathered.add(
                locality(&i.to_string(), 1, &[1]),
                Place::Discovered,
                &Path::ROOT.index(i as usize),
                &mut found,
            );
        }
        assert!(found.is_empty());
        assert_eq!((gathered.priority.localities.len(), gathered.weight), (MANY as usize, MANY.into()));
        assert_eq!(&*gathered.priority.localities[7].locality.region, "7", "in their order");
        let at = Path::ROOT;
        gathered.add(locality("79999", 1, &[1]), Place::Discovered, &at.field("last"), &mut found);
        gathered.add(locality("x", u32::MAX - MANY, &[]), Place::Discovered, &at, &mut found);
        gathered.add(locality("y", 1, &[]), Place::Discovered, &at.field("heavy"), &mut found);
        let too_heavy =
            "heavy.load_balancing_weight: the weights of the priority sum to more than 4294967295";
        assert_eq!(faults(found), ["last.locality: stands twice in one priority", too_heavy]);
    }

    #[test]
    fn entries_of_one_locality_may_be_many() {
        const MANY: u32 = 80_000;
        let (mut gathered, mut found) = (Gathered::default(), Faults::default());
        for _ in 0..MANY {
            gathered.add(locality("a", 1, &[2, 3]), Place::Inline, &Path::ROOT, &mut found);
            gathered.add(locality("b", 1, &[1]), Place::Inline, &Path::ROOT, &mut found);
        }
        let at = Path::ROOT;
        gathered.add(locality("a", 1, &[u32::MAX - 5 * MANY]), Place::Inline, &at, &mut found);
        assert!(found.is_empty());
        let lengths = gathered.priority.localities.iter().map(|locality| locality.endpoints.len());
        assert_eq!(lengths.collect::<Vec<_>>(), [2 * MANY as usize + 1, MANY as usize]);
        assert_eq!(gathered.weight, 2);
        gathered.add(locality("a", 1, &[1]), Place::Inline, &at.field("last"), &mut found);
        assert_eq!(faults(found), ["last: the weights of the locality sum to more than 4294967295"]);
    }
}
