//! `up`: manifests to a running cluster. Run again after anything, it continues.
//!
//! Order: render, check every object against the API without changing anything, check the vCenter side, then apply - namespace,
//! identity Secret, everything else in the order of the files, the workload's files as a ClusterResourceSet - and wait until every
//! Machine runs and every Node is ready.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::preflight::Login;
use super::simulate::SIMULATOR;
use super::{clusters, duration, input, preflight};
use crate::apply::{Api, Outcome, unreachable};
use crate::cli::Up;
use crate::follow::{Goal, until};
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::render::values::Values;
use crate::render::yaml;
use crate::render::{Manifest, Used};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::kinds;

/// Ties a ClusterResourceSet of `--workload` files to its Cluster.
const WORKLOAD_LABEL: &str = "talosphere.dev/workload";

/// On a Secret with a login that was made from the environment, for one cluster: it goes with it.
pub const MADE_BY_UP: &str = "talosphere.dev/made-by-up";

/// What is to be brought up.
#[derive(Debug)]
pub struct Order {
    pub manifests: Vec<Manifest>,
    pub workload: Vec<Manifest>,
    pub namespace: String,
    /// The Clusters among the manifests.
    pub clusters: Vec<String>,
    pub login: Option<(String, String)>,
    /// Where the login is from, as a person reads it.
    pub login_origin: &'static str,
    /// The variables that the files use: what is wrong with a value is told with its name.
    pub used: Vec<Used>,
}

impl Order {
    /// Sorts manifests and checks what can be checked without a server.
    ///
    /// # Errors
    /// When there is no Cluster, or an object names another namespace.
    pub fn new(manifests: Vec<Manifest>, workload: Vec<Manifest>, namespace: &str, values: &Values) -> Result<Self, Problem> {
        for manifest in &manifests {
            if let Some(other) = manifest.namespace().filter(|other| *other != namespace) {
                return Err(Problem::new(
                    Code::OtherNamespace,
                    format!("{} belongs to the namespace {other}, not to {namespace}", manifest.place()),
                )
                .remedy(format!("give its file with --workload if it belongs into the new cluster; else run with -n {other}")));
            }
        }
        for (at, manifest) in manifests.iter().enumerate() {
            let identity = |manifest: &Manifest| {
                let group = manifest.api_version().split_once('/').map_or("", |(group, _)| group).to_owned();
                (group, manifest.kind().to_owned(), manifest.name().to_owned())
            };
            let is_same = |other: &&Manifest| !other.name().is_empty() && identity(other) == identity(manifest);
            if let Some(first) = manifests.iter().take(at).find(is_same) {
                return Err(Problem::new(Code::InvalidObject, format!("{} is given twice", manifest.place()))
                    .seen(first.place())
                    .remedy("leave one of them out"));
            }
            if manifest.kind() == "TalosControlPlane" && manifest.object.pointer("/spec/replicas").and_then(Value::as_i64) == Some(0) {
                return Err(Problem::new(Code::InvalidObject, format!("{}: a control plane cannot have 0 replicas", manifest.place()))
                    .remedy("give at least 1; a cluster that is no longer needed is deleted with `talosphere delete cluster`"));
            }
        }
        let is_cluster = |manifest: &&Manifest| manifest.kind() == "Cluster" && manifest.api_version().starts_with("cluster.x-k8s.io/");
        let clusters: Vec<String> = manifests.iter().filter(is_cluster).map(|manifest| manifest.name().to_owned()).collect();
        if clusters.is_empty() {
            return Err(
                Problem::new(Code::NoCluster, "there is no Cluster among the manifests").remedy("add the file with the Cluster with -f")
            );
        }
        if let ([_, _, ..], [first, ..]) = (clusters.as_slice(), workload.as_slice()) {
            return Err(Problem::new(Code::BadFlag, format!("--workload is for one cluster, and the manifests have {}", clusters.len()))
                .seen(first.place())
                .remedy("run `talosphere up` once for each cluster"));
        }
        let login = values.non_empty("VSPHERE_USERNAME").zip(values.non_empty("VSPHERE_PASSWORD"));
        let is_simulated = values.get("VSPHERE_PASSWORD").is_some_and(|value| value.source.to_string().starts_with(SIMULATOR));
        let login_origin =
            if is_simulated { "with the login of the simulated vCenter" } else { "from VSPHERE_USERNAME and VSPHERE_PASSWORD" };
        Ok(Self { manifests, workload, namespace: namespace.to_owned(), clusters, login, login_origin, used: Vec::new() })
    }

