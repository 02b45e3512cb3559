//! Calls to a server, over one connection that is made anew when it broke.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::chain;
use crate::message::{Encoded, Messages, decode};
use crate::status::{Code, Status};

/// How often a server on another machine is asked whether it is there while it has something to answer. etcd
/// takes it amiss when it is asked more often than every five seconds.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say that it is.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection of whatever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Sender = http2::SendRequest<Full<Bytes>>;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port of some machine.
    Tcp {
        /// Its name or its address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The way to a server. There need be none yet, and it may go and come back.
#[derive(Debug)]
pub struct Channel {
    endpoint: Endpoint,
    /// What the server is called in messages.
    server: &'static str,
    tls: Option<Arc<ClientConfig>>,
    /// What goes with every call.
    metadata: std::sync::Mutex<HeaderMap>,
    connection: Mutex<Option<Connection>>,
}

/// A connection, and the task that drives it.
#[derive(Debug)]
struct Connection {
    sender: Sender,
    /// Which of its channel's it is, from 1.
    number: u64,
    _driving: JoinSet<()>,
}

/// What a server answers, message by message.
#[derive(Debug)]
pub struct Answers {
    body: Incoming,
    messages: Messages,
    is_over: bool,
    server: &'static str,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Channel {
    /// The way to the server there, which people are told of as the `server`: `container runtime`.
    pub fn new(endpoint: Endpoint, server: &'static str) -> Self {
        let (tls, metadata) = (None, std::sync::Mutex::default());
        Self { endpoint, server, tls, metadata, connection: Mutex::default() }
    }

    /// The same over TLS. It is for a port: there the server's certificate has to be of its host.
    #[must_use]
    pub fn with_tls(mut self, config: &ClientConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        self.tls = Some(Arc::new(config));
        self
    }

    /// Sends these headers with every call from now on.
    pub fn set_metadata(&self, metadata: HeaderMap) {
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = metadata;
    }

    /// Makes the connection, if there is none, and gives its number: one that is made anew has a higher one.
    /// When this fails, nothing has been asked for.
    ///
    /// # Errors
    ///
    /// [`Code::Unavailable`] when the server is not there.
    pub async fn connect(&self) -> Result<u64, Status> {
        self.sender().await.map(|(_, number)| number)
    }

    /// Where the server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Calls what has one answer: `method` is `/package.Service/Method`. `limit` is for all of it; `None` is
    /// as long as it takes.
    ///
    /// # Errors
    ///
    /// What the server says; [`Code::Unavailable`] when it is not there or goes, and
    /// [`Code::DeadlineExceeded`].
    pub async fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Option<Duration>,
    ) -> Result<A, Status> {
        let request = Encoded::of(request).0;
        let answered = async { one(self.begin(method, request, limit).await?).await };
        decode(self.within(limit, answered).await?)
    }

    /// The same over no other connection than the one with this number; `None` if it ended before anything
    /// was asked for.
    ///
    /// # Errors
    ///
    /// As of [`Self::call`].
    pub async fn call_over<A: Message + Default>(
        &self,
        connection: u64,
        method: &str,
        request: &impl Message,
        limit: Option<Duration>,
    ) -> Result<Option<A>, Status> {
        let post = self.post(method, Encoded::of(request).0, limit);
        let answered = async {
            let Some(mut sender) = self.sender_of(connection).await else { return Ok(None) };
            match sender.send_request(post).await {
                Ok(response) => one(self.answers(response)?).await.map(Some),
                Err(error) if error.is_canceled() => Ok(None),
                Err(error) => Err(self.broken(&error)),
            }
        };
        self.within(limit, answered).await?.map(decode).transpose()
    }

    /// Calls what has many answers, for as long as they come.
    ///
    /// # Errors
    ///
    /// As of [`Self::call`].
    pub async fn follow(&self, method: &str, request: &impl Message) -> Result<Answers, Status> {
        self.begin(method, Encoded::of(request).0, None).await
    }

    /// What is answered, unless it takes longer than the limit.
    async fn within<T>(
        &self,
        limit: Option<Duration>,
        answered: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        // Most of what it is made of is on the heap, and so is it.
        let answered = Box::pin(answered);
        let Some(limit) = limit else { return answered.await };
        timeout(limit, answered).await.unwrap_or_else(|_| {
            let Self { endpoint, server, .. } = self;
            let seconds = limit.as_secs();
            let message = format!("the {server} at {endpoint} has not answered for {seconds} s");
            Err(Status::new(Code::DeadlineExceeded, message))
        })
    }

    async fn begin(
        &self,
        method: &str,
        request: Bytes,
        limit: Option<Duration>,
    ) -> Result<Answers, Status> {
        let mut again = true;
        loop {
            let (mut sender, _) = self.sender().await?;
            let sent = sender.send_request(self.post(method, request.clone(), limit)).await;
            match sent {
                Ok(response) => return self.answers(response),
                // The connection ended before the request was on its way, as when the server has been
                // started anew.
                Err(error) if error.is_canceled() && again => again = false,
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// The connection with this number, if it is still the newest.
    async fn sender_of(&self, number: u64) -> Option<Sender> {
        let connection = self.connection.lock().await;
        connection.as_ref().filter(|it| it.number == number).map(|it| it.sender.clone())
    }

    /// The connection, made if there is none, and its number.
    async fn sender(&self) -> Result<(Sender, u64), Status> {
        let mut connection = self.connection.lock().await;
        if let Some(Connection { sender, number, .. }) = &*connection
            && !sender.is_closed()
        {
            return Ok((sender.clone(), *number));
        }
        let number = connection.as_ref().map_or(0, |it| it.number) + 1;
        let stream = self.dial().await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        if let Endpoint::Tcp { .. } = &self.endpoint {
            // A machine that is gone says nothing of it.
            http.timer(TokioTimer::new());
            http.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        }
        let made = http.handshake(TokioIo::new(stream)).await;
        let (sender, driving) = made.map_err(|error| self.broken(&error))?;
        let server = self.server;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever waits for an answer is told.
            if let Err(error) = driving.await {
                tracing::debug!(server, %error, "the connection to a server broke");
            }
        });
        *connection = Some(Connection { sender: sender.clone(), number, _driving: task });
        Ok((sender, number))
    }

    /// A stream to the server.
    async fn dial(&self) -> Result<Box<dyn Stream>, Status> {
        let (host, stream) = match &self.endpoint {
            Endpoint::Unix(socket) => {
                let stream =
                    UnixStream::connect(socket).await.map_err(|error| self.away(&error))?;
                return Ok(Box::new(stream));
            }
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                (host, stream.map_err(|error| self.away(&error))?)
            }
        };
        // Calls are short, and waited for.
        stream.set_nodelay(true).map_err(|error| self.away(&error))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let unfit = |error: String| {
            let Self { endpoint, server, .. } = self;
            let message = format!("no TLS with the {server} at {endpoint}: {error}");
            Status::new(Code::Unavailable, message)
        };
        let name = ServerName::try_from(host.clone()).map_err(|error| unfit(error.to_string()))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| unfit(chain(&error)))?))
    }

    fn post(&self, method: &str, request: Bytes, limit: Option<Duration>) -> Request<Full<Bytes>> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let authority = match &self.endpoint {
            // It has no name. Source: `grpc.NewClient` of grpc-go.
            Endpoint::Unix(_) => "localhost".to_owned(),
            Endpoint::Tcp { .. } => self.endpoint.to_string(),
        };
        let mut post = post(scheme, &authority, method, request, limit);
        let metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone();
        post.headers_mut().extend(metadata);
        post
    }

    fn answers(&self, response: Response<Incoming>) -> Result<Answers, Status> {
        let (parts, body) = response.into_parts();
        if let Some(Err(status)) = Status::said(&parts.headers) {
            return Err(status);
        }
        if parts.status != http::StatusCode::OK {
            return Err(Status::of_http(parts.status));
        }
        let messages = Messages::default();
        Ok(Answers { body, messages, is_over: false, server: self.server })
    }

    fn away(&self, error: &io::Error) -> Status {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such socket; is it started?".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens there; is it started?".to_owned(),
            _ => error.to_string(),
        };
        let Self { endpoint, server, .. } = self;
        Status::new(Code::Unavailable, format!("no {server} at {endpoint}: {why}"))
    }

    fn broken(&self, error: &hyper::Error) -> Status {
        let Self { endpoint, server, .. } = self;
        let error = chain(error);
        let message = format!("the connection to the {server} at {endpoint} broke: {error}");
        Status::new(Code::Unavailable, message)
    }
}

