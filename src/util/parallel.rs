//! Work on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Error, Result};

/// Runs `work` on all items with `jobs` threads; results in the items' order, the first error in that order wins.
pub fn parallel<T: Sync, R: Send>(items: &[T], jobs: usize, work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some((item, slot)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).zip(results.get(index))
                } {
                    let result = work(item);
                    let failed = result.is_err();
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                    if failed {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut collected = Vec::with_capacity(items.len());
    let mut missing = false;
    for slot in results {
        match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(result) => collected.push(result?),
            // Not begun, because another item failed: its error follows.
            None => missing = true,
        }
    }
    if missing { Err(Error::bug("an item was left undone without an error")) } else { Ok(collected) }
}
