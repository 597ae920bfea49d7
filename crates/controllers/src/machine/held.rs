//! Why a Node that has joined cannot be used yet: nobody has initialized it, or it has no pod network. Pure.
//!
//! The kubelet says that a network is missing, and a taint says that a provider is; neither says why. What runs in the cluster for it is
//! looked up when a Node has been held back for half a minute, and seldom again: a Node that comes up as it should costs no look.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::workload::{Agent, Inspection, Role};

/// The taint that the kubelet puts for a cloud provider to take away.
pub const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// How long after it joined a Node may be held back before that is worth a word: providers and networks take their time.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Between two looks, at most.
const SELDOM: SignedDuration = SignedDuration::from_mins(5);

/// What holds a Node back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub by: Role,
    pub since: Timestamp,
}

impl Held {
    /// When it is worth a word.
    fn told_at(self) -> Timestamp {
        self.since.checked_add(PATIENCE).unwrap_or(self.since)
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// What holds this Node back.
pub fn held(node: &Node) -> Vec<Held> {
    let mut all = Vec::new();
    let joined = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if let Some(since) = joined.filter(|_| taints(node).iter().any(|taint| taint.key == UNINITIALIZED)) {
        all.push(Held { by: Role::CloudProvider, since });
    }
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unready = conditions.find(|condition| condition.type_ == "Ready" && condition.status == "False");
    let is_network = |text: &str| text.contains("NetworkPluginNotReady") || text.contains("cni plugin") || text.contains("CNI");
    if let Some(unready) = unready.filter(|unready| unready.message.as_deref().is_some_and(is_network)) {
        let since = unready.last_transition_time.as_ref().map(|time| time.0).or(joined);
        all.extend(since.map(|since| Held { by: Role::Network, since }));
    }
    all
}

/// Whether to look for the reason now, and when to come back; nothing where nothing is held.
pub fn looks(all: &[Held], inspection: Option<&Inspection>, now: Timestamp) -> Option<(bool, Timestamp)> {
    let first = all.iter().map(|held| held.told_at()).min()?;
    if now < first {
        return Some((false, first));
    }
    let since = all.iter().map(|held| held.since).min().unwrap_or(now);
    let passed = now.duration_since(since).as_secs() / 2;
    let pause = SignedDuration::from_secs(passed).clamp(PATIENCE, SELDOM);
    // One that was made before the Node joined is not about it.
    let next = inspection.filter(|known| known.at >= first).and_then(|known| known.at.checked_add(pause).ok());
    match next {
        Some(next) if next > now => Some((false, next)),
        _ => Some((true, now.checked_add(pause).unwrap_or(Timestamp::MAX))),
    }
}

fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let is_effect = toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
        let is_all = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().unwrap_or_default();
        let is_key = (key.is_empty() && is_all) || key == taint.key;
        let is_value = is_all || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        is_effect && is_key && is_value
    })
}

/// Why an agent does not do its part for a Node; none when it runs and nothing is known against it.
fn fault(agent: &Agent, node: &Node) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if let Some(missing) = &agent.missing {
        return Some(format!("{} needs {missing}, which does not exist", agent.name));
    }
    let of_node = agent.pods.iter().filter(|pod| agent.role == Role::CloudProvider || pod.node.as_deref().is_none_or(|of| of == name));
    let pods: Vec<_> = of_node.collect();
    if let Some((pod, trouble)) = pods.iter().find_map(|pod| Some((pod, pod.trouble.as_ref()?))) {
        return Some(format!("Pod {} of {}: {trouble}", pod.name, agent.name));
    }
    if pods.iter().any(|pod| pod.is_running) {
        return None;
    }
    if let Some(pod) = pods.first() {
        return Some(format!("Pod {} of {} does not run yet", pod.name, agent.name));
    }
    let refused = taints(node).iter().find(|taint| taint.effect != "PreferNoSchedule" && !tolerates(&agent.tolerations, taint));
    Some(match refused {
        Some(taint) => format!("{} does not tolerate the taint {}:{}: add a toleration to its pods", agent.name, taint.key, taint.effect),
        None => format!("{} has no pod", agent.name),
    })
}

