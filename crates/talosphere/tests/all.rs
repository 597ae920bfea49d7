//! Tests of the whole: the workspace's shape, generated files, worlds in memory, the commands as a user types them.

mod all {
    mod arrows;
    mod bring_up;
    mod generated;
    pub mod world;
}
