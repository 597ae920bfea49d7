//! Compiles the .proto files without protoc, so that a fresh machine needs nothing but cargo.

#![allow(clippy::print_stdout)] // how a build script speaks to cargo

use std::error::Error;

const FILES: [&str; 7] =
    ["machine.proto", "lifecycle.proto", "cluster.proto", "storage.proto", "time.proto", "security.proto", "cosi/resource.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["proto"])?;
    // Default stubs: a server implements what it models, everything else answers `Unimplemented`, as a node of another release does.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
