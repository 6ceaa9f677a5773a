//! Where routes are kept by path: the exact ones in a map for each table of hosts, patterns in one tree of segments
//! with a root for each table.
//!
//! Texts of segments are interned, so that an edge of the tree is a pair of numbers in one hash map, whatever the
//! number of children. A walk goes level by level: it visits no node twice and ends when no node is left, so its cost
//! is bounded by the depth and size of the table's own tree, never by the length of the path.

use std::ops::ControlFlow;

use ahash::HashMap;
use smallvec::SmallVec;

use super::pattern::{PathPattern, PathSpec, Segment};

/// The place of a route in the router.
pub(super) type RouteId = u32;

/// The place of a table.
pub(super) type TableId = u32;

type NodeId = u32;
type Symbol = u32;

/// The routes of every table, by path. A table serves all hosts that have the same routes.
#[derive(Default)]
pub(super) struct Tree {
    tables: Vec<Table>,
    nodes: Vec<Node>,
    /// The children by literal segments.
    edges: HashMap<(NodeId, Symbol), NodeId>,
    symbols: HashMap<Box<str>, Symbol>,
    links: Vec<Link>,
}

struct Table {
    exact: HashMap<Box<str>, List>,
    root: NodeId,
    regexes: List,
}

#[derive(Default)]
struct Node {
    /// The child by a captured segment.
    capture: Option<NodeId>,
    /// Routes whose pattern ends here.
    ends: List,
    /// Routes whose pattern goes on with any segments.
    tails: List,
}

/// Routes, best first. Most lists have one route, which is looked up nowhere else.
#[derive(Default, Clone, Copy)]
enum List {
    #[default]
    Empty,
    One(RouteId),
    /// The place of the first link.
    Linked(u32),
}

/// A route in a list, and those after it.
struct Link {
    route: RouteId,
    next: List,
}

impl Tree {
    pub fn add_table(&mut self) -> TableId {
        let root = self.add_node();
        self.tables.push(Table { exact: HashMap::default(), root, regexes: List::default() });
        (self.tables.len() - 1) as TableId
    }

    /// Inserts a route. Of two with the same path, the better one comes later.
    pub fn insert(&mut self, table: TableId, path: &PathSpec, route: RouteId) {
        let place = self.links.len() as u32;
        let list = match path {
            PathSpec::Regex(_) => &mut self.tables[table as usize].regexes,
            PathSpec::Pattern(pattern) => match pattern.as_exact() {
                Some(exact) => self.tables[table as usize].exact.entry(exact.into()).or_default(),
                None => self.pattern_list(table, pattern),
            },
        };
        let next = *list;
        if let List::Empty = next {
            *list = List::One(route);
        } else {
            *list = List::Linked(place);
            self.links.push(Link { route, next });
        }
    }

    /// Gives back the memory that was taken for growth.
    pub fn shrink(&mut self) {
        self.tables.iter_mut().for_each(|table| table.exact.shrink_to_fit());
        self.tables.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.edges.shrink_to_fit();
        self.symbols.shrink_to_fit();
        self.links.shrink_to_fit();
    }

    /// Shows `visit` the routes of a table whose path matches, best first, until it breaks. Of regexes, all are
    /// shown: only the visitor can tell whether they match.
    pub fn visit<B>(
        &self,
        table: TableId,
        path: &str,
        mut visit: impl FnMut(RouteId) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let table = &self.tables[table as usize];
        if let Some(list) = table.exact.get(path) {
            self.routes(*list).try_for_each(&mut visit)?;
        }
        let walk = self.walk(table.root, path);
        for node in walk.ends {
            self.routes(self.node(node).ends).try_for_each(&mut visit)?;
        }
        // Deepest first; within a level the walk's order, literals before captures.
        for level in walk.tails.chunk_by(|left, right| left.depth == right.depth).rev() {
            for tail in level {
                self.routes(self.node(tail.node).tails).try_for_each(&mut visit)?;
            }
        }
        self.routes(table.regexes).try_for_each(visit)
    }

    fn pattern_list(&mut self, table: TableId, pattern: &PathPattern) -> &mut List {
        let mut node = self.tables[table as usize].root;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => self.literal_child(node, text),
                Segment::Capture(_) => self.capture_child(node),
            };
        }
        let node = &mut self.nodes[node as usize];
        if pattern.tail.is_some() { &mut node.tails } else { &mut node.ends }
    }

    fn literal_child(&mut self, parent: NodeId, text: &str) -> NodeId {
        let next_symbol = self.symbols.len() as Symbol;
        let symbol = match self.symbols.get(text) {
            Some(symbol) => *symbol,
            None => *self.symbols.entry(text.into()).or_insert(next_symbol),
        };
        if let Some(child) = self.edges.get(&(parent, symbol)) {
            return *child;
        }
        let child = self.add_node();
        self.edges.insert((parent, symbol), child);
        child
    }

    fn capture_child(&mut self, parent: NodeId) -> NodeId {
        if let Some(child) = self.node(parent).capture {
            return child;
        }
        let child = self.add_node();
        self.nodes[parent as usize].capture = Some(child);
        child
    }

    fn add_node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        (self.nodes.len() - 1) as NodeId
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn routes(&self, list: List) -> impl Iterator<Item = RouteId> {
        let mut rest = list;
        std::iter::from_fn(move || {
            let (route, next) = match rest {
                List::Empty => return None,
                List::One(route) => (route, List::Empty),
                List::Linked(place) => {
                    let link = &self.links[place as usize];
                    (link.route, link.next)
                }
            };
            rest = next;
            Some(route)
        })
    }

    fn walk(&self, root: NodeId, path: &str) -> Walk {
        let mut walk = Walk { ends: SmallVec::from_slice(&[root]), tails: SmallVec::new() };
        self.note_tails(&mut walk, 0);
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        for (depth, segment) in segments.enumerate() {
            walk.ends = self.children(&walk.ends, segment);
            if walk.ends.is_empty() {
                break;
            }
            self.note_tails(&mut walk, depth + 1);
        }
        walk
    }

    fn children(&self, parents: &[NodeId], segment: &str) -> Level {
        let symbol = self.symbols.get(segment);
        let mut children = Level::new();
        for &parent in parents {
            children.extend(symbol.and_then(|symbol| self.edges.get(&(parent, *symbol))).copied());
            // A capture is never empty.
            children.extend(self.node(parent).capture.filter(|_| !segment.is_empty()));
        }
        children
    }

    fn note_tails(&self, walk: &mut Walk, depth: usize) {
        let with_tails = walk.ends.iter().filter(|node| !matches!(self.node(**node).tails, List::Empty));
        walk.tails.extend(with_tails.map(|&node| TailAt { depth, node }));
    }
}

