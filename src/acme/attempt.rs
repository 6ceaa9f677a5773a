//! One conversation with a directory: an account, an order, its proofs, the certificate.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Answer, Challenges};
use super::client::{Client, Told};
use super::directory::{Challenge, Directory};
use super::error::Error;
use super::store::{Offer, Store};
use crate::outbound::whole;
use crate::tls::Certificate;

/// How often the same is asked again because the directory does not like its own nonce any more.
const NONCES: usize = 20;
/// What a directory says to whom it does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// How long a directory may take to check the proofs, and to issue.
const PATIENCE: Duration = Duration::from_secs(3 * 60);
/// How long to wait before a directory is asked how it stands; it may ask for more.
const POLL: Duration = Duration::from_secs(1);
/// The longest between two such questions.
const LONGEST_POLL: Duration = Duration::from_secs(30);
/// How long to wait while another process makes the account.
const ACCOUNT_POLL: Duration = Duration::from_millis(200);

/// A directory that knows us.
pub(super) struct Session {
    account: Account,
    directory: Arc<Directory>,
    told: Told,
}

/// A new key and the chain for it, both in PEM.
pub(super) struct Fresh {
    pub(super) key: String,
    pub(super) chain: String,
}

impl Session {
    /// Opens the account that the store has, or makes one.
    pub(super) async fn open(directory: &Arc<Directory>) -> Result<Self, Error> {
        let client = Client::new(directory.ca.as_deref())?;
        let told = client.told();
        let account = match Self::kept(directory, &client, &told).await? {
            Some(account) => account,
            None => Self::make(directory, &client, &told).await?,
        };
        Ok(Self { account, directory: Arc::clone(directory), told })
    }

    async fn kept(directory: &Directory, client: &Client, told: &Told) -> Result<Option<Account>, Error> {
        let Some(credentials) = directory.store.account().await? else { return Ok(None) };
        let opened = builder(client).from_credentials(credentials).await;
        opened.map(Some).map_err(|error| refused(error, told))
    }

    /// Makes an account, unless another process has made it by the time that it is our turn.
    async fn make(directory: &Directory, client: &Client, told: &Told) -> Result<Account, Error> {
        let by = Instant::now() + PATIENCE;
        let lock = loop {
            if let Some(lock) = directory.store.lock_account().await? {
                break lock;
            }
            if Instant::now() > by {
                return Err(Error::Bug("another process makes the account, and does not end".into()));
            }
            tokio::time::sleep(ACCOUNT_POLL).await;
        };
        if let Some(account) = Self::kept(directory, client, told).await? {
            return Ok(account);
        }
        let contact = directory.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let words =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = directory.external_account.as_ref();
        let external = external.map(|known| ExternalAccountKey::new(known.key_id.clone(), &known.hmac_key));
        let mut nonces = Nonces::default();
        let (account, credentials) = loop {
            match builder(client).create(&words, directory.url.to_string(), external.as_ref()).await {
                Ok(made) => break made,
                Err(error) => nonces.again(error, told)?,
            }
        };
        directory.store.keep_account(&credentials, &lock).await?;
        log::info!("acme {}: the account {} was made", directory.name, account.id());
        Ok(account)
    }

    /// Which account it is.
    pub(super) fn account(&self) -> &str {
        self.account.id()
    }

    /// Orders a certificate for hosts, in place of the one that `replaces`.
    pub(super) async fn order(
        &self,
        hosts: &[Box<str>],
        challenges: &Arc<Challenges>,
        replaces: Option<&Certificate>,
        failures: u32,
    ) -> Result<Fresh, Error> {
        let kinds = self.directory.challenges();
        // After a first try with each, in turn: what failed once does not fail twice as often.
        let kinds = match failures as usize {
            0 => kinds,
            failures => &kinds[failures % kinds.len()..][..1],
        };
        let mut unproved = None;
        for kind in kinds {
            match self.order_by(*kind, hosts, challenges, replaces).await {
                Err(error @ Error::Unproved { .. }) => {
                    log::warn!("acme {}: {error}", self.directory.name);
                    unproved = Some(error);
                }
                outcome => return outcome,
            }
        }
        Err(unproved.unwrap_or_else(|| Error::Bug("there is no way to prove a host".into())))
    }

    async fn order_by(
        &self,
        kind: Challenge,
        hosts: &[Box<str>],
        challenges: &Arc<Challenges>,
        replaces: Option<&Certificate>,
    ) -> Result<Fresh, Error> {
        let mut order = self.new_order(hosts, replaces).await?;
        // Given until the directory has looked.
        let answers = self.prove(&mut order, kind, challenges).await?;
        let status = self.settled(&mut order, &[OrderStatus::Ready, OrderStatus::Valid]).await?;
        drop(answers);
        if status == OrderStatus::Invalid {
            return Err(self.unproved(&mut order, kind).await);
        }
        self.issue(&mut order, hosts).await
    }

