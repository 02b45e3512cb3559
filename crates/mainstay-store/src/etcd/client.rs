//! Calls to etcd: to one of its members at a time, and to the next one when that does not answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mainstay_grpc::{Answers, Channel, Code, Endpoint, Status};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::{OTHER_CLUSTER, Remedy, explain, has_no_users, remedy};
use super::wire::{
    AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse, ResponseHeader,
};
use super::{Options, User};
use crate::StoreError;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// How long a member may take to accept a connection.
const DIAL: Duration = Duration::from_secs(2);
/// How long one member may take to answer what another one can be asked as well.
const READ: Duration = Duration::from_secs(3);
/// How long it may take to answer a write, which nobody else is asked to do. etcd itself gives up a second or
/// two later.
const WRITE: Duration = Duration::from_secs(5);

/// The way to an etcd.
#[derive(Debug)]
pub(crate) struct Client {
    members: Vec<Arc<Member>>,
    /// Which of them is asked.
    current: watch::Sender<Arc<Member>>,
    user: Option<User>,
    token: tokio::sync::Mutex<Token>,
    /// The cluster that was talked to first.
    cluster: OnceLock<u64>,
    /// Where it is, for people.
    place: String,
    /// What may be asked for by whoever may use the store.
    probe: RangeRequest,
}

/// One server of it.
#[derive(Debug)]
pub(crate) struct Member {
    channel: Channel,
    /// The newest connection to it over which it has shown that it belongs to the cluster; 0 if none: what
    /// listens there may be another one the next time.
    known: AtomicU64,
    /// What it was told with the last call of who asks.
    token: Mutex<Option<HeaderValue>>,
}

/// What shows who asks.
#[derive(Clone, Debug, Default, PartialEq)]
enum Token {
    /// Not asked for yet.
    #[default]
    Unknown,
    /// There are no users.
    NotWanted,
    Is(HeaderValue),
}

/// Whether a call may be made again when it is not known whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Yes,
    No,
}

impl Client {
    /// `None` if no member is named.
    pub(crate) fn new(options: &Options) -> Option<Self> {
        let members: Vec<_> =
            options.endpoints.iter().map(|it| Arc::new(Member::new(it, options))).collect();
        let current = watch::Sender::new(members.first()?.clone());
        let places: Vec<_> = options.endpoints.iter().map(ToString::to_string).collect();
        Some(Self {
            members,
            current,
            user: options.user.clone(),
            token: tokio::sync::Mutex::default(),
            cluster: OnceLock::new(),
            place: places.join(","),
            probe: RangeRequest {
                key: options.prefix.clone().into(),
                count_only: true,
                // Also when it is not known what the others say.
                serializable: true,
                ..RangeRequest::default()
            },
        })
    }

    /// Asks for what changes nothing, or nothing more when it is done twice.
    pub(crate) async fn read<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, Status> {
        self.call(method, request, Repeat::Yes, READ).await
    }

    /// Asks for a change. It is not known whether it was made if this fails with what
    /// [`Remedy::ElsewhereIfRepeatable`] is against.
    pub(crate) async fn write<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, Status> {
        self.call(method, request, Repeat::No, WRITE).await
    }