    /// The identity Secret that a VSphereCluster refers to.
    fn identity(&self) -> Option<&str> {
        let cluster = self.manifests.iter().find(|manifest| manifest.kind() == "VSphereCluster")?;
        let kind = cluster.object.pointer("/spec/identityRef/kind").and_then(Value::as_str);
        let name = cluster.object.pointer("/spec/identityRef/name").and_then(Value::as_str);
        name.filter(|_| kind == Some("Secret"))
    }

    /// What `--workload` becomes: a Secret with the objects, and the ClusterResourceSet that applies them to the labelled Cluster. Both go
    /// with the Cluster.
    fn resource_set(&self, cluster: &str, uid: &str) -> Result<Vec<Manifest>, Problem> {
        let text =
            yaml::write_all(self.workload.iter().map(|manifest| &manifest.object)).map_err(|error| Problem::new(Code::Internal, error))?;
        let name = format!("{cluster}-workload");
        let labels = json!({"cluster.x-k8s.io/cluster-name": cluster});
        let owners = json!([{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": cluster, "uid": uid}]);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "addons.cluster.x-k8s.io/resource-set",
            "metadata": {"name": name, "labels": labels, "ownerReferences": owners}, "data": {"objects.yaml": STANDARD.encode(text)},
        });
        let set = json!({
            "apiVersion": "addons.cluster.x-k8s.io/v1beta2", "kind": "ClusterResourceSet",
            "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
            "spec": {
                "clusterSelector": {"matchLabels": {WORKLOAD_LABEL: cluster}},
                "resources": [{"kind": "Secret", "name": name}],
                "strategy": "ApplyOnce",
            },
        });
        Ok([secret, set].into_iter().map(|object| Manifest { object, file: "--workload".to_owned(), line: 1 }).collect())
    }
}

/// Reads the command's files.
///
/// # Errors
/// As rendering does.
pub fn order(args: &Up, seams: &Seams) -> Result<Order, Problem> {
    if args.input.files.is_empty() {
        return Err(Problem::new(Code::BadFlag, "there is nothing to bring up").remedy("name the cluster's manifests with -f FILE"));
    }
    let values = input::values(&args.input, &[], seams)?;
    // Both sets are rendered as one, so that every missing variable is named at once.
    let mut files = input::read_all(&args.input.files)?;
    let own = files.len();
    files.extend(input::read_all(&args.workload)?);
    let used = input::manifests(&files, &values)?.used;
    let manifests = input::manifests(files.get(..own).unwrap_or_default(), &values)?.manifests;
    let workload = input::manifests(files.get(own..).unwrap_or_default(), &values)?.manifests;
    Ok(Order { used, ..Order::new(manifests, workload, &args.namespace.namespace, &values)? })
}

/// Runs the command.
///
/// # Errors
/// With what stands in the way.
pub async fn run(args: &Up, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let order = order(args, seams)?;
    let mut session = Session::changing(directory, "up", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = bring_up(&mut session, &order, Some(directory), timeout, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; what was reached is kept").remedy("run the same command again to continue")),
    };
    session.close(seams).await;
    outcome
}

/// Applies an order and waits until its clusters are ready; their credentials are written into `directory`, when there is one.
///
/// # Errors
/// With what stands in the way.
pub async fn bring_up(
    session: &mut Session,
    order: &Order,
    directory: Option<&StateDirectory>,
    timeout: Duration,
    seams: &Seams,
) -> Result<(), Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        let applied = match check(&session.api, order, seams).await {
            Ok(()) => apply(&session.api, order, seams).await,
            failed => failed,
        };
        match applied {
            // The owner of the state went away in the middle: what was applied is kept, the rest follows.
            // One that is closing refuses first.
            Err(problem) if matches!(problem.code, Code::OwnerUnreachable | Code::ApiRefused) && !session.is_owner() && tries <= 3 => {
                session.again(seams).await?;
            }
            outcome => break outcome?,
        }
    }
    for cluster in &order.clusters {
        let mut goal = Goal::ready(cluster);
        until(session, seams, &order.namespace, &kinds(), timeout, |objects| goal.step(objects)).await?;
        seams.printer.line(format!("Cluster {cluster} is ready"));
        goal.warn(seams);
        clusters::warn_of_taints(&session.api, &order.namespace, cluster, !order.workload.is_empty(), seams).await;
        let Some(directory) = directory else { continue };
        clusters::hand_over(&session.api, directory, &order.namespace, cluster, seams).await?;
    }
    Ok(())
}

