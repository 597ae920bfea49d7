//! kubectl's part, as far as scenarios use it: against the API that manages clusters, or a cluster's own. The words are kubectl's.

use http::Method;
use serde_json::{Value, json};

use crate::apply::{Api, Resource};
use crate::output::Printer;
use crate::output::table::of_answer;
use crate::problem::{Code, Problem};
use crate::render::Manifest;
use crate::render::yaml;

const MERGE: &str = "application/merge-patch+json";

/// Told of a resource and a name.
pub type Deletes = Box<dyn Fn(&str, &str)>;

/// Where a command goes, and what it may read.
pub struct Kubectl {
    pub api: Api,
    pub namespace: String,
    /// The text of a file.
    pub files: std::collections::BTreeMap<String, String>,
    pub printer: Printer,
    /// Told of Machines that a person deletes.
    pub deletes: Deletes,
}

fn unknown(what: &str) -> Problem {
    Problem::new(Code::BadFlag, format!("scenarios know no `kubectl {what}`"))
}

/// As kubectl words it.
fn refused(error: &kube::Error) -> Problem {
    let told = match error {
        kube::Error::Api(status) => format!("Error from server ({}): {}", status.reason, status.message),
        other => format!("Unable to connect to the server: {other}"),
    };
    Problem::new(Code::ApiRefused, told)
}

impl Kubectl {
    /// Carries out the words behind `kubectl`, without global flags.
    ///
    /// # Errors
    /// As the server says, or when scenarios do not know such a command.
    pub async fn run(&self, words: &[&str]) -> Result<(), Problem> {
        match words {
            ["apply", "-f", file] => self.apply(file).await,
            ["get", kind] => self.get(kind).await,
            ["delete", kind, "--all", "--wait=false"] => self.delete_all(kind).await,
            ["delete", kind, name, "--wait=false"] => self.delete(kind, name).await,
            ["patch", kind, name, "--type", "merge", "-p", change] => {
                let change = serde_json::from_str(change).map_err(|error| unknown(&format!("patch -p {change}: {error}")))?;
                self.merge(kind, name, &change, "patched").await
            }
            ["annotate", kind, name, pair] => {
                let (key, value) = pair
                    .split_once('=')
                    .map_or_else(|| (pair.trim_end_matches('-'), Value::Null), |(key, value)| (key, Value::from(value)));
                self.merge(kind, name, &json!({"metadata": {"annotations": {key: value}}}), "annotated").await
            }
            ["create", "namespace", name] => {
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                self.send(Method::POST, "/api/v1/namespaces", Some("application/json"), Some(&object)).await?;
                self.printer.data(&format!("namespace/{name} created"));
                Ok(())
            }
            other => Err(unknown(&other.join(" "))),
        }
    }

    async fn send(&self, method: Method, path: &str, form: Option<&str>, body: Option<&Value>) -> Result<Value, Problem> {
        self.api.send(method, path, form, body).await.map_err(|error| refused(&error))
    }

    async fn resource(&self, kind: &str) -> Result<Resource, Problem> {
        let found = self.api.resource_called(kind).await.map_err(|error| refused(&error))?;
        found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("error: the server doesn't have a resource type \"{kind}\"")))
    }

    async fn apply(&self, file: &str) -> Result<(), Problem> {
        let text = self.files.get(file).ok_or_else(|| Problem::new(Code::UnreadableFile, format!("the path \"{file}\" does not exist")))?;
        for part in yaml::split(text) {
            let object = yaml::parse(part.text, part.line)
                .map_err(|error| Problem::new(Code::BadYaml, format!("{file}:{}: {error}", error.line)))?;
            let (shown, outcome) = self.api.apply(&Manifest { object, file: file.to_owned(), line: part.line }, &self.namespace).await?;
            self.printer.data(&format!("{shown} {}", outcome.word()));
        }
        Ok(())
    }

    async fn get(&self, kind: &str) -> Result<(), Problem> {
        let resource = self.resource(kind).await?;
        let path = resource.path(&self.namespace, None);
        let answer = self.api.table(&path).await.map_err(|error| refused(&error))?;
        self.printer.data(&of_answer(&answer, false, false, ""));
        Ok(())
    }

    async fn delete(&self, kind: &str, name: &str) -> Result<(), Problem> {
        let resource = self.resource(kind).await?;
        self.take(&resource, name).await
    }

    async fn delete_all(&self, kind: &str) -> Result<(), Problem> {
        let resource = self.resource(kind).await?;
        let list = self.send(Method::GET, &resource.path(&self.namespace, None), None, None).await?;
        for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            self.take(&resource, name).await?;
        }
        Ok(())
    }

    async fn take(&self, resource: &Resource, name: &str) -> Result<(), Problem> {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        (self.deletes)(&resource.plural, name);
        self.send(Method::DELETE, &resource.path(&self.namespace, Some(name)), Some("application/json"), Some(&options)).await?;
        let (kind, _) = resource.display("").split_once('/').map(|(kind, rest)| (kind.to_owned(), rest.to_owned())).unwrap_or_default();
        self.printer.data(&format!("{kind} \"{name}\" deleted"));
        Ok(())
    }

    async fn merge(&self, kind: &str, name: &str, change: &Value, word: &str) -> Result<(), Problem> {
        let resource = self.resource(kind).await?;
        self.send(Method::PATCH, &resource.path(&self.namespace, Some(name)), Some(MERGE), Some(change)).await?;
        self.printer.data(&format!("{} {word}", resource.display(name)));
        Ok(())
    }
}
