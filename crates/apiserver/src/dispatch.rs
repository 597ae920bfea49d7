//! From a request to its answer: who may, what is meant, which part of the server does it.

use std::sync::Arc;

use apimachinery::table::Include;
use apimachinery::{GroupResource, StatusError, meta};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::delete::{self, DeleteOptions};
use crate::object::ObjectKey;
use crate::options::User;
use crate::patch::Patch;
use crate::present::Presenter;
use crate::registry::Resource;
use crate::request::{Form, Query, ResourcePath, Target, Verb, accepted};
use crate::response::{self, Answer};
use crate::scale::ScaleChange;
use crate::server::Inner;
use crate::write::{Parameters, Write};
use crate::{body, discovery, evict, health, openapi, read, review};

/// A request, read whole.
#[derive(Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Requests for certificates.
const SIGNING: &str = "certificatesigningrequests";

/// Paths that need no credentials.
fn is_public(path: &str) -> bool {
    let first = path.trim_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

/// Answers a request.
pub async fn handle(inner: &Arc<Inner>, user: &User, asked: &Asked) -> Answer {
    if inner.closing.is_cancelled() {
        return response::error(&StatusError::unavailable("the server is shutting down"));
    }
    if user.is_anonymous() && !is_public(&asked.path) {
        return response::error(&StatusError::unauthorized());
    }
    match answer(inner, user, asked).await {
        Ok(answer) => answer,
        Err(error) => response::error(&error),
    }
}

async fn answer(inner: &Arc<Inner>, user: &User, asked: &Asked) -> Result<Answer, StatusError> {
    let query = Query::parse(asked.query.as_deref());
    let registry = inner.registry();
    let form = accepted(&asked.headers);
    let is_get = matches!(asked.method, Method::GET | Method::HEAD);
    let target = Target::parse(&asked.path);
    if !is_get && !matches!(target, Target::Resource(_)) {
        return Err(StatusError::method_not_allowed());
    }
    match target {
        Target::CoreVersions if form == Some(Form::Discovery) => Ok(discovery::aggregated(&registry, true)),
        Target::CoreVersions => Ok(discovery::core_versions()),
        Target::Groups if form == Some(Form::Discovery) => Ok(discovery::aggregated(&registry, false)),
        Target::Groups => Ok(discovery::group_list(&registry)),
        Target::Group(group) => discovery::group(&registry, &group),
        Target::GroupVersion(group, version) => discovery::resources(&registry, &group, &version),
        Target::Other => other(inner, asked, &query),
        Target::Resource(path) if review::is_review(&path) => {
            if asked.method != Method::POST {
                return Err(StatusError::method_not_allowed());
            }
            review::answer(inner, user, &path, &body::read(&asked.headers, &asked.body, false)?)
        }
        Target::Resource(path) => {
            let resource = registry.get(&path.group, &path.resource).cloned().ok_or_else(StatusError::unknown_resource)?;
            let form = form.ok_or_else(|| StatusError::not_acceptable(&["application/json"]))?;
            OnResource { inner, asked, query: &query, path: &path, resource: &resource, form }.answer().await
        }
    }
}

fn other(inner: &Arc<Inner>, asked: &Asked, query: &Query) -> Result<Answer, StatusError> {
    let path = asked.path.as_str();
    if let Some(answer) = health::check(inner, path, query) {
        return Ok(answer);
    }
    match path.trim_end_matches('/') {
        "/version" => Ok(health::version(inner)),
        "/openapi/v3" => Ok(response::value(200, &openapi::index(&inner.registry()))),
        other => {
            let document = other.strip_prefix("/openapi/v3/");
            document.and_then(|rest| openapi::answer(&inner.registry(), rest, query.get("hash"))).ok_or_else(StatusError::unknown_resource)
        }
    }
}

struct OnResource<'a> {
    inner: &'a Arc<Inner>,
    asked: &'a Asked,
    query: &'a Query,
    path: &'a ResourcePath,
    resource: &'a Arc<Resource>,
    form: Form,
}

