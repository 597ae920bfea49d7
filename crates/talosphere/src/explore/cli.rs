//! The command line of `explore`: which seeds are played, and what is told of them.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use runtime::defects::{Defect, Defects};
use runtime::random::Random;

use super::coverage::Coverage;
use super::fault;
use super::history::{History, Scenario};
use super::player::{Outcome, play};
use super::scenario;
use super::shrink::shrink;
use crate::problem::{Code, Problem};

/// Plays simulated worlds with faults, each from one seed, and checks every safety rule after every event.
#[derive(Debug, Parser)]
#[command(name = "explore")]
pub struct Explore {
    /// One seed (its history and canonical log are printed), or a range: 1..1000.
    #[arg(long, default_value = "1..100", value_parser = seeds)]
    seeds: RangeInclusive<u64>,
    /// Plays so many seeds more that nobody has played before; their range is printed.
    #[arg(long, default_value_t = 0)]
    fresh: u64,
    /// Worlds at a time; as many as there are cores, when it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Which kind of history is drawn.
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Plays a scenario file and prints its transcript; see `docs/transcripts/scenarios`.
    #[arg(long, value_name = "FILE")]
    play: Option<std::path::PathBuf>,
    /// Only these faults, separated by commas; `none` for none.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Plants a defect, by its name: what then fails is what the checker must find. Only in a build with `--features defects`.
    #[arg(long, value_parser = defect)]
    defect: Option<Defect>,
    /// Plants each defect in turn (or the one that is named) and plays seeds until its rule is broken.
    #[arg(long)]
    search: bool,
    /// Makes the history of a failing seed shorter, as long as the same rule breaks.
    #[arg(long)]
    shrink: bool,
    /// Tells of every seed, not only of failing ones.
    #[arg(long)]
    verbose: bool,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no seed"));
    match text.split_once("..") {
        Some((first, last)) => Ok(number(first)?..=number(last.trim_start_matches('='))?),
        None => number(text).map(|seed| seed..=seed),
    }
}

fn defect(text: &str) -> Result<Defect, String> {
    let known = || Defect::ALL.iter().map(|defect| defect.name()).collect::<Vec<_>>().join(", ");
    Defect::ALL
        .iter()
        .copied()
        .find(|defect| defect.name() == text)
        .ok_or_else(|| format!("there is no such defect; there are {}", known()))
}

fn say(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Explore::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match explore(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            let _ = writeln!(anstream::stderr(), "{problem}");
            ExitCode::from(2)
        }
    }
}

fn explore(arguments: &Explore) -> Result<bool, Problem> {
    if let Some(file) = &arguments.play {
        let played = scenario::play_file(file)?;
        say(played.transcript.trim_end());
        return Ok(played.failures.is_empty());
    }
    if let Some(unknown) = arguments.faults.iter().find(|name| *name != "none" && !fault::NAMES.contains(&name.as_str())) {
        return Err(Problem::new(Code::BadFlag, format!("--faults {unknown}: there is no such fault"))
            .remedy(format!("name some of {}, or none", fault::NAMES.join(", "))));
    }
    if (arguments.defect.is_some() || arguments.search) && !Defects::CAN_BE_PLANTED {
        return Err(Problem::new(Code::BadFlag, "this build cannot plant a defect")
            .because("the feature is not in it, as in everything that is shipped")
            .remedy("run `cargo run --release --features defects --bin explore -- ...`"));
    }
    if arguments.search {
        return search(arguments);
    }
    let defects = Defects::some(arguments.defect);
    if arguments.seeds.start() == arguments.seeds.end() && arguments.fresh == 0 {
        return one(*arguments.seeds.start(), arguments, &defects);
    }
    let mut tally = Tally::default();
    tally.play(arguments.seeds.clone(), arguments, &defects)?;
    if arguments.fresh > 0 {
        let first = fresh()?;
        tally.play(first..=first + arguments.fresh - 1, arguments, &defects)?;
    }
    say(&tally.coverage.to_string());
    Ok(tally.is_green)
}

/// A number that nobody has drawn before.
fn fresh() -> Result<u64, Problem> {
    let random = Random::system().map_err(|error| Problem::new(Code::Internal, "no randomness").because(error.to_string()))?;
    Ok(1_000_000 + random.below(1 << 40))
}

