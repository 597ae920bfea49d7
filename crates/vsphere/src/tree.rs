//! The inventory as a tree of names, and finding things in it. Pure: filled from the property collector's answers.
//!
//! A thing is named by its managed object id, by its full path (`/DC0/host/cluster/Resources`), by its path below the folder of its kind
//! (`cluster/Resources`, `*/Resources`), or by the end of its path (`Resources`, a name alone). The first of these ways that finds anything counts, and it must find
//! exactly one. `*` and `?` stand for any characters of one name.

use std::collections::BTreeMap;

use vsphere_wire::property::ObjectContent;
use vsphere_wire::{AnyValue, ManagedObjectReference};

use crate::error::VSphereError;

/// An object of the inventory.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub name: String,
    pub parent: Option<ManagedObjectReference>,
    pub properties: BTreeMap<String, AnyValue>,
}

/// Folders, datacenters, compute resources, pools, hosts, datastores and networks; no virtual machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<ManagedObjectReference, Node>,
    paths: BTreeMap<ManagedObjectReference, String>,
}

/// What is looked for, where.
pub(crate) struct Search<'a> {
    /// In words: `resource pool`.
    pub what: &'static str,
    /// The types of managed objects that count.
    pub kinds: &'a [&'a str],
    /// The folder that relative paths start at.
    pub base: &'a ManagedObjectReference,
    /// In words: `datacenter DC0`.
    pub place: &'a str,
}

/// One way of naming a thing: whether this object, with this path, is meant.
type Tier<'a> = dyn Fn(&ManagedObjectReference, &str) -> bool + 'a;

impl Tree {
    pub(crate) fn new(objects: &[ObjectContent], root: &ManagedObjectReference) -> Self {
        let mut tree = Self::default();
        for object in objects {
            let Some(name) = object.property("name").and_then(AnyValue::text) else { continue };
            let parent = object.property("parent").and_then(|value| value.decode().ok());
            let properties = object.properties.iter().map(|property| (property.name.clone(), property.value.clone())).collect();
            tree.nodes.insert(object.object.clone(), Node { name: unescape(name), parent, properties });
        }
        let references: Vec<ManagedObjectReference> = tree.nodes.keys().cloned().collect();
        for reference in references {
            let path = tree.path_from(&reference, root);
            tree.paths.insert(reference, path);
        }
        tree
    }

    fn path_from(&self, reference: &ManagedObjectReference, root: &ManagedObjectReference) -> String {
        let mut names = Vec::new();
        let mut at = Some(reference);
        // A chain of parents is never longer than the number of objects.
        for _ in 0..=self.nodes.len() {
            let Some(reference) = at.filter(|reference| *reference != root) else { break };
            let Some(node) = self.nodes.get(reference) else { break };
            names.push(node.name.as_str());
            at = node.parent.as_ref();
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    pub(crate) fn node(&self, reference: &ManagedObjectReference) -> Option<&Node> {
        self.nodes.get(reference)
    }

    pub(crate) fn path(&self, reference: &ManagedObjectReference) -> &str {
        self.paths.get(reference).map_or("", String::as_str)
    }

    /// A reference among the properties of an object.
    pub(crate) fn linked(&self, reference: &ManagedObjectReference, property: &str) -> Option<ManagedObjectReference> {
        self.nodes.get(reference)?.properties.get(property)?.decode().ok()
    }

    /// Every object of these types.
    pub(crate) fn all<'a>(&'a self, kinds: &'a [&'a str]) -> impl Iterator<Item = &'a ManagedObjectReference> {
        self.nodes.keys().filter(|reference| kinds.contains(&reference.kind.as_str()))
    }

    /// The one thing that `wanted` names; without a name, the only one there is.
    pub(crate) fn find(&self, search: &Search<'_>, wanted: &str) -> Result<ManagedObjectReference, VSphereError> {
        let base = self.path(search.base).to_owned();
        let below: Vec<(&ManagedObjectReference, &str)> = self
            .all(search.kinds)
            .map(|reference| (reference, self.path(reference)))
            .filter(|(_, path)| path.strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/')))
            .collect();
        let relative = |path: &str| path.strip_prefix(base.as_str()).unwrap_or(path).trim_start_matches('/').to_owned();
        let tiers: [&Tier; 4] = [
            &|reference, _| reference.id == wanted,
            &|_, path| wanted.starts_with('/') && glob(wanted.trim_end_matches('/'), path),
            &|_, path| glob(wanted.trim_matches('/'), &relative(path)),
            &|_, path| !wanted.starts_with('/') && ends_with(wanted.trim_matches('/'), &relative(path)),
        ];
        for tier in tiers {
            let found: Vec<&(&ManagedObjectReference, &str)> = below.iter().filter(|(reference, path)| tier(reference, path)).collect();
            match found.as_slice() {
                [] => {}
                [(reference, _)] => return Ok((*reference).clone()),
                several => {
                    return Err(VSphereError::Ambiguous {
                        what: search.what,
                        wanted: wanted.to_owned(),
                        place: search.place.to_owned(),
                        found: several.iter().map(|(_, path)| (*path).to_owned()).collect(),
                    });
                }
            }
        }
        let names: Vec<String> = below.iter().map(|(_, path)| relative(path)).collect();
        Err(VSphereError::Missing {
            what: search.what,
            wanted: wanted.to_owned(),
            place: search.place.to_owned(),
            near: nearest(wanted, &names),
        })
    }
}

/// vCenter stores `/`, `\` and `%` in names as `%2f`, `%5c` and `%25`.
fn unescape(name: &str) -> String {
    name.replace("%2f", "/").replace("%2F", "/").replace("%5c", "\\").replace("%5C", "\\").replace("%25", "%")
}

