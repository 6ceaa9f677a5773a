//! Values shared by name, for as long as anyone holds them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Names of values that someone may still hold.
#[derive(Debug)]
pub(super) struct Adopted<V>(Mutex<Table<V>>);

#[derive(Debug)]
struct Table<V> {
    values: HashMap<Arc<str>, Weak<V>>,
    /// The number of entries at which the dead ones are swept out.
    sweep_at: usize,
}

const LEAST_SWEEP: usize = 64;

impl<V> Default for Adopted<V> {
    fn default() -> Self {
        Self(Mutex::new(Table { values: HashMap::new(), sweep_at: LEAST_SWEEP }))
    }
}

impl<V> Adopted<V> {
    /// The value of that name that someone holds, or one made now.
    pub(super) fn adopt(&self, name: &str, make: impl FnOnce(Arc<str>) -> V) -> Arc<V> {
        let mut table = self.0.lock();
        if let Some(value) = table.values.get(name).and_then(Weak::upgrade) {
            return value;
        }
        if table.values.len() >= table.sweep_at {
            table.sweep();
        }
        let name: Arc<str> = name.into();
        let value = Arc::new(make(Arc::clone(&name)));
        table.values.insert(name, Arc::downgrade(&value));
        value
    }

    /// Every value that someone holds.
    pub(super) fn living(&self) -> Vec<Arc<V>> {
        let mut table = self.0.lock();
        table.sweep();
        table.values.values().filter_map(Weak::upgrade).collect()
    }
}

impl<V> Table<V> {
    /// Forgets the dead, and plans the next sweep so that adopting stays cheap on average.
    fn sweep(&mut self) {
        self.values.retain(|_, value| value.strong_count() > 0);
        self.sweep_at = (2 * self.values.len()).max(LEAST_SWEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shared_while_it_is_held() {
        let adopted = Adopted::default();
        let first = adopted.adopt("a", |_| 1);
        assert_eq!(*adopted.adopt("a", |_| 2), 1);
        drop(first);
        assert_eq!(*adopted.adopt("a", |_| 3), 3);
    }

    #[test]
    fn names_do_not_pile_up() {
        let adopted = Adopted::default();
        let held = adopted.adopt("held", |_| 0);
        for number in 0..10_000 {
            adopted.adopt(&number.to_string(), |_| number);
        }
        assert!(adopted.0.lock().values.len() <= LEAST_SWEEP + 1);
        assert_eq!(adopted.living(), [held]);
        assert_eq!(adopted.0.lock().values.len(), 1);
    }
}
