//! Plays a scenario's steps one after another, and writes down what its user sees.
//!
//! Time passes only where a step waits: for a command's end, for a state of the world, for a while. Meanwhile commands go on, faults end,
//! the process dies and is started again.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use apimachinery::meta::text_at as text;
use serde_json::Value;
use tokio::time::Instant;

use super::super::player::Player;
use super::super::world::World;
use super::Played;
use super::look::{Look, condition, find};
use super::script::{Script, Span, Step};
use super::shell::{Running, Shell};
use super::transcript::{Kept, Names, Said, Transcript};
use super::world::{Ending, Happening, Powerless};
use crate::problem::Problem;

/// How often the world is looked at while something is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a command may take that is waited for, when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// A command in a terminal.
struct Typed {
    line: String,
    said: Said,
    kept: Kept,
    running: Running,
}

/// What happens at its time.
enum Due {
    End(Ending),
    Restart,
}

/// How a command ended.
struct Ended {
    outcome: Result<(), Problem>,
    said: Said,
}

pub struct Stage<'a> {
    script: &'a Script,
    player: Player,
    shell: Shell,
    names: Names,
    transcript: Transcript,
    powerless: Powerless,
    terminals: BTreeMap<u32, Typed>,
    ended: BTreeMap<u32, Ended>,
    due: BTreeMap<(Instant, u64), Due>,
    next: u64,
    /// The kill that is armed: at which call, for how long.
    kill: Option<(u64, Duration)>,
    /// Commands that died with the process.
    dead: Vec<(u32, String, Kept)>,
    is_down: bool,
    failures: Vec<String>,
}

/// The terminal of `run`; that of `start`.
const FIRST: u32 = 1;
const SECOND: u32 = 2;

impl<'a> Stage<'a> {
    pub fn new(world: World, script: &'a Script) -> Result<Self, Problem> {
        let powerless = Powerless::default();
        powerless.rule(&world.simulator);
        let shell = Shell::new(script)?;
        Ok(Self {
            script,
            player: Player::new(world, false),
            shell,
            names: Names::default(),
            transcript: Transcript::default(),
            powerless,
            terminals: BTreeMap::new(),
            ended: BTreeMap::new(),
            due: BTreeMap::new(),
            next: 0,
            kill: None,
            dead: Vec::new(),
            is_down: false,
            failures: Vec::new(),
        })
    }

    fn now(&self) -> Instant {
        self.player.world.seams.clock.instant()
    }

    fn time(&self) -> String {
        self.player.world.seams.clock.now().strftime("%H:%M:%S").to_string()
    }

    fn outside(&self, told: &str) {
        self.transcript.gap();
        self.transcript.remark("", &format!("{} -- {told}", self.time()));
        self.transcript.gap();
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.next += 1;
        self.due.insert((self.now() + after, self.next), due);
    }

    fn is_broken(&self) -> bool {
        !self.player.world.watch.violations().is_empty()
    }

    /// Plays all of it.
    pub async fn play(mut self) -> Result<Played, Problem> {
        let script = self.script;
        self.transcript.add(&script.title);
        self.transcript.add(&"=".repeat(script.title.chars().count()));
        self.transcript.remark("", &script.shows);
        if !script.pain.is_empty() {
            self.transcript.gap();
            self.transcript.remark("", &format!("The pain: {}", script.pain));
        }
        self.transcript.gap();
        for step in &script.steps {
            let told = self.step(&step.value).await?;
            let place = format!("{}:{}", script.file, step.referenced.line());
            if let Err(told) = told {
                self.failures.push(format!("{place}: {told}"));
                break;
            }
            if self.is_broken() {
                self.failures.push(format!("{place}: a rule is broken"));
                break;
            }
        }
        if self.failures.is_empty() && !self.terminals.is_empty() {
            self.failures.push("a command is still running at the end".to_owned());
        }
        Ok(self.end())
    }