/// The answer of a call that has one.
async fn one(mut answers: Answers) -> Result<Bytes, Status> {
    let answer = answers.next().await?;
    // How it ended comes after it.
    let more = if answer.is_some() { answers.next().await? } else { None };
    match (answer, more) {
        (Some(answer), None) => Ok(answer),
        _ => Err(Status::new(Code::Internal, "the server does not answer with one message")),
    }
}

fn post(
    scheme: &str,
    authority: &str,
    method: &str,
    request: Bytes,
    limit: Option<Duration>,
) -> Request<Full<Bytes>> {
    let mut post = Request::new(Full::new(request));
    *post.method_mut() = http::Method::POST;
    let uri = http::Uri::builder().scheme(scheme).authority(authority).path_and_query(method);
    // Methods are constants, which are paths.
    *post.uri_mut() = uri.build().unwrap_or_default();
    let headers = post.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    if let Some(limit) = limit {
        // No more than eight digits.
        let limit = limit.as_millis().clamp(1, 99_999_999);
        if let Ok(limit) = http::HeaderValue::try_from(format!("{limit}m")) {
            headers.insert("grpc-timeout", limit);
        }
    }
    post
}

impl Answers {
    /// The next message; `None` when the call has ended in order. Cancel safe.
    ///
    /// # Errors
    ///
    /// How the call ended, if not in order.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let server = self.server;
        let broken =
            |why: String| Status::new(Code::Unavailable, format!("the {server} broke off: {why}"));
        let unsaid = || broken("it did not say how the call ended".to_owned());
        loop {
            if let Some(whole) = self.messages.take()? {
                return Ok(Some(whole));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.body.frame().await {
                None => return Err(unsaid()),
                Some(Err(error)) => return Err(broken(chain(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.messages.put(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        Status::said(&trailers).unwrap_or_else(|| Err(unsaid()))?;
                        if !self.messages.is_empty() {
                            return Err(broken("its message is cut off".to_owned()));
                        }
                        self.is_over = true;
                    }
                },
            }
        }
    }
}
