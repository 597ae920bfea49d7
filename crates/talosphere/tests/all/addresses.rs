//! Pools and claims over the real API server and controllers, in memory, on paused time; no machine is needed for them.

use std::collections::BTreeSet;
use std::time::Duration;

use api::ipam::{IPAddress, IPAddressClaim, InClusterIPPool};
use apiserver::User;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::world::{Setup, World, run};

struct Lab {
    pools: Api<InClusterIPPool>,
    claims: Api<IPAddressClaim>,
    addresses: Api<IPAddress>,
    namespaces: Api<Namespace>,
    client: Client,
}

impl Lab {
    async fn new(world: &World) -> Self {
        let client = world.server.client(&User::admin("admin"));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": "lab"}})).unwrap();
        let _ = namespaces.create(&PostParams::default(), &namespace).await;
        Self {
            pools: Api::namespaced(client.clone(), "lab"),
            claims: Api::namespaced(client.clone(), "lab"),
            addresses: Api::namespaced(client.clone(), "lab"),
            namespaces,
            client,
        }
    }

    /// A pool as users write it: first version, start and end.
    async fn pool(&self, name: &str, start: &str, end: &str) {
        let request = http::Request::post("/apis/ipam.cluster.x-k8s.io/v1alpha1/namespaces/lab/inclusterippools");
        let body = json!({"apiVersion": "ipam.cluster.x-k8s.io/v1alpha1", "kind": "InClusterIPPool", "metadata": {"name": name},
            "spec": {"start": start, "end": end, "prefix": 24, "gateway": "10.20.0.1"}});
        let request = request.header("content-type", "application/json").body(serde_json::to_vec(&body).unwrap()).unwrap();
        self.client.request_text(request).await.unwrap();
    }

    async fn claim(&self, name: &str, pool: &str) {
        let claim: IPAddressClaim = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": pool}}}))
        .unwrap();
        self.claims.create(&PostParams::default(), &claim).await.unwrap();
    }

    async fn given_out(&self) -> BTreeSet<String> {
        let all = self.addresses.list(&Default::default()).await.unwrap().items;
        let numbers: BTreeSet<String> = all.iter().map(|address| address.spec.address.clone()).collect();
        assert_eq!(numbers.len(), all.len(), "an address was given out twice: {all:?}");
        numbers
    }

    async fn ready(&self, claim: &str) -> (String, String) {
        let claim = self.claims.get(claim).await.unwrap();
        let ready = claim.status.as_ref().and_then(|status| api::conditions::get(&status.conditions, "Ready"));
        ready.map(|ready| (ready.reason.clone(), ready.message.clone())).unwrap_or_default()
    }
}

/// Lets everything happen that does not wait for later than this.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn claims_get_addresses_rest_survives_a_restart_and_pools_go_last() {
    run(3, async {
        let mut world = World::start(&Setup::new(3, 1, 0)).await;
        let lab = Lab::new(&world).await;
        lab.pool("p", "10.20.0.1", "10.20.0.4").await;
        for name in ["a", "b", "c", "d"] {
            lab.claim(name, "p").await;
        }
        pass(1).await;
        let expected: BTreeSet<String> = ["10.20.0.2", "10.20.0.3", "10.20.0.4"].map(str::to_owned).into();
        assert_eq!(lab.given_out().await, expected, "all but the gateway");
        let counts = lab.pools.get("p").await.unwrap().status.unwrap().ip_addresses.unwrap();
        assert_eq!((counts.total, counts.used, counts.free), (3, 3, 0));
        let (reason, message) = lab.ready("d").await;
        assert_eq!(reason, "PoolExhausted");
        assert!(message.contains("10.20.0.2 by lab/a") && message.contains("10.20.0.1, the gateway"), "{message}");
        assert!(world.log().contains("PoolExhausted"), "an event tells it as well");

        // A released address rests for ten seconds, over a restart too.
        lab.claims.delete("a", &DeleteParams::default()).await.unwrap();
        pass(4).await;
        assert_eq!(lab.given_out().await.len(), 2);
        assert_eq!(lab.ready("d").await.0, "WaitingForReleasedAddress");
        world.restart().await;
        let lab = Lab::new(&world).await;
        pass(4).await;
        assert_eq!(lab.given_out().await.len(), 2, "it still rests");
        pass(4).await;
        assert_eq!(lab.given_out().await, expected);
        assert_eq!(lab.ready("d").await, ("AddressAllocated".to_owned(), "10.20.0.2 from InClusterIPPool lab/p".to_owned()));

        // A pool that is deleted goes with its last address.
        lab.pools.delete("p", &DeleteParams::default()).await.unwrap();
        pass(1).await;
        assert!(lab.pools.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
        for name in ["b", "c", "d"] {
            lab.claims.delete(name, &DeleteParams::default()).await.unwrap();
        }
        pass(1).await;
        assert!(lab.given_out().await.is_empty());
        assert!(lab.pools.get_opt("p").await.unwrap().is_none());
    });
}

#[test]
fn a_namespace_with_pools_and_claims_goes() {
    run(4, async {
        let world = World::start(&Setup::new(4, 1, 0)).await;
        let lab = Lab::new(&world).await;
        lab.claim("early", "p").await;
        pass(1).await;
        assert_eq!(lab.ready("early").await.0, "PoolNotFound");
        lab.pool("p", "10.20.0.10", "10.20.0.20").await;
        lab.claim("late", "p").await;
        pass(1).await;
        assert_eq!(lab.given_out().await.len(), 2);
        let address = lab.addresses.get("late").await.unwrap();
        assert_eq!(address.finalizers(), ["ipam.cluster.x-k8s.io/ProtectAddress"]);
        lab.namespaces.delete("lab", &DeleteParams::default()).await.unwrap();
        pass(120).await;
        assert!(lab.namespaces.get_opt("lab").await.unwrap().is_none(), "{}", world.log());
        assert!(lab.addresses.list(&Default::default()).await.unwrap().items.is_empty());
    });
}

#[test]
fn pools_that_overlap_never_give_out_an_address_twice() {
    run(5, async {
        let mut world = World::start(&Setup::new(5, 1, 0)).await;
        let lab = Lab::new(&world).await;
        lab.pool("one", "10.20.0.10", "10.20.0.11").await;
        lab.pool("other", "10.20.0.10", "10.20.0.12").await;
        for (name, pool) in [("a", "one"), ("b", "other"), ("c", "one"), ("d", "other")] {
            lab.claim(name, pool).await;
        }
        pass(1).await;
        assert_eq!(lab.given_out().await.len(), 3);
        let exhausted: Vec<(&str, String)> = {
            let mut found = Vec::new();
            for name in ["a", "b", "c", "d"] {
                let (reason, message) = lab.ready(name).await;
                if reason == "PoolExhausted" {
                    found.push((name, message));
                }
            }
            found
        };
        let [(waiting, message)] = exhausted.as_slice() else { panic!("{exhausted:?}") };
        assert!(message.contains("from InClusterIPPool lab/"), "who holds it from which pool: {message}");
        world.restart().await;
        let lab = Lab::new(&world).await;
        // What the other pool gets back rests there, and then comes to whom it was missing.
        let other = if ["a", "c"].contains(waiting) { "b" } else { "a" };
        lab.claims.delete(other, &DeleteParams::default()).await.unwrap();
        pass(5).await;
        assert_eq!(lab.given_out().await.len(), 2, "it rests");
        pass(8).await;
        assert_eq!(lab.given_out().await.len(), 3);
        assert_eq!(lab.ready(waiting).await.0, "AddressAllocated");
    });
}
