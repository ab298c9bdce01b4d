//! The control socket: HTTP and JSON over a Unix socket, readable by the
//! group, and its client for the command line.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    drain::{self, Answer, Order},
    status::Status,
    views::Views,
};

/// A request to load the configuration anew; the answer goes back.
pub type Reload = oneshot::Sender<ReloadAnswer>;

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// Whether the new configuration is in force.
    pub applied: bool,
    /// Errors, or what has changed, in words.
    pub messages: Vec<String>,
}

#[derive(Clone)]
struct Api {
    views: Views,
    reload: mpsc::Sender<Reload>,
    orders: mpsc::Sender<drain::Request>,
}

/// The control interface.
pub fn router(
    views: Views,
    reload: mpsc::Sender<Reload>,
    orders: mpsc::Sender<drain::Request>,
) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload_config))
        .route("/v1/drain", post(drain_backend))
        .with_state(Api {
            views,
            reload,
            orders,
        })
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.views.status())
}

async fn reload_config(State(api): State<Api>) -> Result<Json<ReloadAnswer>, StatusCode> {
    ask(&api.reload, |answer| answer).await
}

/// Drains a backend, or ends that.
async fn drain_backend(
    State(api): State<Api>,
    Json(order): Json<Order>,
) -> Result<Json<Answer>, StatusCode> {
    ask(&api.orders, |answer| (order, answer)).await
}

/// Hands a request over to who carries it out, and waits for the answer.
async fn ask<R, A>(
    to: &mpsc::Sender<R>,
    request: impl FnOnce(oneshot::Sender<A>) -> R,
) -> Result<Json<A>, StatusCode> {
    let (answer, answered) = oneshot::channel();
    let sent = to.send(request(answer)).await;
    sent.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let answer = answered.await;
    answer
        .map(Json)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

/// Opens the socket. One that a dead agent left is replaced, one that a living
/// agent serves is not.
///
/// # Errors
///
/// When the socket is in use or its directory cannot be written.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let message = format!("another vipd serves {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// How long an agent may take to tell its status, or to obey.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an agent may take over a reload, in which sessions may end.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The command line's side of the socket.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that serves `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The agent's status.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn status(&self) -> anyhow::Result<Status> {
        self.call(Method::GET, "/v1/status", String::new(), STATUS_TIMEOUT)
            .await
    }

    /// Has the agent load its configuration anew.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn reload(&self) -> anyhow::Result<ReloadAnswer> {
        self.call(Method::POST, "/v1/reload", String::new(), RELOAD_TIMEOUT)
            .await
    }

    /// Drains a backend, or ends that.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn order(&self, order: &Order) -> anyhow::Result<Answer> {
        let body = serde_json::to_string(order)?;
        self.call(Method::POST, "/v1/drain", body, STATUS_TIMEOUT)
            .await
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> anyhow::Result<T> {
        let answer = timeout(limit, self.exchange(method, path, body));
        answer.await.unwrap_or_else(|_| {
            bail!(
                "the agent at {} does not answer within {limit:?}: is it stopped (SIGSTOP) or \
                 very busy?",
                self.socket.display()
            )
        })
    }

    async fn exchange<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<T> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no agent answers at {}: is `vipd run` running?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vipd")
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        drop(sender);
        connection.await??;
        if !status.is_success() {
            bail!("the agent answered {status}: it may be stopping");
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_not_waited_for() {
        let name = format!("vipd-silent-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _agent = UnixListener::bind(&path).unwrap();
        let answer = timeout(Duration::from_secs(60), Client::new(&path).status()).await;
        let _ = fs::remove_file(&path);
        let error = answer.expect("an end").expect_err("no status").to_string();
        assert!(error.contains("does not answer within 2s"), "{error}");
    }
}
