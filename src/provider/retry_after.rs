//! The `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date.

/// Returns after how many seconds the server wants to be asked again; 0 for what cannot be told.
pub(super) fn seconds(header: &str, now_ms: u64) -> u32 {
    let header = header.trim();
    let seconds = match header.parse() {
        Ok(seconds) => seconds,
        Err(_) => at_s(header).map_or(0, |at_s| at_s.saturating_sub(now_ms / 1000)),
    };
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Reads a date such as `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn at_s(date: &str) -> Option<u64> {
    let (_, date) = date.split_once(", ")?;
    let mut parts = date.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = parts.next()?;
    let month: u64 = MONTHS.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, m)| m)?;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut time = parts.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if hour > 23 || minute > 59 || second > 60 || parts.next() != Some("GMT") {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Counts the days from 1970-01-01. Years begin in March here, so that leap days come last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (header, expected) in [
            ("120", 120),
            (" 0 ", 0),
            ("99999999999", u32::MAX),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 86_400),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
            ("Thu, 29 Feb 1996 00:00:00 GMT", 825_552_000 - 784_111_777),
            ("Wed, 01 Jan 2070 00:00:00 GMT", 3_155_760_000 - 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("soon", 0),
            ("-5", 0),
            ("Sun, 06 Nov 1994 08:49 GMT", 0),
            ("Sun, 99 Nov 1994 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 CET", 0),
            ("", 0),
        ] {
            assert_eq!(seconds(header, now_ms), expected, "{header}");
        }
    }
}
