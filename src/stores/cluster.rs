//! A cluster: which of its servers has a key is learned from those who do not have it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use redis::{Arg, Cmd, FromRedisValue};
use tokio::time::Instant;

use super::error::Error;
use super::node::{Elsewhere, Node};
use super::trust::{Advice, Trust};

/// What URLs of clusters have behind `redis+`.
pub(super) const KIND: &str = "cluster";
/// How such a URL is written.
pub(super) const FORM: &str = "write `redis+cluster://HOST:PORT,HOST:PORT` (with TLS `rediss+cluster://`) with some of its \
                               servers, and `USER:PASSWORD@` before them where it is needed";

/// How often a command is sent on.
const REDIRECTS: usize = 4;
/// How many slots there are.
const SLOTS: u16 = 16_384;

/// Who has what, as far as that is known.
pub(super) struct Cluster {
    known: RwLock<Known>,
    began: Instant,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<Box<str>, Arc<Node>>,
    slots: HashMap<u16, Arc<Node>>,
    /// Which of them are worth asking, those among them that were forgotten.
    trusts: HashMap<Box<str>, Arc<Trust>>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { known: RwLock::default(), began: Instant::now() }
    }
}

impl Cluster {
    /// Sends a command to whoever has its key. `any` is asked who that is.
    pub(super) async fn ask<T: FromRedisValue>(
        self: &Arc<Self>,
        any: &Arc<Node>,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, Error> {
        let by = Instant::now() + patience;
        let owner = key(command).and_then(|key| self.known.read().slots.get(&slot(key)).cloned());
        // Of one that is left alone, others may have taken over what it had.
        let owner = owner.filter(|owner| self.may_ask(owner, patience));
        let guide = || self.guide(any, patience).ok_or_else(|| left_alone(any));
        let mut node = owner.map_or_else(guide, Ok)?;
        let mut sent_on = false;
        let mut redirects = 0;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let failure = match node.ask(command, left, sent_on).await {
                Ok(answer) => {
                    self.answers(&node);
                    return Ok(answer);
                }
                Err(failure) if is_silent(&failure.error) => {
                    self.fails(&node, &failure.error);
                    return Err(failure.error);
                }
                Err(failure) => failure,
            };
            self.answers(&node);
            redirects += 1;
            let elsewhere = failure.elsewhere.filter(|_| redirects <= REDIRECTS);
            let Some(elsewhere) = elsewhere else { return Err(failure.error) };
            sent_on = elsewhere.once;
            let Some(next) = self.follow(any, &elsewhere) else { return Err(failure.error) };
            if !self.may_ask(&next, patience) {
                return Err(left_alone(&next));
            }
            node = next;
        }
    }

    /// Whoever says where a key is.
    fn guide(self: &Arc<Self>, any: &Arc<Node>, patience: Duration) -> Option<Arc<Node>> {
        if self.may_ask(any, patience) {
            return Some(Arc::clone(any));
        }
        let nodes: Vec<_> = self.known.read().nodes.values().cloned().collect();
        nodes.into_iter().find(|node| self.may_ask(node, patience))
    }

    /// Who has it instead.
    fn follow(&self, any: &Arc<Node>, elsewhere: &Elsewhere) -> Option<Arc<Node>> {
        let mut known = self.known.write();
        let node = match known.nodes.get(&elsewhere.place) {
            Some(node) => Arc::clone(node),
            None => {
                let node = Arc::new(Node::new(any.server().at(&elsewhere.place)?));
                known.nodes.insert(elsewhere.place.clone(), Arc::clone(&node));
                node
            }
        };
        if !elsewhere.once {
            known.slots.insert(elsewhere.slot, Arc::clone(&node));
        }
        Some(node)
    }

    /// Whether it is not left alone. Where it is time to, it is tried.
    fn may_ask(self: &Arc<Self>, node: &Arc<Node>, patience: Duration) -> bool {
        match self.trust(node).advise(self.now()) {
            Advice::Ask => true,
            Advice::Leave => false,
            Advice::Try => {
                let (cluster, node) = (Arc::clone(self), Arc::clone(node));
                tokio::spawn(async move {
                    match node.ask::<String>(&redis::cmd("PING"), patience, false).await {
                        Err(failure) if is_silent(&failure.error) => {
                            cluster.trust(&node).tried_in_vain(cluster.now());
                        }
                        // Whatever it says, it is there.
                        Ok(_) | Err(_) => cluster.answers(&node),
                    }
                });
                false
            }
        }
    }

    fn answers(&self, node: &Node) {
        if self.trust(node).succeeded() {
            log::info!("stores: {} answers again", node.server().place);
        }
    }

    fn fails(&self, node: &Arc<Node>, error: &Error) {
        if self.trust(node).failed(self.now()) {
            log::warn!("stores: {error}: what it has is not asked for until it answers again");
        }
        // It may have lost what it had to another.
        let mut known = self.known.write();
        known.slots.retain(|_, known| !Arc::ptr_eq(known, node));
        known.nodes.retain(|_, known| !Arc::ptr_eq(known, node));
    }

    fn trust(&self, node: &Node) -> Arc<Trust> {
        let place = &node.server().place;
        if let Some(trust) = self.known.read().trusts.get(place) {
            return Arc::clone(trust);
        }
        Arc::clone(self.known.write().trusts.entry(place.clone()).or_default())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn is_silent(error: &Error) -> bool {
    matches!(error, Error::Timeout { .. } | Error::Unreachable { .. })
}

fn left_alone(node: &Node) -> Error {
    let message = "it is left alone until it answers again".to_owned();
    Error::Unreachable { place: node.server().place.clone(), message }
}

/// The first key of a command.
fn key(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    match words.next()? {
        // The script, and how many keys there are.
        b"EVAL" | b"EVALSHA" => words.nth(2),
        _ => words.next(),
    }
}

/// The slot that a key is in, by the part in braces where there is one.
fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let from = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key.get(from..)?.iter().position(|byte| *byte == b'}')?;
        key.get(from..from + length).filter(|tag| !tag.is_empty())
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC-16 as XMODEM has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let mut crc = crc ^ u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"a{foo}b{bar}"), 12182);
        assert_eq!(slot(b"{}foo"), crc16(b"{}foo") % SLOTS);
        assert_eq!(slot(b"{foo"), crc16(b"{foo") % SLOTS);
    }

    #[test]
    fn a_command_is_sent_by_its_first_key() {
        let mut script = redis::cmd("EVALSHA");
        script.arg("hash").arg(2).arg(&["one", "two"]).arg("more");
        assert_eq!(key(&script), Some(&b"one"[..]));
        let mut get = redis::cmd("GET");
        get.arg("one");
        assert_eq!(key(&get), Some(&b"one"[..]));
        assert_eq!(key(&redis::cmd("PING")), None);
    }
}
