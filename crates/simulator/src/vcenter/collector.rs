//! The property collector: which objects a specification selects, what they show, and what of it changed since the caller last heard.
//!
//! A filter keeps what it told its caller. An update is the difference between that and the world, so that the sum of all updates is
//! always a fresh reading. A version names what the caller has: the present one continues, the one before it gets the last answer again
//! (its reply was lost), the empty one starts anew, any other is refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vsphere_wire::property::{
    DynamicProperty, MissingObject, ObjectContent, ObjectUpdate, ObjectUpdateKind, PropertyChange, PropertyChangeOperation,
    PropertyFilterSpec, PropertyFilterUpdate, Selection, TraversalSpec, UpdateSet,
};
use vsphere_wire::value::AnyValue;

use super::failure::Failure;
use super::inventory::{Reference, is_a, is_known_type};
use super::scope::Scope;
use super::val::{Segment, Val, segments};

/// Updates in one answer, when the caller does not say.
const DEFAULT_LIMIT: usize = 100;

/// What a filter watches, and what its caller knows.
#[derive(Debug)]
pub struct Filter {
    pub spec: PropertyFilterSpec,
    told: BTreeMap<Reference, BTreeMap<String, AnyValue>>,
    /// The world's sequence number at that time.
    seen: u64,
}

/// A property collector.
#[derive(Debug, Default)]
pub struct Collector {
    /// By id.
    pub filters: BTreeMap<String, Filter>,
    /// The number of the latest wait: an earlier one that still waits is cancelled.
    pub wait: u64,
    version: u64,
    last: Option<(String, UpdateSet)>,
    backlog: VecDeque<(String, ObjectUpdate)>,
}

/// Properties to read from the objects of one type.
struct Wanted {
    kind: String,
    is_all: bool,
    paths: Vec<(String, Vec<Segment>)>,
}

fn wanted(spec: &PropertyFilterSpec) -> Result<Vec<Wanted>, Failure> {
    let read = |path: &String| match segments(path) {
        Some(segments) => Ok((path.clone(), segments)),
        None => Err(Failure::invalid_property(path)),
    };
    let one = |set: &vsphere_wire::property::PropertySpec| {
        if !is_known_type(&set.kind) {
            return Err(Failure::invalid_argument("propSet.type"));
        }
        let paths = set.paths.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Wanted { kind: set.kind.clone(), is_all: set.is_all == Some(true), paths })
    };
    spec.property_sets.iter().map(one).collect()
}

/// The objects that a specification selects, in the order in which they are met, once each; and starting points that do not exist.
fn select(scope: Scope<'_>, spec: &PropertyFilterSpec) -> Result<(Vec<Reference>, Vec<Reference>), Failure> {
    let mut named = BTreeMap::new();
    for set in &spec.object_sets {
        collect_names(&set.selections, &mut named);
    }
    let mut walk = Walk { scope, named, met: BTreeSet::new(), found: Vec::new(), listed: BTreeSet::new() };
    let mut missing = Vec::new();
    for set in &spec.object_sets {
        if !scope.exists(&set.object) {
            missing.push(set.object.clone());
            continue;
        }
        if set.is_skipped != Some(true) {
            walk.list(&set.object);
        }
        walk.follow(&set.object, &set.selections)?;
    }
    Ok((walk.found, missing))
}

fn collect_names<'a>(selections: &'a [Selection], named: &mut BTreeMap<&'a str, &'a TraversalSpec>) {
    for selection in selections {
        if let Selection::Traversal(traversal) = selection {
            if let Some(name) = &traversal.name {
                named.entry(name).or_insert(traversal);
            }
            collect_names(&traversal.selections, named);
        }
    }
}

struct Walk<'a> {
    scope: Scope<'a>,
    named: BTreeMap<&'a str, &'a TraversalSpec>,
    /// Objects with the traversal that was followed from them, by its address: circles end here.
    met: BTreeSet<(Reference, usize)>,
    found: Vec<Reference>,
    listed: BTreeSet<Reference>,
}

impl<'a> Walk<'a> {
    fn list(&mut self, object: &Reference) {
        if self.listed.insert(object.clone()) {
            self.found.push(object.clone());
        }
    }

