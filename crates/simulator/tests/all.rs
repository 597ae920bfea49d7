//! The simulator over its own faces.

#[path = "all/vcenter/mod.rs"]
mod vcenter;
