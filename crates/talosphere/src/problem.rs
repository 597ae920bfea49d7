//! What a user is told when something is wrong: what, why, evidence, remedy, under a stable code with a page of its own.
//!
//! Commands return a [`Problem`]; nothing here prints. Secrets never enter one: callers name a variable or a key, not its value.

use std::fmt;

/// Exit codes of the binary, documented in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed on the way.
    Failure = 1,
    /// The command line or the input is wrong; nothing was changed.
    Usage = 2,
    /// A destructive command needs `--yes` or a terminal to ask on.
    Unconfirmed = 3,
    /// Preflight checks failed.
    Check = 4,
    /// The goal was not reached within the given time; the state is kept and the command can be run again.
    Timeout = 5,
}

/// A failure as the user sees it.
#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    /// What is wrong, in one line.
    pub what: String,
    /// Why that is so, where more is known.
    pub why: Option<String>,
    /// Lines that show it: files, addresses, answers.
    pub evidence: Vec<String>,
    /// What to do, as a command where one exists.
    pub remedy: Option<String>,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $exit:ident, $title:literal, $why:literal, $remedy:literal;)*) => {
        /// A stable name for a kind of problem. Pages: `docs/errors.md`, and `talosphere error CODE`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as printed, such as `TS101`.
            pub fn number(self) -> &'static str {
                match self { $(Self::$name => $number,)* }
            }

            /// What the code stands for.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The exit code that goes with it.
            pub fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* }
            }

            fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }

            fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    UnreadableFile = "TS101", Usage, "A file cannot be read",
        "A file named with -f, --env or --workload does not exist, is not readable for this user, or is not UTF-8 text.",
        "Correct the path. For -f and --workload a folder stands for the .yaml, .yml and .json files in it; --env takes files only.";
    UnsetVariable = "TS102", Usage, "A template needs variables that have no value",
        "An expression without default uses variables that are neither set with --set, nor in the environment, nor in a file named with --env. All of them are named, with the lines that use them.",
        "Give the values, or write a default into the template: ${NAME:=default}.";
    BadExpression = "TS103", Usage, "A template expression is malformed",
        "`${` begins an expression of clusterctl's grammar; this one has no name, no closing brace, or an operation that does not exist.",
        "Correct the expression; write $${ for a literal ${.";
    BadYaml = "TS104", Usage, "A document is not YAML",
        "The document breaks YAML's rules at the line and column given: wrong indentation, an open bracket or quote, a key that is there twice.",
        "Correct the document; nothing of any file was applied.";
    BadValue = "TS105", Usage, "A variable's value does not fit the field it is used in",
        "The schema of the kind wants a number, a boolean, a list or a map at this place, and the value is none.",
        "Correct the value, or quote the expression in the template if it is meant as text.";
    NotAnObject = "TS106", Usage, "A document is not a Kubernetes object",
        "It lacks apiVersion, kind or metadata.name.",
        "Add what is missing, or take the document out of the files.";
    BadEnvironmentFile = "TS107", Usage, "An environment file has a line that assigns nothing",
        "Files named with --env hold lines NAME=value or export NAME=value, quoted as in a shell; blank lines and comments are ignored.",
        "Correct the line.";
    OtherNamespace = "TS108", Usage, "An object belongs to another namespace",
        "Objects given with -f go to the namespace of -n. One of them names another namespace: it is probably meant for the new cluster.",
        "Give files of the new cluster with --workload, or leave metadata.namespace out.";
    UnknownKind = "TS109", Usage, "A kind is not served here",
        "The API serves the kinds of Cluster API, its Talos, vSphere and IPAM providers, and core kinds. This one is none of them.",
        "Give files of the new cluster with --workload; apply the CustomResourceDefinition of a kind of your own first.";
    UnknownField = "TS110", Usage, "A manifest has a field that its kind does not know",
        "Fields are checked strictly, so that a misspelt one is not ignored in silence.",
        "Correct or remove the field that is named.";
    InvalidObject = "TS111", Usage, "A manifest is refused by validation",
        "A value breaks a rule of its kind: the message names the field and the rule.",
        "Correct the field.";
    BadFlag = "TS112", Usage, "A flag has a value that cannot be used",
        "The value is not of the form the flag needs.",
        "`--help` of the command shows the form.";
    NoCluster = "TS113", Usage, "The manifests contain no cluster",
        "The command works on a Cluster, or on the vCenter that a VSphereCluster names, and there is none among the files.",
        "Add the file with the Cluster.";
    NotFound = "TS114", Failure, "There is no such object",
        "No object of this kind and name is in the namespace.",
        "`talosphere get KIND -A` lists what is there; -n names the namespace.";
    BadName = "TS115", Usage, "A name cannot be used",
        "Names follow the rules of DNS (RFC 1123): lower-case letters, digits, '-' and, but for namespaces, '.'; a letter or digit at both ends. Some kinds need a name that is given, not generated.",
        "Correct the name; in a template, correct the value of the variable that it is made from.";
    FileExists = "TS116", Usage, "A file to be written is there already",
        "What a command writes does not take the place of something else by accident.",
        "Name another file, or add --force.";
    FileUnwritable = "TS117", Failure, "A file cannot be written",
        "The folder does not exist or is not writable for this user, or its disk is full. Nothing was kept.",
        "Name a file in a folder that this user may write to.";
    SnapshotRefused = "TS118", Usage, "A snapshot of etcd cannot be used",
        "It is no whole database of etcd, it changes while it is read, it is of another cluster, or it does not tell which cluster it is of. Nothing was changed.",
        "Give a whole snapshot of this cluster, as `talosphere talos -c CLUSTER etcd snapshot FILE` and `talosctl etcd snapshot FILE` write it.";
    StateBusy = "TS201", Failure, "The state directory is owned by another process",
        "One process at a time owns a state directory; others are its clients. The owner holds the lock but does not answer.",
        "End that process, or name another directory with --state.";
    StateUnusable = "TS202", Failure, "The state directory cannot be used",
        "It cannot be made or written, or what is in it cannot be read.",
        "Make it writable for this user, or name another one with --state or TALOSPHERE_STATE.";
    OwnerUnreachable = "TS203", Failure, "The API server does not answer",
        "The connection to the process that owns the state directory failed.",
        "Run the command again: it becomes the owner if that process is gone.";
    NoCredentials = "TS301", Usage, "The vCenter user or password is not given",
        "The cluster refers to a Secret with the login to vCenter that does not exist, and the environment does not give the login to make it from.",
        "Set VSPHERE_USERNAME and VSPHERE_PASSWORD, or create the Secret with the keys username and password.";
    Unconfirmed = "TS302", Unconfirmed, "A destructive command was not confirmed",
        "Commands that destroy machines ask on a terminal; without one they need a flag.",
        "Add --yes.";
    NotReadyInTime = "TS303", Timeout, "The goal was not reached in time",
        "The time of --timeout passed. What was reached is kept, and what was waited for is named.",
        "Run the same command again to continue; `talosphere describe cluster` shows what waits for what.";
    LeftBehind = "TS304", Failure, "Something was left behind",
        "After the deletion objects or machines are still there.",
        "Run the same command again; the lines name what is left and why.";
    Interrupted = "TS305", Failure, "The command was interrupted",
        "A signal ended it. A command that is ended at any moment leaves a state from which it can be continued.",
        "Run the same command again.";
    BeingDeleted = "TS306", Failure, "The object is being deleted",
        "Somebody has begun to delete the object. A deletion cannot be taken back, so that nothing can be brought up on it.",
        "Wait for the end of the deletion (`talosphere delete` of the same object does), then run the command again.";
    NotRolledOut = "TS307", Failure, "A change is stored, but not carried out",
        "Machines run with an older version, template or configuration, and waiting does not change that: the rollout is paused, they are replaced only when somebody deletes them (OnDelete), or a control plane cannot be replaced by another, since its own address is the cluster's endpoint.",
        "Take the change back. Or resume what is paused (`talosphere rollout resume` for workers), delete the Machines one at a time (OnDelete), or give the cluster an endpoint that moves: a virtual IP or a load balancer.";
    RolloutRefused = "TS308", Failure, "A rollout cannot be changed so",
        "A paused rollout is neither restarted nor taken back, and one is paused, or resumed, only once.",
        "`talosphere rollout resume machinedeployment/NAME` goes on with a paused one; `talosphere rollout status` tells how far it is.";
    UpgradeRefused = "TS309", Failure, "An upgrade is refused",
        "It would break a rule between versions (one minor at a time, never back, workers never newer than the control plane), something is paused, another change is under way, or a machine cannot be replaced. Nothing was changed.",
        "Do what the message says, then run the command again; `talosphere upgrade CLUSTER --kubernetes V --dry-run` shows what would be done.";
    EtcdHasQuorum = "TS310", Failure, "etcd has its quorum: nothing is to be recovered",
        "A recovery takes the place of everything that is stored: in a cluster whose etcd works, everything since then would be lost. Nothing was changed.",
        "Single control planes are replaced by the controllers; `talosphere describe cluster` shows what waits for what.";
    RepairRefused = "TS311", Failure, "A repair is refused",
        "It would lose more than another one that is possible, or make that one impossible; what it needs is not there or not known; or another one is under way. Nothing was changed.",
        "Do what the message says; `talosphere repair etcd CLUSTER --dry-run` shows how etcd stands, and what can be done in the order of what is lost by it.";
    ApiRefused = "TS401", Failure, "The API server refused a request",
        "The server's own words follow.",
        "Follow the message.";
    NodeUnreachable = "TS402", Failure, "A node's Talos API does not answer",
        "The node is off, booting, or cannot be reached from here.",
        "`talosphere describe cluster` shows the machine; TALOSPHERE_PROXY names a proxy into the machines' network.";
    Network = "TS403", Failure, "A network address cannot be used",
        "An address cannot be listened on, or a proxy's URL is malformed.",
        "Choose another address, or correct the URL.";
    VCenter = "TS404", Failure, "vCenter refused what the manifests ask for",
        "The login, the certificate or a name in the manifests was checked against vCenter before anything was applied, and does not hold.",
        "Correct what is named; nothing was applied.";
    Internal = "TS901", Failure, "Something failed that should not",
        "This is a defect of talosphere.",
        "Report it with the output of the command run again with -vv.";
}

