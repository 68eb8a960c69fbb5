//! What the mesh costs a call: the parts that the timing binary, the counting binary and the test of
//! allocations share.
//!
//! Every arm is the same generated client calling the same method with the same bytes; only what is between
//! the client and the socket differs. Windows of the arms alternate in one process, so that what happens to
//! the machine happens to all of them, and only ratios of neighbouring windows are reported as differences.
//! One arm is there twice: how far the second strays from the first is what the run cannot tell apart.

pub mod arm;
pub mod compare;
pub mod count;
pub mod hosts;
pub mod instructions;
pub mod pin;
pub mod process;
pub mod raw;
pub mod scale;
pub mod server;
pub mod stats;
pub mod stream;
pub mod window;
pub mod world;

/// Why something could not be measured.
pub type Failure = Box<dyn std::error::Error>;
/// What was wanted, or why there is none.
pub type Outcome<T = ()> = Result<T, Failure>;
