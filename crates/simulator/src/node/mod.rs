//! Simulated Talos machines: what runs inside the virtual machines of the simulated vCenter.
//!
//! A machine knows what its virtual hardware, its disk and its `guestinfo` variables say, and nothing else. It takes versions,
//! certificates, addresses and names from the configuration it received, as a real node does.

pub mod configuration;
pub mod etcd;
pub mod guestinfo;
pub mod latency;
pub mod links;
pub mod release;
#[cfg(test)]
pub(crate) mod test_support;
