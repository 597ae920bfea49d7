//! Claims over a model of the API: every interleaving and every kill keeps addresses unique.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::cluster::Cluster;
use api::controlplane::TalosControlPlane;
use api::ipam::{IPAddress, IPAddressClaim, IPPoolSpec, InClusterIPPool};
use api::names::{annotations, finalizers};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use proptest::prelude::*;
use runtime::defects::{Defect, Defects};
use serde_json::json;

use super::act::ip_address;
use super::plan::{Observed, Outcome, Step, orphan, plan, wanted};
use super::status::status;
use crate::inclusterippool::Pool;
use crate::inclusterippool::ledger::Ledger;
use crate::inclusterippool::plan as pool_plan;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the API holds, and what nobody may see twice.
struct World {
    now: Timestamp,
    revision: u64,
    pool: InClusterIPPool,
    claims: BTreeMap<String, IPAddressClaim>,
    addresses: BTreeMap<String, IPAddress>,
    /// When an address was last seen in use.
    freed: BTreeMap<IpAddr, Timestamp>,
    endpoints: BTreeMap<IpAddr, String>,
    defects: Defects,
    faults: Vec<String>,
}

/// A change that the API refuses because the object is not what it was.
#[derive(Debug)]
struct Conflict;

impl World {
    fn new(addresses: &[&str]) -> Self {
        let pool = InClusterIPPool {
            metadata: ObjectMeta {
                name: Some("p".into()),
                namespace: Some("n".into()),
                uid: Some("pool".into()),
                resource_version: Some("1".into()),
                ..ObjectMeta::default()
            },
            spec: IPPoolSpec {
                addresses: addresses.iter().map(|one| (*one).to_owned()).collect(),
                prefix: 24,
                gateway: Some("10.0.0.1".into()),
                excluded_addresses: vec!["10.0.0.12".into()],
                ..IPPoolSpec::default()
            },
            status: None,
        };
        Self {
            now: "2026-01-01T12:00:00Z".parse().unwrap(),
            revision: 1,
            pool,
            claims: BTreeMap::new(),
            addresses: BTreeMap::new(),
            freed: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            defects: Defects::none(),
            faults: Vec::new(),
        }
    }

    fn next_revision(&mut self) -> String {
        self.revision += 1;
        self.revision.to_string()
    }

