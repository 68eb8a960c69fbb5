//! Why a resource was rejected: every fault with its path. Becomes the text of a NACK (gRFC A46).

use std::fmt;

/// One fault in a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where, in proto field names: `virtual_hosts[0].routes[2].match`. Empty for the resource itself.
    pub path: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

/// All the faults of one resource; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejected {
    /// The faults, in the order of the fields.
    pub faults: Vec<Invalid>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}
