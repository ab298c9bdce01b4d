//! A question on its way to the task that answers it.

use tokio::sync::{mpsc, oneshot};

/// A question, and where its answer goes.
pub type Request<Q, A> = (Q, oneshot::Sender<A>);

/// Asks, and waits for the answer; `None` when nobody answers any more. Who does
/// not wait for it has not asked.
pub async fn ask<Q, A>(to: &mpsc::Sender<Request<Q, A>>, question: Q) -> Option<A> {
    let (answer, answered) = oneshot::channel();
    to.send((question, answer)).await.ok()?;
    answered.await.ok()
}

/// The next request whose asker still waits; `None` when nobody can ask any more.
/// Who has given up believes that nothing came of it, and nothing does. A wait
/// that is dropped has taken no request.
pub async fn next<Q, A>(requests: &mut mpsc::Receiver<Request<Q, A>>) -> Option<Request<Q, A>> {
    loop {
        let request = requests.recv().await?;
        if !request.1.is_closed() {
            return Some(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{join, time::timeout};

    use super::*;

    #[tokio::test]
    async fn who_waits_is_answered() {
        let (to, mut requests) = mpsc::channel(1);
        let answering = async {
            let (question, answer) = next(&mut requests).await.expect("a request");
            answer.send(question + 1)
        };
        assert_eq!(join!(ask(&to, 1), answering), (Some(2), Ok(())));
        drop(requests);
        assert_eq!(ask(&to, 1).await, None);
    }

    #[tokio::test]
    async fn what_somebody_has_given_up_is_not_done() {
        let (to, mut requests) = mpsc::channel::<Request<_, ()>>(2);
        let given_up = timeout(Duration::from_millis(1), ask(&to, "old")).await;
        assert!(given_up.is_err(), "nobody answers");
        let (answer, _answered) = oneshot::channel();
        to.send(("new", answer)).await.unwrap();
        let (question, _) = next(&mut requests).await.expect("a request");
        assert_eq!(question, "new");
    }
}
