//! Messages and services of the Talos machine API, client and server side, compiled from the `.proto` files beside this crate.
//!
//! The field numbers are the interface; the files are written in our own words. Nothing but generated code lives here.

/// Code that is generated is not linted.
#[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, unreachable_pub)]
mod generated {
    pub mod google {
        pub mod rpc {
            tonic::include_proto!("google.rpc");
        }
    }
    pub mod common {
        tonic::include_proto!("common");
    }
    pub mod machine {
        tonic::include_proto!("machine");
    }
    pub mod cluster {
        tonic::include_proto!("cluster");
    }
    pub mod storage {
        tonic::include_proto!("storage");
    }
    pub mod time {
        tonic::include_proto!("time");
    }
    pub mod securityapi {
        tonic::include_proto!("securityapi");
    }
    pub mod cosi {
        pub mod resource {
            tonic::include_proto!("cosi.resource");
        }
    }
}

pub use generated::{cluster, common, cosi, google, machine, securityapi, storage, time};
