//! A way that is slow in both directions, however much goes over it.

use std::net::SocketAddr;
use std::time::Duration;

use imgate::runtime::supervisor::{TaskKind, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Forwards connections until it is dropped.
pub(crate) struct Delay {
    pub(crate) address: SocketAddr,
    tasks: Tasks,
}

impl Delay {
    /// Every byte arrives `late` after it was sent.
    pub(crate) async fn start(to: SocketAddr, late: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let way = Self {
            address: listener.local_addr().unwrap(),
            tasks: Tasks::new(),
        };
        let tasks = way.tasks.clone();
        way.tasks.spawn("delay", TaskKind::Work, async move {
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let stop = tasks.clone();
                    tasks.spawn("delayed", TaskKind::Work, async move {
                        tokio::select! {
                            () = join(stream, to, late) => {}
                            () = stop.stopping() => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                () = tasks.stopping() => {}
            }
        });
        way
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Both directions, until one has ended.
async fn join(near: TcpStream, to: SocketAddr, late: Duration) {
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pass(from_near, to_far, late) => {}
        () = pass(from_far, to_near, late) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, late: Duration) {
    let (sender, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let take = async move {
        let mut chunk = [0; 16384];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            let due = Instant::now() + late;
            if sender.send((due, chunk[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let give = async {
        while let Some((due, bytes)) = waiting.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(take, give);
}