/// Whether `path` matches `pattern` name by name.
fn glob(pattern: &str, path: &str) -> bool {
    // A name may itself hold a slash: the plain comparison comes first.
    pattern == path || {
        let patterns: Vec<&str> = pattern.split('/').collect();
        let names: Vec<&str> = path.split('/').collect();
        patterns.len() == names.len() && patterns.iter().zip(&names).all(|(pattern, name)| matches(pattern, name))
    }
}

/// Whether the end of `path` matches `pattern`.
fn ends_with(pattern: &str, path: &str) -> bool {
    let patterns: Vec<&str> = pattern.split('/').collect();
    let names: Vec<&str> = path.split('/').collect();
    let skipped = names.len().saturating_sub(patterns.len());
    patterns.len() <= names.len() && patterns.iter().zip(names.iter().skip(skipped)).all(|(pattern, name)| matches(pattern, name))
}

/// `*` any characters, `?` one.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // `reach[i]`: whether the pattern so far can end before the ith character.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for symbol in pattern {
        let mut next = vec![false; name.len() + 1];
        let mut is_open = false;
        for (index, is_reached) in reach.iter().enumerate() {
            match symbol {
                '*' => {
                    is_open |= *is_reached;
                    next[index] = is_open;
                }
                symbol if *is_reached && name.get(index).is_some_and(|character| symbol == '?' || *character == symbol) => {
                    next[index + 1] = true;
                }
                _ => {}
            }
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

/// The names most like `wanted`: those with few differences, else a few of what there is.
pub(crate) fn nearest(wanted: &str, names: &[String]) -> Vec<String> {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let target = last(wanted);
    let limit = (target.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &String)> = names
        .iter()
        .map(|name| {
            let own = last(name);
            let is_part = !target.is_empty() && (own.contains(&target) || target.contains(&own));
            (if is_part { 1 } else { distance(&target, &own) }, name)
        })
        .collect();
    near.sort();
    near.dedup();
    let close: Vec<String> = near.iter().filter(|(distance, _)| *distance <= limit).take(3).map(|(_, name)| (*name).clone()).collect();
    if close.is_empty() { near.iter().take(5).map(|(_, name)| (*name).clone()).collect() } else { close }
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, character) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, letter) in other.iter().enumerate() {
            let cost = diagonal + usize::from(character != *letter);
            diagonal = row[column + 1];
            row[column + 1] = cost.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsphere_wire::property::DynamicProperty;

    fn reference(kind: &str, id: &str) -> ManagedObjectReference {
        ManagedObjectReference::new(kind, id)
    }

    fn object(kind: &str, id: &str, name: &str, parent: (&str, &str)) -> ObjectContent {
        let property = |name: &str, value| DynamicProperty { name: name.to_owned(), value };
        ObjectContent {
            object: reference(kind, id),
            properties: vec![property("name", AnyValue::string(name)), property("parent", AnyValue::of(&reference(parent.0, parent.1)))],
            missing: Vec::new(),
        }
    }

    fn tree() -> Tree {
        let objects = [
            object("Datacenter", "dc", "DC0", ("Folder", "root")),
            object("Folder", "host", "host", ("Datacenter", "dc")),
            object("Folder", "racks", "racks", ("Folder", "host")),
            object("ClusterComputeResource", "c1", "cluster-1", ("Folder", "host")),
            object("ClusterComputeResource", "c2", "cluster-2", ("Folder", "racks")),
            object("ResourcePool", "p1", "Resources", ("ClusterComputeResource", "c1")),
            object("ResourcePool", "p2", "Resources", ("ClusterComputeResource", "c2")),
            object("ResourcePool", "p3", "talos", ("ResourcePool", "p1")),
        ];
        Tree::new(&objects, &reference("Folder", "root"))
    }

    fn find(wanted: &str) -> Result<String, VSphereError> {
        let base = reference("Folder", "host");
        let search = Search { what: "resource pool", kinds: &["ResourcePool"], base: &base, place: "datacenter DC0" };
        tree().find(&search, wanted).map(|found| found.id)
    }

    #[test]
    fn things_are_found_by_id_path_glob_and_name() {
        for (wanted, id) in [
            ("p2", "p2"),
            ("/DC0/host/cluster-1/Resources", "p1"),
            ("/DC0/host/*/Resources", "p1"),
            ("cluster-1/Resources", "p1"),
            ("*/Resources", "p1"),
            ("cluster-2/Resources", "p2"),
            ("racks/*/Resources", "p2"),
            ("talos", "p3"),
            ("Resources/tal?s", "p3"),
        ] {
            assert_eq!(find(wanted).unwrap(), id, "{wanted}");
        }
    }

    #[test]
    fn more_than_one_is_an_error_that_lists_them() {
        let Err(VSphereError::Ambiguous { found, .. }) = find("Resources") else { panic!("found one") };
        assert_eq!(found, ["/DC0/host/cluster-1/Resources", "/DC0/host/racks/cluster-2/Resources"]);
    }

    #[test]
    fn none_is_an_error_with_near_names() {
        let Err(VSphereError::Missing { near, .. }) = find("talso") else { panic!("found one") };
        assert_eq!(near, ["cluster-1/Resources/talos"]);
        let Err(VSphereError::Missing { near, .. }) = find("/DC0/host/nowhere") else { panic!("found one") };
        assert_eq!(near.len(), 3, "what there is, when nothing is like it");
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a?c", "ac", false),
            ("**x", "aax", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }
}
