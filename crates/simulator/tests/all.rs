//! The simulator over its own faces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods)]

#[path = "../../../referees/referee.rs"]
mod referee;
#[path = "all/vcenter/mod.rs"]
mod vcenter;
