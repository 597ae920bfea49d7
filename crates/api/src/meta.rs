//! Small types that the kinds share: references, selectors, percentages, times.
//!
//! They mirror the Kubernetes types of the same names; own ones, because the schemas are generated from them. A reference inside a
//! Cluster API object carries group, kind and name: the version is looked up, and the namespace is always the referrer's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::object::{Absent, object};
use crate::schema::{GROUP, KIND, OBJECT_NAME};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl Absent for Time {
    fn is_absent(&self) -> bool {
        false
    }
}

object! {
    /// Reference to an object in the same namespace, its version left to the contract labels of its CRD.
    pub struct ContractReference {
        /// API group of the object.
        #[schemars(length(min = 1, max = 253), extend("pattern" = GROUP))]
        pub api_group: String,
        /// Kind of the object.
        #[schemars(length(min = 1, max = 63), extend("pattern" = KIND))]
        pub kind: String,
        /// Name of the object.
        #[schemars(length(min = 1, max = 253), extend("pattern" = OBJECT_NAME))]
        pub name: String,
    }
    required ["apiGroup", "kind", "name"]
}

object! {
    /// Reference to an object by name only.
    pub struct NameReference {
        /// Name of the object.
        #[schemars(length(min = 1, max = 253), extend("pattern" = OBJECT_NAME))]
        pub name: String,
    }
    required ["name"]
}

object! {
    /// Reference with a version and an optional namespace, as the v1beta1 generation of types has it.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub struct ObjectReference {
        /// API version of the object, group included.
        pub api_version: Option<String>,
        /// Part of the object that is meant.
        pub field_path: Option<String>,
        /// Kind of the object.
        pub kind: Option<String>,
        /// Name of the object.
        pub name: Option<String>,
        /// Namespace of the object; the referrer's own when absent.
        pub namespace: Option<String>,
        /// Revision of the object that is meant.
        pub resource_version: Option<String>,
        /// Identity of the object.
        pub uid: Option<String>,
    }
}

impl ObjectReference {
    /// The API group, the part of `apiVersion` before the slash.
    pub fn group(&self) -> &str {
        self.api_version.as_deref().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group)
    }
}

object! {
    /// One requirement of a label selector.
    pub struct LabelSelectorRequirement {
        /// Label key.
        pub key: String,
        /// In, NotIn, Exists or DoesNotExist.
        pub operator: String,
        /// Values for In and NotIn.
        pub values: Vec<String>,
    }
    required ["key", "operator"]
}

object! {
    /// Selects objects by their labels; an empty selector selects everything.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub struct LabelSelector {
        /// Requirements that all have to hold.
        pub match_expressions: Vec<LabelSelectorRequirement>,
        /// Labels that all have to be there.
        pub match_labels: BTreeMap<String, String>,
    }
}

impl LabelSelector {
    /// True if the labels satisfy every requirement. An operator that does not exist matches nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                match requirement.operator.as_str() {
                    "In" => value.is_some_and(|value| requirement.values.contains(value)),
                    "NotIn" => value.is_none_or(|value| !requirement.values.contains(value)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }

    /// True if the selector has no requirement (it then selects everything).
    pub fn is_empty(&self) -> bool {
        self.match_expressions.is_empty() && self.match_labels.is_empty()
    }

    /// The selector in the text form of `kubectl -l`, keys sorted, as it stands in `status.selector`.
    pub fn to_query(&self) -> String {
        let mut parts: Vec<(String, String)> =
            self.match_labels.iter().map(|(key, value)| (key.clone(), format!("{key}={value}"))).collect();
        for requirement in &self.match_expressions {
            let (key, values) = (&requirement.key, requirement.values.join(","));
            let text = match requirement.operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            };
            parts.push((key.clone(), text));
        }
        parts.sort();
        parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
    }
}

/// A whole number or a percentage such as `40%`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number of things.
    Int(i32),
    /// A percentage, or a number as text.
    String(String),
}

impl IntOrString {
    /// The number meant out of `total`; percentages are rounded up or down. `None` if the text is neither a number nor a percentage.
    pub fn of(&self, total: i32, round_up: bool) -> Option<i32> {
        let text = match self {
            Self::Int(number) => return Some(*number),
            Self::String(text) => text,
        };
        let Some(percent) = text.strip_suffix('%') else { return text.parse().ok() };
        let product = i64::from(percent.parse::<i32>().ok()?) * i64::from(total);
        let quotient = if round_up { product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0) } else { product.div_euclid(100) };
        i32::try_from(quotient).ok()
    }
}

impl Absent for IntOrString {
    fn is_absent(&self) -> bool {
        false
    }
}

impl schemars::JsonSchema for IntOrString {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
    }
}

object! {
    /// Labels and annotations that objects made from a template get.
    #[schemars(extend("minProperties" = 1))]
    pub struct TemplateMeta {
        /// Annotations.
        pub annotations: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }
}

object! {
    /// A host and a port at which an API answers.
    #[schemars(extend("minProperties" = 1))]
    pub struct ApiEndpoint {
        /// DNS name or address.
        #[schemars(length(min = 1, max = 512))]
        pub host: Option<String>,
        /// Port.
        #[schemars(range(min = 1, max = 65535))]
        pub port: Option<i32>,
    }
}

impl ApiEndpoint {
    /// Host and port, when both are set.
    pub fn parts(&self) -> Option<(&str, u16)> {
        let host = self.host.as_deref().filter(|host| !host.is_empty())?;
        let port = u16::try_from(self.port?).ok().filter(|port| *port > 0)?;
        Some((host, port))
    }

    /// True when host and port are set.
    pub fn is_valid(&self) -> bool {
        self.parts().is_some()
    }

    /// `https://host:port`, an IPv6 address in brackets.
    pub fn url(&self) -> Option<String> {
        let (host, port) = self.parts()?;
        Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
    }
}

object! {
    /// A place where machines can fail together.
    pub struct FailureDomain {
        /// Free attributes.
        pub attributes: BTreeMap<String, String>,
        /// Whether control planes may be placed there.
        pub control_plane: Option<bool>,
        /// Name.
        #[schemars(length(min = 1, max = 256))]
        pub name: String,
    }
    required ["name"]
}

crate::object::words! {
    /// What kind of address it is.
    pub enum MachineAddressType {
        /// Host name.
        Hostname = "Hostname",
        /// Address reachable from outside.
        ExternalIP = "ExternalIP",
        /// Address inside the cluster's network.
        InternalIP = "InternalIP",
        /// DNS name for outside.
        ExternalDNS = "ExternalDNS",
        /// DNS name for inside.
        InternalDNS = "InternalDNS",
    }
}

object! {
    /// An address of a machine.
    pub struct MachineAddress {
        /// The address.
        #[schemars(length(min = 1, max = 256))]
        pub address: String,
        /// What kind of address it is.
        #[serde(rename = "type")]
        pub type_: MachineAddressType,
    }
    required ["address", "type"]
}
