//! What a controller is handed: the API, the seams, and the ways to vCenter, Talos and workload clusters.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::KeySource;
use runtime::log::Log;
use runtime::random::Random;
use runtime::reconcile::{Controller, Reconciler, Recorder, Stores};
use tokio_util::sync::CancellationToken;

use crate::Started;
use crate::contract::Externals;
use crate::workload::Clusters;

/// Everything from outside that controllers use. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The management API.
    pub client: kube::Client,
    /// The stores over `client`: one watch per kind in this process.
    pub stores: Stores,
    pub clock: Clock,
    pub random: Random,
    pub log: Log,
    pub defects: Defects,
    pub keys: Arc<dyn KeySource>,
    /// The vCenters: one session for each server and account.
    pub vcenters: Arc<dyn vsphere::VCenters>,
    /// The way to nodes' Talos API.
    pub talos: Arc<dyn talos::client::TalosDialer>,
    /// The way to workload clusters.
    pub workload: Arc<dyn Clusters>,
    /// An HTTP proxy into the machines' network, which kubeconfigs of workload clusters carry as `proxy-url`.
    pub workload_proxy: Option<String>,
    /// Names this installation in the ownership marker of VMs.
    pub installation_id: String,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("installation_id", &self.installation_id).finish_non_exhaustive()
    }
}

/// The context, and what controllers of one process share besides.
#[derive(Clone)]
pub struct Wiring {
    context: Context,
    /// Objects of other providers, by reference.
    pub externals: Externals,
    /// Records events; [`Recorder::of`] names the speaker (`machine-controller`).
    pub recorder: Recorder,
    /// Ends everything.
    pub token: CancellationToken,
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").finish_non_exhaustive()
    }
}

impl Deref for Wiring {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl Wiring {
    /// Must be called in a runtime.
    pub fn new(context: Context, token: CancellationToken) -> Self {
        let recorder = Recorder::start(context.client.clone(), "talosphere", &context.clock, &context.log, token.clone());
        let externals = Externals::new(context.stores.clone());
        Self { context, externals, recorder, token }
    }

    /// A controller called `name` over the store of its kind.
    pub fn controller<R: Reconciler>(&self, name: &str, reconciler: R) -> Controller<R>
    where
        <R::Kind as kube::Resource>::DynamicType: Default,
    {
        Controller::new(name, reconciler, &self.stores, &self.random, &self.log)
    }

    /// Makes a wired controller ready to run.
    pub fn started<R: Reconciler>(&self, controller: Controller<R>) -> Started {
        let health = controller.health();
        Started { health, run: Box::pin(controller.run(self.token.clone())) }
    }
}
