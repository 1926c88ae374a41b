//! Small numbers for fields and paths, so that what is known of one during a match is an entry in an array.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;

pub const NONE: u32 = u32::MAX;

/// Gives the lowest number that is free; a number comes back when its owner is gone.
pub struct Ids(Mutex<(u32, Vec<u32>)>);

pub static FIELDS: Ids = Ids::new();
static PATHS: Ids = Ids::new();
static KNOWN: Mutex<Option<FxHashMap<Box<str>, Weak<Path>>>> = Mutex::new(None);

impl Ids {
    const fn new() -> Self {
        Ids(Mutex::new((0, Vec::new())))
    }

    pub fn take(&self) -> u32 {
        let mut state = locked(&self.0);
        state.1.pop().unwrap_or_else(|| {
            state.0 += 1;
            state.0 - 1
        })
    }

    pub fn give_back(&self, id: u32) {
        locked(&self.0).1.push(id);
    }

    /// One more than the highest number ever given.
    pub fn bound(&self) -> usize {
        locked(&self.0).0 as usize
    }
}

/// What a panic elsewhere left behind is still whole: every change here is one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A dotted path; one object for each text that is in use.
pub struct Path {
    pub id: u32,
    pub text: Box<str>,
}

impl Path {
    pub fn of(text: &str) -> Arc<Path> {
        let mut known = locked(&KNOWN);
        let known = known.get_or_insert_default();
        if let Some(path) = known.get(text).and_then(Weak::upgrade) {
            return path;
        }
        let path = Arc::new(Path { id: PATHS.take(), text: text.into() });
        known.insert(text.into(), Arc::downgrade(&path));
        path
    }

    pub fn bound() -> usize {
        PATHS.bound()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let mut known = locked(&KNOWN);
        if let Some(known) = known.as_mut()
            && known.get(&self.text).is_some_and(|weak| weak.strong_count() == 0)
        {
            known.remove(&self.text);
        }
        PATHS.give_back(self.id);
    }
}
