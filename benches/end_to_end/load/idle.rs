//! Connections that were served one request each and then stay open in silence.

use std::sync::Arc;

use super::super::Result;
use super::connection::{Connection, Dialer, Stream};
use super::{Load, Target, http2};

/// Connections that are being opened at the same time.
const OPENING_AT_ONCE: usize = 64;

pub struct IdleCrowd(Vec<Stream>);

impl IdleCrowd {
    /// Opens `size` connections, some at a time, each serving the target's first request.
    pub async fn gather(target: &Target, size: usize) -> Result<Self> {
        let mut streams = Vec::with_capacity(size);
        while streams.len() < size {
            let batch: Vec<_> = (streams.len()..size)
                .take(OPENING_AT_ONCE)
                .map(|_| tokio::spawn(idle_connection(target.clone())))
                .collect();
            for task in batch {
                streams.push(task.await??);
            }
        }
        Ok(Self(streams))
    }

    /// How many of them the proxy has closed.
    pub fn closed(&self) -> usize {
        self.0.iter().filter(|stream| !stream.is_open()).count()
    }
}

async fn idle_connection(target: Target) -> Result<Stream> {
    let mut dialer = Dialer::new(target.address, target.tls)?;
    match target.load {
        Load::Http1 { requests, .. } => {
            let mut connection = Connection::new(dialer.dial().await?);
            let response = connection.exchange(&requests[0]).await?;
            if response.status == 200 && response.reusable {
                Ok(connection.into_stream())
            } else {
                Err(format!("status {}, kept alive: {}", response.status, response.reusable).into())
            }
        }
        Load::Http2 { call, .. } => http2::Client::connect(dialer, Arc::clone(&call), 1).await?.once().await,
        Load::WebSocket(messages) => {
            let mut connection = Connection::new(dialer.dial().await?);
            connection.upgrade().await?;
            connection.echo(&messages.sent, &messages.echoed).await?;
            Ok(connection.into_stream())
        }
    }
}
