//! The schemas of a document: kinds, their lists, and what they share.
//!
//! A custom kind's schema is the one its definition was written with; `apiVersion`, `kind` and `metadata` of it and of objects embedded
//! in it are filled in. Built-in kinds without a schema are described as objects with any fields.

use serde_json::{Map, Value, json};

use super::{Kind, identity, package};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

fn text(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn whole(description: &str) -> Value {
    json!({"description": description, "type": "integer", "format": "int64"})
}

fn flag(description: &str) -> Value {
    json!({"description": description, "type": "boolean"})
}

fn shared_type(name: &str, description: &str) -> Value {
    json!({"description": description, "allOf": [{"$ref": format!("#/components/schemas/{META}.{name}")}]})
}

fn list_of(description: &str, items: Value) -> Value {
    json!({"description": description, "type": "array", "items": items})
}

fn texts(description: &str) -> Value {
    json!({"description": description, "type": "object", "additionalProperties": {"type": "string"}})
}

fn object(description: &str, required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"description": description, "type": "object", "properties": properties});
    if !required.is_empty()
        && let Some(map) = schema.as_object_mut()
    {
        map.insert("required".to_owned(), json!(required));
    }
    schema
}

const API_VERSION: &str = "Group and version that the object is written in.";
const KIND: &str = "Kind of the object.";
const METADATA: &str = "Name, namespace, labels and whatever else all objects have.";

fn envelope() -> [(&'static str, Value); 3] {
    [("apiVersion", text(API_VERSION)), ("kind", text(KIND)), ("metadata", shared_type("ObjectMeta", METADATA))]
}

/// What every document has.
pub(super) fn shared() -> Map<String, Value> {
    let item = |name: &str| json!({"$ref": format!("#/components/schemas/{META}.{name}")});
    let any = |description: &str| json!({"description": description, "type": "object"});
    let time = |description: &str| shared_type("Time", description);
    let owner = object(
        "An object that this one belongs to: it goes when its last owner goes.",
        &["apiVersion", "kind", "name", "uid"],
        json!({
            "apiVersion": text("The owner's group and version."), "kind": text("The owner's kind."), "name": text("The owner's name."),
            "uid": text("The owner's UID."), "controller": flag("Whether the owner manages this object."),
            "blockOwnerDeletion": flag("Whether foreground deletion of the owner waits for this object."),
        }),
    );
    let managed = object(
        "Fields that one manager has set.",
        &[],
        json!({
            "apiVersion": text("Version that the fields are named in."), "fieldsType": text("FieldsV1."),
            "fieldsV1": shared_type("FieldsV1", "The fields."), "manager": text("Who set them."),
            "operation": text("Apply or Update."), "subresource": text("The subresource that was written, if one."),
            "time": time("When they were last set."),
        }),
    );
    let meta = object(
        METADATA,
        &[],
        json!({
            "annotations": texts("Notes for tools and people; at most 256 KiB together."),
            "creationTimestamp": time("When the object was created. Set by the server."),
            "deletionGracePeriodSeconds": whole("Seconds the object was given to end. Set by the server."),
            "deletionTimestamp": time("When the object was asked to go. Set by the server."),
            "finalizers": list_of("Those who must agree before the object goes.", json!({"type": "string"})),
            "generateName": text("Prefix of a name that the server completes, where no name is given."),
            "generation": whole("Counts the changes of the specification. Set by the server."),
            "labels": texts("Keys and values to select objects by."),
            "managedFields": list_of("Who has set which fields.", item("ManagedFieldsEntry")),
            "name": text("Name, unique among objects of the kind in the namespace."),
            "namespace": text("Namespace; empty for objects of the cluster."),
            "ownerReferences": list_of("Objects that this one belongs to.", item("OwnerReference")),
            "resourceVersion": text("Changes with every write; opaque. Set by the server."),
            "selfLink": text("No longer used."),
            "uid": text("Unique for all time. Set by the server."),
        }),
    );
    let list_meta = object(
        "What is said of a list as a whole.",
        &[],
        json!({
            "continue": text("Token for the next page; empty on the last."), "remainingItemCount": whole("Objects after this page."),
            "resourceVersion": text("Revision that the list is of."), "selfLink": text("No longer used."),
        }),
    );
    let preconditions = object(
        "What must hold of an object for it to be deleted.",
        &[],
        json!({"resourceVersion": text("Its revision."), "uid": text("Its UID.")}),
    );
    let delete = object(
        "How an object is to be deleted.",
        &[],
        json!({
            "apiVersion": text(API_VERSION), "kind": text(KIND), "dryRun": list_of("All: nothing is deleted.", json!({"type": "string"})),
            "gracePeriodSeconds": whole("Seconds that the object is given to end."),
            "orphanDependents": flag("Deprecated: whether dependents stay."),
            "preconditions": shared_type("Preconditions", "What must hold."),
            "propagationPolicy": text("What becomes of dependents: Orphan, Background or Foreground."),
        }),
    );
    let status = object(
        "The outcome of a request that gives no object.",
        &[],
        json!({
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": shared_type("ListMeta", "Empty."), "code": whole("HTTP status code."),
            "details": any("What it is about: name, group, kind, uid, causes, retryAfterSeconds."), "message": text("In words."),
            "reason": text("In one word, for machines."), "status": text("Success or Failure."),
        }),
    );
    let scale = object(
        "How many replicas there are and should be.",
        &[],
        json!({
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": shared_type("ObjectMeta", METADATA),
            "spec": object("What is wanted.", &[], json!({"replicas": whole("Replicas wanted.")})),
            "status": object("What is.", &["replicas"], json!({"replicas": whole("Replicas there are."), "selector": text("Labels of the replicas.")})),
        }),
    );
    let mut all = Map::new();
    for (name, schema) in [
        ("ObjectMeta", meta),
        ("ListMeta", list_meta),
        ("OwnerReference", owner),
        ("ManagedFieldsEntry", managed),
        ("FieldsV1", any("A tree of field names.")),
        ("Time", json!({"description": "A moment, in RFC 3339.", "type": "string", "format": "date-time"})),
        ("Preconditions", preconditions),
        ("DeleteOptions", with_kind(delete, "", "v1", "DeleteOptions")),
        ("Status", with_kind(status, "", "v1", "Status")),
        ("Patch", any("A change, in one of the forms of a patch.")),
    ] {
        all.insert(format!("{META}.{name}"), schema);
    }
    all.insert(SCALE.to_owned(), with_kind(scale, "autoscaling", "v1", "Scale"));
    all
}

fn with_kind(mut schema: Value, group: &str, version: &str, kind: &str) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-kubernetes-group-version-kind".to_owned(), json!([identity(group, version, kind)]));
    }
    schema
}