/// What holds a Node back and what is missing, in one sentence; none before it is worth one.
pub fn told(held: Held, node: &Node, inspection: Option<&Arc<Inspection>>, now: Timestamp) -> Option<String> {
    if now < held.told_at() {
        return None;
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let since = held.since.strftime("%T");
    let what = match held.by {
        Role::CloudProvider => {
            format!("Node {name} is held back since {since}: no cloud provider has taken its taint {UNINITIALIZED} away")
        }
        Role::Network => format!("Node {name} has no pod network (CNI) since {since}"),
    };
    let Some(agents) = inspection.and_then(|known| known.agents.as_ref()) else {
        let failure = inspection.and_then(|known| known.failure.as_ref());
        return Some(failure.map_or(what.clone(), |failure| format!("{what}; why cannot be read: {failure}")));
    };
    let mut ours = agents.iter().filter(|agent| agent.role == held.by).peekable();
    if ours.peek().is_none() {
        let none = match held.by {
            Role::CloudProvider => {
                "no cloud provider runs in the cluster: install one (cluster.externalCloudProvider of the machine configuration), or do without registerWithTaints"
            }
            Role::Network => {
                "none is installed: let the machine configuration bring one (cluster.network.cni), or apply one to the cluster"
            }
        };
        return Some(format!("{what}; {none}"));
    }
    let complaint = inspection.and_then(|known| known.complaints.get(name)).filter(|_| held.by == Role::CloudProvider);
    let fault = ours.find_map(|agent| fault(agent, node)).or_else(|| complaint.cloned());
    Some(fault.map_or(what.clone(), |fault| format!("{what}; {fault}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::workload::AgentPod;

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    const NO_CNI: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";

    fn node(taints: &Value, ready: &str, message: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "creationTimestamp": "2026-03-01T08:00:00Z"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready, "message": message, "lastTransitionTime": "2026-03-01T08:00:05Z"}]}}))
        .unwrap()
    }

    fn tainted() -> Node {
        node(&json!([{"key": UNINITIALIZED, "effect": "NoSchedule", "value": "true"}]), "True", "")
    }

    fn agent(role: Role, tolerated: &[&str], pods: &[(Option<&str>, bool, Option<&str>)]) -> Agent {
        let tolerations = tolerated.iter().map(|key| serde_json::from_value(json!({"key": key, "operator": "Exists"})).unwrap());
        let pods = pods.iter().map(|(node, is_running, trouble)| AgentPod {
            name: "p".into(),
            node: node.map(str::to_owned),
            is_running: *is_running,
            trouble: trouble.map(str::to_owned),
        });
        Agent { role, name: "DaemonSet kube-system/a".into(), tolerations: tolerations.collect(), pods: pods.collect(), missing: None }
    }

    fn inspected(agents: Vec<Agent>) -> Arc<Inspection> {
        Arc::new(Inspection { at: at("08:01:00"), agents: Some(agents), ..Inspection::default() })
    }

    #[test]
    fn a_node_is_held_by_its_taint_and_by_its_network_and_by_nothing_else() {
        assert_eq!(held(&tainted()), [Held { by: Role::CloudProvider, since: at("08:00:00") }]);
        assert_eq!(held(&node(&json!([]), "False", NO_CNI)), [Held { by: Role::Network, since: at("08:00:05") }]);
        assert_eq!(held(&node(&json!([]), "False", "PLEG is not healthy")), []);
        assert_eq!(held(&node(&json!([]), "Unknown", NO_CNI)), [], "nobody hears from it");
        assert_eq!(held(&node(&json!([{"key": "other", "effect": "NoSchedule"}]), "True", "")), []);
    }

    #[test]
    fn it_is_looked_for_late_and_seldom() {
        let all = held(&tainted());
        let looked = |text: &str| Inspection { at: at(text), ..Inspection::default() };
        assert_eq!(looks(&[], None, at("09:00:00")), None);
        assert_eq!(looks(&all, None, at("08:00:29")), Some((false, at("08:00:30"))));
        assert_eq!(looks(&all, None, at("08:00:30")), Some((true, at("08:01:00"))));
        assert_eq!(looks(&all, Some(&looked("08:00:30")), at("08:00:40")), Some((false, at("08:01:00"))));
        assert_eq!(looks(&all, Some(&looked("08:00:30")), at("08:01:00")), Some((true, at("08:01:30"))));
        assert_eq!(looks(&all, Some(&looked("09:00:00")), at("09:04:59")), Some((false, at("09:05:00"))));
        // One of another Node's time says nothing.
        assert_eq!(looks(&all, Some(&looked("07:59:00")), at("08:00:30")), Some((true, at("08:01:00"))));
    }

    #[test]
    fn what_is_missing_is_named() {
        let now = at("08:05:00");
        let provider = |agents: Vec<Agent>| {
            let node = tainted();
            told(held(&node)[0], &node, Some(&inspected(agents)), now).unwrap()
        };
        let missing = Agent { missing: Some("Secret kube-system/s".into()), ..agent(Role::CloudProvider, &[], &[(Some("m"), true, None)]) };
        for (agents, end) in [
            (
                vec![],
                "; no cloud provider runs in the cluster: install one (cluster.externalCloudProvider of the machine configuration), or do without registerWithTaints",
            ),
            (vec![missing], "; DaemonSet kube-system/a needs Secret kube-system/s, which does not exist"),
            (
                vec![agent(Role::CloudProvider, &[UNINITIALIZED], &[(Some("m"), true, Some("cannot sign in"))])],
                "; Pod p of DaemonSet kube-system/a: cannot sign in",
            ),
            (
                vec![agent(Role::CloudProvider, &[], &[])],
                "; DaemonSet kube-system/a does not tolerate the taint node.cloudprovider.kubernetes.io/uninitialized:NoSchedule: add a toleration to its pods",
            ),
            (vec![agent(Role::CloudProvider, &[UNINITIALIZED], &[])], "; DaemonSet kube-system/a has no pod"),
            (
                vec![agent(Role::CloudProvider, &[UNINITIALIZED], &[(Some("m"), false, None)])],
                "; Pod p of DaemonSet kube-system/a does not run yet",
            ),
            (vec![agent(Role::CloudProvider, &[UNINITIALIZED], &[(Some("m"), true, None)])], " away"),
        ] {
            let text = provider(agents);
            assert!(
                text.starts_with("Node n is held back since 08:00:00: no cloud provider has taken its taint") && text.ends_with(end),
                "{text}"
            );
        }
        let mut complained = (*inspected(vec![agent(Role::CloudProvider, &[UNINITIALIZED], &[(Some("m"), true, None)])])).clone();
        complained.complaints.insert("n".into(), "no VM has its UUID".into());
        let node = tainted();
        assert!(told(held(&node)[0], &node, Some(&Arc::new(complained)), now).unwrap().ends_with("; no VM has its UUID"));
    }

    #[test]
    fn a_network_s_pod_counts_on_its_own_node() {
        let (now, both) = (at("08:05:00"), json!([{"key": UNINITIALIZED, "effect": "NoSchedule", "value": "true"}]));
        let node = node(&both, "False", NO_CNI);
        let network = |agents: Vec<Agent>| told(held(&node)[1], &node, Some(&inspected(agents)), now).unwrap();
        let elsewhere = (Some("m"), true, None);
        for (agents, end) in [
            (vec![], "none is installed: let the machine configuration bring one (cluster.network.cni), or apply one to the cluster"),
            (
                vec![agent(Role::Network, &[], &[elsewhere])],
                "does not tolerate the taint node.cloudprovider.kubernetes.io/uninitialized:NoSchedule: add a toleration to its pods",
            ),
            (
                vec![agent(Role::Network, &[""], &[elsewhere, (Some("n"), false, Some("ImagePullBackOff"))])],
                "Pod p of DaemonSet kube-system/a: ImagePullBackOff",
            ),
            (
                vec![agent(Role::Network, &[""], &[(None, false, Some("0/3 nodes are available"))])],
                "Pod p of DaemonSet kube-system/a: 0/3 nodes are available",
            ),
        ] {
            let text = network(agents);
            assert!(text.starts_with("Node n has no pod network (CNI) since 08:00:05; ") && text.ends_with(end), "{text}");
        }
        assert_eq!(
            network(vec![agent(Role::Network, &[""], &[(Some("n"), true, None)])]),
            "Node n has no pod network (CNI) since 08:00:05"
        );
        // Before anybody looked, and when nobody could.
        assert_eq!(told(held(&node)[1], &node, None, at("08:00:34")), None);
        let failed = Arc::new(Inspection { failure: Some("refused".into()), ..Inspection::default() });
        assert!(told(held(&node)[1], &node, Some(&failed), now).unwrap().ends_with("; why cannot be read: refused"));
    }
}
