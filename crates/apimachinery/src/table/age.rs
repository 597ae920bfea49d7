//! Ages as kubectl and the server print them: coarse, at most two units.

use jiff::Timestamp;

/// The time since a timestamp in RFC 3339, such as `5m3s`; `<unknown>` for an empty one, `<invalid>` for a malformed one.
#[must_use]
pub fn age(timestamp: &str, now: Timestamp) -> String {
    if timestamp.is_empty() {
        return "<unknown>".to_owned();
    }
    match timestamp.parse::<Timestamp>() {
        // A part of a second less than a whole one does not count, as in Go's conversion.
        Ok(then) => human_duration((now.as_nanosecond() - then.as_nanosecond()).div_euclid(1_000_000_000) as i64),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// A number of seconds in words: seconds up to two minutes, then minutes and seconds, minutes, hours and minutes, hours,
/// days and hours, days, years and days, years. A clock that is two seconds ahead or more gives `<invalid>`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 60 * 3 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_kubectl_does() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 60, "3h1m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY, "8d"),
            (700 * DAY, "700d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn ages_count_from_a_timestamp() {
        let now = "2026-11-23T10:13:12Z".parse().unwrap();
        assert_eq!(age("2026-11-23T10:13:02Z", now), "10s");
        assert_eq!(age("2026-11-23T10:13:02.500000Z", now), "9s");
        assert_eq!(age("", now), "<unknown>");
        assert_eq!(age("x", now), "<invalid>");
    }
}
