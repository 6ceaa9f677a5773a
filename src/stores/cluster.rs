//! A cluster: which of its servers has a key is learned from those who do not have it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use redis::{Arg, Cmd, FromRedisValue};
use tokio::time::Instant;

use super::error::Error;
use super::node::{Elsewhere, Node};

/// What URLs of clusters begin with.
pub(super) const SCHEME: &str = "redis+cluster://";
/// How such a URL is written.
pub(super) const FORM: &str = "write `redis+cluster://HOST:PORT,HOST:PORT` with some of its servers, and `USER:PASSWORD@` \
                               before them where it is needed";

/// How often a command is sent on.
const REDIRECTS: usize = 4;
/// How many slots there are.
const SLOTS: u16 = 16_384;

/// Who has what, as far as that is known.
#[derive(Default)]
pub(super) struct Cluster(RwLock<Known>);

#[derive(Default)]
struct Known {
    nodes: HashMap<Box<str>, Arc<Node>>,
    slots: HashMap<u16, Arc<Node>>,
}

impl Cluster {
    /// Sends a command to whoever has its key. `any` is asked who that is.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        any: &Arc<Node>,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, Error> {
        let by = Instant::now() + patience;
        let known = key(command).and_then(|key| self.0.read().slots.get(&slot(key)).cloned());
        let mut node = known.unwrap_or_else(|| Arc::clone(any));
        let mut sent_on = false;
        let mut redirects = 0;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let failure = match node.ask(command, left, sent_on).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            redirects += 1;
            match failure.elsewhere {
                Some(elsewhere) if redirects <= REDIRECTS => {
                    sent_on = elsewhere.once;
                    let Some(next) = self.follow(any, &elsewhere) else { return Err(failure.error) };
                    node = next;
                }
                _ => {
                    if matches!(failure.error, Error::Timeout { .. } | Error::Unreachable { .. }) {
                        self.forget(&node);
                    }
                    return Err(failure.error);
                }
            }
        }
    }

    /// Who has it instead.
    fn follow(&self, any: &Arc<Node>, elsewhere: &Elsewhere) -> Option<Arc<Node>> {
        let mut known = self.0.write();
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

    /// One that does not answer may have lost what it had to another.
    fn forget(&self, node: &Arc<Node>) {
        let mut known = self.0.write();
        known.slots.retain(|_, known| !Arc::ptr_eq(known, node));
        known.nodes.retain(|_, known| !Arc::ptr_eq(known, node));
    }
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
