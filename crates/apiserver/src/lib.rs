//! The embedded Kubernetes API server: a value that serves resources from memory and keeps them in a journal.
