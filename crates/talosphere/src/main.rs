//! One binary that turns Cluster API manifests into running Talos clusters on vSphere.

mod environment;
mod problem;
mod render;

fn main() {}
