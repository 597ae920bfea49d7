//! A transcript of commands as they are typed, with what differs from run to run made equal, kept under `docs/transcripts`.

use std::path::Path;

use super::process::{Shell, root};

/// Commands and their output so far.
pub struct Transcript {
    text: String,
    replacements: Vec<(String, &'static str)>,
}

impl Transcript {
    pub fn new(shell: &Shell) -> Self {
        let mut replacements = vec![(shell.folder.path().display().to_string(), "~")];
        replacements.push((root().display().to_string(), "~/talosphere"));
        Self { text: String::new(), replacements }
    }

    /// Makes `text` appear as `shown` from now on.
    pub fn hide(&mut self, text: &str, shown: &'static str) {
        if !text.is_empty() {
            self.replacements.push((text.to_owned(), shown));
        }
    }

    /// Adds a command and what it printed; lines of progress are counted only.
    pub fn add(&mut self, line: &str, out: &str, err: &str) {
        self.text.push_str(&format!("$ {line}\n"));
        let mut last = String::new();
        let lines: Vec<String> = err.lines().chain(out.lines()).map(|shown| self.normalize(shown)).collect();
        for shown in lines {
            // `TIME Machine/demo-workers-xxxxx: Running`
            let subject = shown.strip_prefix("TIME ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let is_progress = subject.starts_with(char::is_uppercase) && subject.contains('/') && subject.ends_with(':');
            if is_progress || shown == last {
                continue;
            }
            self.text.push_str(&shown);
            self.text.push('\n');
            last = shown;
        }
        self.text.push('\n');
    }

    /// Types a command that must succeed, and adds it.
    pub fn ok(&mut self, shell: &Shell, line: &str) -> String {
        let output = shell.run(line);
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "$ {line}\n{out}{err}\n{}", output.status);
        self.add(line, &out, &err);
        out
    }

    fn normalize(&self, line: &str) -> String {
        let mut line = line.trim_end().to_owned();
        for (text, shown) in &self.replacements {
            line = line.replace(text, shown);
        }
        let mut words: Vec<String> = line.split(' ').map(normalize_word).collect();
        for at in 0..words.len() {
            let is_counted = at > 0 && matches!(words[at - 1].as_str(), "revision" | "entry")
                || words.get(at + 1).is_some_and(|next| next.starts_with("bytes"));
            let digits = words[at].trim_end_matches([':', ';', ',']);
            if is_counted && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                words[at] = words[at].replace(digits, "N");
            }
        }
        let joined = words.join(" ");
        // Columns are as wide as what stood in them; the widths say nothing.
        let mut compact = String::new();
        let indent = joined.len() - joined.trim_start().len();
        compact.push_str(&joined[..indent]);
        let mut blanks = 0;
        for c in joined.trim_start().chars() {
            if c == ' ' {
                blanks += 1;
                continue;
            }
            if blanks > 0 {
                compact.push_str(if blanks > 1 { "   " } else { " " });
                blanks = 0;
            }
            compact.push(c);
        }
        // The last column of etcd's members: how far each is.
        match compact.rsplit_once("   ID   ") {
            Some((before, entry)) if entry.bytes().all(|b| b.is_ascii_digit()) => format!("{before}   ID   N"),
            _ => compact,
        }
    }

    /// Compares with the kept transcript; `UPDATE=1` rewrites it.
    pub fn check(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/transcripts").join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &self.text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == self.text, "docs/transcripts/{name} differs; UPDATE=1 rewrites it\n--- now\n{}\n--- kept\n{kept}", self.text);
    }
}

const SUFFIX: &str = "bcdfghjklmnpqrstvwxz2456789";

fn normalize_word(word: &str) -> String {
    let is_age =
        |text: &str| !text.is_empty() && text.ends_with(['s', 'm', 'h']) && text.chars().all(|c| c.is_ascii_digit() || "smh".contains(c));
    if is_age(word) {
        return "AGE".to_owned();
    }
    if word.len() == 8 && word.bytes().enumerate().all(|(i, b)| if i == 2 || i == 5 { b == b':' } else { b.is_ascii_digit() }) {
        return "TIME".to_owned();
    }
    if word.len() == 10 && word.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() }) {
        return "DATE".to_owned();
    }
    if word.starts_with('[') && word.ends_with("Z]") {
        return "[TIME]".to_owned();
    }
    // How far etcd is, and what of it a file holds, differs.
    let hexadecimal = word.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(word.len());
    let digest = word.rsplit('/').next().filter(|last| last.strip_suffix(".db").unwrap_or(last).len() == 64);
    if let Some(digest) = digest.filter(|last| last.bytes().take(64).all(|b| b.is_ascii_hexdigit())) {
        return word.replace(&digest[..64], "DIGEST");
    }
    if hexadecimal == 16 && word.len() <= 17 && word.ends_with(')') {
        return "ID)".to_owned();
    }
    if word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
        return "ID".to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    for part in word.split('/') {
        let named: Vec<String> = part
            .split('-')
            .enumerate()
            .map(|(index, piece)| {
                let (piece, rest) = piece.split_at(piece.find([',', ':', '.', ';', ')']).unwrap_or(piece.len()));
                let is_suffix = index > 0
                    && piece.len() == 5
                    && piece.chars().all(|c| SUFFIX.contains(c))
                    && piece.chars().any(|c| c.is_ascii_digit() || !"nodes".contains(c));
                if is_suffix { format!("xxxxx{rest}") } else { format!("{piece}{rest}") }
            })
            .collect();
        let named = named.join("-");
        // Which machine gets which address differs.
        let named = match named.split_once("10.20.0.") {
            Some((before, after)) => format!("{before}10.20.0.N{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => named,
        };
        parts.push(match named.split_once("127.0.0.1:") {
            Some((before, after)) => format!("{before}127.0.0.1:PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => named,
        });
    }
    parts.join("/")
}

#[test]
fn what_differs_between_runs_is_made_equal() {
    for (word, expected) in [
        ("demo-workers-9xk2p-x7b4c", "demo-workers-xxxxx-xxxxx"),
        ("Machine/demo-control-plane-6r7v6,", "Machine/demo-control-plane-xxxxx,"),
        ("12s", "AGE"),
        ("2m3s", "AGE"),
        ("12:03:44", "TIME"),
        ("https://127.0.0.1:40123/sdk", "https://127.0.0.1:PORT/sdk"),
        ("https://10.20.0.11:2380", "https://10.20.0.N:2380"),
        ("2026-11-24", "DATE"),
        ("[2026-11-24T07:58:57.908Z]", "[TIME]"),
        ("0a1b2c3d4e5f6071", "ID"),
        ("0a1b2c3d4e5f6071)", "ID)"),
        ("~/state/5bf1fd927dfb8679496a2e6cf00cbe50c1c87145d2a1d1bb2f1dd0b4b8b0cabc.db", "~/state/DIGEST.db"),
        ("control-plane", "control-plane"),
    ] {
        assert_eq!(normalize_word(word), expected);
    }
}
