//! vCenter client and the operations on it: inventory, clone, power, property updates, destroy.
