//! Durations as Go prints and reads them (`1h30m`, `5m0s`, `1.5h`), against whole seconds.

use serde_json::{Value, json};

/// Seconds as Go's duration text; anything but a whole number stays as it is.
pub fn to_text(seconds: Value) -> Value {
    match seconds.as_i64() {
        Some(seconds) => json!(text(seconds)),
        None => seconds,
    }
}

/// A duration text as whole seconds, rounded down; what is no duration stays as it is, for the schema to complain about.
pub fn to_seconds(text: Value) -> Value {
    match text.as_str().and_then(parse) {
        Some(seconds) => json!(seconds),
        None => text,
    }
}

/// Seconds in Go's form: `0s`, `45s`, `5m0s`, `1h0m0s`.
pub fn text(seconds: i64) -> String {
    let (sign, rest) = if seconds < 0 { ("-", seconds.unsigned_abs()) } else { ("", seconds.unsigned_abs()) };
    let (hours, minutes, secs) = (rest / 3600, rest / 60 % 60, rest % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{secs}s"),
        (0, _) => format!("{sign}{minutes}m{secs}s"),
        _ => format!("{sign}{hours}h{minutes}m{secs}s"),
    }
}

/// The whole seconds of a Go duration; `None` if the text is not one.
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanoseconds = nanoseconds.checked_add(whole.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            let fraction = fraction.get(..fraction.len().min(18))?;
            nanoseconds += fraction.parse::<i128>().ok()? * unit / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        }
        rest = after;
    }
    i64::try_from(nanoseconds / 1_000_000_000).ok().map(|seconds| sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (read, seconds, printed) in [
            ("0", 0, "0s"),
            ("300s", 300, "5m0s"),
            ("20m", 1200, "20m0s"),
            ("1h30m", 5400, "1h30m0s"),
            ("1.5h", 5400, "1h30m0s"),
            ("10s", 10, "10s"),
            ("-5m", -300, "-5m0s"),
            ("1500ms", 1, "1s"),
            ("100h", 360_000, "100h0m0s"),
        ] {
            assert_eq!(parse(read), Some(seconds), "{read}");
            assert_eq!(text(seconds), printed);
        }
        for wrong in ["", "5", "m", "5x", "1h2", ".s", "five minutes", "-"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
