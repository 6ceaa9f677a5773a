//! What the passes of a decoding have learnt about its tree, which itself stays as it is.

use std::cell::RefCell;
use std::collections::HashMap;

use super::fault::Address;
use super::node::Node;

/// Lists and maps above this size are not decoded again up to where an earlier pass came.
const LARGE: usize = 64;

/// What to leave out and where to go on. The first pass runs with an empty one.
#[derive(Default)]
pub(super) struct Pass {
    /// Values to leave out, each with the key that its map will now seem to miss, if that is not its own.
    pruned: HashMap<Address, Option<String>>,
    /// How many items of a large list or map are known to be right.
    right: RefCell<HashMap<Address, usize>>,
}

impl Pass {
    /// Leaves out a value from now on; `meant` is what its key was probably meant to be. False if it was left out
    /// before.
    pub(super) fn prune(&mut self, culprit: Address, meant: Option<String>) -> bool {
        self.pruned.insert(culprit, meant).is_none()
    }

    /// Whether the value is left out.
    pub(super) fn omits(&self, node: &Node) -> bool {
        !self.pruned.is_empty() && self.pruned.contains_key(&std::ptr::from_ref(node))
    }

    /// Whether anything below this node is left out.
    pub(super) fn reaches_into(&self, node: &Node) -> bool {
        let touched = |node: &Node| self.omits(node) || self.reaches_into(node);
        !self.pruned.is_empty()
            && (node.items().iter().any(touched) || node.entries().iter().any(|(_, value)| touched(value)))
    }

    /// Whether the map has the key, or one that was meant to be it, but its value is left out.
    pub(super) fn omits_key(&self, map: &Node, key: &str) -> bool {
        let is_it = |text: &str, value: &Node| match self.pruned.get(&std::ptr::from_ref(value)) {
            Some(meant) => text == key || meant.as_deref() == Some(key),
            None => false,
        };
        map.entries().iter().any(|(k, value)| is_it(&k.text, value))
    }

    /// Where to begin in a list or map. While nothing is left out, what is decoded may be used, so all of it counts.
    pub(super) fn start(&self, container: &Node, length: usize) -> usize {
        if length <= LARGE || self.pruned.is_empty() {
            return 0;
        }
        self.right.borrow().get(&std::ptr::from_ref(container)).copied().unwrap_or(0)
    }

    /// Notes that a list or map is right up to an index.
    pub(super) fn came_to(&self, container: &Node, length: usize, index: usize) {
        if length > LARGE {
            self.right.borrow_mut().insert(container, index);
        }
    }
}