    fn end(mut self) -> Played {
        let violations = if self.failures.is_empty() { self.player.world.findings() } else { self.player.world.watch.violations() };
        self.failures.extend(violations.iter().map(|violation| format!("{}: BROKEN {violation}", self.script.file)));
        let truth = self.player.world.simulator.truth();
        let vms = truth.vms.iter().filter(|vm| !vm.is_template && vm.origin == simulator::hypervisor::Origin::Api).count();
        let claims = self.player.world.server.snapshot_of("ipam.cluster.x-k8s.io", "ipaddressclaims").len();
        let rules = if self.failures.is_empty() { "no safety rule was broken" } else { "THIS SCENARIO FAILED" };
        self.outside(&format!("the end: {vms} VMs of talosphere's in vCenter, {claims} addresses claimed; {rules}"));
        for failure in &self.failures {
            self.transcript.add(failure);
        }
        let place = self.shell.place();
        let transcript = self.transcript.text(&[(place, "~/.local/state/talosphere".to_owned())]);
        Played { transcript: transcript.trim_end().to_owned() + "\n", failures: self.failures }
    }

    /// One step. `Err` of the inside: it did not come out as the file says.
    async fn step(&mut self, step: &Step) -> Result<Result<(), String>, Problem> {
        if let Some(note) = &step.note {
            self.transcript.gap();
            self.transcript.remark("# ", &self.names.fill(note));
            return Ok(Ok(()));
        }
        let kept = match (&step.given, step.brief) {
            (Some(_), _) => Kept::Last,
            (None, true) => Kept::Brief,
            (None, false) => Kept::All,
        };
        if let Some(line) = step.run.as_ref().or(step.given.as_ref()) {
            self.restart().await?;
            self.type_in(FIRST, &self.names.fill(line), kept);
            let limit = step.within.map_or(PATIENCE, |Span(within)| within);
            return self.finish(FIRST, limit, step).await;
        }
        if let Some(line) = &step.start {
            self.restart().await?;
            self.type_in(SECOND, &self.names.fill(line), kept);
            return Ok(Ok(()));
        }
        if let Some(Span(limit)) = step.finish {
            let outcome = self.finish(SECOND, limit, step).await?;
            return Ok(outcome.and_then(|()| match self.kill {
                None => Ok(()),
                Some((calls, _)) => Err(format!("the command ended, and the process did not die: there were less than {calls} calls")),
            }));
        }
        if let Some(look) = &step.wait {
            let limit = step.within.map_or(PATIENCE, |Span(within)| within);
            let begun = self.time();
            let found = self.advance(limit, None, Some(look)).await?;
            return Ok(if found {
                if self.terminals.is_empty() && begun != self.time() {
                    self.transcript.gap();
                    self.transcript.add(&format!("{} ...", self.time()));
                }
                Ok(())
            } else {
                let told = look.look(&self.player, &self.names).err().map(|other| other.to_string()).unwrap_or_default();
                Err(format!("not within {limit:?}: {told}"))
            });
        }
        if let Some(look) = &step.expect {
            return Ok(look.look(&self.player, &self.names).map_err(|other| other.to_string()));
        }
        if let Some(Span(span)) = step.pass {
            self.advance(span, None, None).await?;
            self.transcript.gap();
            self.transcript.add(&format!("{} ...", self.time()));
            return Ok(Ok(()));
        }
        if let Some(picks) = &step.pick {
            for (name, what) in picks {
                match self.picked(what) {
                    Some(found) => self.names.0.insert(name.clone(), found),
                    None => return Ok(Err(format!("there is no {what}"))),
                };
            }
            return Ok(Ok(()));
        }
        if let Some(happening) = &step.world {
            return Ok(self.happen(happening).await);
        }
        Ok(step.show.as_ref().map_or(Ok(()), |what| self.show(what, step)))
    }

    /// Asks for a condition, or a field, as a person does.
    fn show(&self, what: &str, step: &Step) -> Result<(), String> {
        let what = self.names.fill(what);
        let (of, type_) = what.split_once(' ').ok_or_else(|| format!("{what} is not KIND/NAME CONDITION"))?;
        let object = find(&self.player, of).ok_or_else(|| format!("{of} is not there"))?;
        let (told, path) = if type_.starts_with('.') {
            let told = object.pointer(&type_.replace('.', "/")).map(ToString::to_string);
            (told.ok_or_else(|| format!("{of} has no {type_}"))?, format!("{{{type_}}}"))
        } else {
            let told = condition(&object, type_).ok_or_else(|| format!("{of} has no condition {type_}"))?;
            (told, format!("{{range .status.conditions[?(@.type==\"{type_}\")]}}{{.status}} {{.reason}}: {{.message}}{{end}}"))
        };
        let (kind, name) = of.split_once('/').unwrap_or_default();
        self.transcript.gap();
        self.transcript.add(&format!("{} $ kubectl get {} {name} -o jsonpath='{path}'", self.time(), kind.to_lowercase()));
        self.transcript.add(&told);
        self.judge(&told, step)
    }

