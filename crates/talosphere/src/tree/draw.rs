//! A tree as lines of text: for a pipe in full, for a terminal cut to its size and with colours.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, State};

/// How a tree is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Columns; a longer line is cut.
    pub width: Option<usize>,
    /// Lines; a longer tree is folded, what is ready first.
    pub height: Option<usize>,
    pub is_coloured: bool,
    /// Every object says why it waits and since when, not only the deepest.
    pub is_wide: bool,
}

/// The longest line of a log.
const LOG_WIDTH: usize = 150;
/// The longest line of a log about something that a person must do: it is told once, and whole but for the most unusual.
const FAILURE_WIDTH: usize = 1000;
/// A reason longer than this is drawn once; where it comes again, its beginning stands for it.
const LONG: usize = 100;

/// What is drawn in one line, and what stands under it.
#[derive(Clone, Debug)]
struct Item {
    /// `None` for what stands for several folded ones.
    state: Option<State>,
    text: String,
    /// The last part of the text.
    why: String,
    /// Whether it is a Machine: what stands above one is never folded.
    is_machine: bool,
    children: Vec<Item>,
}

impl Item {
    fn new(node: &Node, is_wide: bool) -> Self {
        let mut text = format!("{}/{}", node.kind, node.name);
        let why = if is_wide || !node.children.iter().any(Node::explains) { node.why.as_str() } else { "" };
        for part in [node.detail.as_str(), why] {
            if !part.is_empty() {
                text.push_str("  ");
                text.push_str(part);
            }
        }
        if let Some(since) = node.since.as_ref().filter(|_| is_wide) {
            text.push_str(&format!("  since {since}"));
        }
        Self {
            state: Some(node.state),
            text,
            why: why.to_owned(),
            is_machine: node.kind == "Machine",
            children: node.children.iter().map(|child| Self::new(child, is_wide)).collect(),
        }
    }

    fn lines(&self) -> usize {
        1 + self.children.iter().map(Self::lines).sum::<usize>()
    }

    /// Shortens what was told in full further up.
    fn refer_back(&mut self, told: &mut BTreeSet<String>) {
        if self.why.len() > LONG && !told.insert(self.why.clone()) && self.text.ends_with(&self.why) {
            let reason = self.why.split(": ").next().unwrap_or_default();
            let why = format!("{reason} (as above)");
            self.text.truncate(self.text.len() - self.why.len());
            self.text.push_str(&why);
            self.why = why;
        }
        self.children.iter_mut().for_each(|child| child.refer_back(told));
    }

    /// Takes what a Machine waits for into its own line.
    fn inline(&mut self) {
        if self.is_machine {
            for child in std::mem::take(&mut self.children) {
                self.text.push_str(&format!("  {}", child.why));
            }
        }
        self.children.iter_mut().for_each(Self::inline);
    }

    /// Folds Machines of one state, beyond the first `keep` of them in each branch, into a line that counts them.
    fn fold(&mut self, state: State, keep: usize) {
        self.children.iter_mut().for_each(|child| child.fold(state, keep));
        let is_it = |child: &Self| child.state == Some(state) && child.is_machine;
        let foldable = self.children.iter().filter(|child| is_it(child)).count();
        if foldable < keep + 2 {
            return;
        }
        let mut seen = 0;
        self.children.retain(|child| {
            seen += usize::from(is_it(child));
            !is_it(child) || seen <= keep
        });
        let text = format!("… {} more {}", foldable - keep, word(state));
        self.children.push(Self { state: None, text, why: String::new(), is_machine: false, children: Vec::new() });
    }