/// Adds a kind and its list.
pub(super) fn of_kind(kind: &Kind<'_>, schemas: &mut Map<String, Value>) {
    let resource = kind.resource;
    let (group, version) = (&*resource.group, &*kind.served.name);
    let mut schema = match &kind.served.openapi {
        // What was written was read once already.
        Some(written) => serde_json::from_str(written).unwrap_or_default(),
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    complete(&mut schema);
    fill(&mut schema);
    if let Some(map) = schema.as_object_mut()
        && !map.contains_key("description")
    {
        map.insert("description".to_owned(), json!(format!("{} in {}.", resource.kind, kind.served.api_version)));
    }
    schemas.insert(kind.component.clone(), with_kind(schema, group, version, &resource.kind));
    let list = object(
        &format!("A list of objects of kind {}.", resource.kind),
        &["items"],
        json!({
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": shared_type("ListMeta", "What is said of the list as a whole."),
            "items": list_of("The objects.", json!({"$ref": format!("#/components/schemas/{}", kind.component)})),
        }),
    );
    schemas.insert(kind.list_component(), with_kind(list, group, version, &resource.list_kind));
}

/// Puts the fields of every object at the top of a schema.
fn fill(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        for (name, described) in envelope() {
            let known = properties.get(name).and_then(|known| known.get("description")).cloned();
            let mut described = described;
            if let (Some(known), Some(map)) = (known, described.as_object_mut()) {
                map.insert("description".to_owned(), known);
            }
            properties.insert(name.to_owned(), described);
        }
        properties.sort_keys();
    }
}

/// Fills in embedded objects, and what a schema of a definition may leave out and OpenAPI may not.
fn complete(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    // Rules are for servers; the genuine one publishes them, and no client reads them.
    map.shift_remove("x-kubernetes-validations");
    let is_embedded = map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    for name in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = map.get_mut(name) {
            properties.values_mut().for_each(complete);
        }
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(below) = map.get_mut(name) {
            complete(below);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(list)) = map.get_mut(name) {
            list.iter_mut().for_each(complete);
        }
    }
    if is_embedded {
        fill(schema);
    }
}

/// Adds a review.
pub(super) fn of_review(group: &str, version: &str, kind: &str, schemas: &mut Map<String, Value>) {
    let mut schema = object(
        "A question and its answer; never stored.",
        &[],
        json!({
            "spec": {"description": "The question.", "type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"description": "The answer.", "type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }),
    );
    fill(&mut schema);
    schemas.insert(format!("{}.{version}.{kind}", package(group, false)), with_kind(schema, group, version, kind));
}