    fn judge(&self, told: &str, step: &Step) -> Result<(), String> {
        for part in step.says.iter().map(|part| self.names.fill(part)) {
            if !told.contains(&part) {
                return Err(format!("{part:?} is not said, but\n{told}"));
            }
        }
        for part in step.never_says.iter().map(|part| self.names.fill(part)) {
            if told.contains(&part) {
                return Err(format!("{part:?} is said:\n{told}"));
            }
        }
        Ok(())
    }

    async fn happen(&mut self, happening: &Happening) -> Result<(), String> {
        if matches!(happening, Happening::Kill(_)) && self.kill.is_some() {
            return Err("the kill before this one has not fallen".to_owned());
        }
        let set = happening.happen(&self.player, &self.powerless, &self.names).await?;
        if !set.told.is_empty() {
            self.outside(&set.told);
        }
        if let Some((lasts, ending)) = set.ending {
            self.schedule(lasts, Due::End(ending));
        }
        if let Happening::Kill(kill) = happening {
            self.kill = Some((kill.calls, kill.down.0));
        }
        Ok(())
    }

    /// The name of something that is there.
    fn picked(&self, what: &str) -> Option<String> {
        let leads = |wanted: bool| {
            let truth = self.player.world.simulator.truth();
            let etcd = truth.nodes.etcd.first()?;
            let leader = etcd.leader();
            let found = etcd.members().find(|member| (Some(member.id) == leader) == wanted && etcd.is_running(member.id))?;
            Some(found.name.clone())
        };
        match what {
            "leader" => return leads(true),
            "follower" => return leads(false),
            _ => {}
        }
        let mut machines = self.player.world.server.snapshot_of("cluster.x-k8s.io", "machines");
        machines.retain(|machine| machine.pointer("/metadata/deletionTimestamp").is_none());
        machines.sort_by_key(|machine| text(machine, "/metadata/name").to_owned());
        let (role, which) = what.rsplit_once(' ')?;
        let is_control_plane = match role {
            "control plane" => true,
            "worker" => false,
            _ => return None,
        };
        let is_one = |machine: &&Value| machine.pointer("/metadata/labels/cluster.x-k8s.io~1control-plane").is_some() == is_control_plane;
        let ours: Vec<&Value> = machines.iter().filter(is_one).collect();
        let found = match which {
            "newest" => ours.into_iter().max_by_key(|machine| text(machine, "/metadata/creationTimestamp").to_owned()),
            number => ours.get(number.parse::<usize>().ok()?.checked_sub(1)?).copied(),
        };
        found.map(|machine| text(machine, "/metadata/name").to_owned())
    }

    /// Types a line. What is wrong with it already ends it at once.
    fn type_in(&mut self, terminal: u32, line: &str, kept: Kept) {
        self.transcript.gap();
        self.transcript.add(&format!("{} $ {line}", self.time()));
        let said = Said::new(&self.transcript, kept);
        match self.shell.begin(line, &self.player, &self.names, &said) {
            Ok(running) => {
                self.terminals.insert(terminal, Typed { line: line.to_owned(), said, kept, running });
            }
            Err(problem) => self.over(terminal, Err(problem), said),
        }
    }

    /// A command has ended: its error is printed as the program does.
    fn over(&mut self, terminal: u32, outcome: Result<(), Problem>, said: Said) {
        said.over(outcome.as_ref().err().map(|problem| problem.to_string()).as_deref());
        self.ended.insert(terminal, Ended { outcome, said });
    }

