//! The simulation engine: whole worlds on paused time, each from one seed, in which everything that can go wrong does.
//!
//! ```text
//! seed -> history (a cluster, what its user does, what fails) -> world (simulator, API server, controllers) -> canonical log
//!                                                                  |-> rule checker, after every event      -> outcome
//! ```
//! Everything above the wires is the product. The tests use the same worlds. Nothing here is reached from the product's commands: this is
//! the one place outside of tests that makes seeded sources, and it must never hand one to anything but a world.

mod act;
mod cli;
mod coverage;
mod fault;
mod history;
mod line;
mod player;
mod pulse;
mod requests;
pub mod scenario;
mod shrink;
mod sources;
mod watch;
mod world;

pub use act::{Act, Which};
pub use cli::{find, main};
pub use coverage::Coverage;
pub use fault::{Fault, How, Wrong};
pub use history::{History, Moment, Scenario, Shape, What};
pub use line::Line;
pub use player::{Outcome, SETTLING, play};
pub use pulse::Pulse;
pub use requests::Requests;
pub use shrink::shrink;
pub use watch::Watch;
pub use world::{BEGINNING, PATIENCE, Setup, World, run};
