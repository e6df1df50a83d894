//! Progress, on a terminal only, for what takes longer than a second.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};
use tokenwal::inspect::Progress;

const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how far a look at a store has got; it goes away with this.
#[derive(Debug)]
pub(crate) struct Bar {
    what: &'static str,
    since: Instant,
    on_terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    #[expect(clippy::disallowed_methods, reason = "how long a person has waited")]
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, since: Instant::now(), on_terminal: io::stderr().is_terminal(), bar: None }
    }

    #[expect(clippy::disallowed_methods, reason = "how long a person has waited")]
    pub(crate) fn tell(&mut self, progress: Progress) {
        if !self.on_terminal || (self.bar.is_none() && self.since.elapsed() < PATIENCE) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_message(self.what);
            let style = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta}";
            bar.with_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        bar.set_length(progress.total_bytes.max(progress.done_bytes));
        bar.set_position(progress.done_bytes);
    }
}

/// Shows that something is being done that does not say how far it has got; it goes away with this.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(what);
        if io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Counts what takes its time, one after the other.
#[derive(Debug)]
pub(crate) struct Counter(ProgressBar);

impl Counter {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_message(what);
        bar.set_style(
            ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self(bar)
    }

    pub(crate) fn one_more(&self) {
        self.0.inc(1);
    }

    /// Makes way for what is printed.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
