//! `clusterctl.cluster.x-k8s.io/v1alpha3`: clusterctl's inventory of installed providers.

use crate::object::resource;

resource! {
    /// Provider is the Schema of an installed provider.
    Provider: NamespaceResourceScope, "clusterctl.cluster.x-k8s.io" / "v1alpha3", "providers" {
        /// Name of the provider.
        provider_name: Option<String>,
        /// CoreProvider, BootstrapProvider, ControlPlaneProvider, InfrastructureProvider, IPAMProvider..
        #[serde(rename = "type")]
        r#type: Option<String>,
        /// Version.
        version: Option<String>,
        /// Namespace that it is restricted to.
        watched_namespace: Option<String>,
    }
}
