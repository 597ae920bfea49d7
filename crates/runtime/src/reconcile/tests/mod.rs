//! The loop against a small API of its own, on paused time.

mod fake;
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::log::Log;
use crate::random::Random;
use fake::Fake;

type Step = Arc<dyn Fn(ObjectKey, Store<ConfigMap>) -> BoxFuture<'static, std::result::Result<Action, Error>> + Send + Sync>;

struct Scripted {
    store: Store<ConfigMap>,
    step: Step,
    seen: Arc<Mutex<Vec<(Timestamp, String)>>>,
    clock: Clock,
}

#[async_trait]
impl Reconciler for Scripted {
    type Kind = ConfigMap;

    async fn reconcile(&self, key: &ObjectKey) -> std::result::Result<Action, Error> {
        self.seen.lock().unwrap().push((self.clock.now(), key.name.clone()));
        (self.step)(key.clone(), self.store.clone()).await
    }
}

struct World {
    fake: Fake,
    clock: Clock,
    log: Log,
    random: Random,
    stores: Stores,
    token: CancellationToken,
    seen: Arc<Mutex<Vec<(Timestamp, String)>>>,
}

impl World {
    fn new(fake: Fake, seed: u64) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let random = Random::seeded(seed);
        let token = CancellationToken::new();
        let stores = Stores::new(fake.client(), clock.clone(), &random, token.clone());
        Self { fake, log: Log::keeping(clock.clone()), clock, random, stores, token, seen: Arc::default() }
    }

    fn controller(
        &self,
        step: impl Fn(ObjectKey, Store<ConfigMap>) -> BoxFuture<'static, std::result::Result<Action, Error>> + Send + Sync + 'static,
    ) -> Controller<impl Reconciler<Kind = ConfigMap>> {
        let store = self.stores.get::<ConfigMap>();
        let scripted = Scripted { store, step: Arc::new(step), seen: Arc::clone(&self.seen), clock: self.clock.clone() };
        Controller::new("scripted", scripted, &self.stores, &self.random, &self.log)
    }

    fn start(&self, controller: Controller<impl Reconciler<Kind = ConfigMap>>) -> JoinHandle<()> {
        tokio::spawn(controller.run(self.token.clone()))
    }

    /// Lets everything that can happen within `duration` happen.
    async fn pass(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn names(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, name)| name.clone()).collect()
    }

    fn times_of(&self, name: &str) -> Vec<Timestamp> {
        self.seen.lock().unwrap().iter().filter(|(_, seen)| seen == name).map(|(at, _)| *at).collect()
    }
}

fn done() -> BoxFuture<'static, std::result::Result<Action, Error>> {
    Box::pin(async { Ok(Action::Done) })
}

