//! Single flight: many callers who want one thing, one task that does it.
//!
//! The task is nobody's future: callers may leave, time out or panic, and it goes on. A caller who
//! waits never does the work itself.

use super::metrics::Meter;
use crate::sync::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The tasks that a shutdown waits for. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    meter: Arc<Meter>,
}

impl Tasks {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { tracker: TaskTracker::new(), meter }
    }

    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = self.meter.task();
        self.tracker.spawn(async move {
            let _task = task;
            work.await
        })
    }

    /// Takes no further ones, by the word of whoever asks [`Tasks::is_closed`] first.
    pub(super) fn close(&self) {
        self.tracker.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tracker.is_closed()
    }

    /// Waits until none is left, once they are closed.
    pub(super) async fn wait(&self) {
        self.tracker.wait().await;
    }
}

/// What is on its way, by what it is about.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Arc<Mutex<Running<K, V>>>);

type Running<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

/// Takes a flight off the list, however its task ends.
struct Landing<K: Eq + Hash, V> {
    running: Arc<Mutex<Running<K, V>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the flight of `key`, or starts it with `work`; none if its task was lost.
    pub(super) async fn join<F>(&self, key: K, tasks: &Tasks, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut landed = self.start(key, tasks, work);
        let value = landed.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }

    /// As [`Flights::join`], and waits for nothing.
    pub(super) fn start<F>(
        &self,
        key: K,
        tasks: &Tasks,
        work: impl FnOnce() -> F,
    ) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = lock(&self.0);
        if let Some(landed) = running.get(&key) {
            return landed.clone();
        }
        let (tell, landed) = watch::channel(None);
        running.insert(key.clone(), landed.clone());
        let landing = Landing { running: Arc::clone(&self.0), key };
        let work = work();
        // The lock is held until the task is there: nobody finds a flight without one.
        tasks.spawn(async move {
            let value = work.await;
            // Off the list first: who comes now wants what is newer.
            drop(landing);
            tell.send_replace(Some(value));
        });
        landed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn many_callers_are_one_flight_that_outlives_them() {
        let flights = Arc::new(Flights::<u8, u32>::new());
        let tasks = Arc::new(Tasks::new(Arc::new(Meter::new())));
        let runs = Arc::new(AtomicU32::new(0));
        let fly = || {
            let runs = Arc::clone(&runs);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                runs.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        // The first caller leaves at once.
        let left = tokio::time::timeout(Duration::ZERO, flights.join(7, &tasks, fly)).await;
        assert!(left.is_err());
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let (flights, tasks, work) = (Arc::clone(&flights), Arc::clone(&tasks), fly());
                tokio::spawn(async move { flights.join(7, &tasks, || work).await })
            })
            .collect();
        for caller in waiting {
            assert_eq!(caller.await.unwrap(), Some(1));
        }
        assert_eq!(flights.join(7, &tasks, fly).await, Some(2), "a later one is a new one");
    }

    #[tokio::test]
    async fn a_task_that_panics_leaves_no_flight_behind() {
        let flights = Flights::<u8, u32>::new();
        let tasks = Tasks::new(Arc::new(Meter::new()));
        assert_eq!(flights.join(1, &tasks, || async { panic!("lost") }).await, None);
        assert_eq!(flights.join(1, &tasks, || async { 5 }).await, Some(5));
    }
}
