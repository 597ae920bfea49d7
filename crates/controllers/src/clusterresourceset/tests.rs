//! Every branch of a ClusterResourceSet's plan, and what it tells.

use std::sync::Arc;

use api::addons::{ClusterResourceSet, ClusterResourceSetBinding, ResourceRef, ResourceSetSource};
use api::cluster::Cluster;
use api::conditions::{Status, get};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Source, Step, Target, plan};
use super::status::status;
use crate::workload::{Applied, Connection};

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn set(change: &Value) -> Arc<ClusterResourceSet> {
    let mut value = json!({"metadata": {"name": "s", "namespace": "n", "finalizers": ["addons.cluster.x-k8s.io"]},
        "spec": {"clusterSelector": {"matchLabels": {"a": "b"}}, "resources": [{"kind": "Secret", "name": "cpi"}]}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn cpi() -> ResourceRef {
    ResourceRef { kind: ResourceSetSource::Secret, name: "cpi".into() }
}

fn found() -> Source {
    Source::Found { hash: "sha256:1".into(), objects: Arc::new(vec![json!({})]), is_owned: true }
}

fn binding(applied: bool, hash: &str) -> Arc<ClusterResourceSetBinding> {
    read(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"clusterName": "c", "bindings": [
        {"clusterResourceSetName": "s", "resources": [{"kind": "Secret", "name": "cpi", "applied": applied, "hash": hash}]}]}}))
}

fn connected() -> Connection {
    Connection::Connected { since: Timestamp::UNIX_EPOCH }
}

fn target(connection: Connection, binding: Option<Arc<ClusterResourceSetBinding>>, applied: Option<Applied>) -> Target {
    let cluster = read::<Cluster>(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {}}));
    Target { cluster, connection, binding, applied: vec![applied] }
}

fn observed(source: Source, target: Target) -> Observed {
    Observed {
        set: set(&json!({})),
        sources: vec![(cpi(), source)],
        targets: vec![target],
        bindings: Vec::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn words(planned: &Plan) -> Vec<String> {
    planned.steps.iter().map(|step| format!("{step:?}").split([' ', '(']).next().unwrap().to_owned()).collect()
}

#[test]
fn a_source_goes_from_hand_to_binding() {
    let fresh = observed(found(), target(connected(), None, None));
    assert_eq!(words(&plan(&fresh)), ["Apply"]);
    let pending = plan(&observed(found(), target(connected(), None, Some(Applied::Pending))));
    assert_eq!((pending.steps.len(), pending.troubles[0].reason), (0, "ApplyingResources"));
    let done = plan(&observed(found(), target(connected(), None, Some(Applied::Done))));
    assert!(matches!(done.steps.as_slice(), [Step::Bind { is_applied: true, .. }]));
    let bound = observed(found(), target(connected(), Some(binding(true, "sha256:1")), None));
    assert_eq!(plan(&bound), Plan::default());
    assert_eq!(get(&status(&bound, &plan(&bound)).conditions, "ResourcesApplied").unwrap().status, Status::True);
    let failed = plan(&observed(found(), target(connected(), None, Some(Applied::Failed("no".into())))));
    assert_eq!(words(&failed), ["Apply"]);
    assert_eq!(failed.troubles[0].message, "Cluster c: Secret cpi was not applied: no");
    let away = observed(found(), target(Connection::Waiting { on: "Secret c-kubeconfig".into() }, None, None));
    let told = status(&away, &plan(&away));
    let condition = get(&told.conditions, "ResourcesApplied").unwrap();
    assert_eq!(
        (condition.reason.as_str(), condition.message.as_str()),
        ("RemoteClusterClientFailed", "* Cluster c: not connected yet: waiting for Secret c-kubeconfig")
    );
}

#[test]
fn once_is_once_and_reconcile_follows_the_content() {
    let changed = || target(connected(), Some(binding(true, "sha256:0")), None);
    assert_eq!(plan(&observed(found(), changed())).steps, []);
    let following = Observed { set: set(&json!({"spec": {"strategy": "Reconcile"}})), ..observed(found(), changed()) };
    assert_eq!(words(&plan(&following)), ["Apply"]);
    assert_eq!(words(&plan(&observed(found(), target(connected(), Some(binding(false, "sha256:1")), None)))), ["Apply"]);
}

#[test]
fn a_source_that_cannot_be_used_is_told_and_the_rest_goes_on() {
    let missing = plan(&observed(Source::Missing, target(connected(), None, None)));
    assert_eq!((missing.steps.len(), missing.troubles[0].message.as_str()), (0, "Secret cpi does not exist"));
    let unusable = Source::Unusable { reason: "WrongSecretType", message: "x".into() };
    assert_eq!(plan(&observed(unusable, target(connected(), None, None))).troubles[0].reason, "WrongSecretType");
    let stranger = Source::Found { hash: "sha256:1".into(), objects: Arc::default(), is_owned: false };
    assert_eq!(words(&plan(&observed(stranger, target(connected(), None, None)))), ["OwnSource", "Apply"]);
    let mut paused = target(connected(), None, None);
    paused.cluster = read(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"paused": true}}));
    assert_eq!(plan(&observed(found(), paused)).steps, []);
}

#[test]
fn a_set_comes_and_goes() {
    let base = observed(found(), target(connected(), None, None));
    let new = Observed { set: set(&json!({"metadata": {"finalizers": null}})), ..base.clone() };
    assert_eq!(words(&plan(&new)), ["AddFinalizer", "Apply"]);
    let paused = Observed { set: set(&json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}})), ..base.clone() };
    assert_eq!(plan(&paused), Plan { is_paused: true, ..Plan::default() });
    let going = set(&json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}));
    let leaving = Observed { set: Arc::clone(&going), bindings: vec![binding(true, "x")], ..base.clone() };
    assert_eq!(words(&plan(&leaving)), ["Unbind"]);
    assert_eq!(plan(&Observed { set: going, ..base }).steps, [Step::RemoveFinalizer]);
}
