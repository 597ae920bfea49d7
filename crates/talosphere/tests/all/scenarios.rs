//! Every scenario file holds, and its transcript is the one that was reviewed. `UPDATE=1` rewrites the transcripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use talosphere::explore::scenario::{Script, list, play, play_file};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transcripts/scenarios")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// What differs first, with a little around it.
fn difference(kept: &str, now: &str) -> String {
    let (kept, now): (Vec<&str>, Vec<&str>) = (kept.lines().collect(), now.lines().collect());
    let at = kept.iter().zip(&now).take_while(|(kept, now)| kept == now).count();
    let shown = |lines: &[&str]| lines.iter().skip(at.saturating_sub(2)).take(6).map(|line| format!("    {line}\n")).collect::<String>();
    format!("from line {} on\n  kept:\n{}  now:\n{}", at + 1, shown(&kept), shown(&now))
}

#[allow(clippy::disallowed_methods)] // a switch for the person who runs the tests
fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

#[test]
fn scenarios_hold_and_their_transcripts_are_fresh() {
    let files = list(&folder()).unwrap();
    assert!(!files.is_empty());
    let (next, failures) = (Mutex::new(files.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = { next.lock().unwrap().next() } {
                    let name = stem(file);
                    let played = play_file(file).unwrap_or_else(|problem| panic!("{name}: {problem}"));
                    if !played.failures.is_empty() {
                        failures.lock().unwrap().push(format!("{name}: {:#?}\n{}", played.failures, played.transcript));
                        continue;
                    }
                    let path = transcripts().join(format!("{name}.txt"));
                    if is_update() {
                        fs::write(&path, &played.transcript).unwrap();
                    }
                    let kept = fs::read_to_string(&path).unwrap_or_default();
                    if kept != played.transcript {
                        let told = difference(&kept, &played.transcript);
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("docs/transcripts/scenarios/{name}.txt differs; UPDATE=1 rewrites it\n{told}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

const INDEX: &str = "# Scenarios, as their user saw them

Each transcript is what one scenario file in [crates/talosphere/scenarios](../../../crates/talosphere/scenarios) gives when it is played:

```
cargo run --release --bin explore -- --play crates/talosphere/scenarios/s05-vm-deleted.yaml
```

The world is simulated: vCenter, the machines in it, their Talos and the Kubernetes they form; its time is virtual and begins at 08:00, and
cloning and booting take about as long as on real machines. Everything else is the product: `talosphere` commands are parsed and carried out
by it, as clients of a `talosphere serve` that runs in another terminal, and what they print is kept word for word; a line with a number of
lines of progress in parentheses stands for lines that were left out. `kubectl` is played, with its words. Lines with `--` tell what happens
outside of the terminals. Made-up suffixes of names are replaced by letters in the order in which they appear.

While a scenario plays, the rule checker looks on after every event; a broken safety rule fails it, and so does a step that does not come out
as the file says. The test `scenarios` plays them all and compares; `UPDATE=1` rewrites the transcripts, and then they are read again.

| scenario | the pain that it answers |
|---|---|
";

/// The page that lists the transcripts.
fn index() -> String {
    let rows = list(&folder()).unwrap().into_iter().map(|file| {
        let script = Script::read(&stem(&file), &fs::read_to_string(&file).unwrap()).unwrap();
        format!("| [{}]({}.txt) | {} |\n", script.title, stem(&file), script.pain.trim())
    });
    format!("{INDEX}{}", rows.collect::<String>())
}

#[test]
fn every_transcript_has_its_scenario_and_is_in_the_list() {
    let names: BTreeSet<String> = list(&folder()).unwrap().iter().map(|file| stem(file)).collect();
    let kept = fs::read_dir(transcripts()).unwrap().map(|entry| entry.unwrap().path());
    let kept: BTreeSet<String> = kept.filter(|path| path.extension().is_some_and(|end| end == "txt")).map(|path| stem(&path)).collect();
    assert_eq!(names, kept);
    let path = transcripts().join("README.md");
    if is_update() {
        fs::write(&path, index()).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == index(), "{} is stale: UPDATE=1 rewrites it", path.display());
}

/// A scenario that plays twice gives one text; one whose steps do not come out fails, with file and line.
#[test]
fn a_scenario_gives_one_transcript_and_fails_where_it_does_not_hold() {
    let text = "title: t\nshows: s\nseed: 1\nsteps:\n\
                - run: talosphere up -f ipam.yaml -f standard.yaml --env standard.env --set CONTROL_PLANE_MACHINE_COUNT=1 --set WORKER_MACHINE_COUNT=0\n\
                - expect: {vms: 2}\n- note: never reached\n";
    let script = Script::read("t.yaml", text).unwrap();
    let (first, again) = (play(&script).unwrap(), play(&script).unwrap());
    assert_eq!(first.transcript, again.transcript);
    assert_eq!(first.failures, ["t.yaml:6: VMs: 1, not 2"]);
    assert!(!first.transcript.contains("never reached"), "{}", first.transcript);
    for (steps, told) in [
        ("- run: talosphere get clusters\n  fails: TS101\n", "did not fail with TS101"),
        ("- run: talosphere describe cluster none\n", "the command failed: error[TS114]"),
        ("- run: talosphere describe cluster none\n  fails: TS114\n  says: [pigs]\n", "\"pigs\" is not said"),
        ("- wait: {ready: true}\n  within: 1m\n", "not within 60s: the cluster is not ready"),
        (
            "- start: talosphere up -f ipam.yaml -f standard.yaml --env standard.env\n- world: {kill: {calls: 100000, down: 1s}}\n- finish: 1h\n",
            "did not die",
        ),
        ("- pick: {x: control plane 1}\n", "there is no control plane 1"),
        ("- start: talosphere up -f ipam.yaml -f standard.yaml --env standard.env\n", "still running at the end"),
    ] {
        let script = Script::read("t.yaml", &format!("title: t\nshows: s\nseed: 1\nsteps:\n{steps}")).unwrap();
        let played = play(&script).unwrap();
        assert!(played.failures.iter().any(|failure| failure.contains(told)), "{steps}: {:?}", played.failures);
    }
}