    fn claim(&mut self, name: &str) {
        if self.claims.contains_key(name) {
            return;
        }
        let revision = self.next_revision();
        let mut claim: IPAddressClaim = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("{name}-{revision}"), "resourceVersion": revision},
            "spec": {"clusterName": "c", "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "p"}},
        }))
        .unwrap();
        claim.metadata.finalizers = Some(vec![finalizers::IP_CLAIM_PROTECTION.to_owned()]);
        self.claims.insert(name.to_owned(), claim);
    }

    /// The machine is gone and the claim is deleted.
    fn delete(&mut self, name: &str) {
        let (revision, now) = (self.next_revision(), self.now);
        if let Some(claim) = self.claims.get_mut(name) {
            claim.metadata.deletion_timestamp.get_or_insert(Time(now));
            claim.metadata.resource_version = Some(revision);
            claim.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != finalizers::IP_CLAIM_PROTECTION));
        }
        self.collect(name);
    }

    /// Somebody takes all finalizers off a claim.
    fn delete_by_force(&mut self, name: &str) {
        self.claims.remove(name);
    }

    fn collect(&mut self, name: &str) {
        let is_gone = |meta: &ObjectMeta| meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty);
        if self.claims.get(name).is_some_and(|claim| is_gone(&claim.metadata)) {
            self.claims.remove(name);
        }
    }

    fn pool(&self) -> Pool {
        Pool {
            kind: "InClusterIPPool".into(),
            meta: self.pool.metadata.clone(),
            spec: self.pool.spec.clone(),
            owner: crate::edit::owner_of(&self.pool),
        }
    }

    fn given_out(&self) -> BTreeMap<IpAddr, Arc<IPAddress>> {
        self.addresses.values().map(|address| (ip(&address.spec.address), Arc::new(address.clone()))).collect()
    }

    fn observe(&self, name: &str) -> Observed {
        Observed {
            claim: Arc::new(self.claims[name].clone()),
            pool: Some(self.pool()),
            is_paused: false,
            address: self.addresses.get(name).cloned().map(Arc::new),
            given_out: self.given_out(),
            elsewhere: BTreeMap::new(),
            endpoints: self.endpoints.clone(),
            wanted: None,
            now: self.now,
            defects: self.defects.clone(),
        }
    }

    fn write_ledger(&mut self, seen: &ObjectMeta, ledger: &Ledger) -> Result<(), Conflict> {
        if self.pool.metadata.resource_version != seen.resource_version {
            return Err(Conflict);
        }
        self.pool.metadata.resource_version = Some(self.next_revision());
        let annotations = self.pool.metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::POOL_LEDGER.to_owned(), ledger.to_text());
        Ok(())
    }

    fn apply(&mut self, observed: &Observed, step: &Step) -> Result<(), Conflict> {
        let name = observed.claim.metadata.name.clone().unwrap();
        match step {
            Step::Protect => {
                let revision = self.next_revision();
                let claim =
                    self.claims.get_mut(&name).filter(|claim| claim.metadata.resource_version == observed.claim.metadata.resource_version);
                let claim = claim.ok_or(Conflict)?;
                claim.metadata.resource_version = Some(revision);
                claim.metadata.finalizers.get_or_insert_default().push(finalizers::RELEASE_ADDRESS.to_owned());
            }
            Step::Reserve { ledger, .. } | Step::Return { ledger } => self.write_ledger(&observed.pool.as_ref().unwrap().meta, ledger)?,
            Step::Create(address) => {
                if !self.addresses.contains_key(&name) {
                    self.insert(ip_address(&observed.claim, observed.pool.as_ref().unwrap(), *address));
                }
            }
            Step::Free => self.free(&name),
            Step::Unprotect => {
                let claim = self.claims.get_mut(&name).ok_or(Conflict)?;
                claim.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != finalizers::RELEASE_ADDRESS));
                self.collect(&name);
            }
        }
        Ok(())
    }

    /// An IPAddress comes to be: this is where the rules are watched.
    fn insert(&mut self, address: IPAddress) {
        let number = ip(&address.spec.address);
        if let Some(other) = self.addresses.values().find(|other| ip(&other.spec.address) == number) {
            self.faults.push(format!("{number} is {}'s already", other.spec.claim_ref.name));
        }
        if ["10.0.0.1", "10.0.0.12", "10.0.0.0", "10.0.0.255"].contains(&address.spec.address.as_str()) {
            self.faults.push(format!("{number} is never given out"));
        }
        if self.endpoints.contains_key(&number) {
            self.faults.push(format!("{number} is an endpoint"));
        }
        if self.freed.get(&number).is_some_and(|freed| self.now < *freed + SignedDuration::from_secs(10)) {
            self.faults.push(format!("{number} has not rested"));
        }
        self.addresses.insert(address.metadata.name.clone().unwrap(), address);
    }

    fn free(&mut self, name: &str) {
        if let Some(address) = self.addresses.remove(name) {
            self.freed.insert(ip(&address.spec.address), self.now);
        }
    }

    fn run_pool(&mut self) {
        let (pool, taken) = (self.pool(), self.given_out().into_keys().collect());
        let claims = self.claims.values().filter_map(|claim| claim.metadata.uid.clone()).collect();
        let observed = pool_plan::Observed { meta: &pool.meta, spec: &pool.spec, taken: &taken, claims: &claims, now: self.now };
        for step in pool_plan::plan(&observed) {
            if let pool_plan::Step::WriteLedger(ledger) = step {
                let _ = self.write_ledger(&pool.meta, &ledger);
            }
        }
    }

    /// IPAddresses whose claims are gone.
    fn run_orphans(&mut self) {
        let orphans: Vec<IPAddress> =
            self.addresses.values().filter(|one| !self.claims.contains_key(&one.spec.claim_ref.name)).cloned().collect();
        for address in orphans {
            let pool = self.pool();
            for step in orphan(&address, Some(&pool), self.now) {
                match step {
                    Step::Return { ledger } => drop(self.write_ledger(&pool.meta, &ledger)),
                    _ => self.free(&address.spec.claim_ref.name),
                }
            }
        }
    }

    /// Runs everything until nothing more happens at this time.
    fn settle(&mut self) {
        for _ in 0..4 {
            for name in self.claims.keys().cloned().collect::<Vec<_>>() {
                for _ in 0..3 {
                    if !self.claims.contains_key(&name) {
                        break;
                    }
                    let observed = self.observe(&name);
                    for step in plan(&observed).steps {
                        if self.apply(&observed, &step).is_err() {
                            break;
                        }
                    }
                }
            }
            self.run_orphans();
            self.run_pool();
        }
    }

    fn outcome(&self, name: &str) -> Outcome {
        plan(&self.observe(name)).outcome
    }
}

