//! The real binary as a process: typed at, followed, killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The binary under test: the release build that `TALOSPHERE_BINARY` names, else the one built with the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("TALOSPHERE_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_talosphere")), PathBuf::from)
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Whether missing referees and data are failures.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says what a test left out.
#[allow(clippy::print_stderr)] // where the test runner shows it
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// kubectl from the path. Without it a test says what it skipped; in CI it fails.
pub fn kubectl() -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(!is_ci(), "kubectl is not on the path");
        skipped("kubectl is not on the path; install your distribution's package of it, or see https://kubernetes.io/docs/tasks/tools");
    }
    found
}

/// A folder of the reference data beside the checkout. Without it a test says what it skipped; in CI it fails.
pub fn reference(name: &str) -> Option<PathBuf> {
    let folder = root().join("../shared/reference").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(!is_ci(), "the reference data {name} is missing");
    skipped(&format!("the reference data {name} is not beside this checkout"));
    None
}

/// Copies the example files to where commands are typed.
pub fn examples(shell: &Shell) {
    for file in ["ipam.yaml", "standard.yaml", "standard.env", "cpi-secrets.yaml", "cpi.yaml", "vm-tools.yaml"] {
        std::fs::copy(root().join("examples").join(file), shell.folder.path().join(file)).unwrap();
    }
}

/// A place where commands are typed: a folder, an environment, a state directory of its own.
pub struct Shell {
    pub folder: tempfile::TempDir,
    pub environment: BTreeMap<String, String>,
    started: std::sync::atomic::AtomicUsize,
}

impl Shell {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut environment = BTreeMap::from([
            ("HOME".to_owned(), path("home")),
            ("TALOSPHERE_STATE".to_owned(), path("state")),
            ("TERM".to_owned(), "dumb".to_owned()),
        ]);
        let bin = folder.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(folder.path().join("home")).unwrap();
        std::os::unix::fs::symlink(binary(), bin.join("talosphere")).unwrap();
        let rest = std::env::var("PATH").unwrap_or_default();
        environment.insert("PATH".to_owned(), format!("{}:{rest}", bin.display()));
        Self { folder, environment, started: std::sync::atomic::AtomicUsize::new(0) }
    }

    /// Takes `export NAME=value` lines into the environment.
    pub fn evaluate(&mut self, exports: &str) {
        for line in exports.lines() {
            let Some((name, value)) = line.strip_prefix("export ").and_then(|rest| rest.split_once('=')) else { continue };
            let value = value.trim();
            let value = value
                .strip_prefix('\'')
                .and_then(|inner| inner.strip_suffix('\''))
                .map_or(value.to_owned(), |inner| inner.replace("'\\''", "'"));
            self.environment.insert(name.to_owned(), value);
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").arg(line).current_dir(self.folder.path()).env_clear().envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// Types a line and waits for its end.
    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Types a line that must succeed; its standard output.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "$ {line}\n{out}{err}\n{}", output.status);
        out
    }

    /// Types a line that must fail with this code; its standard error.
    pub fn fails(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "$ {line}\n{err}");
        err
    }

    /// Starts `serve`, which writes `mgmt.yaml`, and waits until its API answers.
    pub fn serve(&self) -> Background {
        let serve = self.start(&["serve", "--kubeconfig", "mgmt.yaml"]);
        serve.until("the API to answer", |serve| serve.stderr().contains("the API answers at"));
        serve
    }

    /// Starts the binary itself in the background, so that it can be killed.
    pub fn start(&self, arguments: &[&str]) -> Background {
        let number = self.started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let out = self.folder.path().join(format!("out-{number}"));
        let err = self.folder.path().join(format!("err-{number}"));
        let child = Command::new(binary())
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Background { child: Arc::new(Mutex::new(child)), out, err }
    }
}

/// A process in the background. Dropping it kills it.
pub struct Background {
    pub child: Arc<Mutex<Child>>,
    out: PathBuf,
    err: PathBuf,
}

impl Background {
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits until `seen` holds; the limit names it.
    pub fn until(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        wait_until(what, || {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none() || seen(self), "{what}: the process ended first ({ended:?})\n{}", self.stderr());
            seen(self)
        });
    }

    /// Waits for the end; whether it succeeded.
    pub fn wait(&self) -> std::process::ExitStatus {
        let mut status = None;
        wait_until("the end of the process", || {
            status = self.child.lock().unwrap().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGTERM, and the wait for an orderly end.
    pub fn end(&self) {
        let id = self.child.lock().unwrap().id();
        Command::new("kill").arg(id.to_string()).status().unwrap();
        self.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Kills a process at once (SIGKILL) and waits until it is gone.
pub fn kill(child: &Mutex<Child>) {
    if let Ok(mut child) = child.lock() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits for a condition in the world of processes, looking every few milliseconds; fails with its name after two minutes.
pub fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    while !seen() {
        assert!(Instant::now() < limit, "{what}: not within two minutes");
        // A wait on a channel that nobody writes to, since a condition of another process cannot wake this one.
        let _ = receiver.recv_timeout(Duration::from_millis(10));
    }
    drop(sender);
}
