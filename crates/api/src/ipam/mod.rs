//! `ipam.cluster.x-k8s.io`: pools (v1alpha2), claims and addresses (v1beta2).

use crate::conditions::{Condition, DeprecatedConditions};
use crate::meta::{ContractReference, NameReference};
use crate::object::{object, resource};

resource! {
    /// InClusterIPPool is the Schema of a pool of addresses for a namespace.
    InClusterIPPool: NamespaceResourceScope, "ipam.cluster.x-k8s.io" / "v1alpha2", "inclusterippools" {
        /// What is wanted.
        spec: IPPoolSpec,
        /// What was observed.
        status: Option<IPPoolStatus>,
    }
}

resource! {
    /// GlobalInClusterIPPool is the Schema of a pool of addresses for all namespaces.
    GlobalInClusterIPPool: ClusterResourceScope, "ipam.cluster.x-k8s.io" / "v1alpha2", "globalinclusterippools" {
        /// What is wanted.
        spec: IPPoolSpec,
        /// What was observed.
        status: Option<IPPoolStatus>,
    }
}

object! {
    /// Desired state of a pool.
    pub struct IPPoolSpec {
        /// Seconds that a released address rests before it is given out again.
        #[schemars(range(min = 0))]
        pub address_reuse_grace_period_seconds: Option<i32>,
        /// Addresses: single ones, `first-last` ranges, CIDR ranges; all of one family and inside one network of the prefix length.
        pub addresses: Vec<String>,
        /// Give out the network's first address (and last one, for IPv4) as well.
        #[serde(rename = "allocateReservedIPAddresses")]
        pub allocate_reserved_ip_addresses: Option<bool>,
        /// Addresses that are never given out; the same forms.
        pub excluded_addresses: Vec<String>,
        /// Gateway; never given out.
        pub gateway: Option<String>,
        /// Length of the network's prefix.
        #[schemars(with = "crate::schema::Integer", range(min = 0, max = 128))]
        pub prefix: i32,
    }
    required ["addresses", "prefix"]
}

object! {
    /// Observed state of a pool.
    pub struct IPPoolStatus {
        /// Counts of addresses.
        pub ip_addresses: Option<IPPoolCounts>,
    }
}

object! {
    /// Counts of a pool's addresses.
    pub struct IPPoolCounts {
        /// Not given out.
        #[schemars(with = "crate::schema::Integer")]
        pub free: i64,
        /// Given out, but no longer in the pool.
        #[schemars(with = "crate::schema::Integer")]
        pub out_of_range: i64,
        /// All.
        #[schemars(with = "crate::schema::Integer")]
        pub total: i64,
        /// Given out.
        #[schemars(with = "crate::schema::Integer")]
        pub used: i64,
    }
    required ["free", "outOfRange", "total", "used"]
}

resource! {
    /// IPAddressClaim is the Schema of a request for an address.
    IPAddressClaim: NamespaceResourceScope, "ipam.cluster.x-k8s.io" / "v1beta2", "ipaddressclaims" {
        /// What is wanted.
        spec: IPAddressClaimSpec,
        /// What was observed.
        status: Option<IPAddressClaimStatus>,
    }
}

object! {
    /// A request for an address.
    pub struct IPAddressClaimSpec {
        /// Cluster that the address is for.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: Option<String>,
        /// Pool that it is to come from.
        pub pool_ref: ContractReference,
    }
    required ["poolRef"]
}

object! {
    /// What a request has led to.
    #[schemars(extend("minProperties" = 1))]
    pub struct IPAddressClaimStatus {
        /// The address.
        pub address_ref: Option<NameReference>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedConditions,
    }
}

resource! {
    /// IPAddress is the Schema of an address that was given out.
    IPAddress: NamespaceResourceScope, "ipam.cluster.x-k8s.io" / "v1beta2", "ipaddresses" {
        /// The address.
        spec: IPAddressSpec,
    }
}

object! {
    /// An address that was given out.
    pub struct IPAddressSpec {
        /// The address.
        #[schemars(length(min = 1, max = 39))]
        pub address: String,
        /// The claim that holds it.
        pub claim_ref: NameReference,
        /// The network's gateway.
        #[schemars(length(min = 1, max = 39))]
        pub gateway: Option<String>,
        /// The pool that it came from.
        pub pool_ref: ContractReference,
        /// Length of the network's prefix.
        #[schemars(range(min = 0, max = 128))]
        pub prefix: Option<i32>,
    }
    required ["address", "claimRef", "poolRef", "prefix"]
}

mod ranges;

pub use ranges::{Addresses, Network, RangeError};

/// Turns a pool of the first version (`subnet`, or `start` and `end`, or `addresses`) into the stored form: `addresses` and `prefix`.
/// A subnet leaves out its first and last address. What cannot be read stays out, for the rules to complain about.
pub(crate) fn ranges_of_first_version(object: &mut serde_json::Value) {
    use serde_json::{Value, json};
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned)).filter(|text| !text.is_empty());
    let subnet = text(spec.shift_remove("subnet"));
    let start = text(spec.shift_remove("start"));
    let end = text(spec.shift_remove("end"));
    if spec.get("addresses").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return;
    }
    if let Some(network) = subnet.as_deref().and_then(|subnet| Network::parse(subnet).ok()) {
        let (first, last) = network.inner();
        spec.insert("addresses".to_owned(), json!([format!("{first}-{last}")]));
        spec.insert("prefix".to_owned(), json!(network.prefix()));
    } else if let (Some(start), Some(end)) = (start, end) {
        spec.insert("addresses".to_owned(), json!([format!("{start}-{end}")]));
    }
}
