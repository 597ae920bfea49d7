//! Everything from outside that commands use, put together once: clock, randomness, keys, network, environment, terminal.

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::{Generator, KeySource};
use runtime::log::Log;
use runtime::net::{Dialer, ProxyDialer, TcpDialer};
use runtime::random::Random;
use runtime::tls::Tls;

use crate::environment::Environment;
use crate::output::Printer;
use crate::problem::{Code, Problem};

/// The seams of one process, or of one simulated run.
#[derive(Clone, Debug)]
pub struct Seams {
    pub clock: Clock,
    pub random: Random,
    pub log: Log,
    pub defects: Defects,
    pub keys: Arc<dyn KeySource>,
    pub tls: Tls,
    /// The way to vCenter, to nodes and to workload clusters.
    pub dialer: Arc<dyn Dialer>,
    /// The proxy in that way, as kubeconfigs of workload clusters carry it.
    pub proxy: Option<String>,
    pub environment: Environment,
    pub printer: Printer,
}

impl Seams {
    /// The machine's own. `TALOSPHERE_PROXY` names an HTTP proxy to the VM network and vCenter, such as a bastion host's.
    ///
    /// # Errors
    /// When the operating system gives no randomness, or the proxy's URL is malformed.
    pub fn of_process() -> Result<Self, Problem> {
        let environment = Environment::of_process();
        let clock = Clock::system();
        let random = Random::system()
            .map_err(|error| Problem::new(Code::Internal, "no randomness from the operating system").because(error.to_string()))?;
        let proxy = environment.non_empty("TALOSPHERE_PROXY").map(str::to_owned);
        let dialer: Arc<dyn Dialer> = match &proxy {
            None => Arc::new(TcpDialer),
            Some(url) => {
                let proxy = ProxyDialer::parse(url).map_err(|error| {
                    // The URL may hold a password.
                    Problem::new(Code::Network, "TALOSPHERE_PROXY cannot be used")
                        .because(error.to_string())
                        .remedy("export TALOSPHERE_PROXY=http://host:port, or http://user:password@host:port")
                })?;
                Arc::new(proxy)
            }
        };
        Ok(Self {
            log: Log::passing(clock.clone()),
            keys: Arc::new(Generator::new(random.child("keys"))),
            tls: Tls::real(clock.clone()),
            printer: Printer::standard(clock.clone(), &environment),
            defects: Defects::none(),
            clock,
            random,
            dialer,
            proxy,
            environment,
        })
    }
}
