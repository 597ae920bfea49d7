//! The simulated vCenter: the inventory, which is the truth, and the SOAP face it shows.