/// The nodes that a path reaches by one number of segments, literals before captures, leftmost first.
type Level = SmallVec<[NodeId; 8]>;

struct Walk {
    /// The nodes that the whole path reaches; on the way, those that its first segments do.
    ends: Level,
    /// The nodes with tails on the way, level by level.
    tails: SmallVec<[TailAt; 4]>,
}

struct TailAt {
    depth: usize,
    node: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(patterns: &[&str]) -> Tree {
        let mut tree = Tree::default();
        let table = tree.add_table();
        for (route, pattern) in patterns.iter().enumerate().rev() {
            let path = PathSpec::Pattern(PathPattern::parse(pattern).unwrap());
            tree.insert(table, &path, route as RouteId);
        }
        tree.shrink();
        tree
    }

    fn order<'a>(tree: &Tree, patterns: &[&'a str], path: &str) -> Vec<&'a str> {
        let mut seen = Vec::new();
        let _ = tree.visit(0, path, |route| {
            seen.push(patterns[route as usize]);
            ControlFlow::<()>::Continue(())
        });
        seen
    }

    #[test]
    fn candidates_come_best_first() {
        let patterns = [
            "/*",
            "/a/*",
            "/{x}/*",
            "/a/{x}/c/*",
            "/a/b/*",
            "/{x}/{y}",
            "/{x}/b",
            "/a/{y}",
            "/a/b",
            "/{r*}",
            "/a/b/",
        ];
        let tree = tree(&patterns);
        let all = ["/a/b", "/a/{y}", "/{x}/b", "/{x}/{y}", "/a/b/*", "/a/*", "/{x}/*", "/*", "/{r*}"];
        assert_eq!(order(&tree, &patterns, "/a/b"), all);
        assert_eq!(order(&tree, &patterns, "/a/b/"), ["/a/b/", "/a/b/*", "/a/*", "/{x}/*", "/*", "/{r*}"]);
        assert_eq!(order(&tree, &patterns, "/a/z/c/d"), ["/a/{x}/c/*", "/a/*", "/{x}/*", "/*", "/{r*}"]);
        assert_eq!(order(&tree, &patterns, "/a/"), ["/a/*", "/{x}/*", "/*", "/{r*}"]);
        assert_eq!(order(&tree, &patterns, "/ab"), ["/{x}/*", "/*", "/{r*}"]);
        assert_eq!(order(&tree, &patterns, "/"), ["/*", "/{r*}"]);
    }

    #[test]
    fn the_visitor_ends_the_visit() {
        let tree = tree(&["/a", "/{x}", "/*"]);
        let mut visits = 0;
        let found = tree.visit(0, "/a", |route| {
            visits += 1;
            if route == 1 { ControlFlow::Break(route) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((found, visits), (ControlFlow::Break(1), 2));
    }

    /// Every choice of `a` or a capture at each of ten levels, and none of them fits in the end.
    #[test]
    fn an_adversarial_tree_visits_each_node_once_at_most() {
        let choices = (0..1_u32 << 10).map(|bits| {
            let segments = (0..10)
                .map(|level| if bits >> level & 1 == 0 { "/a".to_owned() } else { format!("/{{c{level}}}") });
            segments.collect::<String>() + "/end"
        });
        let patterns: Vec<String> = choices.collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let tree = tree(&patterns);
        let path = "/a".repeat(4096);

        let mut level = Level::from_slice(&[0]);
        let (mut visited, mut depth) = (0, 0);
        for segment in path[1..].split('/') {
            level = tree.children(&level, segment);
            if level.is_empty() {
                break;
            }
            visited += level.len();
            depth += 1;
        }
        assert_eq!(depth, 10, "the walk ends where the tree does");
        assert!(visited < tree.nodes.len());
        assert!(order(&tree, &patterns, &path).is_empty());
        assert_eq!(order(&tree, &patterns, &("/a".repeat(10) + "/end")).len(), 1 << 10);
    }

    #[test]
    fn a_long_path_over_prefixes_visits_only_the_prefixes() {
        let patterns = ["/*", "/a/*", "/a/{x}/*", "/{x}/{y}/{z}/{t*}"];
        let tree = tree(&patterns);
        let reversed = ["/{x}/{y}/{z}/{t*}", "/a/{x}/*", "/a/*", "/*"];
        assert_eq!(order(&tree, &patterns, &"/a".repeat(4096)), reversed);
    }
}