    fn follow(&mut self, from: &Reference, selections: &'a [Selection]) -> Result<(), Failure> {
        for selection in selections {
            let traversal = match selection {
                Selection::Traversal(traversal) => traversal,
                Selection::Named(name) => match self.named.get(name.as_str()) {
                    Some(traversal) => *traversal,
                    None => return Err(Failure::invalid_argument("selectSet.name")),
                },
            };
            let address = std::ptr::from_ref(traversal).addr();
            if !is_a(&from.kind, &traversal.kind) || !self.met.insert((from.clone(), address)) {
                continue;
            }
            let path = segments(&traversal.path).ok_or_else(|| Failure::invalid_property(&traversal.path))?;
            let targets = match self.scope.property(from, &path)? {
                Some(Val::Reference(reference)) => vec![reference],
                Some(Val::Array(_, items)) => items.into_iter().filter_map(reference_of).collect(),
                _ => Vec::new(),
            };
            for target in targets {
                if traversal.is_skipped != Some(true) {
                    self.list(&target);
                }
                self.follow(&target, &traversal.selections)?;
            }
        }
        Ok(())
    }
}

fn reference_of(value: Val) -> Option<Reference> {
    match value {
        Val::Reference(reference) => Some(reference),
        _ => None,
    }
}

/// What an object shows of what is wanted; `None` when nothing of its type is wanted.
fn show(scope: Scope<'_>, object: &Reference, wanted: &[Wanted]) -> Result<Option<BTreeMap<String, AnyValue>>, Failure> {
    let mut shown = BTreeMap::new();
    let mut is_wanted = false;
    for set in wanted.iter().filter(|set| is_a(&object.kind, &set.kind)) {
        is_wanted = true;
        if set.is_all {
            for name in scope.property_names(object) {
                if let Some(value) = scope.property(object, &[Segment::Name(name.to_owned())])? {
                    shown.insert(name.to_owned(), value.to_wire());
                }
            }
        }
        for (path, segments) in &set.paths {
            if let Some(value) = scope.property(object, segments)? {
                shown.insert(path.clone(), value.to_wire());
            }
        }
    }
    Ok(is_wanted.then_some(shown))
}

/// Reads once: RetrievePropertiesEx.
///
/// # Errors
/// When a starting point does not exist, or a property or type is unknown.
pub fn retrieve(scope: Scope<'_>, specs: &[PropertyFilterSpec]) -> Result<Vec<ObjectContent>, Failure> {
    let mut contents = Vec::new();
    for spec in specs {
        let wanted = wanted(spec)?;
        let (objects, missing) = select(scope, spec)?;
        if let Some(missing) = missing.first()
            && spec.report_missing_objects != Some(true)
        {
            return Err(Failure::not_found(missing));
        }
        for object in objects {
            if let Some(shown) = show(scope, &object, &wanted)? {
                let properties = shown.into_iter().map(|(name, value)| DynamicProperty { name, value }).collect();
                contents.push(ObjectContent { object, properties, missing: Vec::new() });
            }
        }
    }
    Ok(contents)
}

impl Filter {
    /// A filter that has told nothing yet.
    ///
    /// # Errors
    /// As [`retrieve`].
    pub fn new(scope: Scope<'_>, spec: PropertyFilterSpec) -> Result<Self, Failure> {
        wanted(&spec)?;
        let (_, missing) = select(scope, &spec)?;
        match missing.first() {
            Some(missing) if spec.report_missing_objects != Some(true) => Err(Failure::not_found(missing)),
            _ => Ok(Self { spec, told: BTreeMap::new(), seen: 0 }),
        }
    }

