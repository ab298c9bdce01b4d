//! The control socket: HTTP and JSON over a Unix socket, readable by the
//! group, and its client for the command line.

mod streamed;

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::BytesMut;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{sleep, timeout},
};

use self::streamed::streamed;
use crate::{
    capture::{self, CaptureError, Message},
    departure,
    events::{self, EventView},
    explain::{Explanation, Question},
    inquiry::Inquiry,
    overrides::{self, Answer, Order},
    request,
    show::bgp::BgpView,
    status::Status,
    views::Views,
};

/// A request to load the configuration anew.
pub type Reload = request::Request<(), ReloadAnswer>;

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
    asked: Asked,
    inquiry: Option<Inquiry>,
}

/// Where what is asked for goes.
#[derive(Clone)]
pub struct Asked {
    /// To load the configuration anew.
    pub reload: mpsc::Sender<Reload>,
    /// To do with a backend or service what is not configured.
    pub orders: mpsc::Sender<overrides::Request>,
    /// Who writes down what was ordered.
    pub keeper: Option<overrides::Keeper>,
    /// To tell what has happened.
    pub events: mpsc::Sender<events::Asked>,
    /// To take the node out of service.
    pub departure: mpsc::Sender<departure::Request>,
}

/// The control interface; without a data plane there is nothing to inquire.
pub fn router(views: Views, asked: Asked, inquiry: Option<Inquiry>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/bgp", get(bgp))
        .route("/v1/reload", post(reload_config))
        .route("/v1/order", post(order))
        .route("/v1/events", post(tell_events))
        .route("/v1/maintenance", post(maintain))
        .route("/v1/explain", post(explain))
        .route("/v1/capture", post(capture))
        .with_state(Api {
            views,
            asked,
            inquiry,
        })
}

async fn status(State(api): State<Api>) -> Response {
    let json = streamed(move |writer| {
        // Who has asked may have gone meanwhile.
        let _ = serde_json::to_writer(writer, &api.views.status_to_write());
    });
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}

async fn bgp(State(api): State<Api>) -> Json<BgpView> {
    Json(api.views.bgp().await)
}

async fn reload_config(State(api): State<Api>) -> Result<Json<ReloadAnswer>, StatusCode> {
    ask(&api.asked.reload, ()).await
}

/// Carries out an order, and answers when it is written down.
async fn order(
    State(api): State<Api>,
    Json(order): Json<Order>,
) -> Result<Json<Answer>, StatusCode> {
    let Json(mut answer) = ask(&api.asked.orders, order).await?;
    if let Some(keeper) = &api.asked.keeper
        && let Err(error) = keeper.save().await
    {
        answer.message += &format!("; a restart may forget this: {error}");
    }
    Ok(Json(answer))
}

/// Answers with a line of JSON for each event.
async fn tell_events(
    State(api): State<Api>,
    Json(question): Json<events::Question>,
) -> Result<Response, StatusCode> {
    let answers = request::ask(&api.asked.events, question).await;
    let answers = answers.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Body::from_stream(events::lines(answers, question.follow)).into_response())
}

/// Takes the node out of service, or ends that.
async fn maintain(
    State(api): State<Api>,
    Json(order): Json<departure::Order>,
) -> Result<Json<departure::Answer>, StatusCode> {
    ask(&api.asked.departure, order).await
}

/// Hands a question over to who answers it, and waits for the answer.
async fn ask<Q, A>(
    to: &mpsc::Sender<request::Request<Q, A>>,
    question: Q,
) -> Result<Json<A>, StatusCode> {
    let answer = request::ask(to, question).await;
    answer.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// Why a question has no answer.
type Refusal = (StatusCode, String);

impl Api {
    fn inquiry(&self) -> Result<&Inquiry, Refusal> {
        let none = "this agent has no data plane: its configuration has no [dataplane]";
        let none = || (StatusCode::NOT_FOUND, none.to_owned());
        self.inquiry.as_ref().ok_or_else(none)
    }
}

async fn explain(
    State(api): State<Api>,
    Json(question): Json<Question>,
) -> Result<Json<Explanation>, Refusal> {
    let dataplane = api.views.dataplane.as_ref();
    let fault = dataplane.and_then(|dataplane| dataplane.fault.borrow().clone());
    let explained = api.inquiry()?.explain(question, fault).await;
    explained
        .map(Json)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))
}

