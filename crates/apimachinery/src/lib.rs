//! Kubernetes API semantics without I/O: selectors, patches, schemas, JSONPath, tables.
