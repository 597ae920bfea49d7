//! The machine's configuration and the kubeconfig it hands out.

use talos_proto::machine as wire;
use talos_proto::machine::apply_configuration_request::Mode;
use tonic::Status;

use super::Api;
use crate::node::archive::tar_gz;
use crate::node::certificates::{self, KUBERNETES_LIFETIME, Wanted};
use crate::node::configuration::Configuration;
use crate::node::state::Stage;

impl Api {
    /// Takes a configuration: at once in maintenance mode, at the next boot otherwise.
    pub(super) fn apply(&self, request: &wire::ApplyConfigurationRequest) -> Result<wire::ApplyConfiguration, Status> {
        let (release, disk, stage) = self.machine(|machine| (machine.release.clone(), machine.vm.fresh_disk_id.clone(), machine.stage))?;
        let mode = request.mode();
        let is_maintenance = stage == Stage::Maintenance;
        if mode == Mode::Reboot && release.is_at_least(14) && !is_maintenance {
            return Err(Status::unimplemented("apply mode REBOOT is not supported"));
        }
        if matches!(mode, Mode::Try) {
            return Err(Status::unimplemented("apply mode TRY is not modelled by the simulated machine"));
        }
        Configuration::read(&request.data, &release).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let reboots = !is_maintenance && matches!(mode, Mode::Reboot | Mode::Auto) && !release.is_at_least(14);
        let chosen = if is_maintenance || release.is_at_least(14) && mode == Mode::Auto { Mode::NoReboot } else { mode };
        let mode_details = match (request.dry_run, reboots) {
            (true, _) => "Dry run: nothing was applied.",
            (false, true) => "Applied configuration with a reboot",
            (false, false) => "Applied configuration without a reboot",
        };
        if !request.dry_run {
            self.nodes.state().disk(&disk).configuration = Some(request.data.clone());
            self.nodes.say(&self.id, "user: warning: [talos] machine configuration was applied by API request");
            if reboots {
                self.start_reboot()?;
            }
        }
        Ok(wire::ApplyConfiguration { metadata: None, warnings: Vec::new(), mode: chosen.into(), mode_details: mode_details.to_owned() })
    }

    /// An administrator's kubeconfig, signed by the cluster's authority. Works before there is a cluster: it only signs.
    pub(super) async fn kubeconfig_archive(&self) -> Result<Vec<u8>, Status> {
        let configuration = self.machine(|machine| machine.configuration.clone())?;
        let configuration = configuration.filter(|configuration| configuration.is_control_plane());
        let configuration = configuration.ok_or_else(|| Status::unimplemented("kubeconfig is only available on control plane nodes"))?;
        let internal = |error: certificates::CertificateError| Status::internal(error.to_string());
        let options = &self.nodes.options();
        let now = options.clock.now();
        let authority = certificates::authority(&configuration.cluster.kubernetes_ca).map_err(internal)?;
        let wanted = Wanted {
            organizations: vec!["system:masters".to_owned()],
            common_name: Some("admin".to_owned()),
            names: Vec::new(),
            addresses: Vec::new(),
            usages: runtime::x509::Usages::CLIENT,
            lifetime: KUBERNETES_LIFETIME,
        };
        let random = options.random.child(&format!("kubeconfig {} {now}", self.id));
        let (identity, key) = certificates::issue(&authority, &wanted, now, options.keys.as_ref(), &random).await.map_err(internal)?;
        let certificate = identity.chain.first().map(runtime::x509::certificate_to_pem).unwrap_or_default();
        let text = kubeconfig(&configuration, &certificate, &key.to_pem());
        Ok(tar_gz("kubeconfig", text.as_bytes(), u64::try_from(now.as_second()).unwrap_or(0)))
    }
}

fn kubeconfig(configuration: &Configuration, certificate: &str, key: &str) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let cluster = &configuration.cluster;
    let (name, host) = (&cluster.name, &cluster.endpoint_host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://{host}:{}", cluster.endpoint_port),
            "certificate-authority-data": encode(&cluster.kubernetes_ca.certificate),
        }}],
        "users": [{"name": format!("admin@{name}"), "user": {"client-certificate-data": encode(certificate), "client-key-data": encode(key)}}],
        "contexts": [{"name": format!("admin@{name}"), "context": {"cluster": name, "namespace": "default", "user": format!("admin@{name}")}}],
        "current-context": format!("admin@{name}"),
    });
    // JSON is YAML.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}