/// Plays one seed and tells everything of it.
fn one(seed: u64, arguments: &Explore, defects: &Defects) -> Result<bool, Problem> {
    let history = History::of(seed, arguments.scenario, &arguments.faults);
    say(&format!("seed {seed}:\n{history}"));
    let mut outcome = play(&history, defects)?;
    if arguments.shrink && !outcome.broken.is_empty() {
        outcome = shrink(outcome, defects)?;
    }
    say(&outcome.text());
    say(&report(&outcome));
    Ok(outcome.broken.is_empty())
}

/// What came of many seeds.
#[derive(Debug)]
struct Tally {
    coverage: Coverage,
    is_green: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { coverage: Coverage::default(), is_green: true }
    }
}

impl Tally {
    /// Plays a range, several worlds at a time, each on a thread of its own.
    fn play(&mut self, seeds: RangeInclusive<u64>, arguments: &Explore, defects: &Defects) -> Result<(), Problem> {
        say(&format!("seeds {}..{}", seeds.start(), seeds.end()));
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = arguments.jobs.unwrap_or_else(cores).max(1);
        let next = Mutex::new(seeds.clone());
        let (mut failed, mut told, mut played) = (Vec::new(), 0_u64, 0_u64);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (next, sender) = (&next, sender.clone());
                scope.spawn(move || {
                    while let Some(seed) = { next.lock().unwrap_or_else(PoisonError::into_inner).next() } {
                        let outcome = play(&History::of(seed, arguments.scenario, &arguments.faults), defects);
                        let outcome = match outcome {
                            Ok(outcome) if arguments.shrink && !outcome.broken.is_empty() => shrink(outcome, defects),
                            other => other,
                        };
                        if sender.send(outcome).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for outcome in receiver {
                let outcome = outcome?;
                self.coverage.add(&outcome.log);
                played += 1;
                told += u64::from(outcome.told.is_some());
                if arguments.verbose || !outcome.broken.is_empty() {
                    say(&report(&outcome));
                }
                if !outcome.broken.is_empty() {
                    failed.push(outcome.history.seed);
                }
            }
            Ok::<(), Problem>(())
        })?;
        say(&format!("{played} seeds played, {told} of them ended with a word to a person, {} failed", failed.len()));
        if !failed.is_empty() {
            failed.sort_unstable();
            let list: Vec<String> = failed.iter().map(ToString::to_string).collect();
            say(&format!("failing seeds: {}", list.join(" ")));
        }
        self.is_green &= failed.is_empty();
        Ok(())
    }
}

/// Each defect, and the first seed that finds it.
fn search(arguments: &Explore) -> Result<bool, Problem> {
    let mut is_all = true;
    for defect in Defect::ALL.iter().filter(|defect| arguments.defect.is_none_or(|asked| asked == **defect)) {
        let found = find(*defect, arguments.seeds.clone(), arguments.scenario)?;
        is_all &= found.is_some();
        let told = found.map_or_else(|| "not found".to_owned(), |outcome| format!("found by seed {}", outcome.history.seed));
        say(&format!("{:<24} rule {:>2}: {told}", defect.name(), defect.rule()));
    }
    Ok(is_all)
}

/// The first of these seeds that breaks the rule of a planted defect.
///
/// # Errors
/// When a world cannot be set up.
pub fn find(defect: Defect, seeds: RangeInclusive<u64>, scenario: Scenario) -> Result<Option<Outcome>, Problem> {
    for seed in seeds {
        let outcome = play(&History::of(seed, scenario, &[]), &Defects::some([defect]))?;
        if outcome.broken.iter().any(|violation| violation.rule == defect.rule()) {
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

/// What happened, in words.
fn report(outcome: &Outcome) -> String {
    let mut text = format!("seed {}:\n{}", outcome.history.seed, outcome.history);
    if let Some(told) = &outcome.told {
        text.push_str(&format!("\n  a person is told: {}", told.lines().next().unwrap_or_default()));
    }
    for violation in &outcome.broken {
        text.push_str(&format!("\n  BROKEN {violation}"));
    }
    text
}