/// Every objection there is, before anything is changed.
async fn check(api: &Api, order: &Order, seams: &Seams) -> Result<(), Problem> {
    let mut problems = Vec::new();
    for manifest in &order.manifests {
        if let Err(problem) = api.check(manifest, &order.namespace).await {
            problems.push(problem);
        }
    }
    let mut problems = problems.into_iter();
    if let Some(mut first) = problems.next() {
        for other in problems {
            first = first.seen(other.what).seen_all(other.evidence);
        }
        return Err(first);
    }
    let login = login(api, order, seams).await?;
    preflight::endpoints(api, &order.manifests, &order.namespace).await?;
    preflight::check(&order.manifests, login.as_ref(), seams).await.map_err(|problem| origins(problem, &order.used))
}

/// Adds to each line of a problem which variables gave the values in it.
fn origins(mut problem: Problem, used: &[Used]) -> Problem {
    /// A shorter value stands in too many lines to tell anything.
    const TELLING: usize = 4;
    for line in std::iter::once(&mut problem.what).chain(&mut problem.evidence) {
        // The place in front, a file and an object, is told in any case.
        let told = line.split_once("): ").map_or(line.as_str(), |(_, told)| told);
        let is_shown = |used: &&Used| {
            let shown = told.match_indices(&used.value);
            let is_part = |at: usize| told.as_bytes().get(at).is_some_and(u8::is_ascii_alphanumeric);
            let mut whole = shown.filter(|(at, _)| !(at.checked_sub(1).is_some_and(is_part) || is_part(at + used.value.len())));
            used.value.len() >= TELLING && whole.next().is_some()
        };
        let named: Vec<String> = used.iter().filter(is_shown).map(|used| format!("{} from {}", used.name, used.source)).collect();
        if !named.is_empty() {
            line.push_str(&format!(" ({})", named.join(", ")));
        }
    }
    problem
}

