//! The page that the story is printed on: a line at a time, in colour on a terminal only.

use super::act::FAILING;
use crate::output::{columns, is_terminal, stdout};
use std::io::{self, Write as _};

#[derive(Debug)]
pub(super) struct Page {
    is_silent: bool,
    in_colour: bool,
}

impl Page {
    pub(super) fn new(is_silent: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the command reads its environment here")]
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_silent, in_colour: is_terminal() && !is_plain }
    }

    pub(super) fn title(&self, text: &str) -> io::Result<()> {
        self.line(format!("\n{}", self.coloured("1", text)))
    }

    pub(super) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut out = stdout();
        writeln!(out, "{}", text.as_ref())?;
        out.flush()
    }

    /// Tells of a try to connect the integration that fails.
    pub(super) fn attempt(
        &self,
        attempt: u32,
        what: &str,
        live: usize,
        known: usize,
    ) -> io::Result<()> {
        self.line(format!(
            "   {FAILING}  try {attempt}: {what:<46}{live} live there, {known} known here"
        ))
    }

    pub(super) fn table(&self, rows: &[Vec<String>]) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut out = stdout();
        columns(&mut out, "   ", rows)?;
        out.flush()
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.coloured("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.coloured("31", text)
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.in_colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