impl OnResource<'_> {
    async fn answer(&self) -> Result<Answer, StatusError> {
        let (path, resource) = (self.path, self.resource);
        let version = resource.versions.iter().position(|version| *version.name == path.version && version.is_served);
        let version = version.ok_or_else(StatusError::unknown_resource)?;
        // A namespaced path to objects of the cluster names nothing, nor does an object of a namespaced kind without its namespace.
        let is_misplaced =
            if resource.is_namespaced { path.namespace.is_empty() && path.name.is_some() } else { !path.namespace.is_empty() };
        if is_misplaced {
            return Err(StatusError::unknown_resource());
        }
        let include = Include::parse(self.query.get("includeObject"))
            .ok_or_else(|| StatusError::bad_request("unrecognized includeObject value; supported values: None, Metadata, Object"))?;
        let presenter = Presenter { resource: resource.clone(), version, form: self.form, include };
        let mut answer = match &path.subresource {
            None => self.on_object(&presenter).await?,
            Some(subresource) => self.on_subresource(&presenter, subresource).await?,
        };
        if let Some(warning) = presenter.version().and_then(|version| version.warning.clone()) {
            answer = response::with_warnings(answer, &[warning]);
        }
        Ok(answer)
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(&self.resource.id, &self.path.namespace, name)
    }

    fn namespace(&self) -> Option<&str> {
        Some(self.path.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    fn body(&self) -> Result<Value, StatusError> {
        body::read(&self.asked.headers, &self.asked.body, self.resource.is_custom())
    }

    fn write<'b>(&'b self, presenter: &'b Presenter, options: &str) -> Result<Write<'b>, StatusError> {
        let parameters = Parameters::parse(self.query, options)?;
        Ok(Write { inner: self.inner, presenter, namespace: &self.path.namespace, parameters })
    }

    fn patch(&self) -> Result<Patch, StatusError> {
        Patch::parse(body::media_type(&self.asked.headers), &self.asked.body, self.resource.is_custom())
    }

    fn delete_options(&self) -> Result<DeleteOptions, StatusError> {
        // Options come as JSON or protobuf whatever the kind of the object.
        DeleteOptions::parse(&body::read(&self.asked.headers, &self.asked.body, false)?, self.query)
    }

    async fn on_object(&self, presenter: &Presenter) -> Result<Answer, StatusError> {
        let (inner, name) = (self.inner, self.path.name.as_deref());
        let is_watch = self.query.flag("watch");
        let verb = Verb::of(&self.asked.method, name.is_some(), is_watch).ok_or_else(StatusError::method_not_allowed)?;
        match (verb, name) {
            (Verb::Get, Some(name)) => read::get(inner, presenter, &self.key(name)),
            (Verb::Watch, name) => read::watch(inner, presenter, self.query, self.namespace(), name),
            (Verb::List, _) => read::list(inner, presenter, self.query, self.namespace()).await,
            (Verb::Create, None) if !self.resource.is_namespaced || self.namespace().is_some() => {
                self.write(presenter, "CreateOptions")?.create(self.body()?, None).await
            }
            (Verb::Update, Some(name)) => self.write(presenter, "UpdateOptions")?.update(name, "", self.body()?).await,
            (Verb::Patch, Some(name)) => self.write(presenter, "PatchOptions")?.patch(name, "", &self.patch()?).await,
            (Verb::Delete, Some(name)) => delete::answer(inner, presenter, &self.key(name), &self.delete_options()?).await,
            (Verb::DeleteCollection, _) if self.resource.verbs().contains(&"deletecollection") => {
                delete::collection(inner, presenter, self.query, self.namespace(), &self.delete_options()?).await
            }
            _ => Err(StatusError::method_not_allowed()),
        }
    }

    async fn on_subresource(&self, presenter: &Presenter, subresource: &str) -> Result<Answer, StatusError> {
        let Some(name) = self.path.name.as_deref() else { return Err(StatusError::unknown_resource()) };
        let version = presenter.version().ok_or_else(StatusError::unknown_resource)?;
        let id = (&*self.resource.id.group, &*self.resource.id.resource);
        let method = self.asked.method.as_str();
        match (subresource, method) {
            ("status", "GET" | "HEAD") if version.has_status => read::get(self.inner, presenter, &self.key(name)),
            ("status", "PUT") if version.has_status => self.write(presenter, "UpdateOptions")?.update(name, "status", self.body()?).await,
            ("status", "PATCH") if version.has_status => self.write(presenter, "PatchOptions")?.patch(name, "status", &self.patch()?).await,
            // Signing requests are approved in their status, under another name.
            ("approval", "GET" | "HEAD") if id.1 == SIGNING => read::get(self.inner, presenter, &self.key(name)),
            ("approval", "PUT") if id.1 == SIGNING => self.write(presenter, "UpdateOptions")?.update(name, "status", self.body()?).await,
            ("approval", "PATCH") if id.1 == SIGNING => self.write(presenter, "PatchOptions")?.patch(name, "status", &self.patch()?).await,
            ("finalize", "PUT") if id == ("", "namespaces") => {
                self.write(presenter, "UpdateOptions")?.update(name, "finalize", self.body()?).await
            }
            ("scale", _) => {
                let Some(paths) = &version.scale else { return Err(StatusError::unknown_resource()) };
                match method {
                    "GET" | "HEAD" => {
                        let entry = self.inner.get(&self.key(name));
                        let entry = entry.ok_or_else(|| StatusError::not_found(&self.resource.group_resource(), name))?;
                        self.write(presenter, "GetOptions")?.show_scale(&entry, paths)
                    }
                    "PUT" => self.write(presenter, "UpdateOptions")?.change_scale(name, paths, &ScaleChange::Put(self.body()?)).await,
                    "PATCH" => {
                        let patch = Patch::parse(body::media_type(&self.asked.headers), &self.asked.body, true)?;
                        self.write(presenter, "PatchOptions")?.change_scale(name, paths, &ScaleChange::Patch(patch)).await
                    }
                    _ => Err(StatusError::method_not_allowed()),
                }
            }
            ("eviction", "POST") if id == ("", "pods") => {
                evict::evict(self.inner, self.resource, &self.key(name), &self.body()?, self.query).await
            }
            ("binding", "POST") if id == ("", "pods") => {
                let node = meta::at(&self.body()?, &["target", "name"]).cloned().unwrap_or_default();
                let patch = Patch::Merge(json!({"spec": {"nodeName": node}}));
                self.write(presenter, "CreateOptions")?.patch(name, "", &patch).await
            }
            ("token", "POST") if id == ("", "serviceaccounts") => {
                // No token is issued here: clients show certificates.
                self.inner.get(&self.key(name)).ok_or_else(|| StatusError::not_found(&GroupResource::new("", "serviceaccounts"), name))?;
                Err(StatusError::method_not_allowed())
            }
            ("status" | "finalize" | "eviction" | "approval", _) if version.has_status => Err(StatusError::method_not_allowed()),
            _ => Err(StatusError::unknown_resource()),
        }
    }
}
