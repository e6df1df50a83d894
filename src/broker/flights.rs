//! Single flight: many callers who want one thing, one task that does it.
//!
//! The task is nobody's future: callers may leave, time out or panic, and it goes on. A caller who
//! waits never does the work itself.

use super::metrics::Meter;
use crate::sync::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The tasks that a shutdown waits for, on the broker's own runtime whoever asks for them: that of a
/// caller may end while an answer is on its way. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    runtime: Handle,
    meter: Arc<Meter>,
}

impl Tasks {
    /// Takes the runtime that this is called on.
    #[track_caller]
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { tracker: TaskTracker::new(), runtime: Handle::current(), meter }
    }

    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = self.meter.task();
        let work = async move {
            let _task = task;
            work.await
        };
        self.tracker.spawn_on(work, &self.runtime)
    }

    /// Spawns what holds no call, and what no shutdown waits for.
    pub(super) fn spawn_aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }

    /// Has what is made meanwhile be of the broker's runtime.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
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
    /// None once it is off the list: the next one may have the same key.
    key: Option<K>,
    tell: watch::Sender<Option<V>>,
}

impl<K: Eq + Hash, V> Landing<K, V> {
    fn land(mut self, value: V) {
        // Off the list first: who comes now wants what is newer.
        self.take_off();
        self.tell.send_replace(Some(value));
    }

    fn take_off(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.running).remove(&key);
        }
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.take_off();
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
        drop(running);
        // From here on it is on the list, and comes off it whatever happens: a runtime that has ended
        // drops the task on the spot, and that must not find the list locked.
        let landing = Landing { running: Arc::clone(&self.0), key: Some(key), tell };
        let work = work();
        tasks.spawn(async move { landing.land(work.await) });
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

    #[test]
    fn a_runtime_that_has_ended_leaves_no_flight_and_no_lock_behind() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime();
        let tasks = ended.block_on(async { Tasks::new(Arc::new(Meter::new())) });
        drop(ended);
        let flights = Flights::<u8, u32>::new();
        let other = runtime();
        for _ in 0..2 {
            assert_eq!(other.block_on(flights.join(1, &tasks, || async { 5 })), None);
        }
        let tasks = other.block_on(async { Tasks::new(Arc::new(Meter::new())) });
        assert_eq!(other.block_on(flights.join(1, &tasks, || async { 5 })), Some(5));
    }

    #[test]
    fn a_flight_is_made_on_the_runtime_of_its_tasks_whoever_asks() {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let tasks = own.block_on(async { Tasks::new(Arc::new(Meter::new())) });
        let flights = Flights::<u8, u32>::new();
        let (go, gone) = tokio::sync::oneshot::channel();
        let callers = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut landed = callers.block_on(async {
            flights.start(1, &tasks, || async { gone.await.unwrap_or_default() })
        });
        drop(callers);
        go.send(5).unwrap();
        let value = own.block_on(async { *landed.wait_for(Option::is_some).await.unwrap() });
        assert_eq!(value, Some(5));
    }
}
