//! What the objects of a MachineDeployment say about its rollouts: its revisions, which Machines a change would replace, how far one is. Pure.

use std::sync::Arc;

use api::cluster::{Machine, MachineDeployment, MachineSet, MachineTemplate};
use api::conditions;
use api::names::labels;
use controllers::edit::{controller_reference, is_deleting};
use controllers::machinedeployment::plan::{is_on_delete, is_rollout_paused, most_replicas, most_unavailable, revision, shortcomings};
use controllers::machinedeployment::template::differences;
use controllers::machineset::plan::order_of_going;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A deployment with what belongs to it.
#[derive(Clone, Debug)]
pub struct Family {
    pub deployment: MachineDeployment,
    /// By revision, the newest last.
    pub sets: Vec<MachineSet>,
    pub machines: Vec<Machine>,
}

impl Family {
    /// The deployment with those of the sets and machines that are its own.
    pub fn of(deployment: MachineDeployment, sets: Vec<MachineSet>, machines: Vec<Machine>) -> Self {
        let mut sets = sets;
        sets.retain(|set| controller_reference(&set.metadata).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref());
        sets.sort_by_key(revision);
        let mut family = Self { deployment, sets, machines: Vec::new() };
        family.machines = machines.into_iter().filter(|machine| family.set_of(machine).is_some()).collect();
        family
    }

    fn set_of(&self, machine: &Machine) -> Option<&MachineSet> {
        let uid = controller_reference(&machine.metadata).map(|owner| &owner.uid)?;
        self.sets.iter().find(|set| set.metadata.uid.as_ref() == Some(uid))
    }

    /// The revision that counts now, and its set.
    pub fn newest(&self) -> Option<&MachineSet> {
        self.sets.iter().rfind(|set| !is_deleting(&set.metadata))
    }

    /// The set of this revision; without one, of the last one before the newest.
    pub fn former(&self, wanted: Option<i64>) -> Option<&MachineSet> {
        let newest = self.newest().map_or(0, revision);
        let mut former = self.sets.iter().filter(|set| !is_deleting(&set.metadata));
        match wanted {
            Some(wanted) => former.find(|set| revision(set) == wanted),
            None => former.rfind(|set| revision(set) < newest),
        }
    }

    /// Each Machine that would be replaced if `why` names a reason for its set, in the order in which they go: of the oldest set first.
    pub fn replaced(&self, why: impl Fn(&MachineSet) -> Vec<String>) -> Vec<(&Machine, String)> {
        let mut replaced = Vec::new();
        for set in &self.sets {
            let why = why(set);
            let machines: Vec<Arc<Machine>> = self.of_set(set).map(|machine| Arc::new(machine.clone())).collect();
            for machine in order_of_going(set, &machines).iter().filter(|_| !why.is_empty()) {
                let ours = self.of_set(set).find(|ours| ours.metadata.name == machine.metadata.name);
                replaced.extend(ours.map(|ours| (ours, why.join("; "))));
            }
        }
        replaced
    }

    fn of_set<'a>(&'a self, set: &'a MachineSet) -> impl Iterator<Item = &'a Machine> {
        self.machines.iter().filter(|machine| self.set_of(machine).is_some_and(|owner| owner.metadata.uid == set.metadata.uid))
    }

    /// Machines that differ from what is wanted now, each with what differs.
    pub fn outdated(&self, now: Timestamp) -> Vec<(&Machine, String)> {
        self.replaced(|set| shortcomings(&self.deployment, set, now))
    }

    /// How Machines are replaced, in words.
    pub fn way(&self) -> String {
        let deployment = &self.deployment;
        let wanted = deployment.spec.replicas.unwrap_or(1);
        if is_on_delete(deployment) {
            return "strategy OnDelete: each when somebody deletes it".to_owned();
        }
        let (more, fewer) = (most_replicas(deployment) - wanted, most_unavailable(deployment));
        format!("step by step, with at most {more} more than the {wanted} wanted and at most {fewer} fewer available")
    }

    /// The revisions, the oldest first: each with its set and what it changed.
    pub fn history(&self) -> Vec<Value> {
        let mut former: Option<&MachineSet> = None;
        let mut list = Vec::new();
        let newest = self.newest().map(revision);
        for set in &self.sets {
            let changes = former.map(|former| differences(&former.spec.template, &set.spec.template)).unwrap_or_default();
            list.push(json!({
                "revision": revision(set), "machineSet": set.metadata.name, "replicas": set.spec.replicas.unwrap_or(0),
                "isCurrent": Some(revision(set)) == newest, "changes": changes,
                "created": set.metadata.creation_timestamp,
            }));
            former = Some(set);
        }
        list
    }

    /// How far the rollout is, as one object.
    pub fn progress(&self) -> Value {
        let (meta, status) = (&self.deployment.metadata, self.deployment.status.clone().unwrap_or_default());
        let waiting = waiting(&self.deployment);
        json!({
            "name": meta.name, "namespace": meta.namespace, "revision": self.newest().map(revision),
            "replicas": self.deployment.spec.replicas.unwrap_or(1), "upToDateReplicas": status.up_to_date_replicas.unwrap_or(0),
            "availableReplicas": status.available_replicas.unwrap_or(0), "presentReplicas": status.replicas.unwrap_or(0),
            "isPaused": is_rollout_paused(&self.deployment), "isComplete": waiting.is_none(), "waitingFor": waiting,
        })
    }
}

