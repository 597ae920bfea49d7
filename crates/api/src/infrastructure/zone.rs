//! VSphereFailureDomain and VSphereDeploymentZone: places where machines fail together.

use crate::infrastructure::{DhcpOverrides, ReadyStatus};
use crate::meta::ContractReference;
use crate::object::{object, resource, words};

resource! {
    /// VSphereFailureDomain is the Schema of a place where machines fail together.
    VSphereFailureDomain: ClusterResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vspherefailuredomains" {
        /// The place.
        spec: VSphereFailureDomainSpec,
    }
}

object! {
    /// A place where machines fail together.
    pub struct VSphereFailureDomainSpec {
        /// Region.
        pub region: FailureDomainTag,
        /// What the place consists of.
        pub topology: Topology,
        /// Zone.
        pub zone: FailureDomainTag,
    }
    required ["region", "topology", "zone"]
}

words! {
    /// What a tag is attached to.
    pub enum FailureDomainType {
        /// A datacenter.
        Datacenter = "Datacenter",
        /// A cluster of hosts.
        ComputeCluster = "ComputeCluster",
        /// A group of hosts.
        HostGroup = "HostGroup",
    }
}

object! {
    /// A region or zone by its tag.
    pub struct FailureDomainTag {
        /// Name of the tag.
        #[schemars(length(min = 1, max = 1024))]
        pub name: String,
        /// Category of the tag.
        #[schemars(length(min = 1, max = 1024))]
        pub tag_category: String,
        /// What the tag is attached to.
        #[serde(rename = "type")]
        pub type_: FailureDomainType,
    }
    required ["name", "tagCategory", "type"]
}

object! {
    /// What a failure domain consists of.
    pub struct Topology {
        /// Cluster of hosts.
        #[schemars(length(min = 1, max = 2048))]
        pub compute_cluster: Option<String>,
        /// Datacenter.
        #[schemars(length(min = 1, max = 2048))]
        pub datacenter: String,
        /// Datastore.
        #[schemars(length(min = 1, max = 2048))]
        pub datastore: Option<String>,
        /// Groups of hosts and of machines.
        pub hosts: Option<FailureDomainHosts>,
        /// Networks with their settings.
        #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["networkName"]))]
        pub network_configurations: Vec<NetworkConfiguration>,
        /// Networks.
        #[schemars(length(max = 128), inner(length(min = 1, max = 2048)))]
        pub networks: Vec<String>,
    }
    required ["datacenter"]
}

object! {
    /// Groups of hosts and of machines.
    pub struct FailureDomainHosts {
        /// Group of hosts.
        #[schemars(length(min = 1, max = 2048))]
        pub host_group_name: String,
        /// Group of machines.
        #[schemars(length(min = 1, max = 2048))]
        pub vm_group_name: String,
    }
    required ["hostGroupName", "vmGroupName"]
}

object! {
    /// A network with its settings.
    pub struct NetworkConfiguration {
        /// Pools that addresses come from.
        #[schemars(length(max = 128))]
        pub addresses_from_pools: Vec<ContractReference>,
        /// DHCP for IPv4.
        pub dhcp4: Option<bool>,
        /// What DHCP for IPv4 may set.
        pub dhcp4_overrides: Option<DhcpOverrides>,
        /// DHCP for IPv6.
        pub dhcp6: Option<bool>,
        /// What DHCP for IPv6 may set.
        pub dhcp6_overrides: Option<DhcpOverrides>,
        /// DNS servers.
        #[schemars(length(max = 128), inner(length(min = 1, max = 64)))]
        pub nameservers: Vec<String>,
        /// The network.
        #[schemars(length(min = 1, max = 2048))]
        pub network_name: String,
        /// DNS search domains.
        #[schemars(length(max = 128), inner(length(min = 1, max = 1024)))]
        pub search_domains: Vec<String>,
    }
    required ["networkName"]
}

resource! {
    /// VSphereDeploymentZone is the Schema of a failure domain that machines may be put in.
    VSphereDeploymentZone: ClusterResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vspheredeploymentzones" {
        /// What is wanted.
        spec: VSphereDeploymentZoneSpec,
        /// What was observed.
        status: Option<ReadyStatus>,
    }
}

object! {
    /// A failure domain that machines may be put in.
    pub struct VSphereDeploymentZoneSpec {
        /// Control planes may be put there.
        pub control_plane: Option<bool>,
        /// The failure domain.
        #[schemars(length(min = 1, max = 253))]
        pub failure_domain: String,
        /// Where in it.
        pub placement_constraint: PlacementConstraint,
        /// vCenter.
        #[schemars(length(min = 1, max = 1024))]
        pub server: Option<String>,
    }
    required ["failureDomain"]
}

object! {
    /// Where in a failure domain machines are put.
    #[schemars(extend("minProperties" = 1))]
    pub struct PlacementConstraint {
        /// Folder.
        #[schemars(length(min = 1, max = 2048))]
        pub folder: Option<String>,
        /// Resource pool.
        #[schemars(length(min = 1, max = 2048))]
        pub resource_pool: Option<String>,
    }
}
