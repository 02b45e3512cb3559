//! The embedded API for those who may ask before it is there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use mainstay_apiserver::{ApiServer, Body, BoxError, Peer, User, boxed};
use tokio::sync::watch;
use tower::Service;

/// The API as one user of this process sees it. A request that comes too early waits; whoever sends it
/// has a deadline.
#[derive(Clone)]
pub(crate) struct LateApi {
    server: watch::Receiver<Option<ApiServer>>,
    user: User,
}

impl LateApi {
    pub(super) fn new(server: watch::Receiver<Option<ApiServer>>, user: User) -> Self {
        Self { server, user }
    }
}

/// The API will not come any more.
#[derive(Debug, thiserror::Error)]
#[error("the embedded API has ended")]
pub(crate) struct Ended;

impl<B> Service<Request<B>> for LateApi
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Ended;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Ended>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let server = this.server.wait_for(Option::is_some).await.map_err(|_| Ended)?.clone();
            let peer = Peer::Trusted(this.user);
            Ok(server.ok_or(Ended)?.handle(request.map(boxed), &peer).await)
        })
    }
}