#[derive(Clone, Debug)]
enum Event {
    Claim(u8),
    Delete(u8),
    DeleteByForce(u8),
    /// A reconcile of a claim begins: it sees the world as it is now.
    Begin(u8),
    /// The next step of a reconcile that has begun.
    Proceed(u8),
    /// The process dies: what has begun is lost.
    Kill,
    RunPool,
    RunOrphans,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Event::Claim),
        2 => (0..6_u8).prop_map(Event::Delete),
        1 => (0..6_u8).prop_map(Event::DeleteByForce),
        6 => (0..6_u8).prop_map(Event::Begin),
        10 => (0..6_u8).prop_map(Event::Proceed),
        1 => Just(Event::Kill),
        1 => Just(Event::RunPool),
        1 => Just(Event::RunOrphans),
        2 => (1..15_u8).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Claims come and go, several reconciles are under way at once, the process dies anywhere: no address is given out twice, too early, or
    /// against the rules; and when all has settled every claim that fits has its address, and nothing is left of the others.
    #[test]
    fn addresses_are_unique_whatever_happens(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new(&["10.0.0.0-10.0.0.2", "10.0.0.10-10.0.0.14"]);
        world.endpoints.insert(ip("10.0.0.13"), "n/other".into());
        let mut under_way: BTreeMap<u8, (Observed, Vec<Step>)> = BTreeMap::new();
        for event in events {
            match event {
                Event::Claim(n) => world.claim(&format!("c{n}")),
                Event::Delete(n) => world.delete(&format!("c{n}")),
                Event::DeleteByForce(n) => world.delete_by_force(&format!("c{n}")),
                Event::Begin(n) => {
                    let name = format!("c{n}");
                    if world.claims.contains_key(&name) && !under_way.contains_key(&n) {
                        let observed = world.observe(&name);
                        let steps = plan(&observed).steps;
                        under_way.insert(n, (observed, steps));
                    }
                }
                Event::Proceed(n) => {
                    if let Some((observed, mut steps)) = under_way.remove(&n)
                        && !steps.is_empty()
                    {
                        let step = steps.remove(0);
                        if world.apply(&observed, &step).is_ok() {
                            under_way.insert(n, (observed, steps));
                        }
                    }
                }
                Event::Kill => under_way.clear(),
                Event::RunPool => world.run_pool(),
                Event::RunOrphans => world.run_orphans(),
                Event::Wait(seconds) => {
                    // A reconcile takes no such time.
                    under_way.clear();
                    world.now += SignedDuration::from_millis(i64::from(seconds) * 970);
                }
            }
        }
        for _ in 0..3 {
            world.settle();
            world.now += SignedDuration::from_secs(11);
        }
        world.settle();
        prop_assert!(world.faults.is_empty(), "{:?}", world.faults);
        // 10.0.0.2, .10, .11 and .14 are usable.
        prop_assert_eq!(world.addresses.len(), world.claims.len().min(4));
        for name in world.claims.keys().cloned().collect::<Vec<_>>() {
            world.delete(&name);
        }
        world.settle();
        prop_assert!(world.claims.is_empty() && world.addresses.is_empty());
        prop_assert!(Ledger::of(&world.pool.metadata).held.is_empty());
    }
}

#[test]
fn a_planted_defect_is_seen() {
    for (defect, words) in [(Defect::AllocateTaken, "already"), (Defect::AllocateGateway, "never given out")] {
        let mut world = World::new(&["10.0.0.10-10.0.0.14"]);
        world.claim("a");
        world.settle();
        assert!(world.faults.is_empty());
        world.defects = Defects::planted([defect]);
        world.claim("b");
        world.settle();
        assert!(world.faults.iter().any(|fault| fault.contains(words)), "{defect:?}: {:?}", world.faults);
    }
}

