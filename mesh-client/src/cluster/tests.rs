//! The wired path: a cluster, its endpoints and real HTTP/2 over a simulated network, in paused time.

mod aggregate;
mod calls;
mod change;
mod checks;
mod client_health;
mod describe;
mod elsewhere;
mod empty;
mod floods;
mod hashing;
mod health;
mod keepalive;
mod names;
mod net;
mod one_of_many;
mod scale;
mod session;
mod tcp;
mod tls;
mod way;
mod weighted;
mod zones;
