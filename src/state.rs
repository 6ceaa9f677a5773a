//! What outlives a snapshot.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

type Held = Weak<dyn Any + Send + Sync>;

/// Values that are carried from one snapshot to the next by what they mean.
///
/// A new snapshot adopts before the old one drops, so counters, loads and limiters go on over a reload; what no
/// snapshot holds any more disappears.
#[derive(Default)]
pub struct State {
    held: Mutex<HashMap<(TypeId, String), Held>>,
}

impl State {
    /// The value of this type and key: the one in use, or a new one by `make`.
    pub fn adopt<V: Send + Sync + 'static>(
        &self,
        key: impl Into<String>,
        make: impl FnOnce() -> V,
    ) -> Arc<V> {
        let key = (TypeId::of::<V>(), key.into());
        let mut held = self.held.lock();
        if let Some(value) = held.get(&key).and_then(Weak::upgrade).and_then(|any| any.downcast::<V>().ok()) {
            return value;
        }
        let value = Arc::new(make());
        let weak: Weak<V> = Arc::downgrade(&value);
        held.insert(key, weak);
        value
    }

    /// Forgets the keys whose values nobody holds. Called whenever a snapshot or a candidate for one is gone.
    pub fn sweep(&self) {
        self.held.lock().retain(|_, value| value.strong_count() > 0);
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lives_as_long_as_someone_holds_it() {
        let state = State::default();
        let first = state.adopt("a", || 1u32);
        assert!(Arc::ptr_eq(&first, &state.adopt("a", || 2u32)));
        assert_eq!(*state.adopt("a", || "another type"), "another type");
        drop(first);
        assert_eq!(*state.adopt("a", || 3u32), 3);
        state.sweep();
        assert!(state.is_empty());
    }
}
