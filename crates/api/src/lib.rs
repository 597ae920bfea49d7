//! Resource types of Cluster API, its Talos, vSphere and IPAM providers: schemas, conversion, defaults, validation.