    /// Waits for a command's end and judges it.
    async fn finish(&mut self, terminal: u32, limit: Duration, step: &Step) -> Result<Result<(), String>, Problem> {
        self.advance(limit, Some(terminal), None).await?;
        let Some(Ended { outcome, said }) = self.ended.remove(&terminal) else {
            return Ok(Err(if self.terminals.contains_key(&terminal) || !self.dead.is_empty() {
                format!("the command did not end within {limit:?}")
            } else {
                "there is no command to be waited for".to_owned()
            }));
        };
        let told = said.text();
        let fits = match (&outcome, &step.fails) {
            (Ok(()), None) => Ok(()),
            (Err(problem), Some(code)) if problem.code.number() == code => Ok(()),
            (Err(problem), _) => Err(format!("the command failed: {problem}")),
            (Ok(()), Some(code)) => Err(format!("the command did not fail with {code}")),
        };
        Ok(fits.and_then(|()| self.judge(&told, step)))
    }

    /// Lets time pass until a command ends, or the world is so: `true`; or until the limit.
    async fn advance(&mut self, limit: Duration, terminal: Option<u32>, look: Option<&Look>) -> Result<bool, Problem> {
        let until = self.now() + limit;
        loop {
            if self.is_broken() {
                return Ok(false);
            }
            if terminal.is_some_and(|terminal| self.ended.contains_key(&terminal)) {
                return Ok(true);
            }
            if look.is_some_and(|look| look.look(&self.player, &self.names).is_ok()) {
                return Ok(true);
            }
            let now = self.now();
            if now >= until {
                return Ok(false);
            }
            let due = self.due.first_key_value().map(|((at, _), _)| *at);
            let next = [due.unwrap_or(until), until, now + LOOK].into_iter().min().unwrap_or(until);
            let (clock, pulse) = (self.player.world.seams.clock.clone(), self.player.world.pulse.clone());
            let terminals = &mut self.terminals;
            let any = std::future::poll_fn(|context| {
                for (terminal, typed) in terminals.iter_mut() {
                    if let Poll::Ready(outcome) = typed.running.as_mut().poll(context) {
                        return Poll::Ready((*terminal, outcome));
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                biased;
                () = pulse.fell() => self.died(),
                (terminal, outcome) = any => {
                    if let Some(typed) = self.terminals.remove(&terminal) {
                        self.over(terminal, outcome, typed.said);
                    }
                }
                () = clock.sleep(next.saturating_duration_since(now)) => {
                    if due.is_some_and(|due| due <= self.now()) && let Some((_, due)) = self.due.pop_first() {
                        self.fall_due(due).await?;
                    }
                }
            }
        }
    }

    async fn fall_due(&mut self, due: Due) -> Result<(), Problem> {
        match due {
            Due::End(Ending::Fault(end, told)) => {
                self.player.end(&end);
                if !told.is_empty() {
                    self.outside(&told);
                }
            }
            Due::End(Ending::Tasks) => {
                self.player.world.simulator.vcenter().slow_down(1);
                self.outside("tasks in vCenter take their usual time again");
            }
            Due::Restart => self.restart().await?,
        }
        Ok(())
    }

    /// The process fell dead, with every command.
    fn died(&mut self) {
        let Some((_, down)) = self.kill.take() else { return };
        let lines: Vec<String> = self.terminals.values().map(|typed| format!("`{}`", typed.line)).collect();
        let with = if lines.is_empty() { String::new() } else { format!(", and {} with it", lines.join(", ")) };
        self.outside(&format!("kill -9 in the middle of things: `talosphere serve` is dead{with}"));
        let dead = std::mem::take(&mut self.terminals);
        self.dead = dead.into_iter().map(|(terminal, typed)| (terminal, typed.line, typed.kept)).collect();
        self.is_down = true;
        self.schedule(down, Due::Restart);
    }

    /// `talosphere serve` is started again, if it was dead, and the commands that died are typed again.
    async fn restart(&mut self) -> Result<(), Problem> {
        if !self.is_down {
            return Ok(());
        }
        self.is_down = false;
        self.player.world.restart().await?;
        self.outside("`talosphere serve` is started again");
        for (terminal, line, kept) in std::mem::take(&mut self.dead) {
            self.type_in(terminal, &line, kept);
        }
        Ok(())
    }
}
