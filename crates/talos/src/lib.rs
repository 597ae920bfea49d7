//! Talos: secrets bundle, PKI, machine configuration, patches, and the machine API's client.
