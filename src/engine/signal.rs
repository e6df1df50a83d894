//! Wakes a thread that has nothing to do.

use crate::sync::lock;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A flag that one thread waits for.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Raises the flag.
    pub(crate) fn raise(&self) {
        let mut raised = lock(&self.raised);
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// Waits until the flag is raised, at most so long, and lowers it; says whether it was raised.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let mut raised = lock(&self.raised);
        if !*raised {
            raised = match self.changed.wait_timeout(raised, at_most) {
                Ok((raised, _)) => raised,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        std::mem::take(&mut raised)
    }
}
