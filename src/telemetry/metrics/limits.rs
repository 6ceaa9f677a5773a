//! How many keys limits know.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::proto::MetricType;

use super::collector::{Family, Samples, Series};

/// The families that limits have series in.
pub(super) const FAMILIES: &[Family] = &[Family {
    name: "limit_keys",
    help: "Clients that limits know now, those among them that have all of their rate again.",
    kind: MetricType::GAUGE,
    labels: &["owner", "filter"],
}];

/// The tables of the limits of one kind that stand in one place: they are asked when somebody wants to know.
pub struct LimitMetrics {
    owner: Box<str>,
    filter: &'static str,
    tables: Mutex<Vec<Table>>,
}

/// A table of any kind.
type Counts = dyn Any + Send + Sync;

struct Table {
    counts: Weak<Counts>,
    keys: Box<dyn Fn(&Counts) -> usize + Send + Sync>,
}

impl LimitMetrics {
    /// What tells it from others.
    pub(super) fn key(owner: &str, filter: &str) -> String {
        format!("{filter} {owner}")
    }

    pub(super) fn new(owner: &str, filter: &'static str) -> Self {
        Self { owner: owner.into(), filter, tables: Mutex::default() }
    }

    /// Has the keys of a table told for as long as somebody holds it.
    pub fn watch<C: Any + Send + Sync>(&self, counts: &Arc<C>, keys: fn(&C) -> usize) {
        let counts: Weak<C> = Arc::downgrade(counts);
        let counts: Weak<Counts> = counts;
        let mut tables = self.tables.lock();
        tables.retain(|table| table.counts.strong_count() > 0);
        if tables.iter().any(|table| Weak::ptr_eq(&table.counts, &counts)) {
            return;
        }
        let keys = Box::new(move |counts: &Counts| counts.downcast_ref().map_or(0, keys));
        tables.push(Table { counts, keys });
    }
}

impl Series for LimitMetrics {
    fn collect(&self, families: &mut [Samples]) {
        let tables = self.tables.lock();
        let keys = tables.iter().filter_map(|table| Some((table.keys)(&*table.counts.upgrade()?)));
        let keys = keys.fold(None, |sum: Option<usize>, keys| Some(sum.unwrap_or_default() + keys));
        if let ([family], Some(keys)) = (families, keys) {
            family.gauge(&[&self.owner, self.filter], i64::try_from(keys).unwrap_or(i64::MAX));
        }
    }
}

impl fmt::Debug for LimitMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitMetrics").field("owner", &self.owner).finish_non_exhaustive()
    }
}