    /// Asks for what has many answers. Gives also who answers.
    pub(crate) async fn follow(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<(Arc<Member>, Answers), Status> {
        let mut left = Left::new(self.members.len());
        loop {
            let member = self.member();
            let asked = async {
                self.prepare(&member).await?;
                // The answer begins with the first message, which comes at once.
                member.channel.follow(method, request).await
            };
            let asked = timeout(READ, asked).await.unwrap_or_else(|_| Err(member.silent(READ)));
            match asked {
                Ok(answers) => return Ok((member, answers)),
                Err(status) => self.recover(&member, status, &mut left, Repeat::Yes).await?,
            }
        }
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
        repeat: Repeat,
        limit: Duration,
    ) -> Result<A, Status> {
        let mut left = Left::new(self.members.len());
        loop {
            let member = self.member();
            match self.prepare(&member).await {
                Ok(connection) => {
                    let limit = Some(limit);
                    match member.channel.call_over(connection, method, request, limit).await {
                        Ok(Some(answer)) => return Ok(answer),
                        // It ended, as when the server has been started anew, which may be another one.
                        Ok(None) if left.connection() => {}
                        Ok(None) => {
                            let lost = member.lost();
                            self.recover(&member, lost, &mut left, Repeat::Yes).await?;
                        }
                        Err(status) => self.recover(&member, status, &mut left, repeat).await?,
                    }
                }
                // Nothing has been asked for.
                Err(status) => self.recover(&member, status, &mut left, Repeat::Yes).await?,
            }
        }
    }

    /// Sees to it that it is worth trying again after a failure, or gives that.
    async fn recover(
        &self,
        member: &Arc<Member>,
        status: Status,
        left: &mut Left,
        repeat: Repeat,
    ) -> Result<(), Status> {
        match remedy(&status) {
            Remedy::Elsewhere => {
                self.leave(member);
                left.member(status)
            }
            Remedy::ElsewhereIfRepeatable => {
                self.leave(member);
                if repeat == Repeat::Yes { left.member(status) } else { Err(status) }
            }
            Remedy::Member => {
                self.leave(member);
                Err(status)
            }
            Remedy::Login if self.user.is_some() && left.login() => self.introduce(member).await,
            _ => Err(status),
        }
    }

    fn member(&self) -> Arc<Member> {
        self.current.borrow().clone()
    }

    /// Says when another member is asked than now.
    pub(crate) fn moved(&self) -> watch::Receiver<Arc<Member>> {
        self.current.subscribe()
    }

    /// Asks the next member from now on, if it is this one that is asked now.
    pub(crate) fn leave(&self, member: &Arc<Member>) {
        self.current.send_if_modified(|current| {
            let at = self.members.iter().position(|it| Arc::ptr_eq(it, member));
            let next = at.and_then(|at| self.members.iter().cycle().nth(at + 1));
            let Some(next) =
                next.filter(|next| Arc::ptr_eq(current, member) && !Arc::ptr_eq(next, member))
            else {
                return false;
            };
            *current = next.clone();
            true
        });
    }

    /// Leaves the member that is asked now, since it does not keep up.
    pub(crate) fn leave_current(&self) {
        self.leave(&self.member());
    }

    /// Sees to it that a member can be asked: there is a connection, it belongs to the cluster, and is told
    /// who asks. Gives the number of the connection.
    async fn prepare(&self, member: &Arc<Member>) -> Result<u64, Status> {
        let connected = timeout(DIAL, member.channel.connect()).await;
        let connection = connected.unwrap_or_else(|_| Err(member.silent(DIAL)))?;
        if self.user.is_some() {
            let known = self.token.lock().await.clone();
            match known {
                Token::Unknown => self.login(member, None).await?,
                Token::NotWanted => member.show(None),
                Token::Is(token) => member.show(Some(token)),
            }
        }
        if member.known.load(Ordering::Relaxed) < connection {
            let limit = Some(READ);
            let answer =
                member.channel.call_over::<RangeResponse>(connection, RANGE, &self.probe, limit);
            // What is asked for over a connection that has ended is not asked for either.
            let Some(answer) = answer.await? else { return Ok(connection) };
            self.check(answer.header.as_ref())?;
            member.known.fetch_max(connection, Ordering::Relaxed);
        }
        Ok(connection)
    }

    /// Whether any member has answered yet.
    pub(crate) fn has_answered(&self) -> bool {
        self.members.iter().any(|it| it.known.load(Ordering::Relaxed) > 0)
    }

    /// Whether an answer is of the cluster that was talked to first.
    pub(crate) fn check(&self, header: Option<&ResponseHeader>) -> Result<(), Status> {
        let said = header.map(|it| it.cluster_id).unwrap_or_default();
        let known = *self.cluster.get_or_init(|| said);
        if said == known {
            return Ok(());
        }
        let text = format!(
            "{OTHER_CLUSTER} ({said:x}) than what was talked to first ({known:x}): name the \
             members of one cluster, and start mainstay anew if it has been made anew"
        );
        Err(Status::new(Code::FailedPrecondition, text))
    }

    /// Says anew who asks.
    pub(crate) async fn introduce(&self, member: &Arc<Member>) -> Result<(), Status> {
        self.login(member, member.token().as_ref()).await
    }

    /// Says who asks, unless somebody else has said so since the token was `stale`.
    async fn login(&self, member: &Arc<Member>, stale: Option<&HeaderValue>) -> Result<(), Status> {
        let Some(User { name, password }) = &self.user else { return Ok(()) };
        let mut token = self.token.lock().await;
        if let Token::Is(newer) = &*token
            && Some(newer) != stale
        {
            member.show(Some(newer.clone()));
            return Ok(());
        }
        member.show(None);
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let answer =
            member.channel.call::<AuthenticateResponse>(AUTHENTICATE, &request, Some(READ));
        *token = match answer.await {
            Ok(answer) => match HeaderValue::try_from(answer.token) {
                Ok(mut token) => {
                    token.set_sensitive(true);
                    Token::Is(token)
                }
                Err(_) => return Err(Status::new(Code::Internal, "its token is no text")),
            },
            Err(status) if has_no_users(&status) => Token::NotWanted,
            Err(status) => return Err(status),
        };
        if let Token::Is(token) = &*token {
            member.show(Some(token.clone()));
        }
        Ok(())
    }

    /// A failure as the store tells it.
    pub(crate) fn explain(&self, status: &Status) -> StoreError {
        explain(status, &self.place)
    }
}

impl Member {
    fn new(endpoint: &Endpoint, options: &Options) -> Self {
        let channel = Channel::new(endpoint.clone(), "etcd");
        let channel = match &options.tls {
            Some(tls) => channel.with_tls(tls),
            None => channel,
        };
        let member = Self { channel, known: AtomicU64::new(0), token: Mutex::default() };
        member.tell(None);
        member
    }

