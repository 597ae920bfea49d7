//! Records events (core/v1 Event) about objects. Never blocks: events go through a bounded line to one task; when the line is full they
//! are dropped and counted. The same event again raises the count of the one that is there, also after a restart, because its name
//! follows from its content.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::log::Log;

/// Events waiting to be written.
const LINE: usize = 1024;
/// Events whose count is remembered.
const REMEMBERED: usize = 4096;
/// The longest message, in bytes, as the API allows for notes.
const LONGEST_MESSAGE: usize = 1024;
/// How long the line may be emptied after the end was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// Whether an event tells of ordinary progress or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Item {
    component: Arc<str>,
    object: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: jiff::Timestamp,
}

/// Records events for one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    sender: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
    clock: Clock,
    log: Log,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("component", &self.component).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts the writing task over `client`; it ends with `token`. Must be called in a runtime.
    pub fn start(client: kube::Client, component: &str, clock: &Clock, log: &Log, token: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(LINE);
        let writer = Writer { client, known: BTreeMap::new(), order: std::collections::VecDeque::new() };
        tokio::spawn(writer.run(receiver, token));
        Self { component: Arc::from(component), sender, dropped: Arc::default(), clock: clock.clone(), log: log.clone() }
    }

    /// The same recorder, speaking for another component.
    #[must_use]
    pub fn of(&self, component: &str) -> Self {
        Self { component: Arc::from(component), ..self.clone() }
    }

    /// Records an event. `reason` is one CamelCase word, `message` a sentence without secrets.
    pub fn event(&self, object: &ObjectReference, event_type: EventType, reason: &str, message: impl Into<String>) {
        let message = shortened(message.into());
        let kind = object.kind.as_deref().unwrap_or_default();
        let name = object.name.as_deref().unwrap_or_default();
        let place = object.namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        self.log.record(&self.component, "event", format_args!("{kind} {place}{name}"), format_args!("{reason}: {message}"));
        let item = Item {
            component: Arc::clone(&self.component),
            object: object.clone(),
            event_type,
            reason: reason.to_owned(),
            message,
            at: self.clock.now_seconds(),
        };
        if self.sender.try_send(item).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because the line was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let mut end = LONGEST_MESSAGE - '…'.len_utf8();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

struct Writer {
    client: kube::Client,
    /// Counts by namespace and event name, of what this process wrote.
    known: BTreeMap<(String, String), i32>,
    order: std::collections::VecDeque<(String, String)>,
}

impl Writer {
    async fn run(mut self, mut line: mpsc::Receiver<Item>, token: CancellationToken) {
        loop {
            let item = tokio::select! {
                biased;
                () = token.cancelled() => break,
                item = line.recv() => item,
            };
            let Some(item) = item else { return };
            self.write(item).await;
        }
        line.close();
        let rest = async {
            while let Some(item) = line.recv().await {
                self.write(item).await;
            }
        };
        let _ = tokio::time::timeout(GRACE, rest).await;
    }

    async fn write(&mut self, item: Item) {
        let what = format!("{} {} {}", item.event_type.as_str(), item.reason, item.object.name.as_deref().unwrap_or_default());
        if let Err(error) = self.try_write(item).await {
            // Events are a courtesy: a namespace that is being deleted refuses them.
            tracing::debug!(event = %what, error = %super::explain(&error), "event not written");
        }
    }

    async fn try_write(&mut self, item: Item) -> Result<(), kube::Error> {
        let namespace = item.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let name = event_name(&item);
        let key = (namespace.clone(), name.clone());
        if let Some(count) = self.known.get(&key).copied() {
            match raise(&api, &name, count, &item).await {
                Ok(()) => return self.remember(key, count + 1),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        match api.create(&PostParams::default(), &event(&name, &namespace, &item)).await {
            Ok(_) => self.remember(key, 1),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let count = api.get(&name).await?.count.unwrap_or(1);
                raise(&api, &name, count, &item).await?;
                self.remember(key, count + 1)
            }
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, key: (String, String), count: i32) -> Result<(), kube::Error> {
        if self.known.insert(key.clone(), count).is_none() {
            self.order.push_back(key);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        Ok(())
    }
}

async fn raise(api: &Api<Event>, name: &str, count: i32, item: &Item) -> Result<(), kube::Error> {
    let fields = serde_json::json!({ "count": count.saturating_add(1), "lastTimestamp": Time(item.at) });
    api.patch(name, &PatchParams::default(), &Patch::Merge(fields)).await.map(drop)
}

/// The object's name and 16 hex digits over the event's content, as upstream's are the object's name and a number.
fn event_name(item: &Item) -> String {
    let mut hash = Sha256::new();
    let object = &item.object;
    for part in [&object.uid, &object.kind, &object.name] {
        hash.update(part.as_deref().unwrap_or_default());
        hash.update([0]);
    }
    for part in [item.event_type.as_str(), &item.component, &item.reason, &item.message] {
        hash.update(part);
        hash.update([0]);
    }
    let digits: String = hex::encode(hash.finalize()).chars().take(16).collect();
    format!("{}.{digits}", object.name.as_deref().unwrap_or_default())
}

fn event(name: &str, namespace: &str, item: &Item) -> Event {
    Event {
        metadata: ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
        involved_object: item.object.clone(),
        reason: Some(item.reason.clone()),
        message: Some(item.message.clone()),
        type_: Some(item.event_type.as_str().to_owned()),
        source: Some(EventSource { component: Some(item.component.to_string()), host: None }),
        reporting_component: Some(item.component.to_string()),
        first_timestamp: Some(Time(item.at)),
        last_timestamp: Some(Time(item.at)),
        count: Some(1),
        ..Event::default()
    }
}
