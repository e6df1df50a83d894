//! Steps the journal when all else waits, as its threads would: most of the time at once, sometimes a
//! little later, so that callers meet a write that is on its way.

use crate::sim::Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::{Error, Journal, Work};
use tokio::sync::Notify;

pub struct Stepper {
    journal: Mutex<Option<Journal>>,
    failed: Mutex<Option<Error>>,
    rng: Mutex<Rng>,
    later: Notify,
    stopped: Notify,
}

impl Stepper {
    pub fn new(rng: Rng) -> Arc<Self> {
        Arc::new(Self {
            journal: Mutex::new(None),
            failed: Mutex::new(None),
            rng: Mutex::new(rng),
            later: Notify::new(),
            stopped: Notify::new(),
        })
    }

    pub fn drive(&self, journal: Option<Journal>) {
        *self.journal.lock().unwrap() = journal;
    }

    /// To be called whenever nothing else can go on.
    pub fn idle(&self) {
        if self.rng.lock().unwrap().chance(20) {
            self.later.notify_one();
        } else {
            self.step();
        }
    }

    fn step(&self) {
        let journal = self.journal.lock().unwrap().clone();
        let Some(journal) = journal else { return };
        loop {
            let mut busy = false;
            for work in [Work::Commit, Work::Prepare, Work::Compact] {
                match journal.step(work) {
                    Ok(done) => busy |= done,
                    Err(error) => {
                        self.drive(None);
                        self.failed.lock().unwrap().get_or_insert(error);
                        self.stopped.notify_one();
                        return;
                    }
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// Steps what was put off; ends with the error that ends the journal.
    pub async fn run(&self) -> Error {
        loop {
            tokio::select! {
                biased;
                () = self.stopped.notified() => {}
                () = self.later.notified() => {
                    let wait_ms = 1 + self.rng.lock().unwrap().below(40);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    self.step();
                }
            }
            if let Some(error) = self.failed.lock().unwrap().take() {
                return error;
            }
        }
    }
}
