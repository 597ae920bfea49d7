//! What a user is told when something is wrong: what, why, evidence, remedy, under a stable code with a page of its own.
//!
//! Commands return a [`Problem`]; nothing here prints. Secrets never enter one: callers name a variable or a key, not its value.

use std::fmt;

/// Exit codes of the binary, documented in `docs/exit-codes.md`.
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
    ($($name:ident = $number:literal, $exit:ident, $title:literal;)*) => {
        /// A stable name for a kind of problem. Pages: `docs/errors.md`.
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
        }
    };
}

codes! {
    UnreadableFile = "TS101", Usage, "A file cannot be read";
    UnsetVariable = "TS102", Usage, "A template needs variables that have no value";
    BadExpression = "TS103", Usage, "A template expression is malformed";
    BadYaml = "TS104", Usage, "A document is not YAML";
    BadValue = "TS105", Usage, "A variable's value does not fit the field it is used in";
    NotAnObject = "TS106", Usage, "A document is not a Kubernetes object";
    BadEnvironmentFile = "TS107", Usage, "An environment file has a line that assigns nothing";
    OtherNamespace = "TS108", Usage, "An object belongs to another namespace";
    UnknownKind = "TS109", Usage, "A kind is not served here";
    UnknownField = "TS110", Usage, "A manifest has a field that its kind does not know";
    InvalidObject = "TS111", Usage, "A manifest is refused by validation";
    BadFlag = "TS112", Usage, "A flag has a value that cannot be used";
    NoCluster = "TS113", Usage, "The manifests contain no cluster";
    NotFound = "TS114", Failure, "There is no such object";
    StateBusy = "TS201", Failure, "The state directory is owned by another process";
    StateUnusable = "TS202", Failure, "The state directory cannot be used";
    OwnerUnreachable = "TS203", Failure, "The owner of the state directory does not answer";
    NoCredentials = "TS301", Usage, "The vCenter user or password is not given";
    Unconfirmed = "TS302", Unconfirmed, "A destructive command was not confirmed";
    NotReadyInTime = "TS303", Timeout, "The goal was not reached in time";
    LeftBehind = "TS304", Failure, "Something was left behind";
    Interrupted = "TS305", Failure, "The command was interrupted";
    ApiRefused = "TS401", Failure, "The API server refused a request";
    NodeUnreachable = "TS402", Failure, "A node's Talos API does not answer";
    Network = "TS403", Failure, "A network address cannot be used";
    Internal = "TS901", Failure, "Something failed that should not";
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
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
