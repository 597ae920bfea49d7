//! From the seams to what controllers are handed.

use std::sync::Arc;

use controllers::Context;
use controllers::workload::{Accessor, Parts};
use runtime::reconcile::{HealthReport, Stores};
use talos::client::grpc::GrpcDialer;
use tokio_util::sync::CancellationToken;
use vsphere::{Registry, Transport, Verification};

use super::Work;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::{INSTALLATION, RESTORE, StateDirectory};

/// The id that marks this installation's VMs: that of the store, which it was drawn with. The file beside the store tells a store that was
/// replaced: with another id, every machine that is there would be somebody else's.
///
/// # Errors
/// When it cannot be written, or the store is not the one that belongs here.
pub fn installation(directory: &StateDirectory, store: &str, work: &Work) -> Result<String, Problem> {
    match directory.read_if_there(INSTALLATION)?.map(|text| text.trim().to_owned()) {
        Some(id) if id == store => {}
        Some(id) => {
            return Err(Problem::new(
                Code::StateUnusable,
                format!("the store in {} is not the one of this installation", directory.path().display()),
            )
            .because(format!("the store has the id {store}, the file {INSTALLATION} the id {id:?}"))
            .remedy(RESTORE));
        }
        None if matches!(work, Work::Look) => {}
        None => drop(directory.write(INSTALLATION, store)?),
    }
    Ok(store.to_owned())
}

/// The vCenters of this process.
pub fn vcenters(seams: &Seams, installation: &str) -> Registry {
    let transport = Transport {
        dialer: seams.dialer.clone(),
        tls: seams.tls.clone(),
        user_agent: format!("talosphere/{} (installation {installation})", env!("CARGO_PKG_VERSION")),
    };
    let insecure = seams.environment.non_empty("VSPHERE_INSECURE").is_some_and(|value| matches!(value, "1" | "true"));
    Registry::new(transport, Verification { authorities: Vec::new(), is_insecure: insecure }, &seams.clock, &seams.random)
}

/// The way to nodes.
pub fn nodes(seams: &Seams) -> GrpcDialer {
    GrpcDialer::new(seams.dialer.clone(), seams.tls.clone())
}

/// What controllers are handed.
pub fn context(seams: &Seams, client: kube::Client, installation: String, token: &CancellationToken) -> Context {
    let stores = Stores::new(client.clone(), seams.clock.clone(), &seams.random, token.clone());
    let workload = Accessor::new(Parts {
        stores: stores.clone(),
        random: seams.random.child("controllers"),
        log: seams.log.clone(),
        tls: seams.tls.clone(),
        dialer: seams.dialer.clone(),
        token: token.clone(),
    });
    Context {
        client,
        stores,
        clock: seams.clock.clone(),
        random: seams.random.child("controllers"),
        log: seams.log.clone(),
        defects: seams.defects.clone(),
        keys: seams.keys.clone(),
        vcenters: Arc::new(vcenters(seams, &installation)),
        talos: Arc::new(nodes(seams)),
        workload: Arc::new(workload),
        workload_proxy: seams.proxy.clone(),
        installation_id: installation,
    }
}

/// A controller's health as `/readyz` shows it.
///
/// # Errors
/// What is not ready.
pub fn readiness(report: &HealthReport) -> Result<(), String> {
    if !report.is_running {
        return Err("waiting for its first look at the objects".to_owned());
    }
    Ok(())
}