#[test]
fn a_wait_says_on_what_and_until_when() {
    let mut world = World::new(&["10.0.0.10-10.0.0.11"]);
    for name in ["a", "b", "c"] {
        world.claim(name);
        world.settle();
    }
    let Outcome::Exhausted(holders) = world.outcome("c") else { panic!("{:?}", world.outcome("c")) };
    assert_eq!(holders, "2 held: 10.0.0.10 by n/a, 10.0.0.11 by n/b; never given out: 10.0.0.1, the gateway");
    let told = status(&world.claims["c"], "InClusterIPPool n/p", &world.outcome("c"), world.now);
    let ready = &told.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.reason.as_str()), ("Ready", "PoolExhausted"));
    assert!(ready.message.starts_with("InClusterIPPool n/p has no free address: 2 held"), "{}", ready.message);
    world.delete("a");
    world.settle();
    let until = "2026-01-01T12:00:10Z".parse().unwrap();
    assert_eq!(world.outcome("c"), Outcome::Resting { address: ip("10.0.0.10"), until });
    assert_eq!(plan(&world.observe("c")).again_at, Some(until));
    let told = status(&world.claims["c"], "InClusterIPPool n/p", &world.outcome("c"), world.now);
    assert!(told.conditions[0].message.contains("10.0.0.10") && told.conditions[0].message.contains("12:00:10"));
    world.now = until;
    world.settle();
    assert_eq!(world.outcome("c"), Outcome::Allocated(ip("10.0.0.10")));
    assert!(world.faults.is_empty());
}

#[test]
fn an_address_stays_while_a_machine_uses_it() {
    let mut world = World::new(&["10.0.0.10"]);
    world.claim("a");
    world.settle();
    let now = world.now;
    world.claims.get_mut("a").unwrap().metadata.deletion_timestamp = Some(Time(now));
    world.settle();
    assert_eq!(world.outcome("a"), Outcome::InUse(vec![finalizers::IP_CLAIM_PROTECTION.to_owned()]));
    assert_eq!(world.addresses.len(), 1);
    world.delete("a");
    world.settle();
    assert!(world.claims.is_empty() && world.addresses.is_empty());
}

#[test]
fn a_later_claim_of_the_same_name_does_not_inherit() {
    let mut world = World::new(&["10.0.0.10-10.0.0.11"]);
    world.claim("a");
    world.settle();
    world.delete_by_force("a");
    world.claim("a");
    world.settle();
    assert_eq!(world.outcome("a"), Outcome::Allocated(ip("10.0.0.11")), "the old one rests");
    assert!(world.faults.is_empty(), "{:?}", world.faults);
}

#[test]
fn a_ledger_that_was_thrown_away_costs_no_address() {
    let mut world = World::new(&["10.0.0.10-10.0.0.11"]);
    world.claim("a");
    world.settle();
    world.pool.metadata.annotations = None;
    world.claim("b");
    world.settle();
    let all: BTreeSet<String> = world.addresses.values().map(|one| one.spec.address.clone()).collect();
    assert_eq!(all, BTreeSet::from(["10.0.0.10".to_owned(), "10.0.0.11".to_owned()]));
    assert!(world.faults.is_empty());
}