/// The template of a set, as the deployment had it.
pub fn template_of(set: &MachineSet) -> MachineTemplate {
    let mut template = set.spec.template.clone();
    template.metadata.labels.remove(labels::MACHINE_TEMPLATE_HASH);
    template
}

/// What the rollout of a deployment waits for; none when it is done.
pub fn waiting(deployment: &MachineDeployment) -> Option<String> {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Some(format!("the change of MachineDeployment {name} is not looked at yet"));
    }
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let [present, current, available] =
        [status.replicas, status.up_to_date_replicas, status.available_replicas].map(|count| count.unwrap_or(0));
    let rolling = conditions::get(&status.conditions, "RollingOut").filter(|told| told.status == conditions::Status::True);
    if rolling.is_none() && (present, current, available) == (wanted, wanted, wanted) {
        return None;
    }
    let counts = format!("{current} of {wanted} machines are up to date, {available} available, {present} present");
    let why = rolling.map(|told| told.message.lines().skip(1).map(|line| line.trim_start_matches("* ")).collect::<Vec<_>>().join("; "));
    Some(why.filter(|why| !why.is_empty()).map_or(counts.clone(), |why| format!("{counts}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(sets: &[(&str, i64, &str, i32)]) -> Family {
        let template = |version: &str| {
            json!({"metadata": {"labels": {"machine-template-hash": "1-x", "a": "b"}}, "spec": {"clusterName": "c", "version": version,
                "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": "t"}}})
        };
        let owner = |uid: &str| json!([{"apiVersion": "x/v1", "kind": "K", "name": uid, "uid": uid, "controller": true}]);
        let deployment = json!({"metadata": {"name": "d", "uid": "d", "generation": 2},
            "spec": {"clusterName": "c", "replicas": 2, "selector": {}, "template": template("v2")},
            "status": {"observedGeneration": 2, "replicas": 2, "upToDateReplicas": 2, "availableReplicas": 2}});
        let set = |(name, revision, version, replicas): &(&str, i64, &str, i32)| {
            let annotations = json!({"machinedeployment.clusters.x-k8s.io/revision": revision.to_string()});
            let metadata = json!({"name": name, "uid": name, "ownerReferences": owner("d"), "annotations": annotations});
            let spec = json!({"clusterName": "c", "replicas": replicas, "selector": {}, "template": template(version)});
            serde_json::from_value::<MachineSet>(json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let machines = sets.iter().flat_map(|(name, _, _, replicas)| (0..*replicas).map(move |n| (*name, format!("{name}-{n}"))));
        let machine = |(set, name): (&str, String)| {
            let spec = json!({"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": "m"}});
            serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owner(set)}, "spec": spec})).unwrap()
        };
        Family::of(serde_json::from_value(deployment).unwrap(), sets.iter().map(set).collect(), machines.map(machine).collect())
    }

    #[test]
    fn revisions_tell_what_they_changed_and_the_former_one_is_the_last_before() {
        let family = family(&[("s3", 3, "v2", 1), ("s1", 1, "v1", 0), ("s2", 2, "v1", 1)]);
        let history = family.history();
        assert_eq!(history.iter().map(|entry| entry["revision"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((&history[1]["changes"], &history[2]["changes"]), (&json!([]), &json!(["Version v1, v2 required"])));
        assert_eq!((&history[1]["isCurrent"], &history[2]["isCurrent"]), (&json!(false), &json!(true)));
        let name = |set: Option<&MachineSet>| set.and_then(|set| set.metadata.name.clone());
        assert_eq!(name(family.former(None)).as_deref(), Some("s2"));
        assert_eq!(name(family.former(Some(1))).as_deref(), Some("s1"));
        assert_eq!(name(family.former(Some(9))), None);
        let back = template_of(family.former(None).unwrap());
        assert_eq!(back.metadata.labels.keys().collect::<Vec<_>>(), ["a"], "the hash belongs to the set");
    }

    #[test]
    fn what_would_be_replaced_is_named_with_its_reason() {
        let family = family(&[("s1", 1, "v1", 1), ("s2", 2, "v2", 1)]);
        let outdated = family.outdated(Timestamp::UNIX_EPOCH);
        let told: Vec<_> = outdated.iter().map(|(machine, why)| (machine.metadata.name.as_deref().unwrap(), why.as_str())).collect();
        assert_eq!(told, [("s1-0", "Version v1, v2 required")]);
        assert_eq!(family.way(), "step by step, with at most 1 more than the 2 wanted and at most 0 fewer available");
    }

    #[test]
    fn a_rollout_is_done_when_every_count_is_the_wanted_one() {
        let mut deployment = family(&[]).deployment;
        assert_eq!(waiting(&deployment), None);
        deployment.status.as_mut().unwrap().replicas = Some(3);
        assert_eq!(waiting(&deployment).unwrap(), "2 of 2 machines are up to date, 2 available, 3 present");
        deployment.metadata.generation = Some(3);
        assert_eq!(waiting(&deployment).unwrap(), "the change of MachineDeployment d is not looked at yet");
    }
}
