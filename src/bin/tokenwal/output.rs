//! What the command prints: lines, tables, times.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

/// Standard output, written in large pieces; an error in it is the caller's.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Says whether a person reads what is printed.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints an object on a line of its own.
pub(crate) fn json(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Forgives a reader that went away: what the command has found or done is no different for it.
pub(crate) fn heard(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Collects names and values, and prints them in two columns.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) fn add(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.0.push((name, value.to_string()));
        self
    }

    /// Adds what is worth a line only if it is not nothing.
    pub(crate) fn add_some(
        &mut self,
        name: &'static str,
        value: Option<impl Display>,
    ) -> &mut Self {
        if let Some(value) = value {
            self.add(name, value);
        }
        self
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        self.0.iter().try_for_each(|(name, value)| writeln!(out, "{name:width$}  {value}"))
    }
}

/// Prints rows in columns as wide as they need be; nothing stands behind a row's last cell.
pub(crate) fn columns(out: &mut impl Write, indent: &str, rows: &[Vec<String>]) -> io::Result<()> {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width_of = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|at| width_of(at).unwrap_or_default()).collect();
    for row in rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{indent}{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Writes a time as RFC 3339 in UTC; one that no calendar reaches stays a number.
pub(crate) fn time(ms: u64) -> String {
    let timestamp =
        i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| format!("{ms} ms"), |timestamp| timestamp.to_string())
}

/// Writes a number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

/// Writes a count and what is counted.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Writes a name that somebody else chose, so that it cannot steer a terminal.
pub(crate) fn harmless(name: &str) -> String {
    name.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(time(1_760_000_000_000), "2025-10-09T08:53:20Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(33_554_432), "32.0 MiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
        assert_eq!(counted(1, "grant", "grants"), "1 grant");
        assert_eq!(harmless("a\u{1b}[2Jé"), "a\\u{1b}[2Jé");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let mut out = Vec::new();
        columns(&mut out, "  ", &[row(&["a", "bé", "c"]), row(&["aaa", "b", ""])]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  a    bé  c\n  aaa  b\n");
    }
}
