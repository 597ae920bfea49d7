//! What a request asks for, read from its method, path, query and headers: nothing here looks at stored objects.
//!
//! The grammar of paths and parameters is that of the Kubernetes API; what cannot be read is refused with the words of a genuine server.

use std::time::Duration;

use http::{HeaderMap, Method};

/// The path of a request to a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    pub group: String,
    pub version: String,
    /// As it stands in the path; empty for objects of the cluster and for all namespaces.
    pub namespace: String,
    pub resource: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    GroupVersion(String, String),
    Resource(ResourcePath),
    /// Everything else: health, version, OpenAPI.
    Other,
}

impl Target {
    /// Reads a path.
    pub fn parse(path: &str) -> Self {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::GroupVersion(String::new(), (*version).to_owned()),
            ["apis", group, version] => Self::GroupVersion((*group).to_owned(), (*version).to_owned()),
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            _ => Self::Other,
        }
    }

    fn resource(group: &str, version: &str, rest: &[&str]) -> Self {
        let (namespace, rest) = match rest {
            // A namespace is an object of its own as well.
            ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, None, None),
            [resource, name] => (*resource, Some(*name), None),
            [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
            _ => return Self::Other,
        };
        Self::Resource(ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }
}

/// The query's parameters, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (decode_form(key), decode_form(value)))
                .collect(),
        )
    }

    /// The first value of a parameter; empty counts as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether the parameter stands there, with or without a value.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// A yes or no as Go's `ParseBool` reads it: anything that is not a known no counts as yes, as upstream has it.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    /// A number of seconds.
    pub fn seconds(&self, key: &str) -> Option<Duration> {
        self.get(key).and_then(|text| text.parse().ok()).map(Duration::from_secs)
    }
}

fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn decode_form(text: &str) -> String {
    if text.contains('+') { decode(&text.replace('+', " ")) } else { decode(text) }
}

/// What a request does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// From the method, on an object (`has_name`) or a collection.
    pub fn of(method: &Method, has_name: bool, is_watch: bool) -> Option<Self> {
        Some(match (method.as_str(), has_name) {
            ("GET" | "HEAD", true) if !is_watch => Self::Get,
            ("GET", _) if is_watch => Self::Watch,
            ("GET" | "HEAD", false) => Self::List,
            ("POST", _) => Self::Create,
            ("PUT", true) => Self::Update,
            ("PATCH", true) => Self::Patch,
            ("DELETE", true) => Self::Delete,
            ("DELETE", false) => Self::DeleteCollection,
            _ => return None,
        })
    }
}

/// The form in which the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object or list itself.
    Object,
    /// A table, `meta.k8s.io/v1` or `v1beta1`.
    Table { is_beta: bool },
    /// Metadata only.
    Metadata,
    /// Aggregated discovery, version 2.
    Discovery,
}

/// The first form in the `Accept` header that can be given; absent when none can.
pub fn accepted(headers: &HeaderMap) -> Option<Form> {
    let mut values = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if values.peek().is_none() {
        return Some(Form::Object);
    }
    values.flat_map(|value| value.split(',')).find_map(form_of)
}

fn form_of(media: &str) -> Option<Form> {
    let mut parts = media.split(';').map(str::trim);
    if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
        return None;
    }
    let (mut kind, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    match (kind, group, version) {
        ("", ..) => Some(Form::Object),
        ("Table", "meta.k8s.io", "v1") => Some(Form::Table { is_beta: false }),
        ("Table", "meta.k8s.io", "v1beta1") => Some(Form::Table { is_beta: true }),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Form::Metadata),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Form::Discovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, version: &str, namespace: &str, resource: &str, name: Option<&str>, subresource: Option<&str>) -> Target {
        Target::Resource(ResourcePath {
            group: group.into(),
            version: version.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            name: name.map(Into::into),
            subresource: subresource.map(Into::into),
        })
    }

    #[test]
    fn paths_name_what_they_name() {
        for (path, target) in [
            ("/api", Target::CoreVersions),
            ("/apis/", Target::Groups),
            ("/apis/apps", Target::Group("apps".into())),
            ("/api/v1", Target::GroupVersion(String::new(), "v1".into())),
            ("/healthz", Target::Other),
            ("/api/v1/namespaces", resource("", "v1", "", "namespaces", None, None)),
            ("/api/v1/namespaces/a", resource("", "v1", "", "namespaces", Some("a"), None)),
            ("/api/v1/namespaces/a/status", resource("", "v1", "", "namespaces", Some("a"), Some("status"))),
            ("/api/v1/namespaces/a/pods", resource("", "v1", "a", "pods", None, None)),
            ("/api/v1/namespaces/a/pods/p/eviction", resource("", "v1", "a", "pods", Some("p"), Some("eviction"))),
            ("/apis/g/v2/things/x%3Ay", resource("g", "v2", "", "things", Some("x:y"), None)),
        ] {
            assert_eq!(Target::parse(path), target, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc&watch&limit=5&force=false&x=a+b"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!((query.flag("watch"), query.flag("force"), query.flag("none")), (true, false, false));
        assert_eq!(query.get("x"), Some("a b"));
    }

    #[test]
    fn the_first_possible_form_is_given() {
        for (accept, form) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Form::Table { is_beta: false })),
            ("application/vnd.kubernetes.protobuf,application/json", Some(Form::Object)),
            ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", Some(Form::Object)),
            ("application/json, */*", Some(Form::Object)),
            ("application/cbor", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, accept.parse().unwrap());
            assert_eq!(accepted(&headers), form, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new()), Some(Form::Object));
    }
}
