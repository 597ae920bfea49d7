//! Scenario files: a story of a cluster in steps, played in a world on paused time, with the transcript that its user would have seen.
//!
//! ```text
//! sNN-name.yaml -> Script -> Stage (World, rule checker, terminals) -> Transcript, kept under docs/transcripts/scenarios
//! ```
//! What is typed is parsed by the product's own command line and carried out by its own commands; what they print is kept as it is. The
//! player says nothing of its own but what happens outside: in vCenter, to machines, to the process. One file gives one transcript.
//! A scenario holds when every step came out as the file says, no safety rule was broken, and no command failed that should not.

mod kubectl;
mod look;
mod script;
mod shell;
mod stage;
mod transcript;
mod world;

use std::path::{Path, PathBuf};

use runtime::defects::Defects;

pub use self::script::{Script, ScriptError};
use super::world::{Setup, World, run};
use crate::problem::{Code, Problem};

/// What came of a scenario.
#[derive(Debug)]
pub struct Played {
    pub transcript: String,
    /// What did not come out as the file says, with its place, and every broken rule. A scenario that holds has none.
    pub failures: Vec<String>,
}

/// The scenarios of a folder, in the order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a scenario and plays it.
///
/// # Errors
/// When the file cannot be read, is no scenario, or the world cannot be set up.
pub fn play_file(path: &Path) -> Result<Played, Problem> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::new(Code::UnreadableFile, format!("{} cannot be read", path.display())).because(error.to_string()))?;
    let script = Script::read(&name, &text).map_err(|error| Problem::new(Code::BadYaml, error.to_string()))?;
    play(&script)
}

/// Plays a scenario from its first step to its last.
///
/// # Errors
/// When the world cannot be set up.
pub fn play(script: &Script) -> Result<Played, Problem> {
    let unusable = |error: std::io::Error| Problem::new(Code::Internal, "there can be no runtime").because(error.to_string());
    run(script.seed, async {
        let setup =
            Setup { speed: script.speed, defects: Defects::none(), templates: script.templates.clone(), ..Setup::new(script.seed, 0, 0) };
        let world = World::start(&Setup { set: Vec::new(), ..setup }).await?;
        stage::Stage::new(world, script)?.play().await
    })
    .map_err(unusable)?
}
