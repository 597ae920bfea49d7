//! What a server serves: every resource with its names, versions, schemas and columns.
//!
//! A registry is a value behind an `Arc`, replaced as a whole when a definition of custom resources changes; what a schema compiles to is
//! shared between servers. Discovery and OpenAPI are printed from it and from nothing else.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use apimachinery::schema::Schema;
use apimachinery::table::Columns;
use apimachinery::{GroupKind, GroupResource, GroupVersionKind, gvk};

use crate::builtin::{self, Builtin, Builtins};
use crate::object::ResourceId;

/// Where `scale` finds its numbers, as dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
    /// Whether that selector is a text, as it is in custom resources; in built-in kinds it is an object.
    pub is_selector_text: bool,
}

/// One version of a resource.
#[derive(Debug)]
pub struct Version {
    pub name: Arc<str>,
    /// `group/version`, or the version alone in the core group.
    pub api_version: String,
    pub is_served: bool,
    /// Shown to every user of the version when it is deprecated.
    pub warning: Option<String>,
    /// Absent: anything goes.
    pub schema: Option<Arc<Schema>>,
    /// The schema as it was written, for OpenAPI: text, since it is seldom asked for and a value takes many times the memory.
    pub openapi: Option<Arc<str>>,
    /// The digest of `openapi`, once it was asked for.
    pub schema_digest: OnceLock<String>,
    pub columns: Columns,
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
}

/// Where a resource comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    Builtin(&'static Builtin),
    Custom,
}

/// One resource.
#[derive(Debug)]
pub struct Resource {
    /// The group it is served in.
    pub group: Arc<str>,
    pub plural: Arc<str>,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub is_namespaced: bool,
    /// In the order of preference.
    pub versions: Vec<Version>,
    /// The index of the version objects are stored in.
    pub storage: usize,
    /// Where objects are stored: two groups show events, one holds them.
    pub id: ResourceId,
    pub origin: Origin,
}

impl Resource {
    /// A served version by its name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| &*version.name == name && version.is_served)
    }

    /// The version objects are stored in.
    pub fn stored(&self) -> Option<&Version> {
        self.versions.get(self.storage)
    }

    /// Its name in messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    /// The kind of its objects.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&*self.group, self.kind.as_str())
    }

    /// The kind of its objects as they are stored.
    pub fn stored_kind(&self) -> GroupVersionKind {
        let version = self.stored().map_or("v1", |version| &version.name);
        GroupVersionKind::new(&*self.id.group, version, self.kind.as_str())
    }

    /// Whether it is defined by a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        matches!(self.origin, Origin::Custom)
    }

    /// Whether its objects count changes of their specification.
    pub fn has_generation(&self) -> bool {
        match self.origin {
            Origin::Builtin(builtin) => builtin.has_generation,
            Origin::Custom => true,
        }
    }

    /// Whether it is shown in another group than the one that stores it.
    pub fn is_view(&self) -> bool {
        self.group != self.id.group
    }

    /// The verbs discovery lists.
    pub fn verbs(&self) -> &'static [&'static str] {
        if &*self.plural == "namespaces" && self.group.is_empty() {
            return &["create", "delete", "get", "list", "patch", "update", "watch"];
        }
        match self.origin {
            Origin::Custom => &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
            Origin::Builtin(_) => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }

    fn builtin(builtin: &'static Builtin) -> Self {
        let id =
            if builtin.group == "events.k8s.io" { ResourceId::new("", "events") } else { ResourceId::new(builtin.group, builtin.plural) };
        let (schema, openapi) = builtin::schema(builtin.group, builtin.kind);
        let version = Version {
            name: builtin.version.into(),
            api_version: gvk::api_version(builtin.group, builtin.version),
            is_served: true,
            warning: None,
            schema,
            openapi,
            schema_digest: OnceLock::new(),
            columns: Columns::builtin(&GroupKind::new(builtin.group, builtin.kind)),
            has_status: builtin.has_status,
            scale: builtin.has_scale.then(|| ScalePaths {
                spec_replicas: ".spec.replicas".to_owned(),
                status_replicas: ".status.replicas".to_owned(),
                label_selector: Some(".spec.selector".to_owned()),
                is_selector_text: false,
            }),
        };
        Self {
            group: builtin.group.into(),
            plural: builtin.plural.into(),
            singular: builtin.singular.to_owned(),
            kind: builtin.kind.to_owned(),
            list_kind: format!("{}List", builtin.kind),
            short_names: builtin.short_names.iter().map(|name| (*name).to_owned()).collect(),
            categories: builtin.categories.iter().map(|name| (*name).to_owned()).collect(),
            is_namespaced: builtin.is_namespaced,
            versions: vec![version],
            storage: 0,
            id,
            origin: Origin::Builtin(builtin),
        }
    }
}