    fn draw(&self, lines: &mut Vec<String>, first: &str, rest: &str, style: Style) {
        let mark = self.state.map(|state| format!("[{}] ", mark(state))).unwrap_or_default();
        let line = cut(&format!("{first}{mark}{}", self.text), style.width);
        lines.push(match (self.state, line.get(first.len()..first.len() + mark.len())) {
            (Some(state), Some(shown)) if style.is_coloured && shown == mark => {
                let behind = line.get(first.len() + mark.len()..).unwrap_or_default();
                format!("{first}\u{1b}[{}m{}\u{1b}[0m {behind}", colour(state), mark.trim_end())
            }
            _ => line,
        });
        for (index, child) in self.children.iter().enumerate() {
            let is_last = index + 1 == self.children.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.draw(lines, &format!("{rest}{branch}"), &format!("{rest}{below}"), style);
        }
    }
}

fn mark(state: State) -> &'static str {
    match state {
        State::Ready => "ok",
        State::Waiting => "..",
        State::Failing => "!!",
        State::Deleting => "--",
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Waiting => "waiting",
        State::Failing => "failing",
        State::Deleting => "deleting",
    }
}

/// Green, yellow, bold red, magenta.
fn colour(state: State) -> &'static str {
    match state {
        State::Ready => "32",
        State::Waiting => "33",
        State::Failing => "1;31",
        State::Deleting => "35",
    }
}

/// A line that takes no more than `width` columns.
pub fn cut(line: &str, width: Option<usize>) -> String {
    width.map_or_else(|| line.to_owned(), |width| console::truncate_str(line, width, "…").into_owned())
}

impl Node {
    /// The node and everything under it, drawn in full.
    pub fn draw(&self) -> String {
        self.draw_as(Style::default())
    }

    /// The node and everything under it, drawn in a style.
    pub fn draw_as(&self, style: Style) -> String {
        let mut root = Item::new(self, style.is_wide);
        root.refer_back(&mut BTreeSet::new());
        if let Some(height) = style.height {
            if root.lines() > height {
                root.fold(State::Ready, 0);
            }
            if root.lines() > height {
                root.inline();
            }
            let steps = [(State::Deleting, 3), (State::Waiting, 3), (State::Failing, 3)];
            let harder = [(State::Deleting, 0), (State::Waiting, 0), (State::Failing, 1)];
            for (state, keep) in steps.into_iter().chain(harder) {
                if root.lines() > height {
                    root.fold(state, keep);
                }
            }
        }
        let mut lines = Vec::new();
        root.draw(&mut lines, "", "", style);
        if let Some(height) = style.height.filter(|height| lines.len() > *height) {
            let left = lines.len() - height.saturating_sub(1);
            lines.truncate(height.saturating_sub(1));
            lines.push(cut(&format!("… {left} more lines"), style.width));
        }
        lines.join("\n")
    }

    /// Whether something at or under this node says why it is not ready.
    pub(super) fn explains(&self) -> bool {
        self.state != State::Ready && (!self.why.is_empty() || self.children.iter().any(Self::explains))
    }

    /// Whether somebody must do something about this node or one under it.
    pub fn is_failing(&self) -> bool {
        self.state == State::Failing || self.children.iter().any(Self::is_failing)
    }

    /// What a log tells of each node, by kind and name: what changed between two trees is what differs here. What a Machine waits for
    /// changes many times a second; it is told only when somebody must do something.
    pub fn lines(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        self.collect(&mut lines);
        lines
    }

