//! The operations on a kind: paths, methods, parameters, bodies.

use serde_json::{Map, Value, json};

use super::components::{META, SCALE};
use super::{Kind, identity, location, package};
use crate::registry::Origin;

/// A parameter of the query: name, type, what it does.
const PRETTY: (&str, &str, &str) = ("pretty", "string", "Whether the answer is indented for people.");
const DRY_RUN: (&str, &str, &str) = ("dryRun", "string", "All: every check is made and nothing is stored.");
const MANAGER: (&str, &str, &str) = ("fieldManager", "string", "Name of the one who makes the change, at most 128 characters.");
const VALIDATION: (&str, &str, &str) = (
    "fieldValidation",
    "string",
    "What becomes of unknown and repeated fields. Ignore: they are dropped. Warn: they are dropped and a warning names them. Strict: the request is refused.",
);
const FORCE: (&str, &str, &str) = ("force", "boolean", "For server-side apply only: take fields from other managers.");
const VERSION: (&str, &str, &str) = ("resourceVersion", "string", "The revision that the answer must at least be of.");

const LISTING: [(&str, &str, &str); 10] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
    ("continue", "string", "The token of the page before."),
    ("fieldSelector", "string", "Only objects whose fields have these values."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "The number of objects on a page."),
    VERSION,
    ("resourceVersionMatch", "string", "How the revision given is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with all objects there are."),
    ("timeoutSeconds", "integer", "When the request ends at the latest."),
    ("watch", "boolean", "Changes as they happen in place of a list."),
];

