//! Tests of the whole: the workspace's shape, generated files, worlds in memory, the commands as a user types them.

mod arrows;
mod bring_up;
mod world;
