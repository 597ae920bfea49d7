#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
//! The client against the simulated vCenter, in memory, on paused time.

mod calls;
mod errors;
#[path = "../../../../referees/referee.rs"]
mod referee;
mod sessions;
mod updates;
mod vcsim;
mod world;