#[test]
fn an_ip_address_looks_as_upstream_makes_it() {
    let mut world = World::new(&["10.0.0.10"]);
    world.claim("vm-0-0");
    world.settle();
    let address = serde_json::to_value(&world.addresses["vm-0-0"]).unwrap();
    assert_eq!(
        address["spec"],
        json!({"address": "10.0.0.10", "claimRef": {"name": "vm-0-0"}, "gateway": "10.0.0.1", "prefix": 24,
               "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "p"}})
    );
    assert_eq!(address["metadata"]["finalizers"], json!(["ipam.cluster.x-k8s.io/ProtectAddress"]));
    assert_eq!(address["metadata"]["labels"], json!({"cluster.x-k8s.io/cluster-name": "c"}));
    let owners = address["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!((&owners[0]["kind"], &owners[0]["controller"]), (&json!("IPAddressClaim"), &json!(true)));
    assert_eq!(owners[1]["kind"], "InClusterIPPool");
}

#[test]
fn only_a_single_control_plane_without_virtual_ip_takes_the_endpoint() {
    let cluster: Cluster = serde_json::from_value(json!({
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"controlPlaneRef": {"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "TalosControlPlane", "name": "cp"}},
    }))
    .unwrap();
    let plane = |replicas: i32, config: serde_json::Value| -> TalosControlPlane {
        let mut value = json!({"metadata": {"name": "cp", "namespace": "n"}, "spec": {"replicas": replicas, "version": "v1.30.0",
            "infrastructureTemplate": {}, "controlPlaneConfig": {"controlplane": {"generateType": "controlplane"}}}});
        for (key, part) in config.as_object().unwrap() {
            value["spec"]["controlPlaneConfig"]["controlplane"][key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    };
    let endpoint = Some(ip("10.0.0.20"));
    let ask = |is_control_plane: bool, plane: &TalosControlPlane| wanted(is_control_plane, &cluster, endpoint, Some(plane));
    assert_eq!(ask(true, &plane(1, json!({}))), endpoint);
    assert_eq!(ask(false, &plane(1, json!({}))), None, "a worker");
    assert_eq!(ask(true, &plane(3, json!({}))), None, "three control planes");
    assert_eq!(wanted(true, &cluster, None, Some(&plane(1, json!({})))), None, "an endpoint that is a name");
    for with_vip in [
        json!({"configPatches": [{"op": "add", "path": "/machine/network/interfaces", "value": [{"vip": {"ip": "10.0.0.20"}}]}]}),
        json!({"configPatches": [{"op": "add", "path": "/machine/network/interfaces/0/vip", "value": {"ip": "10.0.0.20"}}]}),
        json!({"strategicPatches": ["machine:\n  network:\n    interfaces:\n    - vip:\n        ip: 10.0.0.20"]}),
        json!({"strategicPatches": ["apiVersion: v1alpha1\nkind: Layer2VIPConfig\nname: 10.0.0.20"]}),
        json!({"configPatches": [{"op": "add", "path": "/cluster/extraManifests", "value": ["https://example.org/kube-vip.yaml"]}]}),
    ] {
        assert_eq!(ask(true, &plane(1, with_vip.clone())), None, "{with_vip}");
    }
}

/// A folder of what genuine controllers made of the user's manifests; none (told) where it is missing, but for continuous integration.
#[allow(clippy::disallowed_methods, clippy::print_stderr)]
fn genuine(name: &str) -> Option<Vec<serde_json::Value>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/kubernetes/objects/").to_owned() + name;
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var("CI").is_err(), "reference data {name} is missing");
        eprintln!("skipped: no reference data {name}");
        return None;
    };
    let list: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    Some(list["items"].as_array().unwrap().clone())
}

/// Differences from upstream's objects: owner references name the versions that we store (claims v1beta2 instead of v1beta1), the pool carries
/// the ledger's annotation, and a claim has a Ready condition beside its address. Everything else is the same.
#[test]
fn objects_are_those_of_the_genuine_controller() {
    let (Some(addresses), Some(claims), Some(pools)) =
        (genuine("ipaddresses.yaml"), genuine("ipaddressclaims.yaml"), genuine("inclusterippools.yaml"))
    else {
        return;
    };
    let named =
        |list: &[serde_json::Value], name: &serde_json::Value| list.iter().find(|one| one["metadata"]["name"] == *name).unwrap().clone();
    assert_eq!(addresses.len(), 6);
    for theirs in &addresses {
        let claim: IPAddressClaim = serde_json::from_value(named(&claims, &theirs["spec"]["claimRef"]["name"])).unwrap();
        let pool: InClusterIPPool = serde_json::from_value(named(&pools, &theirs["spec"]["poolRef"]["name"])).unwrap();
        let pool = Pool::of(&pool);
        let ours = serde_json::to_value(ip_address(&claim, &pool, ip(theirs["spec"]["address"].as_str().unwrap()))).unwrap();
        assert_eq!(ours["spec"], theirs["spec"]);
        for part in ["name", "namespace", "labels", "annotations", "finalizers"] {
            assert_eq!(ours["metadata"][part], theirs["metadata"][part], "{part}");
        }
        let owners = |object: &serde_json::Value| -> Vec<serde_json::Value> {
            let mut owners = object["metadata"]["ownerReferences"].as_array().unwrap().clone();
            owners.iter_mut().for_each(|owner| drop(owner.as_object_mut().unwrap().shift_remove("apiVersion")));
            owners
        };
        assert_eq!(owners(&ours), owners(theirs));
        let status = status(&claim, "p", &Outcome::Allocated(ip("172.16.42.230")), Timestamp::UNIX_EPOCH);
        let theirs = named(&claims, &theirs["spec"]["claimRef"]["name"]);
        assert_eq!(serde_json::to_value(&status).unwrap()["addressRef"], theirs["status"]["addressRef"]);
    }
    for theirs in &pools {
        let pool: InClusterIPPool = serde_json::from_value(theirs.clone()).unwrap();
        let taken = addresses.iter().filter(|one| one["spec"]["poolRef"]["name"] == theirs["metadata"]["name"]);
        let taken = taken.map(|one| ip(one["spec"]["address"].as_str().unwrap())).collect();
        let ours = crate::inclusterippool::status::status(&pool.spec, &taken, &BTreeMap::new());
        assert_eq!(serde_json::to_value(&ours).unwrap(), theirs["status"]);
    }
}