/// The login that the identity Secret holds or will hold.
async fn login(api: &Api, order: &Order, seams: &Seams) -> Result<Option<Login>, Problem> {
    let given =
        order.login.clone().map(|(user, password)| Login { user, password, source: "VSPHERE_USERNAME and VSPHERE_PASSWORD".to_owned() });
    let Some(identity) = order.identity() else { return Ok(given) };
    let of_secret = |secret: &Value, source: String| {
        let (user, password) = clusters::secret_text(secret, "username").zip(clusters::secret_text(secret, "password"))?;
        Some(Login { user, password, source })
    };
    if let Some(secret) = order.manifests.iter().find(|manifest| manifest.kind() == "Secret" && manifest.name() == identity) {
        return Ok(of_secret(&secret.object, secret.place()));
    }
    let path = format!("/api/v1/namespaces/{}/secrets/{identity}", order.namespace);
    match api.get(&path).await.map_err(|error| unreachable(&error))? {
        Some(secret) => {
            let kept = of_secret(&secret, format!("Secret {}/{identity}", order.namespace));
            if let (Some(kept), Some(given)) = (&kept, &given)
                && (&kept.user, &kept.password) != (&given.user, &given.password)
            {
                seams.printer.line(format!("warning: {} is there and counts; {}, which differ from it, do not", kept.source, given.source));
            }
            Ok(kept)
        }
        None if given.is_some() => Ok(given),
        None => Err(Problem::new(
            Code::NoCredentials,
            format!("the Secret {identity} with the login to vCenter does not exist in {}", order.namespace),
        )
        .because("VSPHERE_USERNAME and VSPHERE_PASSWORD, from which it would be made, are not set")
        .remedy("export VSPHERE_USERNAME=... VSPHERE_PASSWORD=..., or put the Secret into the files")),
    }
}

async fn apply(api: &Api, order: &Order, seams: &Seams) -> Result<(), Problem> {
    let tell = |(shown, outcome): (String, Outcome)| seams.printer.line(format!("{shown} {}", outcome.word()));
    let plain = |object: Value| Manifest { object, file: "talosphere".to_owned(), line: 1 };
    let namespace = format!("/api/v1/namespaces/{}", order.namespace);
    if api.get(&namespace).await.map_err(|error| unreachable(&error))?.is_none() {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": order.namespace}});
        tell(api.apply(&plain(object), "").await?);
    }
    let own_secret = |name: &str| order.manifests.iter().any(|manifest| manifest.kind() == "Secret" && manifest.name() == name);
    if let (Some(identity), Some((user, password))) = (order.identity().filter(|name| !own_secret(name)), &order.login) {
        // A Secret that is there is the user's and is never changed.
        let path = format!("/api/v1/namespaces/{}/secrets", order.namespace);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": identity, "annotations": {MADE_BY_UP: ""}},
            "stringData": {"username": user, "password": password},
        });
        match api.send(http::Method::POST, &path, Some("application/json"), Some(&secret)).await {
            Ok(_) => seams.printer.line(format!("secret/{identity} created {}", order.login_origin)),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => return Err(unreachable(&error)),
        }
    }
    for manifest in &order.manifests {
        tell(api.apply(manifest, &order.namespace).await?);
    }
    if let (false, Some(cluster)) = (order.workload.is_empty(), order.clusters.first()) {
        let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{}/clusters/{cluster}", order.namespace);
        let uid = api.get(&path).await.map_err(|error| unreachable(&error))?;
        let uid = uid.as_ref().and_then(|cluster| cluster.pointer("/metadata/uid")).and_then(Value::as_str).unwrap_or_default();
        for manifest in order.resource_set(cluster, uid)? {
            tell(api.apply(&manifest, &order.namespace).await?);
        }
        let label = json!({"metadata": {"labels": {WORKLOAD_LABEL: cluster}}});
        api.send(http::Method::PATCH, &path, Some("application/merge-patch+json"), Some(&label))
            .await
            .map_err(|error| unreachable(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::values::Source;

    #[test]
    fn what_is_wrong_with_a_value_is_told_with_its_variable() {
        let used = |name: &str, value: &str| Used { name: name.to_owned(), value: value.to_owned(), source: Source::Flag };
        let used = [used("NETWORK", "nonet"), used("CLUSTER", "demo"), used("CPUS", "4"), used("OTHER", "none")];
        let problem = Problem::new(Code::VCenter, "a.yaml:3 (X demo): network \"nonet\" was not found; there is \"nonet4\"");
        let told = origins(problem.seen("demo is wrong"), &used);
        assert!(told.what.ends_with("there is \"nonet4\" (NETWORK from --set)"), "{}", told.what);
        assert_eq!(told.evidence, ["demo is wrong (CLUSTER from --set)"]);
    }
}