/// Answers with a line of JSON for each message, until the capture ends.
async fn capture(
    State(api): State<Api>,
    Json(request): Json<capture::Request>,
) -> Result<Response, Refusal> {
    let captures = &api.inquiry()?.captures;
    let messages = captures.start(request).await.map_err(|error| {
        let status = match error {
            CaptureError::Busy => StatusCode::CONFLICT,
            CaptureError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            CaptureError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CaptureError::Kernel(_) | CaptureError::Read(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, error.to_string())
    })?;
    let lines = stream::unfold(messages, |mut messages| async {
        let message = messages.recv().await?;
        let line = serde_json::to_vec(&message).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        Some((line, messages))
    });
    Ok(Body::from_stream(lines).into_response())
}

/// Opens the socket. One that a dead agent left is replaced; one that a living
/// agent serves, or anything that is no socket, is not.
///
/// # Errors
///
/// When something else is there, or its directory cannot be written.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = bind(path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// As [`listen`], without a runtime.
///
/// # Errors
///
/// As [`listen`].
pub fn bind(path: &Path) -> io::Result<net::UnixListener> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
    }
    if net::UnixStream::connect(path).is_ok() {
        let message = format!("another vipd serves {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            let message = "something else than a socket is there, and stays there: see \
                           control.socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = net::UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// How long an agent may take to tell its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an agent may take over a change: an order is on the disk when it
/// answers, and in a reload sessions may end.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an agent may take to load the explaining program and ask it.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(10);

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
        self.call(Method::GET, "/v1/status", &(), STATUS_TIMEOUT)
            .await
    }

    /// All of the agent's BGP sessions.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn bgp(&self) -> anyhow::Result<BgpView> {
        self.call(Method::GET, "/v1/bgp", &(), STATUS_TIMEOUT).await
    }

    /// Has the agent load its configuration anew.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn reload(&self) -> anyhow::Result<ReloadAnswer> {
        self.call(Method::POST, "/v1/reload", &(), CHANGE_TIMEOUT)
            .await
    }

    /// What packets of a flow get, and why.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or has no answer.
    pub async fn explain(&self, question: &Question) -> anyhow::Result<Explanation> {
        let path = "/v1/explain";
        self.call(Method::POST, path, question, EXPLAIN_TIMEOUT)
            .await
    }

    /// Captures packets: hands over each message until there are no more or
    /// `take` fails or says that it is enough.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or refuses, or `take` fails.
    pub async fn capture(
        &self,
        request: &capture::Request,
        mut take: impl FnMut(Message) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let body = self.send(Method::POST, "/v1/capture", request).await?;
        match each_line(body, &mut take).await? {
            true => Ok(()),
            false => bail!("the agent at {} has gone", self.socket.display()),
        }
    }

    /// What has happened: hands over each event, in the order of time, until there
    /// are no more or `take` fails.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached, or goes while it is followed, or `take`
    /// fails.
    pub async fn events(
        &self,
        question: &events::Question,
        mut take: impl FnMut(EventView) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let body = self.send(Method::POST, "/v1/events", question).await?;
        each_line(body, &mut |event| take(event).map(|()| true)).await?;
        if question.follow {
            bail!("the agent at {} has gone", self.socket.display());
        }
        Ok(())
    }

    /// Has the agent do with a backend or service what is not configured, or ends
    /// that.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn order(&self, order: &Order) -> anyhow::Result<Answer> {
        self.call(Method::POST, "/v1/order", order, CHANGE_TIMEOUT)
            .await
    }

    /// Takes the node out of service, step by step, or ends that.
    ///
    /// # Errors
    ///
    /// When the agent cannot be reached or does not answer.
    pub async fn depart(&self, order: &departure::Order) -> anyhow::Result<departure::Answer> {
        let path = "/v1/maintenance";
        self.call(Method::POST, path, order, CHANGE_TIMEOUT).await
    }

    /// Waits until the agent has gone in good order.
    ///
    /// # Errors
    ///
    /// When it has not after `limit`.
    pub async fn gone(&self, limit: Duration) -> anyhow::Result<()> {
        let gone = async {
            while self.socket.exists() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(limit, gone).await.is_ok() {
            return Ok(());
        }
        // A dead agent leaves its socket behind.
        let how = match UnixStream::connect(&self.socket).await {
            Ok(_) => "is still there",
            Err(_) => "has died on the way, and may have left its data plane behind",
        };
        bail!("the agent {how} after {limit:?}; see its log")
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        path: &str,
        question: &impl Serialize,
        limit: Duration,
    ) -> anyhow::Result<T> {
        let answer = timeout(limit, async {
            let body = self.send(method, path, question).await?;
            let body = body.collect().await?.to_bytes();
            Ok(serde_json::from_slice(&body)?)
        });
        answer.await.unwrap_or_else(|_| {
            bail!(
                "the agent at {} does not answer within {limit:?}: it may be starting, very busy, \
                 or stopped (SIGSTOP)",
                self.socket.display()
            )
        })
    }

    /// Asks, and gives back the answer's body as it comes.
    async fn send(
        &self,
        method: Method,
        path: &str,
        question: &impl Serialize,
    ) -> anyhow::Result<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no agent answers at {}: is `vipd run` running?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vipd")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(question)?)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let words = body.collect().await?.to_bytes();
        match str::from_utf8(&words) {
            Ok(words) if !words.is_empty() => bail!("{words}"),
            _ => bail!("the agent answered {status}: it may be stopping"),
        }
    }
}

/// Hands over each line of a body, which is a value in JSON; says whether `take` has
/// had enough.
async fn each_line<T: DeserializeOwned>(
    mut body: Incoming,
    take: &mut dyn FnMut(T) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let mut pending = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let mut seen = pending.len();
        pending.extend_from_slice(&data);
        while let Some(end) = pending[seen..].iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(seen + end + 1);
            seen = 0;
            if !take(serde_json::from_slice(&line)?)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of this process; whatever is there goes with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("vipd-{name}-{}.sock", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_not_waited_for() {
        let socket = Scratch::new("silent");
        let _agent = UnixListener::bind(&socket.0).unwrap();
        let answer = timeout(Duration::from_secs(60), Client::new(&socket.0).status()).await;
        let error = answer.expect("an end").expect_err("no status").to_string();
        let words = "does not answer within 5s: it may be starting";
        assert!(error.contains(words), "{error}");
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_serves_is_replaced() {
        let socket = Scratch::new("place");
        let living = listen(&socket.0).expect("nothing was there");
        let error = listen(&socket.0).expect_err("it is served").to_string();
        assert!(error.contains("another vipd serves"), "{error}");
        drop(living);
        drop(listen(&socket.0).expect("a dead agent's socket is replaced"));

        fs::remove_file(&socket.0).unwrap();
        fs::write(&socket.0, "somebody's").unwrap();
        let error = listen(&socket.0).expect_err("it is a file").to_string();
        assert!(error.contains("something else than a socket"), "{error}");
        assert_eq!(fs::read_to_string(&socket.0).unwrap(), "somebody's");
    }
}
