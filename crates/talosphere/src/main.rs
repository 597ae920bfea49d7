//! One binary that turns Cluster API manifests into running Talos clusters on vSphere.
fn main() {}