    fn collect(&self, lines: &mut BTreeMap<String, String>) {
        let name = format!("{}/{}", self.kind, self.name);
        let is_part = !matches!(self.kind.as_str(), "Cluster" | "VSphereCluster" | "TalosControlPlane" | "MachineDeployment" | "Machine");
        let told = match (self.state, self.kind.as_str()) {
            (State::Failing, _) if !self.children.iter().any(Self::explains) => format!("failing; {}", self.why),
            _ if is_part => String::new(),
            // Why it takes long is worth a line where somebody can do something about it.
            (State::Deleting, _) if self.why.contains("disruption budget") => format!("deleting; {}", self.why),
            (State::Deleting, _) => "deleting".to_owned(),
            (State::Waiting, "VSphereCluster") => String::new(),
            _ => self.detail.clone(),
        };
        if !told.is_empty() {
            let longest = if self.state == State::Failing { FAILURE_WIDTH } else { LOG_WIDTH };
            let width = longest.saturating_sub(name.len() + 2).max(40);
            lines.insert(name, cut(&told, Some(width)));
        }
        for child in &self.children {
            child.collect(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: &str, name: &str, state: State, why: &str, children: Vec<Node>) -> Node {
        let (kind, name, why) = (kind.to_owned(), name.to_owned(), why.to_owned());
        Node { kind, name, state, detail: String::new(), reason: "R".to_owned(), why, since: None, children }
    }

    fn big() -> Node {
        let machine = |index: usize| match index {
            7 => {
                let claim =
                    node("IPAddressClaim", "c", State::Failing, "PoolExhausted: no free address, 10.0.0.1 is held by somebody", vec![]);
                node("Machine", "m7", State::Waiting, "", vec![claim])
            }
            index => node("Machine", &format!("m{index}"), State::Ready, "", vec![]),
        };
        let deployment = node("MachineDeployment", "d", State::Waiting, "summed up", (0..20).map(machine).collect());
        node("Cluster", "c", State::Waiting, "summed up again", vec![deployment])
    }

    #[test]
    fn a_terminal_gets_no_more_than_it_can_show() {
        let style = Style { width: Some(40), height: Some(10), ..Style::default() };
        let drawn = big().draw_as(style);
        let expected = "[..] Cluster/c\n└─ [..] MachineDeployment/d\n   ├─ [..] Machine/m7\n   │  └─ [!!] IPAddressClaim/c  PoolExh…\n   └─ … 19 more ready";
        assert_eq!(drawn, expected);
        // Where lines are few, what a machine waits for stands in its own line.
        let drawn = big().draw_as(Style { height: Some(4), ..Style::default() });
        let expected = "[..] Cluster/c\n└─ [..] MachineDeployment/d\n   ├─ [..] Machine/m7  PoolExhausted: no free address, 10.0.0.1 is held by somebody\n   └─ … 19 more ready";
        assert_eq!(drawn, expected);
        for (width, height) in [(20, 3), (10, 1), (1, 1), (80, 4)] {
            let drawn = big().draw_as(Style { width: Some(width), height: Some(height), is_coloured: true, is_wide: false });
            assert!(drawn.lines().count() <= height && drawn.lines().all(|line| console::measure_text_width(line) <= width), "{drawn}");
        }
    }

    #[test]
    fn what_many_wait_for_alike_is_told_in_full_once() {
        let why = format!("PoolExhausted: {}", "10.0.0.1 is held by somebody; ".repeat(5));
        let claims = ["a", "b"].map(|name| node("IPAddressClaim", name, State::Failing, &why, vec![]));
        let root = node("Cluster", "c", State::Waiting, "", claims.into());
        let expected = format!("[..] Cluster/c\n├─ [!!] IPAddressClaim/a  {why}\n└─ [!!] IPAddressClaim/b  PoolExhausted (as above)");
        assert_eq!(root.draw(), expected);
        assert_eq!(root.lines()["IPAddressClaim/b"], format!("failing; {why}"), "a log has nothing above");
    }

    #[test]
    fn colours_stand_around_the_mark_only() {
        let drawn = node("Machine", "m", State::Failing, "why", vec![]).draw_as(Style { is_coloured: true, ..Style::default() });
        assert_eq!(drawn, "\u{1b}[1;31m[!!]\u{1b}[0m Machine/m  why");
    }

    #[test]
    fn the_deepest_object_alone_says_why_unless_all_are_asked() {
        assert!(!big().draw().contains("summed up"));
        assert!(big().draw_as(Style { is_wide: true, ..Style::default() }).contains("summed up again"));
        let lines = big().lines();
        assert!(lines["IPAddressClaim/c"].starts_with("failing; PoolExhausted"), "{lines:?}");
        assert!(!lines.contains_key("Machine/m7"), "{lines:?}");
    }
}