    async fn new_order(&self, hosts: &[Box<str>], replaces: Option<&Certificate>) -> Result<Order, Error> {
        let names: Vec<_> = hosts.iter().map(|host| Identifier::Dns(host.to_string())).collect();
        let mut identifier = replaces.and_then(identifier);
        let mut nonces = Nonces::default();
        loop {
            let words = NewOrder::new(&names);
            let words = match &identifier {
                Some(identifier) => words.replaces(identifier.clone()),
                None => words,
            };
            match self.account.new_order(&words).await {
                Ok(order) => return Ok(order),
                Err(error) if is_nonce(&error) || identifier.is_none() => nonces.again(error, &self.told)?,
                Err(error) if kind(&error) == Some(NO_ACCOUNT) => return Err(refused(error, &self.told)),
                // One that knows no successors, or of another already, is asked for a certificate like any other.
                Err(error) => {
                    log::debug!("acme {}: not as a successor: {}", self.directory.name, whole(&error));
                    identifier = None;
                }
            }
        }
    }

    /// Answers for every host that is not proved yet, and asks the directory to look.
    async fn prove(
        &self,
        order: &mut Order,
        kind: Challenge,
        challenges: &Arc<Challenges>,
    ) -> Result<Vec<Given>, Error> {
        let mut answers = Vec::new();
        let mut proved = 0;
        let mut nonces = Nonces::default();
        loop {
            // A question that is asked again begins anew: what is known by then is not asked for again.
            let store = &self.directory.store;
            match prove_next(order, kind, (challenges, store), &mut answers, &mut proved).await {
                Ok(true) => {}
                Ok(false) => return Ok(answers),
                Err(Trouble::Own(error)) => return Err(error),
                Err(Trouble::Theirs(error)) => nonces.again(error, &self.told)?,
            }
        }
    }

    /// Waits until the order is in one of these states, or invalid.
    async fn settled(&self, order: &mut Order, wanted: &[OrderStatus]) -> Result<OrderStatus, Error> {
        let by = Instant::now() + PATIENCE;
        let mut pause = POLL;
        loop {
            let mut nonces = Nonces::default();
            let status = loop {
                match order.refresh().await {
                    Ok(state) => break state.status,
                    Err(error) => nonces.again(error, &self.told)?,
                }
            };
            if wanted.contains(&status) || status == OrderStatus::Invalid {
                return Ok(status);
            }
            let told = self.told.retry_at().and_then(|at| at.duration_since(SystemTime::now()).ok());
            let wait = told.unwrap_or(pause).clamp(POLL / 4, LONGEST_POLL);
            if Instant::now() + wait > by {
                let message = format!("the order was not done after {PATIENCE:?}");
                return Err(Error::Directory { message, retry_at: None });
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_POLL);
        }
    }

