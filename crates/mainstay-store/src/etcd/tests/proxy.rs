//! A way to etcd that can be cut.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes on what comes, unless it is cut.
pub(super) struct Proxy {
    endpoint: (String, u16),
    cut: Arc<watch::Sender<bool>>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start((host, port): (&str, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let cut = Arc::new(watch::Sender::new(false));
        let (host, told) = (host.to_owned(), cut.clone());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (host, mut cut) = (host.clone(), told.subscribe());
                passing.spawn(async move {
                    if *cut.borrow_and_update() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect((host.as_str(), port)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { endpoint, cut, _accepting: accepting }
    }

    pub(super) fn endpoint(&self) -> (String, u16) {
        self.endpoint.clone()
    }

    /// Ends all connections, and lets none come until it is mended. Nothing is passed on any more
    /// when it returns: whoever passes on holds a receiver until it has ended.
    pub(super) async fn cut(&self) {
        self.cut.send_replace(true);
        self.cut.closed().await;
    }

    pub(super) fn mend(&self) {
        self.cut.send_replace(false);
    }
}