const DELETION: [(&str, &str, &str); 4] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds that the object is given to end; 0 ends it at once."),
    ("orphanDependents", "boolean", "Deprecated: whether dependents stay. Use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

fn query(parameters: &[(&str, &str, &str)]) -> Value {
    parameters
        .iter()
        .map(|(name, kind, description)| {
            json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
        })
        .collect()
}

/// The parameters that all methods of a path share.
fn shared(is_namespaced: bool, named: Option<&str>) -> Value {
    let mut all = Vec::new();
    let in_path = |name: &str, description: String| json!({"name": name, "in": "path", "description": description, "required": true, "schema": {"type": "string", "uniqueItems": true}});
    if let Some(kind) = named {
        all.push(in_path("name", format!("Name of the {kind}.")));
    }
    if is_namespaced {
        all.push(in_path("namespace", "Namespace of the objects.".to_owned()));
    }
    if let Value::Array(pretty) = query(&[PRETTY]) {
        all.extend(pretty);
    }
    Value::Array(all)
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn content(forms: &[&str], component: &str) -> Value {
    forms.iter().map(|form| ((*form).to_owned(), json!({"schema": reference(component)}))).collect::<Map<_, _>>().into()
}

const FORMS: [&str; 2] = ["application/json", "application/yaml"];

/// One operation, as it is put together.
struct Operation<'a> {
    verb: &'a str,
    action: &'a str,
    what: String,
    parameters: Value,
    /// Forms and schema of the request's body.
    body: Option<(&'a [&'a str], &'a str, bool)>,
    /// Schema of the answer.
    answer: &'a str,
    codes: &'a [(&'a str, &'a str)],
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

impl Operation<'_> {
    fn print(&self, names: &Names, suffix: &str, kind: &Value) -> Value {
        let mut responses = Map::new();
        for (code, description) in self.codes {
            responses.insert((*code).to_owned(), json!({"description": description, "content": content(&FORMS, self.answer)}));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        let mut operation = json!({
            "tags": [names.tag],
            "description": self.what,
            "operationId": format!("{}{}{suffix}", self.verb, names.camel),
            "parameters": self.parameters,
        });
        if let Some(map) = operation.as_object_mut() {
            if let Some((forms, component, required)) = &self.body {
                let mut body = json!({"content": content(forms, component)});
                if *required && let Some(body) = body.as_object_mut() {
                    body.insert("required".to_owned(), json!(true));
                }
                map.insert("requestBody".to_owned(), body);
            }
            map.insert("responses".to_owned(), Value::Object(responses));
            map.insert("x-kubernetes-action".to_owned(), json!(self.action));
            map.insert("x-kubernetes-group-version-kind".to_owned(), kind.clone());
        }
        operation
    }
}

/// How a version of a group is named in identifiers: `CoreV1`, `AppsV1`, `ClusterXK8sIoV1beta2`.
struct Names {
    tag: String,
    camel: String,
}

impl Names {
    fn new(group: &str, version: &str, is_custom: bool) -> Self {
        let short = match group {
            "" => "core",
            group if is_custom => group,
            group => group.strip_suffix(".k8s.io").unwrap_or(group),
        };
        let mut camel = String::new();
        for part in short.split(|c: char| !c.is_ascii_alphanumeric()).chain([version]) {
            let mut letters = part.chars();
            camel.extend(letters.next().map(|c| c.to_ascii_uppercase()));
            camel.push_str(letters.as_str());
        }
        let group = camel.strip_suffix(&capitalized(version)).unwrap_or(&camel);
        let mut letters = group.chars();
        let tag = letters.next().map(|c| c.to_ascii_lowercase().to_string()).unwrap_or_default() + letters.as_str();
        Self { tag: format!("{tag}_{version}"), camel }
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_uppercase().to_string()).unwrap_or_default() + letters.as_str()
}

/// Adds the paths of a kind.
pub(super) fn of_kind(kind: &Kind<'_>, paths: &mut Map<String, Value>) {
    let (resource, version) = (kind.resource, &kind.served.name);
    let names = Names::new(&resource.group, version, resource.is_custom());
    let root = format!("/{}", location(&resource.group, version));
    let place = if resource.is_namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{place}/{}", resource.plural);
    paths.insert(collection.clone(), whole(kind, &names));
    paths.insert(format!("{collection}/{{name}}"), single(kind, &names));
    if resource.is_namespaced {
        let suffix = format!("{}ForAllNamespaces", resource.kind);
        let operation = list(kind, &kind.list_component(), query(&[])).print(&names, &suffix, &kind.identity());
        let mut parameters = LISTING.to_vec();
        parameters.push(PRETTY);
        paths.insert(format!("{root}/{}", resource.plural), json!({"get": operation, "parameters": query(&parameters)}));
    }
    if kind.served.has_status {
        paths.insert(format!("{collection}/{{name}}/status"), part(kind, &names, "Status", &kind.component, &kind.identity()));
    }
    if kind.served.scale.is_some() {
        // Of custom kinds, the scale goes by the name of its object, as the genuine server has it.
        let scale = if resource.is_custom() { kind.identity() } else { identity("autoscaling", "v1", "Scale") };
        paths.insert(format!("{collection}/{{name}}/scale"), part(kind, &names, "Scale", SCALE, &scale));
    }
    if let Origin::Builtin(builtin) = resource.origin
        && builtin.extra.contains(&"eviction")
    {
        let evict = Operation {
            verb: "create",
            action: "post",
            what: "Evicts a pod, if the budgets of disruption allow it.".to_owned(),
            parameters: query(&[DRY_RUN, MANAGER, VALIDATION]),
            body: Some((&FORMS, &format!("{META}.DeleteOptions"), true)),
            answer: &format!("{META}.Status"),
            codes: &[("201", "Created")],
        };
        let printed = evict.print(&names, "NamespacedPodEviction", &identity("policy", "v1", "Eviction"));
        paths.insert(format!("{collection}/{{name}}/eviction"), json!({"post": printed, "parameters": shared(true, Some("Eviction"))}));
    }
}

fn scope(kind: &Kind<'_>) -> &'static str {
    if kind.resource.is_namespaced { "Namespaced" } else { "" }
}

fn list<'a>(kind: &Kind<'_>, answer: &'a str, parameters: Value) -> Operation<'a> {
    let what = format!("Lists or watches objects of kind {}.", kind.resource.kind);
    Operation { verb: "list", action: "list", what, parameters, body: None, answer, codes: OK }
}

/// The path of a collection.
fn whole(kind: &Kind<'_>, names: &Names) -> Value {
    let resource = kind.resource;
    let suffix = format!("{}{}", scope(kind), resource.kind);
    let list_component = kind.list_component();
    let listed = list(kind, &list_component, query(&LISTING));
    let created = Operation {
        verb: "create",
        action: "post",
        what: format!("Creates a {}.", resource.kind),
        parameters: query(&[DRY_RUN, MANAGER, VALIDATION]),
        body: Some((&FORMS, &kind.component, true)),
        answer: &kind.component,
        codes: CREATED,
    };
    let id = kind.identity();
    let mut path = Map::new();
    path.insert("get".to_owned(), listed.print(names, &suffix, &id));
    path.insert("post".to_owned(), created.print(names, &suffix, &id));
    if resource.verbs().contains(&"deletecollection") {
        let deleted = Operation {
            verb: "delete",
            action: "deletecollection",
            what: format!("Deletes all objects of kind {} that match.", resource.kind),
            parameters: query(&LISTING),
            body: Some((&FORMS, &format!("{META}.DeleteOptions"), false)),
            answer: &format!("{META}.Status"),
            codes: OK,
        };
        path.insert("delete".to_owned(), deleted.print(names, &format!("Collection{suffix}"), &id));
    }
    path.insert("parameters".to_owned(), shared(resource.is_namespaced, None));
    Value::Object(path)
}

const PATCHES: [&str; 2] = ["application/json-patch+json", "application/merge-patch+json"];

fn read<'a>(what: String, answer: &'a str) -> Operation<'a> {
    Operation { verb: "read", action: "get", what, parameters: query(&[VERSION]), body: None, answer, codes: OK }
}

fn replace<'a>(what: String, component: &'a str) -> Operation<'a> {
    let parameters = query(&[DRY_RUN, MANAGER, VALIDATION]);
    Operation { verb: "replace", action: "put", what, parameters, body: Some((&FORMS, component, true)), answer: component, codes: CREATED }
}

