//! Tests of the whole: the workspace's shape, generated files, worlds in memory, the commands as a user types them.
#![allow(clippy::disallowed_methods)] // tests read the environment and the clock
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod all {
    mod addresses;
    mod answers;
    mod arrows;
    mod bring_up;
    mod control_planes;
    mod day2;
    mod defects;
    mod deletion;
    mod demo;
    mod drains;
    mod explore;
    mod generated;
    mod handover;
    mod healing;
    mod inputs;
    mod journey;
    mod kills;
    mod kubectl;
    mod process;
    #[path = "../../../../referees/referee.rs"]
    mod referee;
    mod repair;
    mod restarts;
    mod rollouts;
    mod scenarios;
    mod state;
    mod transcript;
    mod upgrade;
    pub mod world;
}
