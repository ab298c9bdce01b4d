//! A program that is run, and judged by its exit code.

use std::{net::SocketAddr, time::Duration};

use vipd_control::{check::CheckCode, model::Program};

use super::check::{Outcome, Subject};
use crate::run::{Ending, NotRun, Ran, Runner};

/// Runs it once.
pub async fn run(
    runner: &Runner,
    program: &Program,
    subject: Subject<'_>,
    target: SocketAddr,
    within: Duration,
) -> Outcome {
    let environment = [
        ("VIPD_SERVICE", subject.service.to_owned()),
        ("VIPD_BACKEND", subject.backend.to_owned()),
        ("VIPD_ADDRESS", target.ip().to_string()),
        ("VIPD_PORT", target.port().to_string()),
        ("VIPD_TIMEOUT_MS", within.as_millis().to_string()),
    ];
    match runner.run(program, &environment, within).await {
        Ok(ran) => judge(&ran),
        Err(NotRun::Unstartable(words)) => Outcome::with(CheckCode::ProcErr, words),
        Err(NotRun::Unable(words)) => Outcome::with(CheckCode::SockErr, words),
    }
}

fn judge(ran: &Ran) -> Outcome {
    match ran.ending {
        Ending::Exited(code) => Outcome {
            status: Some(code.into()),
            ..Outcome::with(
                if code == 0 {
                    CheckCode::ProcOk
                } else {
                    CheckCode::ProcErr
                },
                ran.to_string(),
            )
        },
        Ending::Signalled(_) => Outcome::with(CheckCode::ProcErr, ran.to_string()),
        Ending::TimedOut | Ending::Stuck => Outcome::with(CheckCode::ProcTimeout, ran.to_string()),
    }
}