    /// What changed since the last time.
    fn updates(&mut self, scope: Scope<'_>) -> Result<Vec<ObjectUpdate>, Failure> {
        let now = scope.inventory.sequence();
        if self.seen == now {
            return Ok(Vec::new());
        }
        let wanted = wanted(&self.spec)?;
        let (objects, _) = select(scope, &self.spec)?;
        let mut updates = Vec::new();
        let mut present = BTreeSet::new();
        for object in objects {
            if self.told.contains_key(&object) && scope.changed(&object) <= self.seen {
                present.insert(object);
                continue;
            }
            // What went away between two readings is absent, not an error.
            if !scope.exists(&object) {
                continue;
            }
            let Some(shown) = show(scope, &object, &wanted)? else { continue };
            present.insert(object.clone());
            let (kind, changes) = match self.told.get(&object) {
                None => (ObjectUpdateKind::Enter, shown.iter().map(|(name, value)| assign(name, Some(value))).collect()),
                Some(told) => (ObjectUpdateKind::Modify, difference(told, &shown)),
            };
            if kind == ObjectUpdateKind::Enter || !changes.is_empty() {
                updates.push(ObjectUpdate { kind, object: object.clone(), changes, missing: Vec::new() });
            }
            self.told.insert(object, shown);
        }
        let gone: Vec<Reference> = self.told.keys().filter(|object| !present.contains(*object)).cloned().collect();
        for object in gone {
            self.told.remove(&object);
            updates.push(ObjectUpdate { kind: ObjectUpdateKind::Leave, object, changes: Vec::new(), missing: Vec::new() });
        }
        self.seen = now;
        Ok(updates)
    }
}

fn assign(name: &str, value: Option<&AnyValue>) -> PropertyChange {
    PropertyChange { name: name.to_owned(), operation: PropertyChangeOperation::Assign, value: value.cloned() }
}

fn difference(told: &BTreeMap<String, AnyValue>, shown: &BTreeMap<String, AnyValue>) -> Vec<PropertyChange> {
    let changed = shown.iter().filter(|(name, value)| told.get(*name) != Some(value)).map(|(name, value)| assign(name, Some(value)));
    let unset = told.keys().filter(|name| !shown.contains_key(*name)).map(|name| assign(name, None));
    changed.chain(unset).collect()
}

impl Collector {
    /// Starts a wait with the version that the caller has. An answer that was given already comes back.
    ///
    /// # Errors
    /// When the version is not one that the caller can have.
    pub fn begin(&mut self, version: &str) -> Result<Option<UpdateSet>, Failure> {
        self.wait += 1;
        if version.is_empty() {
            self.backlog.clear();
            self.last = None;
            for filter in self.filters.values_mut() {
                filter.told.clear();
                filter.seen = 0;
            }
            return Ok(None);
        }
        if version == self.version.to_string() {
            return Ok(None);
        }
        match &self.last {
            Some((given, answer)) if given == version => Ok(Some(answer.clone())),
            _ => Err(Failure::collector_version(version)),
        }
    }

    /// What there is to tell now.
    ///
    /// # Errors
    /// When a filter's properties cannot be read.
    pub fn poll(&mut self, scope: Scope<'_>, limit: Option<i32>) -> Result<Option<UpdateSet>, Failure> {
        if self.backlog.is_empty() {
            for (id, filter) in &mut self.filters {
                self.backlog.extend(filter.updates(scope)?.into_iter().map(|update| (id.clone(), update)));
            }
        }
        if self.backlog.is_empty() {
            return Ok(None);
        }
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
        let mut filters: Vec<PropertyFilterUpdate> = Vec::new();
        for (id, update) in self.backlog.drain(..limit.min(self.backlog.len())) {
            match filters.last_mut().filter(|filter| filter.filter.id == id) {
                Some(filter) => filter.objects.push(update),
                None => filters.push(PropertyFilterUpdate {
                    filter: Reference::new("PropertyFilter", id),
                    objects: vec![update],
                    missing: Vec::<MissingObject>::new(),
                }),
            }
        }
        let given = self.version.to_string();
        self.version += 1;
        let is_truncated = (!self.backlog.is_empty()).then_some(true);
        let answer = UpdateSet { version: self.version.to_string(), filters, is_truncated };
        self.last = Some((given, answer.clone()));
        Ok(Some(answer))
    }

    /// Takes a filter away, with what it still had to tell.
    pub fn remove(&mut self, filter: &str) -> bool {
        self.backlog.retain(|(id, _)| id != filter);
        self.filters.remove(filter).is_some()
    }
}