fn patch<'a>(what: String, patch: &'a str, answer: &'a str) -> Operation<'a> {
    let parameters = query(&[DRY_RUN, MANAGER, VALIDATION, FORCE]);
    Operation { verb: "patch", action: "patch", what, parameters, body: Some((&PATCHES, patch, true)), answer, codes: OK }
}

/// The path of one object.
fn single(kind: &Kind<'_>, names: &Names) -> Value {
    let resource = kind.resource;
    let suffix = format!("{}{}", scope(kind), resource.kind);
    let (name, id) = (&resource.kind, kind.identity());
    let patched = format!("{META}.Patch");
    let deleted = Operation {
        verb: "delete",
        action: "delete",
        what: format!("Deletes a {name}."),
        parameters: query(&DELETION),
        body: Some((&FORMS, &format!("{META}.DeleteOptions"), false)),
        answer: &format!("{META}.Status"),
        codes: ACCEPTED,
    };
    json!({
        "get": read(format!("Reads a {name}."), &kind.component).print(names, &suffix, &id),
        "put": replace(format!("Replaces a {name}."), &kind.component).print(names, &suffix, &id),
        "delete": deleted.print(names, &suffix, &id),
        "patch": patch(format!("Changes parts of a {name}."), &patched, &kind.component).print(names, &suffix, &id),
        "parameters": shared(resource.is_namespaced, Some(name)),
    })
}

/// The path of a subresource that is read and written like an object.
fn part(kind: &Kind<'_>, names: &Names, part: &str, component: &str, id: &Value) -> Value {
    let resource = kind.resource;
    let suffix = format!("{}{}{part}", scope(kind), resource.kind);
    let what = format!("{} of a {}.", part.to_lowercase(), resource.kind);
    let patched = format!("{META}.Patch");
    json!({
        "get": read(format!("Reads the {what}"), component).print(names, &suffix, id),
        "put": replace(format!("Replaces the {what}"), component).print(names, &suffix, id),
        "patch": patch(format!("Changes parts of the {what}"), &patched, component).print(names, &suffix, id),
        "parameters": shared(resource.is_namespaced, Some(&resource.kind)),
    })
}

/// Adds the path of a review, which is asked and never stored.
pub(super) fn of_review(group: &str, version: &str, plural: &str, kind: &str, paths: &mut Map<String, Value>) {
    let component = format!("{}.{version}.{kind}", package(group, false));
    let create = Operation {
        verb: "create",
        action: "post",
        what: format!("Answers a {kind}."),
        parameters: query(&[DRY_RUN, MANAGER, VALIDATION]),
        body: Some((&FORMS, &component, true)),
        answer: &component,
        codes: CREATED,
    };
    let printed = create.print(&Names::new(group, version, false), kind, &identity(group, version, kind));
    paths.insert(format!("/{}/{plural}", location(group, version)), json!({"post": printed, "parameters": shared(false, None)}));
}
