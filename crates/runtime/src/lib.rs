//! The seams through which the outside comes in: time, randomness, keys, the network; and the loop that drives controllers.
//!
//! No other crate reads a clock, opens a socket or draws a random number. In the product these seams are the machine's own; in a
//! simulated run they are tokio's paused clock, one seed and in-memory streams, so that a run replays exactly.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

pub mod clock;
pub mod defects;
pub mod http;
pub mod keys;
pub mod log;
pub mod net;
pub mod pem;
pub mod random;
pub mod reconcile;
pub mod tls;
pub mod x509;
