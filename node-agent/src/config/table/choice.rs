//! How a key is declared whose word decides which other keys stand beside it.

use super::{At, Reader, Report, Span, TableDoc};
use crate::config::value::read_word;

/// The words of a key, each with the keys that it adds to the table.
pub trait Choice: Sized {
    /// All of them.
    fn words() -> Vec<Word>;

    /// What belongs to the word.
    fn take(word: &str, reader: &mut Reader<'_, '_>) -> Option<Self>;

    /// What the reference calls it.
    fn kind() -> String {
        let words: Vec<_> = Self::words().iter().map(|word| quoted(word.word)).collect();
        words.join(" or ")
    }

    /// The keys that words add, each set once, with all words that add it.
    fn tables() -> Vec<TableDoc> {
        let mut tables: Vec<TableDoc> = Vec::new();
        for Word { word, adds, .. } in Self::words() {
            for mut table in adds {
                if let Some(same) = tables.iter_mut().find(|known| known.name == table.name) {
                    same.words.push(word);
                } else {
                    table.words.push(word);
                    tables.push(table);
                }
            }
        }
        tables
    }
}

/// A word that can be chosen.
pub struct Word {
    /// As it is written.
    pub word: &'static str,
    /// Sets of keys that go with it.
    pub adds: Vec<TableDoc>,
    /// Keys of every word that mean nothing with this one.
    pub without: &'static [&'static str],
}

/// Declares a choice: an enum whose variants hold the keys that their words add.
macro_rules! choice {
    ($(#[doc = $about:literal])* $name:ident { $(
        $(#[doc = $doc:literal])*
        $word:literal => $variant:ident $(($($keys:ty),+))? $(without $without:expr)?,
    )* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub enum $name {
            $($(#[doc = $doc])* $variant $(($($keys),+))?,)*
        }

        impl Choice for $name {
            fn words() -> Vec<Word> {
                vec![$(Word {
                    word: $word,
                    adds: vec![$($(<$keys as Keys>::doc()),+)?],
                    without: choice!(@without $($without)?),
                },)*]
            }

            fn take(word: &str, reader: &mut Reader<'_, '_>) -> Option<Self> {
                match word {
                    $($word => Some(choice!(@take reader, Self::$variant $(, $($keys),+)?)),)*
                    _ => None,
                }
            }
        }
    };
    (@without) => { &[] };
    (@without $without:expr) => { &$without };
    (@take $reader:ident, $variant:expr) => { $variant };
    (@take $reader:ident, $variant:expr, $($keys:ty),+) => {
        $variant($(<$keys as Keys>::take($reader)),+)
    };
}
pub(in crate::config) use choice;

impl Reader<'_, '_> {
    /// Reads a key that must be there, and the keys that its word adds.
    pub fn chosen<T: Choice>(&mut self, key: &'static str) -> Option<At<T>> {
        let words = T::words();
        if !self.table.contains_key(key) {
            let help = format!("add a line `{key} = ...`, {}", T::kind());
            self.missing.push((key, help));
        }
        let pairs: Vec<_> = words.iter().map(|word| (word.word, word.word)).collect();
        let chosen = self.read_by(key, |value, span, report| {
            read_word(value, span, report, &pairs)
        });
        let Some(At { value: word, span }) = chosen else {
            // Nobody knows which keys are right.
            let keys = words.iter().flat_map(Word::keys);
            self.known.extend(keys);
            return None;
        };
        self.elsewhere.extend(elsewhere(key, word, &span, &words));
        let value = T::take(word, self)?;
        Some(At { value, span })
    }
}

impl Word {
    /// The keys that it adds.
    fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = self.adds.iter().flat_map(|table| &table.keys);
        keys.map(|key| key.name)
    }

    fn takes(&self, key: &str) -> bool {
        !self.without.contains(&key) && self.keys().any(|own| own == key)
    }
}

/// A key that does not go with the word that is chosen.
pub struct Elsewhere {
    pub key: &'static str,
    /// The key whose word is chosen, and where.
    choice: &'static str,
    at: Span,
    chosen: &'static str,
    /// The words that it goes with.
    words: Vec<&'static str>,
}

/// All keys that do not go with the word that is chosen.
fn elsewhere(
    choice: &'static str,
    chosen: &'static str,
    at: &Span,
    words: &[Word],
) -> Vec<Elsewhere> {
    let Some(own) = words.iter().find(|word| word.word == chosen) else {
        return Vec::new();
    };
    let others = words.iter().flat_map(Word::keys);
    let others = others.filter(|key| !own.takes(key)).map(|key| {
        let words = words.iter().filter(|word| word.takes(key));
        (key, words.map(|word| word.word).collect())
    });
    let meaningless = own.without.iter().map(|key| {
        let words = words.iter().filter(|word| !word.without.contains(key));
        (*key, words.map(|word| word.word).collect())
    });
    let all = others.chain(meaningless);
    let all = all.map(|(key, words)| Elsewhere {
        key,
        choice,
        at: at.clone(),
        chosen,
        words,
    });
    all.collect()
}

impl Elsewhere {
    /// Reports the key, which stands at `span`.
    pub fn tell(&self, span: &Span, report: &mut Report) {
        let Self {
            key,
            choice,
            chosen,
            ..
        } = self;
        let words: Vec<_> = self.words.iter().map(|word| quoted(word)).collect();
        report
            .error(
                span,
                format!("`{key}` means nothing with {choice} = \"{chosen}\""),
            )
            .related(&self.at, format!("this {choice}"))
            .help(format!(
                "remove it; it goes with {choice} = {}",
                listed(&words, "or")
            ));
    }
}

fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

/// `a, b and c`.
pub fn listed(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}
