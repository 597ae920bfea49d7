//! Talos credentials for pods: a `ServiceAccount` of the group `talos.dev` becomes a Secret of its name with a client configuration.
//!
//! Only where the control planes' configuration switches it on, for the namespaces and roles it allows.

use serde_json::{Value, json};

use super::Workload;
use super::cache::{is_deleted, list, name, namespace};
use super::client::Client;
use crate::node::Nodes;
use crate::node::certificates::{self, KUBERNETES_LIFETIME, Wanted};

/// The definition that Talos installs.
pub(crate) fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "serviceaccounts.talos.dev"},
        "spec": {
            "group": "talos.dev", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"kind": "ServiceAccount", "listKind": "ServiceAccountList", "plural": "serviceaccounts", "singular": "serviceaccount", "shortNames": ["tsa"]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"roles": {"type": "array", "items": {"type": "string"}}}},
                    "status": {"type": "object", "properties": {"failureReason": {"type": "string"}}},
                }}},
            }],
        },
    })
}

/// Makes the Secrets that are missing. Refusals go into the account's status.
pub(super) async fn act(nodes: &Nodes, workload: &Workload, client: &Client) {
    let accounts = workload.cache().list("serviceaccounts");
    for account in accounts {
        let (namespace, name) = (namespace(&account), name(&account));
        let has_secret = workload.cache().get("secrets", namespace, name).is_some();
        if is_deleted(&account) || has_secret {
            continue;
        }
        let roles: Vec<String> = list(&account, "/spec/roles").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let refused = match secret(nodes, workload, namespace, name, &roles).await {
            Ok(secret) => {
                client.create(&format!("/api/v1/namespaces/{namespace}/secrets"), &secret).await.err().map(|error| error.to_string())
            }
            Err(reason) => Some(reason),
        };
        let told = account.pointer("/status/failureReason").and_then(Value::as_str);
        if refused.as_deref() != told {
            let path = format!("/apis/talos.dev/v1alpha1/namespaces/{namespace}/serviceaccounts/{name}/status");
            let _ = client.merge(&path, &json!({"status": {"failureReason": refused}})).await;
        }
    }
}

async fn secret(nodes: &Nodes, workload: &Workload, namespace: &str, name: &str, roles: &[String]) -> Result<Value, String> {
    let configuration = {
        let state = nodes.state();
        let mut control_planes = state.in_realm(&workload.realm).filter(|(_, machine)| machine.is_control_plane());
        control_planes.next().and_then(|(_, machine)| machine.configuration.clone())
    };
    let configuration = configuration.ok_or("no control plane runs")?;
    let access = configuration.talos_access.as_ref().ok_or("access from Kubernetes to the Talos API is switched off")?;
    if !access.namespaces.iter().any(|allowed| allowed == namespace) {
        return Err(format!("namespace {namespace:?} is not allowed to use Talos service accounts"));
    }
    if let Some(role) = roles.iter().find(|role| !access.roles.contains(role)) {
        return Err(format!("role {role:?} is not allowed"));
    }
    let options = nodes.options();
    let text = |error: certificates::CertificateError| error.to_string();
    let authority = certificates::authority(&configuration.os_ca).map_err(text)?;
    let wanted = Wanted {
        organizations: roles.to_vec(),
        common_name: None,
        names: Vec::new(),
        addresses: Vec::new(),
        usages: runtime::x509::Usages::CLIENT,
        lifetime: KUBERNETES_LIFETIME,
    };
    let random = options.random.child(&format!("talos access {namespace}/{name}"));
    let (identity, key) =
        certificates::issue(&authority, &wanted, options.clock.now(), options.keys.as_ref(), &random).await.map_err(text)?;
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let certificate = identity.chain.first().map(runtime::x509::certificate_to_pem).unwrap_or_default();
    let config = json!({
        "context": name,
        "contexts": {name: {
            "endpoints": ["talos.default"],
            "ca": encode(&configuration.os_ca.certificate), "crt": encode(&certificate), "key": encode(&key.to_pem()),
        }},
    });
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"config": encode(&config.to_string())},
    }))
}
