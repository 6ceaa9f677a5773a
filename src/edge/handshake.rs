//! The handshake, before a connection has anything to do with HTTP.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use pingora::apps::HttpServerApp;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;

use super::connection::Connection;
use super::http2;
use super::serve::{Edge, linger};
use super::socket::Socket;
use super::transport::{Ends, Transport};
use super::wire::{Ended, Patience, Wire};
use crate::acme::{ACME_TLS, Proofs};
use crate::snapshot::ListenerPolicy;
use crate::tls::{Failure, ServerPolicy, Session};

/// The type of a TLS record that a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// How many bytes may wait, encrypted, for a client that does not read.
const UNSENT: usize = 32 << 10;

/// What came of a client's greeting.
pub(super) enum Greeting {
    /// An encrypted connection.
    Encrypted(Socket, Arc<Session>),
    /// An authority has its answer; nothing follows.
    Proved,
    /// Nothing: why, and the socket where there is someone at the other end.
    Failed(Failure, Option<Transport>),
    /// The gateway drains, and nothing had come.
    Nothing,
}

/// Greets a client, which has until `by`. `draining` ends the wait for its first byte. `proofs` answer authorities.
pub(super) async fn greet(
    socket: Transport,
    policy: &Arc<ServerPolicy>,
    proofs: Option<&Proofs>,
    by: Instant,
    draining: impl Future<Output = ()>,
) -> Greeting {
    match tokio::time::timeout_at(by.into(), first_byte(&socket, draining)).await {
        Err(_) => Greeting::Failed(Failure::Timeout, None),
        Ok(None) => Greeting::Nothing,
        Ok(Some(Err(_))) => Greeting::Failed(Failure::ClientGone, None),
        Ok(Some(Ok(HANDSHAKE))) => {
            let encrypted = tokio::time::timeout_at(by.into(), encrypt(socket, policy, proofs)).await;
            match encrypted {
                Ok(Ok(Some((socket, session)))) => Greeting::Encrypted(socket, session),
                Ok(Ok(None)) => Greeting::Proved,
                Ok(Err((failure, socket))) => Greeting::Failed(failure, socket),
                Err(_) => Greeting::Failed(Failure::Timeout, None),
            }
        }
        // Methods are in upper case.
        Ok(Some(Ok(b'A'..=b'Z'))) => Greeting::Failed(Failure::PlainHttp, Some(socket)),
        Ok(Some(Ok(_))) => Greeting::Failed(Failure::NotTls, None),
    }
}

/// The first byte, left where it is; `None` when draining comes first.
async fn first_byte(socket: &Transport, draining: impl Future<Output = ()>) -> Option<io::Result<u8>> {
    let mut first = [0];
    tokio::select! {
        biased;
        peeked = socket.peek_beyond(0, &mut first) => Some(peeked.map(|_| first[0])),
        () = draining => None,
    }
}

type Failed = (Failure, Option<Transport>);