impl Code {
    /// The page of the code, in Markdown.
    pub fn page(self) -> String {
        let exit = self.exit() as u8;
        format!("## {} {}\n\nWhy: {}\n\nRemedy: {}\n\nExit code: {exit}\n", self.number(), self.title(), self.why(), self.remedy())
    }
}

/// The pages of all codes: `docs/errors.md`.
pub fn pages() -> String {
    let mut text = "# Error codes\n\nEvery error carries a code. `talosphere error CODE` prints its page. Exit codes: 0 done, 1 failed, 2 wrong input, 3 not confirmed, 4 checks failed, 5 not in time.\n".to_owned();
    for code in Code::ALL {
        text.push('\n');
        text.push_str(&code.page());
    }
    text
}

impl Problem {
    /// A problem with its first line.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: None, evidence: Vec::new(), remedy: None }
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds a line of evidence.
    #[must_use]
    pub fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// Adds lines of evidence.
    #[must_use]
    pub fn seen_all(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// Adds the way out.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code.number(), self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\n  why: {why}")?;
        }
        for line in &self.evidence {
            write!(f, "\n  seen: {line}")?;
        }
        // What the page of the code says holds for every problem of that code.
        let general = || {
            let text = self.code.remedy();
            format!("{} (talosphere error {})", text.trim_end_matches('.'), self.code.number())
        };
        write!(f, "\n  remedy: {}", self.remedy.clone().unwrap_or_else(general))
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_to_do() {
        for code in Code::ALL {
            assert!(Problem::new(*code, "x").to_string().contains("\n  remedy: "), "{code:?}");
        }
        let own = Problem::new(Code::NotFound, "no").because("w").seen("e").remedy("do this").to_string();
        assert_eq!(own, "error[TS114]: no\n  why: w\n  seen: e\n  remedy: do this");
    }
}
