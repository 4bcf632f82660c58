//! A proxy between the gateway and the simulator: it can keep requests or answers back, and speak TLS to the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imgate::runtime::supervisor::{TaskKind, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::fixture::until;

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    ended: AtomicU64,
    kept: AtomicU64,
    answered: AtomicU64,
}

/// Forwards connections until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    flowing: watch::Sender<bool>,
    answering: watch::Sender<bool>,
    tasks: Tasks,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (flowing, flow) = watch::channel(true);
        let (answering, answers) = watch::channel(true);
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            counts: Arc::default(),
            flowing,
            answering,
            tasks: Tasks::new(),
        };
        let (counts, tasks) = (Arc::clone(&proxy.counts), proxy.tasks.clone());
        proxy.tasks.spawn("proxy", TaskKind::Work, async move {
            while let Some(Ok((stream, _))) = tasks.stop_or(listener.accept()).await {
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                let link = Link {
                    to,
                    flow: flow.clone(),
                    answers: answers.clone(),
                    counts: Arc::clone(&counts),
                };
                let (tls, stop) = (tls.clone(), tasks.clone());
                tasks.spawn("proxied", TaskKind::Work, async move {
                    stop.stop_or(link.forward(stream, tls)).await;
                    link.counts.ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes were kept back.
    pub(crate) fn kept(&self) -> u64 {
        self.counts.kept.load(Ordering::Relaxed)
    }

    /// How many bytes of the upstream's were passed on.
    pub(crate) fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// From now on only the first thing that is sent on a connection, its opening, gets to the upstream. The rest is
    /// kept, and thrown away if the connection closes meanwhile.
    pub(crate) fn hold(&self) {
        self.flowing.send_replace(false);
    }

    /// From now on nothing that the upstream says gets to the gateway. It is kept, and thrown away if the connection
    /// closes meanwhile.
    pub(crate) fn hold_answers(&self) {
        self.answering.send_replace(false);
    }

    /// Waits until all connections have ended, so that what was kept of them is gone, and lets everything through
    /// again.
    pub(crate) async fn release_emptied(&self) {
        let ended = || self.counts.ended.load(Ordering::Relaxed);
        until("a connection stays open", || ended() == self.accepted()).await;
        self.release();
    }

    /// Lets everything through again.
    pub(crate) fn release(&self) {
        self.flowing.send_replace(true);
        self.answering.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

trait StopOr {
    async fn stop_or<T>(&self, work: impl Future<Output = T>) -> Option<T>;
}

impl StopOr for Tasks {
    async fn stop_or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stopping() => None,
            done = work => Some(done),
        }
    }
}

/// One connection.
struct Link {
    to: SocketAddr,
    flow: watch::Receiver<bool>,
    answers: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

impl Link {
    async fn forward(&self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let Ok(upstream) = TcpStream::connect(self.to).await else {
            return;
        };
        match tls {
            None => self.join(stream, upstream).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.join(stream, upstream).await;
                }
            }
        }
    }

    /// Both directions, until one has ended.
    async fn join<S: AsyncRead + AsyncWrite>(&self, stream: S, upstream: TcpStream) {
        let (from_gateway, to_gateway) = tokio::io::split(stream);
        let (from_upstream, to_upstream) = upstream.into_split();
        tokio::select! {
            () = self.ask(from_gateway, to_upstream) => {}
            () = self.answer(from_upstream, to_gateway) => {}
        }
    }

    async fn ask(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut flow = self.flow.clone();
        let (mut opening, mut kept, mut chunk) = (true, Vec::new(), [0; 1024]);
        loop {
            let open = opening || *flow.borrow_and_update();
            if open && !kept.is_empty() {
                if to.write_all(&kept).await.is_err() {
                    return;
                }
                kept.clear();
                opening = false;
            }
            tokio::select! {
                read = from.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => kept.extend_from_slice(&chunk[..count]),
                },
                changed = flow.changed() => if changed.is_err() {
                    return;
                },
            }
            if !opening && !*flow.borrow() {
                let count = kept.len() as u64;
                self.counts.kept.fetch_max(count, Ordering::Relaxed);
            }
        }
    }

    async fn answer(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut chunk = [0; 1024];
        let mut answers = self.answers.clone();
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if answers.wait_for(|flow| *flow).await.is_err() {
                return;
            }
            if to.write_all(&chunk[..count]).await.is_err() {
                return;
            }
            let count = count as u64;
            self.counts.answered.fetch_add(count, Ordering::Relaxed);
        }
    }
}