/// An encrypted connection; `None` when it was the question of an authority.
async fn encrypt(
    socket: Transport,
    policy: &Arc<ServerPolicy>,
    proofs: Option<&Proofs>,
) -> Result<Option<(Socket, Arc<Session>)>, Failed> {
    let mut acceptor = pin!(LazyConfigAcceptor::new(Acceptor::default(), socket));
    let start = match acceptor.as_mut().await {
        Ok(start) => start,
        Err(error) => return Err((Failure::of(&error), acceptor.take_io())),
    };
    let asked = proofs.and_then(|proofs| Some((proofs, asked_for(&start.client_hello())?)));
    let proof = match asked {
        // Boxed, and another machine asked, for authorities alone.
        Some((proofs, host)) => Box::pin(proofs.tls(&host)).await,
        None => None,
    };
    if let Some(config) = proof {
        let answered = start.into_stream(config).into_fallible().await;
        let mut stream = answered.map_err(|(error, socket)| (Failure::of(&error), Some(socket)))?;
        // The authority has seen what it wanted, whether or not it hears the end.
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    let host = Arc::clone(policy.greeted(start.client_hello().server_name()));
    let certified = policy.certificates().has_one_for(start.client_hello().server_name());
    let accept = start.into_stream_with(host.config(), |connection| {
        connection.set_buffer_limit(Some(UNSENT));
    });
    let stream = accept.into_fallible().await;
    let stream = stream.map_err(|(error, socket)| {
        log::debug!("a handshake failed: {error}");
        let failure = match Failure::of(&error) {
            Failure::BadHandshake if !certified => Failure::NoCertificate,
            failure => failure,
        };
        (failure, Some(socket))
    })?;
    match Session::new(stream.get_ref().1, Arc::clone(policy), host) {
        Ok(session) => Ok(Some((Socket::Tls(Box::new(stream)), Arc::new(session)))),
        Err(failure) => Err((failure, Some(stream.into_inner().0))),
    }
}

/// The host whose proof an authority asks for (RFC 8737, section 3).
fn asked_for(hello: &ClientHello<'_>) -> Option<Box<str>> {
    let mut protocols = hello.alpn()?;
    let alone = protocols.next() == Some(ACME_TLS) && protocols.next().is_none();
    hello.server_name().filter(|_| alone).map(Into::into)
}

impl<A: HttpServerApp + Send + Sync + 'static> Edge<A> {
    /// Serves a connection that was just accepted.
    pub(super) async fn connected(self: Arc<Self>, socket: Transport, ends: Ends) {
        let listener = self.listener;
        let connection = |tls| Arc::new(Connection::new(listener, ends, tls));
        let policy = self.policy();
        let greeted = match &policy.tls {
            None => Ok((Socket::Plain(socket), None)),
            // Boxed, so that a connection does not carry the room for its handshake.
            Some(tls) => {
                let greeted = Box::pin(self.greet(socket, &policy, tls)).await;
                greeted.map(|(socket, session)| (socket, Some(session)))
            }
        };
        match greeted {
            Ok((socket, session)) => {
                drop(policy);
                let http2 = session.as_ref().is_some_and(|session| session.http2);
                let connection = connection(session);
                if http2 {
                    let draining = self.drain.wait();
                    Box::pin(http2::serve(self, socket, connection, draining)).await;
                } else {
                    self.serve(socket, connection).await;
                }
            }
            Err(Some(in_the_clear)) => {
                Box::pin(self.turn_to_tls(in_the_clear, connection(None), &policy)).await;
            }
            Err(None) => {}
        }
    }

    /// An encrypted connection; else the socket of a client that speaks HTTP in the clear.
    async fn greet(
        &self,
        socket: Transport,
        policy: &ListenerPolicy,
        tls: &Arc<ServerPolicy>,
    ) -> Result<(Socket, Arc<Session>), Option<Transport>> {
        let since = Instant::now();
        let drained = self.drain.after_courtesy(since);
        let proofs = self.live.load().proofs.clone();
        let by = since + policy.header_timeout;
        match greet(socket, tls, proofs.as_deref(), by, drained).await {
            Greeting::Encrypted(socket, session) => {
                self.metrics.encrypted(&session);
                Ok((socket, session))
            }
            Greeting::Proved => {
                self.metrics.proved();
                Err(None)
            }
            Greeting::Failed(failure, socket) => {
                self.metrics.not_encrypted(failure);
                log::debug!("listener {}: no handshake: {}", policy.name, failure.code());
                match (failure, socket) {
                    (Failure::PlainHttp, socket) => Err(socket),
                    (_, Some(socket)) => {
                        linger(Socket::Plain(socket)).await;
                        Err(None)
                    }
                    (_, None) => Err(None),
                }
            }
            Greeting::Nothing => Err(None),
        }
    }

    /// Answers a request that came in the clear where TLS is spoken.
    async fn turn_to_tls(&self, socket: Transport, connection: Arc<Connection>, policy: &ListenerPolicy) {
        let mut wire =
            Box::new(Wire::new(Socket::Plain(socket), Arc::clone(&connection), self.drain.clone()));
        let patience = Patience { idle: policy.header_timeout, head: policy.header_timeout };
        let mut draining = self.drain.wait();
        let arrived = wire.next_head(&policy.head, patience, Instant::now(), &mut draining).await;
        let ended = match arrived {
            Ok(arrived) => Ended::InTheClear { bytes: arrived.bytes },
            Err(ended) => ended,
        };
        self.end(wire, &connection, ended).await;
        if let Some(socket) = connection.take_back() {
            linger(socket).await;
        }
    }
}
