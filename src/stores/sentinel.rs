//! Sentinels, who know which of several servers is the first: asked anew for every connection, so a failover is followed.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
};

use super::server::{moved, trusting};

/// What URLs of sentinels have behind `redis+`.
pub(super) const KIND: &str = "sentinel";
/// How such a URL is written.
pub(super) const FORM: &str = "write `redis+sentinel://HOST:PORT,HOST:PORT/NAME` (with TLS `rediss+sentinel://`), with \
                               `USER:PASSWORD@` of the servers before the hosts and `/DATABASE` at the end where they are \
                               needed";

/// The port of a sentinel that names none.
const PORT: u16 = 26379;
/// How long one of them may take; there are others.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who knows where the server is.
#[derive(Clone)]
pub(super) struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    /// What they call the servers.
    name: Box<str>,
    /// Who we are to the server, wherever it is.
    server: ConnectionInfo,
}

impl Sentinels {
    /// Reads what follows the scheme, which the sentinels speak as the servers do; `None` where it is not what it should be.
    pub(super) fn parse(scheme: &str, rest: &str) -> Option<Self> {
        let (who, rest) = rest.rsplit_once('@').map_or(("", rest), |(who, rest)| (who, rest));
        let (hosts, path) = rest.split_once('/')?;
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || !name.bytes().all(word) {
            return None;
        }
        database.parse::<u32>().ok()?;
        let sentinels = hosts.split(',').map(|host| at(scheme, host)).collect::<Option<Vec<_>>>()?;
        let at_who = if who.is_empty() { String::new() } else { format!("{who}@") };
        let server = format!("{scheme}://{at_who}localhost/{database}").into_connection_info().ok()?;
        Some(Self { sentinels, name: name.into(), server })
    }

    /// The same, whose certificates one of these may have issued.
    pub(super) fn trusting(self, ca: Option<&[u8]>) -> Option<Self> {
        let sentinels =
            self.sentinels.into_iter().map(|sentinel| trusting(sentinel, ca)).collect::<Option<_>>()?;
        Some(Self { sentinels, server: trusting(self.server, ca)?, name: self.name })
    }

    /// What messages call the server.
    pub(super) fn place(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.addr().to_string()).collect();
        format!("{} of {}", self.name, sentinels.join(", "))
    }

    /// The server that is the first now.
    pub(super) async fn find(&self) -> RedisResult<Client> {
        let mut last = RedisError::from((ErrorKind::Io, "there is no sentinel"));
        for sentinel in &self.sentinels {
            match self.ask(sentinel.clone()).await {
                Ok(Some((host, port))) => {
                    return Client::open(moved(&self.server, host, port));
                }
                Ok(None) => {
                    last = RedisError::from((ErrorKind::Io, "no sentinel knows a server of this name"))
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, sentinel: ConnectionInfo) -> RedisResult<Option<(String, u16)>> {
        let client = Client::open(sentinel)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&impatient()).await?;
        redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(&*self.name)
            .query_async(&mut connection)
            .await
    }
}

/// The first of several servers that is there.
pub(super) async fn first_of(servers: &[ConnectionInfo]) -> RedisResult<Client> {
    let mut last = RedisError::from((ErrorKind::Io, "there is no server"));
    for server in servers {
        let client = Client::open(server.clone())?;
        match client.get_multiplexed_async_connection_with_config(&impatient()).await {
            Ok(_) => return Ok(client),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn impatient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE))
}

/// Where a sentinel is.
fn at(scheme: &str, host: &str) -> Option<ConnectionInfo> {
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let url = if named { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{PORT}") };
    (!host.is_empty()).then(|| url.into_connection_info().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_who_is_asked_for_whom() {
        for (url, place) in [
            ("a.test/main", "main of a.test:26379"),
            ("a.test:1,10.0.0.1/main/3", "main of a.test:1, 10.0.0.1:26379"),
            ("gate:s%40cret@10.0.0.1:26380/main", "main of 10.0.0.1:26380"),
        ] {
            let place_of = Sentinels::parse("redis", url).map(|sentinels| sentinels.place());
            assert_eq!(place_of.as_deref(), Some(place), "{url}");
        }
        for url in [
            "",
            "a.test",
            "a.test/",
            "/main",
            "a.test,/main",
            "a.test/main/x",
            "a.test/ma in",
            "a.test/main/1/2",
        ] {
            assert!(Sentinels::parse("redis", url).is_none(), "{url}");
        }
    }
}