const SHORT: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn objects_present_at_start_run_once_in_order_of_their_names() {
    let fake = Fake::default();
    for name in ["delta", "alpha", "charlie", "bravo"] {
        fake.config_map(name, &json!({}));
    }
    let world = World::new(fake, 1);
    world.start(world.controller(|_, _| done()).limit(1));
    world.pass(SHORT).await;
    assert_eq!(world.names(), ["alpha", "bravo", "charlie", "delta"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_runs_the_key_again_and_a_deletion_too() {
    let world = World::new(Fake::default(), 1);
    world.start(world.controller(|_, _| done()));
    world.pass(SHORT).await;
    world.fake.config_map("a", &json!({"x": "1"}));
    world.pass(SHORT).await;
    world.fake.config_map("a", &json!({"x": "2"}));
    world.pass(SHORT).await;
    world.fake.remove("a");
    world.pass(SHORT).await;
    assert_eq!(world.names(), ["a", "a", "a"]);
    assert_eq!(world.stores.get::<ConfigMap>().all().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_rests_sees_what_changed_meanwhile_at_once() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake.clone(), 1);
    let rest = Duration::from_millis(100);
    world.start(world.controller(|_, _| done()).rest(rest));
    world.pass(Duration::from_secs(1)).await;
    let begun = world.times_of("a").len();
    // The first change is looked at without delay, the nine after it together.
    for number in 0..10 {
        fake.config_map("a", &json!({"n": number.to_string()}));
        world.pass(Duration::from_millis(5)).await;
    }
    world.pass(Duration::from_secs(1)).await;
    let times = world.times_of("a");
    assert_eq!(times.len() - begun, 2, "{times:?}");
    assert!(times[begun + 1].duration_since(times[begun]) >= jiff::SignedDuration::from_millis(100), "{times:?}");
    // After a rest nothing is remembered of it.
    fake.config_map("a", &json!({"n": "last"}));
    let before = world.clock.now();
    world.pass(SHORT).await;
    assert_eq!(world.times_of("a").last(), Some(&before));
}

#[tokio::test(start_paused = true)]
async fn only_changes_that_matter_wake_those_who_only_read() {
    let world = World::new(Fake::default(), 1);
    let matters = |old: &ConfigMap, new: &ConfigMap| {
        let read = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("read").cloned());
        read(old) != read(new)
    };
    let reader = |_: &ConfigMap| vec![ObjectKey::namespaced("default", "reader")];
    world.start(world.controller(|_, _| done()).watches_when(matters, reader));
    world.pass(SHORT).await;
    for data in [json!({"read": "1"}), json!({"read": "1", "other": "1"}), json!({"read": "2", "other": "1"})] {
        world.fake.config_map("a", &data);
        world.pass(SHORT).await;
    }
    world.fake.remove("a");
    world.pass(SHORT).await;
    assert_eq!(world.times_of("a").len(), 4);
    assert_eq!(world.times_of("reader").len(), 3, "made, changed in what is read, gone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_the_server_while_nothing_changes() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    world.start(world.controller(|_, _| done()));
    world.pass(Duration::from_secs(1)).await;
    let calls = world.fake.state().calls.len();
    world.pass(Duration::from_secs(250)).await;
    assert_eq!(world.fake.state().calls.len(), calls);
    assert_eq!(world.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_repeated_with_growing_delays_and_forgotten_after_success() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let controller = world.controller(move |_, _| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { if run < 5 { Err(Error::message("no")) } else { Ok(Action::Done) } })
    });
    let health = controller.health();
    world.start(controller);
    world.pass(Duration::from_millis(500)).await;
    let failing = health.report().failing;
    assert_eq!((failing.len(), failing[0].error.as_str(), failing[0].failures), (1, "no", 4));
    world.pass(Duration::from_secs(60)).await;
    let times = world.times_of("a");
    let delays: Vec<u64> = times.windows(2).map(|pair| u64::try_from(pair[1].duration_since(pair[0]).as_millis()).unwrap()).collect();
    assert_eq!(delays.len(), 5);
    for (delay, base) in delays.iter().zip([50, 100, 200, 400, 800]) {
        assert!((base..=base * 12 / 10 + 1).contains(delay), "{delay} ms where {base} ms and a fifth more are due");
    }
    assert_eq!(health.report().failing, []);
    let told = world.log.entries().iter().filter(|entry| entry.result == "failed: no").count();
    assert_eq!(told, 5);
}

#[tokio::test(start_paused = true)]
async fn delays_stop_growing_at_the_cap() {
    let random = Random::seeded(1);
    for failures in [12, 13, 100, u32::MAX] {
        let delay = Backoff::RECONCILE.delay(failures, &random);
        assert!(delay >= Duration::from_secs(60) && delay <= Duration::from_secs(72), "{delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_never_runs_twice_at_once_and_a_change_meanwhile_runs_it_once_more() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    fake.config_map("b", &json!({}));
    let world = World::new(fake, 1);
    let gate = Arc::new(Semaphore::new(0));
    let inside: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let (held, most) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let seen_most = Arc::clone(&most);
    let controller = world.controller(move |key, _| {
        let (gate, inside, most) = (Arc::clone(&held), Arc::clone(&inside), Arc::clone(&seen_most));
        Box::pin(async move {
            let now = {
                let mut inside = inside.lock().unwrap();
                let count = inside.entry(key.name.clone()).or_default();
                *count += 1;
                *count
            };
            most.fetch_max(now, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            *inside.lock().unwrap().get_mut(&key.name).unwrap() -= 1;
            Ok(Action::Done)
        })
    });
    let waker = controller.waker();
    world.start(controller);
    world.pass(SHORT).await;
    for round in 0..5 {
        world.fake.config_map("a", &json!({"round": round.to_string()}));
        waker.wake_all();
        world.pass(SHORT).await;
    }
    assert_eq!(world.names(), ["a", "b"], "both keys run side by side, each once");
    gate.add_permits(100);
    world.pass(SHORT).await;
    assert_eq!(world.names(), ["a", "b", "a", "b"]);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_keys_run_at_once_than_the_limit() {
    let fake = Fake::default();
    for n in 0..20 {
        fake.config_map(&format!("m{n:02}"), &json!({}));
    }
    let world = World::new(fake, 1);
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (Arc::clone(&inside), Arc::clone(&most));
    let clock = world.clock.clone();
    let controller = world.controller(move |_, _| {
        let (count, peak, clock) = (Arc::clone(&count), Arc::clone(&peak), clock.clone());
        Box::pin(async move {
            peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            clock.sleep(Duration::from_secs(1)).await;
            count.fetch_sub(1, Ordering::SeqCst);
            Ok(Action::Done)
        })
    });
    world.start(controller.limit(3));
    world.pass(Duration::from_secs(10)).await;
    assert_eq!((world.names().len(), most.load(Ordering::SeqCst)), (20, 3));
}

#[tokio::test(start_paused = true)]
async fn requeue_after_runs_at_its_time_and_an_earlier_change_replaces_it() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    world.start(world.controller(move |_, _| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(if run < 2 { Action::RequeueAfter(Duration::from_secs(100)) } else { Action::Done }) })
    }));
    world.pass(Duration::from_secs(50)).await;
    world.fake.config_map("a", &json!({"x": "1"}));
    world.pass(Duration::from_secs(99)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    world.pass(Duration::from_secs(100)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_of_its_key_alone() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    fake.config_map("b", &json!({}));
    let world = World::new(fake, 1);
    let controller = world.controller(|key, _| {
        Box::pin(async move {
            assert_ne!(key.name, "a", "of all names");
            Ok(Action::Done)
        })
    });
    let health = controller.health();
    world.start(controller);
    world.pass(SHORT).await;
    assert_eq!(world.names(), ["a", "b"]);
    let failing = health.report().failing;
    assert!(failing[0].error.starts_with("reconcile panicked: ") && failing[0].error.contains("of all names"), "{failing:?}");
    world.pass(Duration::from_millis(100)).await;
    assert_eq!(world.names(), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_hangs_is_dropped() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let controller = world.controller(|_, _| Box::pin(std::future::pending()));
    let health = controller.health();
    world.start(controller);
    world.pass(Duration::from_secs(301)).await;
    assert_eq!(health.report().failing[0].error, "reconcile did not end within 300 s and was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changes_itself_without_end_is_slowed_down() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    world.start(world.controller(move |key, store| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            store.merge(&key, json!({"data": {"run": run.to_string()}})).await?;
            Ok(Action::Done)
        })
    }));
    world.pass(Duration::from_secs(30)).await;
    assert!(runs.load(Ordering::SeqCst) < 65, "{runs:?}");
    assert!(world.log.entries().iter().any(|entry| entry.result.starts_with("does not settle")));
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_that_writes_its_own_status_still_backs_off() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    world.start(world.controller(move |key, store| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            store.merge(&key, json!({"data": {"run": run.to_string()}})).await?;
            Err(Error::message("no"))
        })
    }));
    world.pass(Duration::from_secs(1)).await;
    assert!((4..=6).contains(&runs.load(Ordering::SeqCst)), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_created_is_seen_before_the_watch_tells_it() {
    let fake = Fake::default();
    fake.config_map("owner", &json!({}));
    let world = World::new(fake, 1);
    let store = world.stores.get::<ConfigMap>();
    store.synced().await;
    world.pass(SHORT).await;
    world.fake.state().is_mute = true;
    let controller = world.controller(move |key, store| {
        Box::pin(async move {
            let children = store.all().len() - 1;
            if key.name == "owner" && children < 3 {
                let name = format!("child-{children}");
                let child: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}})).unwrap();
                store.create(&child).await?;
                return Ok(Action::RequeueAfter(Duration::from_millis(1)));
            }
            Ok(Action::Done)
        })
    });
    world.start(controller);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.fake.objects("configmaps").len(), 4);
    let before = world.names().len();
    world.fake.unmute();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.fake.objects("configmaps").len(), 4);
    assert_eq!(world.names().len(), before, "the watch's late echo of our own writes runs nothing");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_order_and_times() {
    async fn run(seed: u64) -> String {
        let fake = Fake::default();
        for n in 0..8 {
            fake.config_map(&format!("m{n}"), &json!({}));
        }
        let world = World::new(fake, seed);
        let (clock, random) = (world.clock.clone(), world.random.child("steps"));
        world.start(world.controller(move |key, store| {
            let (clock, random) = (clock.clone(), random.clone());
            Box::pin(async move {
                clock.sleep(Duration::from_millis(random.below(50))).await;
                if random.below(3) == 0 {
                    return Err(Error::message("by chance"));
                }
                if random.below(3) == 0 {
                    store.merge(&key, json!({"data": {"draw": random.below(100).to_string()}})).await?;
                }
                Ok(if random.below(2) == 0 { Action::Done } else { Action::RequeueAfter(Duration::from_millis(random.below(200))) })
            })
        }));
        world.pass(Duration::from_secs(20)).await;
        let text = format!("{:?}{:?}", world.seen.lock().unwrap(), world.log.entries());
        text
    }
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_revision_is_answered_by_a_new_list() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    fake.config_map("b", &json!({}));
    let world = World::new(fake, 1);
    world.start(world.controller(|_, _| done()));
    world.pass(SHORT).await;
    {
        let mut state = world.fake.state();
        state.is_mute = true;
    }
    world.fake.remove("a");
    world.fake.config_map("c", &json!({}));
    {
        let mut state = world.fake.state();
        state.compacted = state.revision;
    }
    world.fake.cut();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.stores.get::<ConfigMap>().keys().iter().map(ToString::to_string).collect::<Vec<_>>(), ["default/b", "default/c"]);
    assert_eq!(world.names(), ["a", "b", "a", "c"], "what did not change does not run");
    assert!(world.stores.get::<ConfigMap>().link().is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_is_told_with_time_and_cause_and_found_again() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    let world = World::new(fake, 1);
    let store = world.stores.get::<ConfigMap>();
    store.synced().await;
    world.fake.state().faults.extend([503; 6]);
    world.fake.cut();
    world.pass(Duration::from_secs(2)).await;
    let Link::Disconnected { since, because, is_synced } = store.link() else { panic!("{:?}", store.link()) };
    assert_eq!((since.to_string().as_str(), because.as_str(), is_synced), ("2026-01-01T00:00:00Z", "Fault", true));
    assert_eq!(store.all().len(), 1, "what was known stays");
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(store.link(), Link::Connected);
    world.fake.config_map("b", &json!({}));
    world.pass(SHORT).await;
    assert_eq!(store.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_lets_running_reconciles_finish_and_starts_no_more() {
    let fake = Fake::default();
    fake.config_map("a", &json!({}));
    fake.config_map("b", &json!({}));
    let world = World::new(fake, 1);
    let finished = Arc::new(AtomicUsize::new(0));
    let (count, clock) = (Arc::clone(&finished), world.clock.clone());
    let controller = world.controller(move |_, _| {
        let (count, clock) = (Arc::clone(&count), clock.clone());
        Box::pin(async move {
            clock.sleep(Duration::from_secs(2)).await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Action::Done)
        })
    });
    let health = controller.health();
    let task = world.start(controller.limit(1));
    world.pass(Duration::from_secs(1)).await;
    assert!(health.report().is_running);
    world.token.cancel();
    task.await.unwrap();
    assert_eq!((finished.load(Ordering::SeqCst), world.names().len()), (1, 1));
    assert!(!health.report().is_running);
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_raises_its_count_also_after_a_restart() {
    let world = World::new(Fake::default(), 1);
    let object = k8s_openapi::api::core::v1::ObjectReference {
        kind: Some("ConfigMap".into()),
        namespace: Some("default".into()),
        name: Some("a".into()),
        uid: Some("u".into()),
        ..Default::default()
    };
    for _ in 0..2 {
        let recorder = Recorder::start(world.fake.client(), "tester", &world.clock, &world.log, world.token.clone());
        recorder.event(&object, EventType::Normal, "Made", "made it");
        world.pass(Duration::from_secs(3)).await;
        recorder.event(&object, EventType::Normal, "Made", "made it");
        recorder.event(&object, EventType::Warning, "Lost", "ä".repeat(2000));
        world.pass(SHORT).await;
        assert_eq!(recorder.dropped(), 0);
    }
    let events = world.fake.objects("events");
    let mut told: Vec<_> =
        events.iter().map(|e| (e["reason"].as_str().unwrap(), e["type"].as_str().unwrap(), e["count"].as_i64())).collect();
    told.sort_unstable();
    assert_eq!(told, [("Lost", "Warning", Some(2)), ("Made", "Normal", Some(4))]);
    let made = events.iter().find(|event| event["reason"] == "Made").unwrap();
    assert_eq!(made["firstTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(made["lastTimestamp"], "2026-01-01T00:00:06Z");
    assert!(events.iter().all(|event| event["message"].as_str().unwrap().len() <= 1024));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_costs_events_but_never_time() {
    let world = World::new(Fake::default(), 1);
    let recorder = Recorder::start(world.fake.client(), "tester", &world.clock, &world.log, world.token.clone());
    let object = k8s_openapi::api::core::v1::ObjectReference { name: Some("a".into()), ..Default::default() };
    for n in 0..2000 {
        recorder.event(&object, EventType::Normal, "Made", n.to_string());
    }
    assert_eq!(recorder.dropped(), 2000 - 1024);
    assert_eq!(world.clock.now().to_string(), "2026-01-01T00:00:00Z");
}

#[test]
fn a_wait_tells_on_what_since_when_until_when() {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let since = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time("2026-01-01T12:03:10Z"));
    let now = time("2026-01-01T12:10:00.5Z");
    let wait = Wait::since_transition("an address", Some(&since), now).limit(Duration::from_secs(1200));
    assert_eq!(wait.to_string(), "waiting for an address since 12:03:10 (limit 12:23:10)");
    assert!(!wait.is_overdue(now) && wait.is_overdue(time("2026-01-01T12:23:10Z")));
    assert_eq!(Action::at(wait.until, time("2026-01-01T12:23:00Z")), Action::RequeueAfter(Duration::from_secs(10)));
    assert_eq!(Action::at(wait.until, time("2026-01-01T13:00:00Z")), Action::Done);
    assert_eq!(Wait::since_transition("x", None, now).to_string(), "waiting for x since 12:10:00");
    let long = Wait::since_transition("x", Some(&since), now).limit(Duration::from_secs(86_400));
    assert_eq!(long.to_string(), "waiting for x since 12:03:10 (limit 2026-01-02 12:03:10)");
}
