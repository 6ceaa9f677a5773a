//! What was found so far.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Discovery, DiscoveryError, DnsDiscovery, DnsQuery, DnsResolver};
use crate::telemetry::{EventKind, Events, Subject};
use crate::upstream::{EndpointSpec, Origin};

/// How long until a resolver that cannot be made is made again, and a watch that has ended is begun again.
const AGAIN: Duration = Duration::from_secs(10);

/// Where endpoints are looked for.
#[derive(Clone)]
pub enum Finder {
    /// In DNS.
    Dns {
        /// What is asked for.
        query: DnsQuery,
        /// Who is asked; the system's name servers when there is none.
        servers: Box<[SocketAddr]>,
    },
    /// By a discovery made in code.
    Custom {
        /// Its name.
        name: Box<str>,
        /// What finds them.
        discovery: Arc<dyn Discovery>,
    },
}

/// What was found so far. Its identity is the upstream and where its endpoints are looked for.
#[derive(Debug)]
pub struct Found {
    finder: Finder,
    told: watch::Sender<Told>,
}

#[derive(Debug, Clone, Default)]
struct Told {
    /// The last answer.
    specs: Option<Arc<[EndpointSpec]>>,
    /// Why there is none since.
    error: Option<Arc<str>>,
}

/// For people: `dns app.internal (port 8080) by 10.0.0.2:53`. Two that are told alike are alike.
impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (query, servers) = match self {
            Self::Custom { name, .. } => return write!(f, "custom {name}"),
            Self::Dns { query, servers } => (query, servers),
        };
        write!(f, "dns {query}")?;
        for (at, server) in servers.iter().enumerate() {
            write!(f, "{} {server}", if at == 0 { " by" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Finder {
    fn discovery(&self) -> Result<Arc<dyn Discovery>, DiscoveryError> {
        let (query, servers) = match self {
            Self::Custom { discovery, .. } => return Ok(Arc::clone(discovery)),
            Self::Dns { query, servers } => (query, servers),
        };
        let resolver = match &**servers {
            [] => DnsResolver::system(),
            servers => DnsResolver::new(servers),
        };
        Ok(Arc::new(DnsDiscovery::new(resolver?, query.clone())))
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Dns { .. } => Origin::Dns,
            Self::Custom { .. } => Origin::Custom,
        }
    }
}

impl Found {
    /// Nothing so far.
    pub fn new(finder: Finder) -> Self {
        Self { finder, told: watch::Sender::default() }
    }

    /// Where endpoints are looked for.
    pub fn finder(&self) -> &Finder {
        &self.finder
    }

    /// The last answer, if there was one.
    pub fn specs(&self) -> Option<Arc<[EndpointSpec]>> {
        self.told.borrow().specs.clone()
    }

    /// Why there is no answer at the moment.
    pub fn error(&self) -> Option<Arc<str>> {
        self.told.borrow().error.clone()
    }

    /// Waits until there was a first answer, or none could be had.
    pub async fn told(&self) {
        let mut told = self.told.subscribe();
        // The sender is here.
        let _ = told.wait_for(|told| told.specs.is_some() || told.error.is_some()).await;
    }

    /// Looks for endpoints, and again whenever an answer is over, without an end; `news` is called for every new answer.
    pub async fn follow(&self, upstream: &Arc<str>, events: &Events, news: impl Fn()) {
        let subject = || Subject { upstream: Some(Arc::clone(upstream)), ..Subject::default() };
        let failed = |error: &DiscoveryError| {
            let (first, message) = self.failed(upstream, error);
            match first {
                true => {
                    events.tell(EventKind::DiscoveryFailed, subject(), error, format_args!("{message}"));
                }
                false => log::debug!("{message}"),
            }
        };
        loop {
            match self.finder.discovery() {
                Ok(discovery) => {
                    let mut watch = discovery.watch();
                    while let Some(told) = watch.next().await {
                        match told {
                            Ok(specs) if specs.is_empty() => {
                                let name = self.finder.to_string().into();
                                failed(&DiscoveryError::NotFound { name });
                            }
                            Ok(specs) => {
                                let (again, count) = (self.error().is_some(), specs.len());
                                self.answered(upstream, specs);
                                if again {
                                    events.tell(
                                        EventKind::DiscoveryRecovered,
                                        subject(),
                                        &format_args!("{count} endpoints are found"),
                                        format_args!("upstream {upstream}: endpoints are found again"),
                                    );
                                }
                                news();
                            }
                            Err(error) => failed(&error),
                        }
                    }
                }
                Err(error) => failed(&error),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    pub(in crate::upstream) fn answered(&self, upstream: &str, mut specs: Vec<EndpointSpec>) {
        let mut known = HashSet::new();
        specs.retain(|spec| known.insert(spec.address));
        specs.iter_mut().for_each(|spec| spec.origin = self.finder.origin());
        log::info!("upstream {upstream}: {} endpoints are found by {}", specs.len(), self.finder);
        self.told.send_replace(Told { specs: Some(specs.into()), error: None });
    }

    /// The last answer holds. Says whether it is the first failure in a row, and what to say of it.
    fn failed(&self, upstream: &str, error: &DiscoveryError) -> (bool, String) {
        let mut first = false;
        let error: Arc<str> = error.to_string().into();
        self.told.send_modify(|told| {
            first = told.error.is_none();
            told.error = Some(Arc::clone(&error));
        });
        let known = match self.specs() {
            None => "nothing was found so far".to_owned(),
            Some(specs) => format!("what was found stays ({} endpoints)", specs.len()),
        };
        (first, format!("upstream {upstream}: {error}; {known}"))
    }
}
