//! Where routes are kept by path: the exact ones of all tables of hosts in one map, patterns in one tree of segments
//! with a root for each table.
//!
//! What a look-up costs is the places in memory that it visits. So the edges of all nodes are in one hash map, whatever
//! the number of children, short texts lie in place, and what every look-up in a table needs lies close together. A
//! walk goes level by level: it visits no node twice and ends when no node is left, so it makes no more steps than the
//! table's own tree has levels and nodes, however many segments the path has.

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use ahash::RandomState;
use hashbrown::{Equivalent, HashMap};
use smallvec::{Array, SmallVec};

use super::pattern::{PathPattern, PathSpec, Segment};

/// The place of a route in the router.
pub(super) type RouteId = u32;

/// The place of a table.
pub(super) type TableId = u32;

type NodeId = u32;

/// The routes of every table, by path. A table serves all hosts that have the same routes.
#[derive(Default)]
pub(super) struct Tree {
    tables: Vec<Table>,
    nodes: Vec<Node>,
    /// The children by literal segments.
    edges: HashMap<Under<[u8; 16]>, NodeId, RandomState>,
    /// The routes of exact paths by table.
    exact: HashMap<Under<[u8; 24]>, List, RandomState>,
    links: Vec<Link>,
}

struct Table {
    root: NodeId,
    has_exact: bool,
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

/// A segment under a node, or an exact path under a table; in place when it is as short as most.
#[derive(PartialEq, Eq)]
struct Under<A: Array<Item = u8>> {
    parent: u32,
    text: SmallVec<A>,
}

/// The same to look for.
#[derive(Hash)]
struct Wanted<'a> {
    parent: u32,
    text: &'a [u8],
}

impl<A: Array<Item = u8>> Hash for Under<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Wanted { parent: self.parent, text: &self.text }.hash(state);
    }
}

impl<A: Array<Item = u8>> Equivalent<Under<A>> for Wanted<'_> {
    fn equivalent(&self, known: &Under<A>) -> bool {
        self.parent == known.parent && *self.text == *known.text
    }
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
    /// Adds a table. When all tables come before all routes, their roots lie together.
    pub fn add_table(&mut self) -> TableId {
        let root = self.add_node();
        self.tables.push(Table { root, has_exact: false, regexes: List::default() });
        (self.tables.len() - 1) as TableId
    }

    /// Inserts a route. Of two with the same path, the better one comes later.
    pub fn insert(&mut self, table: TableId, path: &PathSpec, route: RouteId) {
        let place = self.links.len() as u32;
        let list = match path {
            PathSpec::Regex(_) => &mut self.tables[table as usize].regexes,
            PathSpec::Pattern(pattern) => match pattern.as_exact() {
                Some(exact) => {
                    self.tables[table as usize].has_exact = true;
                    let exact = Under { parent: table, text: exact.as_bytes().into() };
                    self.exact.entry(exact).or_default()
                }
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
        self.tables.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.edges.shrink_to_fit();
        self.exact.shrink_to_fit();
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
        let wanted = Wanted { parent: table, text: path.as_bytes() };
        let table = &self.tables[table as usize];
        if table.has_exact
            && let Some(list) = self.exact.get(&wanted)
        {
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
        let text = text.as_bytes();
        if let Some(child) = self.edges.get(&Wanted { parent, text }) {
            return *child;
        }
        let child = self.add_node();
        self.edges.insert(Under { parent, text: text.into() }, child);
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
        let mut children = Level::new();
        for &parent in parents {
            children.extend(self.edges.get(&Wanted { parent, text: segment.as_bytes() }).copied());
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
