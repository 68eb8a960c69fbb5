//! The wired path: a cluster, its endpoints and real HTTP/2 over a simulated network, in paused time.

mod calls;
mod change;
mod describe;
mod hashing;
mod health;
mod net;
mod scale;
mod tcp;
mod tls;