    fn token(&self) -> Option<HeaderValue> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows this token with the calls that follow, if it has not been shown with the last one.
    fn show(&self, token: Option<HeaderValue>) {
        let mut shown = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != token {
            *shown = token.clone();
            self.tell(token);
        }
    }

    fn tell(&self, token: Option<HeaderValue>) {
        let mut metadata = HeaderMap::new();
        // A member that has lost the others says so at once. Source: `WithRequireLeader` of clientv3.
        metadata.insert("hasleader", HeaderValue::from_static("true"));
        if let Some(token) = token {
            metadata.insert("token", token);
        }
        self.channel.set_metadata(metadata);
    }

    fn lost(&self) -> Status {
        let endpoint = self.channel.endpoint();
        let text = format!("the connection to the etcd at {endpoint} broke before it was used");
        Status::new(Code::Unavailable, text)
    }

    fn silent(&self, limit: Duration) -> Status {
        let (endpoint, seconds) = (self.channel.endpoint(), limit.as_secs());
        let text = format!("the etcd at {endpoint} has not answered for {seconds} s");
        Status::new(Code::DeadlineExceeded, text)
    }
}

/// What may still be tried for one call.
struct Left {
    members: usize,
    login: bool,
    connection: bool,
    /// What a member said of all of them.
    said: Option<Status>,
}

impl Left {
    fn new(members: usize) -> Self {
        Self { members, login: true, connection: true, said: None }
    }

    /// Whether there is another member to ask after this failure; otherwise, the one that tells most.
    fn member(&mut self, status: Status) -> Result<(), Status> {
        self.members = self.members.saturating_sub(1);
        if self.members == 0 {
            return Err(self.said.take().unwrap_or(status));
        }
        if status.message.contains("etcdserver:") {
            self.said = Some(status);
        }
        Ok(())
    }

    /// Whether no other connection has been tried yet.
    fn connection(&mut self) -> bool {
        std::mem::take(&mut self.connection)
    }

    /// Whether it has not been said anew yet who asks.
    fn login(&mut self) -> bool {
        std::mem::take(&mut self.login)
    }
}
