//! One connection, from its opening to its end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use super::{Fate, Flow, FlowPlan, SharedBook, lock};
use crate::client::http::{Connection, request};

/// How long opening one may take, its first answer included.
const OPENING: Duration = Duration::from_secs(8);
/// How long each later answer may take: TCP has tried again several times.
const ANSWER: Duration = Duration::from_secs(15);

/// Opens a connection, enters it into the book, and keeps it until it is to
/// end or breaks.
pub(super) async fn run(plan: Arc<FlowPlan>, source: IpAddr, book: SharedBook) {
    let opened = timeout(OPENING, open(source, plan.target)).await;
    let opened = opened.unwrap_or_else(|_| Err(anyhow::anyhow!("not open within {OPENING:?}")));
    let (mut stream, backend) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let mut book = lock(&book);
            book.opening -= 1;
            let reason = format!("{error:#}");
            *book.report.not_opened.entry(reason).or_default() += 1;
            return;
        }
    };
    let index = {
        let mut book = lock(&book);
        book.opening -= 1;
        book.to_end.push(false);
        book.report.flows.push(Flow {
            backend: backend.clone(),
            opened: Instant::now(),
            answers: 1,
            fate: Fate::Open,
        });
        book.report.flows.len() - 1
    };
    let fate = loop {
        sleep(plan.pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        if let Err(error) = ask(&mut stream, &backend).await {
            break Fate::Broken {
                at: Instant::now(),
                why: format!("{error:#}"),
            };
        }
        let mut book = lock(&book);
        book.report.flows[index].answers += 1;
        if book.to_end[index] {
            break Fate::Ended;
        }
    };
    lock(&book).report.flows[index].fate = fate;
}

async fn open(source: IpAddr, target: SocketAddr) -> Result<(TcpStream, String)> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind((source, 0).into()).context("bind")?;
    let mut stream = socket.connect(target).await.context("connect")?;
    stream.set_nodelay(true)?;
    let backend = request(&mut stream, Connection::KeepAlive).await?;
    Ok((stream, backend))
}

async fn ask(stream: &mut TcpStream, backend: &str) -> Result<()> {
    let answer = timeout(ANSWER, request(stream, Connection::KeepAlive));
    let answer = answer
        .await
        .with_context(|| format!("no answer within {ANSWER:?}"))??;
    ensure!(answer == backend, "answered by {answer}");
    Ok(())
}
