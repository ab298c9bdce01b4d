//! The task that keeps the history and answers who asks for it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    stream::{iter, unfold},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};

use super::{Event, EventView, History, Limits, Stamp, Step, Subject, Trail, history::Kept};
use crate::request;

/// Events that wait for one who follows slowly.
const BEHIND: usize = 4096;

/// Which events are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Not older than so many seconds; all that are remembered by default.
    #[serde(default)]
    pub since_seconds: Option<u64>,
    /// And those that come, until nobody listens.
    #[serde(default)]
    pub follow: bool,
}

/// What is remembered, and where what comes can be heard.
pub struct Answers {
    /// In the order of time.
    pub past: Vec<EventView>,
    /// From then on.
    pub coming: broadcast::Receiver<Arc<EventView>>,
    /// How many could not be recorded.
    pub lost: u64,
}

/// A question on its way to the keeper.
pub type Asked = request::Request<Question, Answers>;

/// Keeps the history.
pub struct Keeper {
    history: History,
    recorded: mpsc::Receiver<Vec<Event>>,
    lost: Arc<AtomicU64>,
    news: broadcast::Sender<Arc<EventView>>,
}

impl Keeper {
    pub(super) fn new(recorded: mpsc::Receiver<Vec<Event>>, lost: Arc<AtomicU64>) -> Self {
        Self {
            history: History::new(Limits::default()),
            recorded,
            lost,
            news: broadcast::Sender::new(BEHIND),
        }
    }

    /// Runs until nobody records any more.
    pub async fn run(mut self, mut questions: mpsc::Receiver<Asked>) {
        loop {
            tokio::select! {
                biased;
                recorded = self.recorded.recv() => match recorded {
                    Some(events) => self.take(events),
                    None => return,
                },
                Some((question, answer)) = request::next(&mut questions) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.answer(question));
                }
            }
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let kept = self.history.add(event);
            if self.news.receiver_count() > 0 {
                // They may just have gone.
                let _ = self.news.send(Arc::new(self.history.view(&kept)));
            }
        }
    }

    fn answer(&self, question: Question) -> Answers {
        let age = question.since_seconds.map(Duration::from_secs);
        let since = age.and_then(|age| SystemTime::now().checked_sub(age));
        Answers {
            past: self.history.since(since),
            coming: self.news.subscribe(),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

/// Lines of JSON, one for each event: the past, and then what comes if it is to be
/// followed. Who follows too slowly misses events, and is told so.
pub fn lines(answers: Answers, follow: bool) -> impl Stream<Item = io::Result<Bytes>> {
    let past = answers.past.into_iter().map(|event| line(&event));
    let coming = follow.then_some(answers.coming);
    let coming = unfold(coming, async |coming| {
        let mut coming = coming?;
        let event = match coming.recv().await {
            Ok(event) => line(&event),
            Err(RecvError::Lagged(missed)) => line(&missed_some(missed)),
            Err(RecvError::Closed) => return None,
        };
        Some((event, Some(coming)))
    });
    // What could not be recorded is told at the end of what could.
    let lost = (answers.lost > 0).then(|| line(&missed_some(answers.lost)));
    iter(past.chain(lost)).chain(coming)
}

fn line(event: &EventView) -> io::Result<Bytes> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}

fn missed_some(count: u64) -> EventView {
    let words = format!("{count} events are missing here: there were too many at once");
    let event = Event::new(
        Trail {
            at: Stamp::now(),
            ..Trail::default()
        },
        Subject::Node,
        Step::Configuration,
        words,
    );
    EventView::new(&Kept { id: 0, event }, Vec::new())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::events::{Recorder, Step, Subject, Trail};

    fn event(trail: Trail, text: &str) -> Event {
        Event::new(trail, Subject::Node, Step::Order, text)
    }

    #[tokio::test]
    async fn who_follows_hears_the_past_and_what_comes_each_once() {
        let (recorder, keeper) = Recorder::new();
        let (questions, asked) = mpsc::channel(1);
        tokio::spawn(keeper.run(asked));
        recorder.record([event(recorder.trail(), "before")]);
        let answers = request::ask(&questions, Question::default()).await;
        let mut answers = answers.expect("an answer");
        recorder.record([event(recorder.trail(), "after")]);
        let coming = timeout(Duration::from_secs(20), answers.coming.recv()).await;
        let coming = coming.expect("in time").expect("an event");
        let texts: Vec<_> = answers.past.iter().map(|event| &*event.text).collect();
        assert_eq!((texts, &*coming.text), (vec!["before"], "after"));
    }

    #[tokio::test]
    async fn nobody_waits_for_the_keeper_and_what_is_lost_is_counted() {
        let (recorder, keeper) = Recorder::new();
        for _ in 0..super::super::WAITING + 3 {
            recorder.record([event(recorder.trail(), "again")]);
        }
        let (questions, asked) = mpsc::channel(1);
        tokio::spawn(keeper.run(asked));
        let answers = request::ask(&questions, Question::default()).await;
        assert_eq!(answers.expect("an answer").lost, 3);
    }

    #[tokio::test]
    async fn of_very_many_at_once_it_is_told_that_there_were_more() {
        let (recorder, keeper) = Recorder::new();
        let (questions, asked) = mpsc::channel(1);
        tokio::spawn(keeper.run(asked));
        let trail = recorder.trail();
        let of = |i: usize| {
            let subject = Subject::Service(i.to_string().into());
            Event::new(trail, subject, Step::Decision, "")
        };
        recorder.record((0..100_000).map(of));
        let answers = request::ask(&questions, Question::default()).await;
        let past = answers.expect("an answer").past;
        let last = past.last().expect("events");
        assert_eq!(past.len(), super::super::MOST_AT_ONCE + 1);
        assert!(last.text.contains("more than 256 at once"), "{last:?}");
    }
}
