//! Tells events to the webhooks that want them.

use std::sync::Arc;
use std::time::Instant;

use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::Webhook;
use super::merge::{Merged, Merger};
use super::post::Post;
use crate::telemetry::{Event, Inbox};

/// How many events wait at most for one webhook.
const ROOM: usize = 256;

/// Tells events until nobody can tell it any more.
pub struct Teller {
    /// The webhooks in force.
    pub wanted: Box<dyn Fn() -> Arc<[Webhook]> + Send + Sync>,
    /// Who we are, to the webhooks.
    pub gateway: Box<str>,
    /// Events told, by result.
    pub sent: IntCounterVec,
    /// Events that found no room.
    pub dropped: IntCounter,
}

/// One webhook and the task that tells it.
struct Told {
    webhook: Webhook,
    queue: Sender<Event>,
    task: JoinHandle<()>,
}

impl Teller {
    /// Tells what comes in. Looks again at who wants to know when something `changed`.
    pub async fn keep(self, changed: &Notify, mut inbox: Inbox) {
        let mut all = self.follow((self.wanted)(), Vec::new());
        loop {
            tokio::select! {
                // First whom to tell, then what: none is told of what comes after it was taken out.
                biased;
                () = changed.notified() => all = self.follow((self.wanted)(), all),
                event = inbox.recv() => match event {
                    Some(event) => self.spread(&event, &all),
                    None => return,
                },
            }
        }
    }

    /// Those who are told from now on: whoever is wanted as before keeps its task.
    fn follow(&self, wanted: Arc<[Webhook]>, mut before: Vec<Told>) -> Vec<Told> {
        let keep = |webhook: &Webhook| match before.iter().position(|told| told.webhook == *webhook) {
            Some(at) => before.swap_remove(at),
            None => self.start(webhook.clone()),
        };
        wanted.iter().map(keep).collect()
    }

    fn start(&self, webhook: Webhook) -> Told {
        let (queue, waiting) = channel(ROOM);
        let clerk = Clerk {
            webhook: webhook.clone(),
            gateway: self.gateway.clone(),
            sent: self.sent.clone(),
            ill: false,
        };
        Told { webhook, queue, task: tokio::spawn(clerk.run(waiting)) }
    }

    fn spread(&self, event: &Event, all: &[Told]) {
        for told in all.iter().filter(|told| told.webhook.wants(event.kind)) {
            if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = told.queue.try_send(event.clone()) {
                self.dropped.inc();
            }
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who tells one webhook.
struct Clerk {
    webhook: Webhook,
    gateway: Box<str>,
    sent: IntCounterVec,
    /// Whether it was not told the last time.
    ill: bool,
}

impl Clerk {
    async fn run(mut self, mut waiting: Receiver<Event>) {
        let (mut merger, mut post) = (Merger::default(), None);
        loop {
            let next = merger.next();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let ready = tokio::select! {
                event = waiting.recv() => match event {
                    Some(event) => merger.offer(event, Instant::now()).into_iter().collect(),
                    None => return,
                },
                () = due => merger.take(Instant::now()),
            };
            for merged in ready {
                self.tell(&mut post, &merged).await;
            }
        }
    }

    async fn tell(&mut self, post: &mut Option<Post>, merged: &Merged) {
        let outcome = match self.way(post) {
            Ok(post) => post.tell(&self.webhook, &self.gateway, merged).await,
            Err(message) => Err(message),
        };
        let result = if outcome.is_ok() { "success" } else { "failure" };
        if let Ok(counter) = self.sent.get_metric_with_label_values(&[result]) {
            counter.inc();
        }
        let was_ill = std::mem::replace(&mut self.ill, outcome.is_err());
        let place = self.webhook.place();
        match outcome {
            // Once an outage.
            Err(message) if !was_ill => log::warn!("a webhook at {place} cannot be told: {message}"),
            Err(message) => log::debug!("a webhook at {place} cannot be told: {message}"),
            Ok(()) if was_ill => log::info!("the webhook at {place} can be told again"),
            Ok(()) => {}
        }
    }

    /// The way there: made at the first event, and again when that came to nothing.
    fn way<'p>(&self, post: &'p mut Option<Post>) -> Result<&'p Post, String> {
        match post {
            Some(post) => Ok(post),
            None => Ok(post.insert(Post::new(&self.webhook)?)),
        }
    }
}
