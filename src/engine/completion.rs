//! Tells the callers of one batch what became of it.
//!
//! One completion stands for a whole batch. Async callers leave a waker, blocking callers sleep on
//! it by polling with a waker of their thread. A caller that goes away takes nothing with it.

use crate::error::Poison;
use crate::sync::lock;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// What became of a batch.
pub(crate) type Fate = Result<(), Arc<Poison>>;

/// Shared by the callers of a batch and by whoever writes it.
#[derive(Debug, Default)]
pub(crate) struct Completion(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fate: Option<Fate>,
    wakers: Vec<Waker>,
}

impl Completion {
    /// Says what became of the batch and wakes everyone; the first word stands.
    pub(crate) fn complete(&self, fate: Fate) {
        let wakers = {
            let mut inner = lock(&self.0);
            inner.fate.get_or_insert(fate);
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Waits for a batch.
///
/// # Cancel safety
/// Dropping it changes nothing: the batch is written all the same.
#[derive(Debug)]
pub(crate) struct Durable {
    completion: Arc<Completion>,
    /// Which of the completion's wakers is ours, once we were polled.
    slot: Option<usize>,
}

impl Durable {
    pub(crate) fn new(completion: Arc<Completion>) -> Self {
        Self { completion, slot: None }
    }

    /// Says whether it is known what became of the batch.
    pub(crate) fn is_known(&self) -> bool {
        lock(&self.completion.0).fate.is_some()
    }
}

impl Future for Durable {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fate> {
        let completion = Arc::clone(&self.completion);
        let mut inner = lock(&completion.0);
        if let Some(fate) = &inner.fate {
            return Poll::Ready(fate.clone());
        }
        match self.slot.and_then(|slot| inner.wakers.get_mut(slot)) {
            Some(ours) => ours.clone_from(context.waker()),
            None => {
                self.slot = Some(inner.wakers.len());
                inner.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Runs a future on this thread, for callers without a runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may start threads")]
mod tests {
    use super::*;

    #[test]
    fn everyone_hears_the_first_word() {
        let completion = Arc::new(Completion::default());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let waiter = Durable::new(Arc::clone(&completion));
                std::thread::spawn(move || block_on(waiter))
            })
            .collect();
        completion.complete(Ok(()));
        completion.complete(Err(Arc::new(Poison {
            file: String::new(),
            doing: "a test",
            kind: std::io::ErrorKind::Other,
            errno: None,
        })));
        for waiter in waiters {
            assert!(waiter.join().expect("the waiter returned").is_ok());
        }
    }
}
