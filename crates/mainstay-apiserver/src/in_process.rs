//! The server for clients in the same process: what goes over a connection otherwise, without one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;

use crate::authn::User;
use crate::body::{Body, BoxError, boxed};
use crate::server::{ApiServer, Peer};

/// The server as a service, for one user of this process.
#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    peer: Peer,
}

impl ApiServer {
    /// This server, for one user of this process.
    pub fn as_user(&self, user: User) -> InProcess {
        InProcess { server: self.clone(), peer: Peer::Trusted(user) }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.server.handle(request.map(boxed), &this.peer).await) })
    }
}