    /// Why the hosts of an order could not be proved.
    async fn unproved(&self, order: &mut Order, kind: Challenge) -> Error {
        let mut told = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            // Known from before the directory looked.
            let mut nonces = Nonces::default();
            while let Err(error) = authorization.refresh().await {
                if nonces.again(error, &self.told).is_err() {
                    break;
                }
            }
            let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            told.extend(problems.map(|problem| format!("{}: {}", authorization.identifier(), said(problem))));
        }
        let why = if told.is_empty() { "the directory does not say why".into() } else { told.join("; ") };
        let message = format!("not proved by {}: {why}", kind.name());
        Error::Unproved { message, retry_at: None }
    }

    /// Has the certificate of a proved order issued for a new key.
    async fn issue(&self, order: &mut Order, hosts: &[Box<str>]) -> Result<Fresh, Error> {
        let bug = |error: rcgen::Error| Error::Bug(error.to_string());
        let names: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        let mut params = CertificateParams::new(names).map_err(bug)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().map_err(bug)?;
        let request = params.serialize_request(&key).map_err(bug)?;
        let mut nonces = Nonces::default();
        while let Err(error) = order.finalize_csr(request.der()).await {
            nonces.again(error, &self.told)?;
        }
        if self.settled(order, &[OrderStatus::Valid]).await? == OrderStatus::Invalid {
            let why = order.state().error.as_ref().map_or("it does not say why".into(), said);
            let message = format!("the directory does not issue: {why}");
            return Err(Error::Directory { message, retry_at: None });
        }
        loop {
            match order.certificate().await {
                Ok(Some(chain)) => return Ok(Fresh { key: key.serialize_pem(), chain }),
                Ok(None) => return Err(Error::Unusable("there is none".into())),
                Err(error) => nonces.again(error, &self.told)?,
            }
        }
    }

    /// From when until when the directory suggests to renew (RFC 9773), and when to ask again.
    pub(super) async fn suggested(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<((SystemTime, SystemTime), Duration)>, Error> {
        let Some(identifier) = identifier(certificate) else { return Ok(None) };
        match self.account.renewal_info(&identifier).await {
            Ok((info, ask_in)) => {
                let window = (info.suggested_window.start.into(), info.suggested_window.end.into());
                Ok(Some((window, ask_in)))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(refused(error, &self.told)),
        }
    }
}

/// An answer that is given here, and by other machines where there are any.
struct Given {
    _here: Answer,
    _elsewhere: Option<Offer>,
}

/// Whose fault it is that a host could not be offered for proof.
enum Trouble {
    Own(Error),
    Theirs(instant_acme::Error),
}

impl From<instant_acme::Error> for Trouble {
    fn from(error: instant_acme::Error) -> Self {
        Self::Theirs(error)
    }
}

/// Answers for the next host; false when none is left.
async fn prove_next(
    order: &mut Order,
    kind: Challenge,
    (challenges, store): (&Arc<Challenges>, &Store),
    answers: &mut Vec<Given>,
    proved: &mut usize,
) -> Result<bool, Trouble> {
    let mut authorizations = order.authorizations();
    let mut at = 0;
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        at += 1;
        if at <= *proved {
            continue;
        }
        if authorization.status != AuthorizationStatus::Valid {
            let host = authorization.identifier().to_string();
            let unoffered = || {
                let message = format!("{host}: the directory does not offer {}", kind.name());
                Trouble::Own(Error::Unproved { message, retry_at: None })
            };
            let mut challenge = authorization.challenge(kind.kind()).ok_or_else(unoffered)?;
            let authorization = challenge.key_authorization();
            // Before the directory is asked to look; when that is asked again, the answer is the same.
            let token = challenge.token.as_str();
            let answer = match kind {
                Challenge::Http => challenges.answer_http(token, authorization.as_str()),
                Challenge::TlsAlpn => {
                    challenges.answer_tls(&host, authorization.digest().as_ref()).map_err(Trouble::Own)?
                }
            };
            let offered = match (store.shared(), kind) {
                (None, _) => Ok(None),
                (Some(shared), Challenge::Http) => {
                    shared.offer_http(token, authorization.as_str()).await.map(Some)
                }
                (Some(shared), Challenge::TlsAlpn) => {
                    shared.offer_tls(&host, authorization.digest().as_ref()).await.map(Some)
                }
            };
            answers.push(Given { _here: answer, _elsewhere: offered.map_err(Trouble::Own)? });
            challenge.set_ready().await?;
        }
        *proved += 1;
        return Ok(true);
    }
    Ok(false)
}

fn builder(client: &Client) -> instant_acme::AccountBuilder {
    Account::builder_with_http(Box::new(client.clone()))
}

/// How often the same was asked again: a directory may reject a nonce for no reason (RFC 8555, section 6.5).
#[derive(Default)]
struct Nonces(usize);

impl Nonces {
    /// Whether to ask again; else why not.
    fn again(&mut self, error: instant_acme::Error, told: &Told) -> Result<(), Error> {
        self.0 += 1;
        if is_nonce(&error) && self.0 <= NONCES { Ok(()) } else { Err(refused(error, told)) }
    }
}

fn is_nonce(error: &instant_acme::Error) -> bool {
    kind(error) == Some("urn:ietf:params:acme:error:badNonce")
}

/// What kind of problem a directory says that it has (RFC 8555, section 6.7).
fn kind(error: &instant_acme::Error) -> Option<&str> {
    match error {
        instant_acme::Error::Api(problem) => problem.r#type.as_deref(),
        _ => None,
    }
}

fn refused(error: instant_acme::Error, told: &Told) -> Error {
    let message = match &error {
        instant_acme::Error::Api(problem) => format!("the directory refuses: {}", said(problem)),
        other => whole(other),
    };
    if kind(&error) == Some(NO_ACCOUNT) {
        return Error::NoAccount { message };
    }
    Error::Directory { message, retry_at: told.retry_at() }
}

/// What a directory says of a problem.
fn said(problem: &Problem) -> String {
    let text = problem.to_string();
    text.strip_prefix("API error: ").unwrap_or(&text).to_owned()
}

/// What a certificate is called by who issued it (RFC 9773, section 4.1).
fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(certificate.der()?).ok().map(CertificateIdentifier::into_owned)
}
