//! Messages and services of the Talos machine API.
