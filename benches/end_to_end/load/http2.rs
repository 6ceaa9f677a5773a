//! Load over HTTP/2: each connection keeps so many requests under way, and begins another when one is answered.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::Result;
use super::super::http2::{Event, Wire, ends_with_zero, is_ok};
use super::connection::{Dialer, READ_BUFFER, Stream};
use super::{GRACE, PAUSE_AFTER_FAILURE, Tally};

/// A request, prepared, and what has to come of it.
#[derive(Debug)]
pub struct Call {
    pub block: Vec<u8>,
    pub body: Vec<u8>,
    /// Bytes of the answer's body.
    pub answer: usize,
    /// Whether the answer ends with trailers of gRPC that tell success.
    pub trailers: bool,
}

/// One client with one connection.
pub struct Client {
    dialer: Dialer,
    call: Arc<Call>,
    streams: usize,
    session: Option<Session>,
}

impl Client {
    pub async fn connect(mut dialer: Dialer, call: Arc<Call>, streams: usize) -> Result<Self> {
        let session = Some(Session::new(dialer.dial().await?));
        Ok(Self { dialer, call, streams, session })
    }

    pub async fn run(mut self, mut tally: Tally, end: Instant) -> Tally {
        let mut give_up = std::pin::pin!(tokio::time::sleep_until((end + GRACE).into()));
        while Instant::now() < end {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => match self.dialer.dial().await {
                    Ok(stream) => Session::new(stream),
                    Err(failure) => {
                        tally.fail(&failure);
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                        continue;
                    }
                },
            };
            let outcome = tokio::select! {
                biased;
                outcome = session.run(&self.call, self.streams, &mut tally, |now| now < end) => outcome,
                () = &mut give_up => Err("no answer within the grace".into()),
            };
            if let Err(failure) = outcome {
                for _ in 0..session.open.len().max(1) {
                    tally.fail(&failure);
                }
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
        tally
    }

    /// One request, and its connection for others to hold.
    pub async fn once(mut self) -> Result<Stream> {
        let (mut tally, mut turns) = (Tally::new()?, 0..1);
        let mut session = self.session.take().ok_or("not connected")?;
        session.run(&self.call, 1, &mut tally, |_| turns.next().is_some()).await?;
        match tally.first_failure {
            None => Ok(session.stream),
            Some(failure) => Err(failure.into()),
        }
    }
}

/// A connection and the requests under way on it.
struct Session {
    stream: Stream,
    wire: Wire,
    next_stream: u32,
    open: HashMap<u32, Progress>,
}

/// How far an answer has come.
struct Progress {
    begun: Instant,
    succeeded: bool,
    has_head: bool,
    has_trailers: bool,
    received: usize,
}

impl Session {
    fn new(stream: Stream) -> Self {
        Self { stream, wire: Wire::client(), next_stream: 1, open: HashMap::new() }
    }

    /// Keeps `streams` requests under way while there are `more`, and awaits those that are.
    async fn run(
        &mut self,
        call: &Call,
        streams: usize,
        tally: &mut Tally,
        mut more: impl FnMut(Instant) -> bool,
    ) -> Result<()> {
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let now = Instant::now();
            while self.open.len() < streams && self.wire.has_window(call.body.len()) && more(now) {
                self.begin(call, now);
            }
            if self.open.is_empty() {
                return Ok(());
            }
            self.stream.write_all(&self.wire.output).await?;
            self.stream.flush().await?;
            self.wire.output.clear();
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.wire.feed(&buffer[..read]);
            while let Some(event) = self.wire.next_event()? {
                self.take(event, call, tally)?;
            }
        }
    }

    fn begin(&mut self, call: &Call, now: Instant) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.wire.send_headers(stream, &call.block, call.body.is_empty());
        if !call.body.is_empty() {
            self.wire.send_data(stream, &call.body, true);
        }
        self.open.insert(stream, Progress::new(now));
    }

    fn take(&mut self, event: Event, call: &Call, tally: &mut Tally) -> Result<()> {
        let (stream, end) = match event {
            Event::Headers { stream, block, end } => {
                let progress = self.open.get_mut(&stream).ok_or("an answer to nothing")?;
                progress.take_fields(self.wire.block(block));
                (stream, end)
            }
            Event::Data { stream, length, end } => {
                self.open.get_mut(&stream).ok_or("an answer to nothing")?.received += length;
                (stream, end)
            }
            Event::Reset { stream } => {
                self.open.remove(&stream);
                tally.fail(&"the stream was reset");
                return Ok(());
            }
            Event::GoAway => return Err("the connection was given up (GOAWAY)".into()),
        };
        if end && let Some(progress) = self.open.remove(&stream) {
            match progress.fault(call) {
                None => tally.complete(progress.begun.elapsed(), progress.received as u64),
                Some(fault) => tally.fail(&fault),
            }
        }
        Ok(())
    }
}

impl Progress {
    fn new(begun: Instant) -> Self {
        Self { begun, succeeded: true, has_head: false, has_trailers: false, received: 0 }
    }

    fn take_fields(&mut self, block: &[u8]) {
        self.succeeded &= if self.has_head { ends_with_zero(block) } else { is_ok(block) };
        self.has_trailers = self.has_head;
        self.has_head = true;
    }

    fn fault(&self, call: &Call) -> Option<String> {
        match () {
            () if !self.succeeded => Some("the status is not that of success".into()),
            () if self.received != call.answer => Some(format!("{} bytes of body", self.received)),
            () if self.has_trailers != call.trailers => Some("no trailers, or some too many".into()),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::origin::Origin;
    use super::super::super::requests::{call_grpc, get_over_http2};
    use super::*;

    async fn client(origin: &Origin, call: Call) -> Client {
        let dialer = Dialer::new(origin.http2, None).unwrap();
        Client::connect(dialer, call.into(), 20).await.unwrap()
    }

    #[tokio::test]
    async fn completes_requests_and_calls() {
        let origin = Origin::start().await.unwrap();
        for call in [get_over_http2(), call_grpc()] {
            let length = call.answer as u64;
            let end = Instant::now() + Duration::from_millis(100);
            let tally = client(&origin, call).await.run(Tally::new().unwrap(), end).await;
            assert_eq!((tally.failed, &tally.first_failure), (0, &None));
            assert!(tally.completed > 20);
            assert_eq!(tally.received, tally.completed * length);
        }
    }

    #[tokio::test]
    async fn a_connection_is_left_open_after_one_request() {
        let origin = Origin::start().await.unwrap();
        let stream = client(&origin, get_over_http2()).await.once().await.unwrap();
        assert!(stream.is_open());
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_a_failure() {
        let origin = Origin::start().await.unwrap();
        for call in [
            Call { answer: 1, ..get_over_http2() },
            Call { trailers: true, ..get_over_http2() },
            Call { trailers: false, ..call_grpc() },
        ] {
            assert!(client(&origin, call).await.once().await.is_err());
        }
    }
}
