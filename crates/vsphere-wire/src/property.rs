//! The property collector's data: what to watch, what was found, what changed.

use crate::fault::LocalizedMethodFault;
use crate::value::{AnyValue, DecodeError, Field, ManagedObjectReference, Value};
use crate::xml::{Element, Name};

data! {
    /// What to read or watch: which properties of which types, on which objects.
    #[derive(Default)]
    PropertyFilterSpec = "PropertyFilterSpec" {
        property_sets: Vec<PropertySpec> = "propSet",
        object_sets: Vec<ObjectSpec> = "objectSet",
        report_missing_objects: Option<bool> = "reportMissingObjectsInResults",
    }
    /// Properties of a type (and of its descendants).
    PropertySpec = "PropertySpec" {
        kind: String = "type",
        is_all: Option<bool> = "all",
        paths: Vec<String> = "pathSet",
    }
    /// A starting point and how to go on from it.
    ObjectSpec = "ObjectSpec" {
        object: ManagedObjectReference = "obj",
        /// Whether the starting point itself is left out.
        is_skipped: Option<bool> = "skip",
        selections: Vec<Selection> = "selectSet",
    }
    /// The limits of one answer of RetrievePropertiesEx.
    #[derive(Default)]
    RetrieveOptions = "RetrieveOptions" {
        max_objects: Option<i32> = "maxObjects",
    }
    /// The limits of one wait.
    #[derive(Default)]
    WaitOptions = "WaitOptions" {
        max_wait_seconds: Option<i32> = "maxWaitSeconds",
        max_object_updates: Option<i32> = "maxObjectUpdates",
    }
    /// One page of what was found.
    #[derive(Default)]
    RetrieveResult = "RetrieveResult" {
        /// For the next page, when there is one.
        token: Option<String> = "token",
        objects: Vec<ObjectContent> = "objects",
    }
    /// An object and the properties asked for.
    ObjectContent = "ObjectContent" {
        object: ManagedObjectReference = "obj",
        properties: Vec<DynamicProperty> = "propSet",
        missing: Vec<MissingProperty> = "missingSet",
    }
    /// A property with its value.
    DynamicProperty = "DynamicProperty" {
        name: String = "name",
        value: AnyValue = "val",
    }
    /// A property that could not be read, and why.
    MissingProperty = "MissingProperty" {
        path: String = "path",
        fault: LocalizedMethodFault = "fault",
    }
    /// An object that could not be read, and why.
    MissingObject = "MissingObject" {
        object: ManagedObjectReference = "obj",
        fault: LocalizedMethodFault = "fault",
    }
    /// What changed since the version handed in.
    UpdateSet = "UpdateSet" {
        /// To be handed in the next time.
        version: String = "version",
        filters: Vec<PropertyFilterUpdate> = "filterSet",
        /// Whether there is more to be fetched at once.
        is_truncated: Option<bool> = "truncated",
    }
    /// The changes that one filter saw.
    PropertyFilterUpdate = "PropertyFilterUpdate" {
        filter: ManagedObjectReference = "filter",
        objects: Vec<ObjectUpdate> = "objectSet",
        missing: Vec<MissingObject> = "missingSet",
    }
    /// The changes of one object.
    ObjectUpdate = "ObjectUpdate" {
        kind: ObjectUpdateKind = "kind",
        object: ManagedObjectReference = "obj",
        changes: Vec<PropertyChange> = "changeSet",
        missing: Vec<MissingProperty> = "missingSet",
    }
    /// A changed property.
    PropertyChange = "PropertyChange" {
        name: String = "name",
        operation: PropertyChangeOperation = "op",
        /// Absent for a property that became unset.
        value: Option<AnyValue> = "val",
    }
}

enumeration! {
    /// What became of an object.
    ObjectUpdateKind = "ObjectUpdateKind" { Enter = "enter", Modify = "modify", Leave = "leave" }
    /// What became of a property.
    PropertyChangeOperation = "PropertyChangeOp" { Add = "add", Remove = "remove", Assign = "assign", IndirectRemove = "indirectRemove" }
}

/// How to go on from an object: along a property, or as another selection of that name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Along a property (`TraversalSpec`).
    Traversal(TraversalSpec),
    /// As the selection of this name (`SelectionSpec`); may refer in circles.
    Named(String),
}

data! {
    /// Along `path` from objects of `kind`.
    TraversalSpec = "TraversalSpec" {
        name: Option<String> = "name",
        kind: String = "type",
        path: String = "path",
        is_skipped: Option<bool> = "skip",
        selections: Vec<Selection> = "selectSet",
    }
}

impl TraversalSpec {
    /// Along `path` of `kind`, no further.
    pub fn along(kind: &str, path: &str) -> Self {
        Self { name: None, kind: kind.to_owned(), path: path.to_owned(), is_skipped: None, selections: Vec::new() }
    }
}

impl Value for Selection {
    const IS_TYPE_WRITTEN: bool = true;

    fn type_name(&self) -> Name {
        match self {
            Self::Traversal(_) => Name::vim("TraversalSpec"),
            Self::Named(_) => Name::vim("SelectionSpec"),
        }
    }

    fn write(&self, element: &mut Element) {
        match self {
            Self::Traversal(traversal) => traversal.write(element),
            Self::Named(name) => name.put("name", element),
        }
    }

    fn read(element: &Element) -> Result<Self, DecodeError> {
        match element.type_local() {
            Some("TraversalSpec") => Ok(Self::Traversal(TraversalSpec::read(element)?)),
            Some("SelectionSpec") | None => Ok(Self::Named(Field::take("name", element)?)),
            Some(other) => {
                let element = element.local().to_owned();
                Err(DecodeError::Type { element, found: other.to_owned(), expected: "a TraversalSpec or SelectionSpec" })
            }
        }
    }
}

impl ObjectContent {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&AnyValue> {
        self.properties.iter().find(|property| property.name == name).map(|property| &property.value)
    }
}