/// The built-in kinds: constants that every server of the process shares.
static MANAGEMENT: LazyLock<Registry> =
    LazyLock::new(|| Registry::made_of(builtin::ALL.iter().filter(|builtin| !builtin.is_workload_only)));
static WORKLOAD: LazyLock<Registry> = LazyLock::new(|| Registry::made_of(builtin::ALL.iter()));

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    resources: BTreeMap<(Arc<str>, Arc<str>), Arc<Resource>>,
    kinds: BTreeMap<GroupKind, Arc<Resource>>,
}

impl Registry {
    /// The kinds that are there without a definition.
    pub fn builtin(builtins: Builtins) -> Self {
        match builtins {
            Builtins::Management => MANAGEMENT.clone(),
            Builtins::Workload => WORKLOAD.clone(),
        }
    }

    fn made_of(builtins: impl Iterator<Item = &'static Builtin>) -> Self {
        let mut registry = Self::default();
        builtins.for_each(|builtin| registry.insert(Arc::new(Resource::builtin(builtin))));
        registry
    }

    /// Adds a resource, or replaces it.
    pub fn insert(&mut self, resource: Arc<Resource>) {
        self.kinds.insert(resource.group_kind(), resource.clone());
        self.resources.insert((resource.group.clone(), resource.plural.clone()), resource);
    }

    /// Takes a resource away.
    pub fn remove(&mut self, group: &str, plural: &str) {
        if let Some(resource) = self.resources.remove(&(group.into(), plural.into())) {
            self.kinds.remove(&resource.group_kind());
        }
    }

    /// A resource by the names in a path.
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.into(), plural.into()))
    }

    /// A resource by its kind.
    pub fn of_kind(&self, kind: &GroupKind) -> Option<&Arc<Resource>> {
        self.kinds.get(kind)
    }

    /// The resource that stores objects under `id`.
    pub fn storing(&self, id: &ResourceId) -> Option<&Arc<Resource>> {
        self.get(&id.group, &id.resource)
    }

    /// All resources, by group and plural name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The groups with their served versions, most preferred first.
    pub fn groups(&self) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
        let mut groups: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for resource in self.resources.values() {
            let versions = groups.entry(resource.group.clone()).or_default();
            for version in resource.versions.iter().filter(|version| version.is_served) {
                if !versions.contains(&version.name) {
                    versions.push(version.name.clone());
                }
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| Reverse(priority(version)));
        }
        groups.retain(|_, versions| !versions.is_empty());
        groups
    }

    /// The resources served in one version of a group.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = (&'a Arc<Resource>, &'a Version)> {
        self.resources
            .values()
            .filter(move |resource| &*resource.group == group)
            .filter_map(move |resource| resource.version(version).map(|version| (resource, version)))
    }
}

/// The rank of a version's name: general availability over beta over alpha, then higher numbers; other names come last.
pub fn priority(version: &str) -> (u8, u32, u32) {
    let parsed = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let major = major.parse().ok()?;
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (rank, minor) =
            rest.strip_prefix("beta").map(|minor| (2, minor)).or_else(|| rest.strip_prefix("alpha").map(|minor| (1, minor)))?;
        Some((rank, major, minor.parse().ok()?))
    };
    parsed().unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_orders_them() {
        let mut names = vec!["foo", "v1alpha1", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2"];
        names.sort_by_key(|name| Reverse(priority(name)));
        assert_eq!(names, ["v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo"]);
    }

    #[test]
    fn events_are_seen_through_two_groups_and_stored_once() {
        let registry = Registry::builtin(Builtins::Management);
        let (core, events) = (registry.get("", "events").unwrap(), registry.get("events.k8s.io", "events").unwrap());
        assert_eq!(core.id, events.id);
        assert!(events.is_view() && !core.is_view());
    }
}
