//! Talos nodes: what runs inside a virtual machine.
