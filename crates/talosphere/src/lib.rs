//! One binary that turns Cluster API manifests into running Talos clusters on vSphere.

mod apply;
mod cli;
mod environment;
mod output;
mod problem;
mod render;
mod state;
mod tree;

fn main() {}
