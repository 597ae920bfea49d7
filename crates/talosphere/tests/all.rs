//! Tests of the whole: the workspace's shape, generated files, the commands as a user types them.

mod arrows;
