//! Names of the objects that controllers make, as the API server's `generateName` has them: a base that is cut to fit, a dash, five characters.
//!
//! A name must be known before the call that makes its object: a call whose answer was lost is then made again under the same name, and
//! finds what the first one made. So a name is either drawn and stored before it is used, or follows from what it is for.

use runtime::random::Random;
use sha2::{Digest as _, Sha256};

/// Annotation of what makes Machines: those that are to be created, separated by semicolons. What each of them is written as is its maker's.
pub const PLANNED_MACHINES: &str = "talosphere.dev/planned-machines";

/// The longest base: with what follows it, a name has 63 characters at most.
const LONGEST_BASE: usize = 57;
const SUFFIX: usize = 5;
/// How often a name that is taken is drawn again.
const DRAWS: usize = 20;
/// What `generateName` draws from.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The name made of a base and what follows it.
pub fn suffixed(base: &str, suffix: &str) -> String {
    let base: String = base.chars().take(LONGEST_BASE).collect();
    format!("{base}-{suffix}")
}

/// A random end that makes a name of `name` that nothing has yet.
pub fn draw(random: &Random, name: impl Fn(&str) -> String, is_free: impl Fn(&str) -> bool) -> String {
    let mut drawn = String::new();
    for _ in 0..DRAWS {
        drawn = name(&random.name_suffix(SUFFIX));
        if is_free(&drawn) {
            break;
        }
    }
    drawn
}

/// The end that follows from what the name is for: the same parts give the same.
pub fn derived(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    let letter = |byte: &u8| ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied().unwrap_or(b'x');
    digest.iter().take(SUFFIX).map(|byte| char::from(letter(byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_derived_ones_follow_from_their_parts() {
        assert_eq!(suffixed("s", "x7k2p"), "s-x7k2p");
        assert_eq!(suffixed(&"a".repeat(70), "x7k2p").len(), 63);
        assert_eq!(suffixed(&"ä".repeat(70), "x").chars().count(), 59);
        assert_eq!(derived(&["u", "a"]), derived(&["u", "a"]));
        assert_ne!(derived(&["u", "a"]), derived(&["u", "b"]));
        assert_eq!(derived(&[]).len(), 5);
        let random = Random::seeded(1);
        let taken = draw(&random, |suffix| suffixed("m", suffix), |_| true);
        assert_ne!(draw(&Random::seeded(1), |suffix| suffixed("m", suffix), |name| name != taken), taken);
    }
}
