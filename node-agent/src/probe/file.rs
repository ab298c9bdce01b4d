//! A file that says by being there, or by not being there, that a backend is up.

use std::time::Duration;

use vipd_control::{check::CheckCode, model::File};

use super::check::Outcome;
use crate::looker::Looker;

/// Looks whether it is there.
pub async fn look(looker: &Looker, file: &File, within: Duration) -> Outcome {
    let found = looker.is_there(&file.path, within).await;
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::questions::tests::{Hung, PATIENCE};

    #[tokio::test]
    async fn a_file_system_that_does_not_answer_says_nothing_of_the_backend() {
        let looker = Looker::by(|path| std::fs::File::open(path).map(|_| true).or(Ok(false)));
        let hung = Hung::new("check");
        let file = File {
            path: hung.path().to_owned(),
            up_while_present: true,
        };
        for _ in 0..3 {
            let look = look(&looker, &file, Duration::from_millis(20));
            let outcome = timeout(PATIENCE, look).await.expect("it is waited for");
            assert_eq!(outcome.code, CheckCode::SockErr, "{outcome:?}");
            let words = "is there: its file system does not answer";
            assert!(outcome.detail.ends_with(words), "{outcome:?}");
        }
    }
}
