//! Files, values and what they render to, for every command that takes manifests.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::cli::Input;
use crate::problem::{Code, Problem};
use crate::render::fields::Schemas;
use crate::render::values::Values;
use crate::render::{Rendered, render};
use crate::seams::Seams;

/// What manifests are read by: the kinds served here, read once.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::of_crds(&api::crds()));

/// A file's name as given and its text; `-` is standard input.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn read(path: &Path) -> Result<(String, String), Problem> {
    let shown = path.display().to_string();
    let text = if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    // A byte order mark, as some editors put it in front, is no part of the text.
    text.map(|text| (shown.clone(), text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)))
        .map_err(|error| Problem::new(Code::UnreadableFile, format!("{shown} cannot be read")).because(error.to_string()))
}

/// The files of a list; a folder stands for the `.yaml`, `.yml` and `.json` files in it, by name.
///
/// # Errors
/// As [`read`].
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Problem> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let unreadable = |error: std::io::Error| {
                Problem::new(Code::UnreadableFile, format!("{} cannot be read", path.display())).because(error.to_string())
            };
            let mut inside: Vec<PathBuf> =
                std::fs::read_dir(path).map_err(unreadable)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            inside.retain(|file| file.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)));
            inside.sort();
            for file in inside {
                files.push(read(&file)?);
            }
        } else {
            files.push(read(path)?);
        }
    }
    Ok(files)
}

/// The values of an input, with `further` in the place of the least: what the command itself knows.
///
/// # Errors
/// As [`Values::new`].
pub fn values(input: &Input, further: &[(String, String)], seams: &Seams) -> Result<Values, Problem> {
    let mut files = further.to_vec();
    files.extend(read_all(&input.env_files)?);
    Values::new(&input.set, seams.environment.clone(), &files)
}

/// Renders files with values, by the schemas of the kinds served here.
///
/// # Errors
/// As [`render`].
pub fn manifests(files: &[(String, String)], values: &Values) -> Result<Rendered, Problem> {
    render(files, values, &*SCHEMAS)
}
