//! A file that says by being there, or by not being there, that a backend is up.

use std::{io, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};
use vipd_control::{check::CheckCode, model::File};

use super::check::Outcome;

/// Looks whether it is there.
pub async fn look(file: &File, within: Duration) -> Outcome {
    let path = file.path.clone();
    // A file system in the network may take its time.
    let looked = timeout(within, spawn_blocking(move || path.try_exists())).await;
    let found = looked.map_or_else(
        |_| Err(io::Error::other("its file system does not answer")),
        |looked| looked.unwrap_or_else(|error| Err(io::Error::other(error))),
    );
    let path = file.path.display();
    match found {
        Ok(present) => {
            let words = if present { "is there" } else { "is not there" };
            let code = if present == file.up_while_present {
                CheckCode::L7Ok
            } else {
                CheckCode::L7Status
            };
            Outcome::with(code, format!("{path} {words}"))
        }
        Err(error) => {
            let words = format!("cannot tell whether {path} is there: {error}");
            Outcome::with(CheckCode::SockErr, words)
        }
    }
}
