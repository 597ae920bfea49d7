//! How long things take inside a machine. Scaled as a whole; zero makes every step immediate.

use std::time::Duration;

/// Durations of a machine's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Firmware, boot loader, kernel.
    pub kernel: Duration,
    /// From the configuration to configured network links.
    pub network: Duration,
    /// From the network to system services, apid among them.
    pub services: Duration,
    /// Starting an etcd member.
    pub etcd: Duration,
    /// A learner's way to being in sync.
    pub catch_up: Duration,
    /// From a serving etcd member to an API server that answers.
    pub api_server: Duration,
    /// From an API server that answers to the node's registration.
    pub kubelet: Duration,
    /// From registration to a working pod network.
    pub cni: Duration,
    /// Pulling an image and starting a pod.
    pub pod: Duration,
    /// How much of its grace a pod takes to stop, in percent.
    pub pod_stop: u32,
    /// The cloud provider's look at its nodes.
    pub cloud_provider: Duration,
    /// Stopping everything before power goes.
    pub shutdown: Duration,
    /// How long a node may be silent before it counts as lost.
    pub node_grace: Duration,
    /// How often an unusable configuration is looked at again.
    pub retry: Duration,
}

impl Latency {
    /// Real machines' times, roughly.
    pub fn real() -> Self {
        let seconds = Duration::from_secs;
        Self {
            kernel: seconds(12),
            network: seconds(2),
            services: seconds(6),
            etcd: seconds(5),
            catch_up: seconds(8),
            api_server: seconds(20),
            kubelet: seconds(4),
            cni: seconds(15),
            pod: seconds(10),
            pod_stop: 100,
            cloud_provider: seconds(5),
            shutdown: seconds(5),
            node_grace: seconds(40),
            retry: seconds(30),
        }
    }

    /// Real times multiplied by `factor`. What waits for silence or for a person keeps its real time.
    pub fn scaled(factor: f64) -> Self {
        let mut all = Self::real();
        let factor = if factor.is_finite() { factor.max(0.0) } else { 1.0 };
        for step in [
            &mut all.kernel,
            &mut all.network,
            &mut all.services,
            &mut all.etcd,
            &mut all.catch_up,
            &mut all.api_server,
            &mut all.kubelet,
            &mut all.cni,
            &mut all.pod,
            &mut all.cloud_provider,
            &mut all.shutdown,
        ] {
            *step = step.mul_f64(factor);
        }
        // Short as a demo's times are, its pods take their whole grace: a drain is to be seen. In less than that they stop sooner.
        const DEMO: f64 = 0.1;
        if factor < DEMO {
            all.pod_stop = Duration::from_secs(100).mul_f64(factor / DEMO).as_secs().try_into().unwrap_or(100);
        }
        all
    }

    /// Everything at once.
    pub fn none() -> Self {
        Self::scaled(0.0)
    }
}
