//! Messages of vCenter's SOAP API, one codec for both sides.
//!
//! [`xml`] is the tree, [`soap`] the envelope and faults, [`method`] the methods with their data objects. Reading is lenient (a newer server's members are
//! passed over; what varies keeps its raw form), writing keeps the order of the API's schema; [`value::read_strictly`] is for servers that mind the order.

#[macro_use]
mod macros;

pub mod device;
pub mod fault;
pub mod machine;
pub mod method;
pub mod property;
pub mod service;
pub mod soap;
pub mod value;
pub mod xml;

pub use device::{DeviceBacking, VirtualDevice, VirtualDeviceConfigSpec};
pub use fault::{LocalizedMethodFault, MethodFault};
pub use method::{Method, Request, Response};
pub use soap::{Envelope, Fault};
pub use value::{AnyValue, DecodeError, ManagedObjectReference, Value};
pub use xml::Element;
