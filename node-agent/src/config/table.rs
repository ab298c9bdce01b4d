//! How a table of the file is declared and read.
//!
//! A derive of serde stops at the first error of a file. Operators want all of
//! them, so tables are declared by [`table!`] and read key by key: what is
//! wrong goes to the [`Report`], the rest is read on. The same declaration
//! gives the defaults, the spelling hints and the reference.

pub mod choice;

use toml::de::{DeTable, DeValue};

use self::choice::Elsewhere;
use super::report::{Report, Span};

/// A value and where it stands. A default stands where its table begins.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

/// Something that can stand to the right of `=`.
pub trait Value: Sized {
    /// What the reference calls it, for example `"duration"`.
    fn kind() -> String;

    /// Reads it; whatever is wrong is reported, and `None` returned when
    /// nothing usable is left.
    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self>;

    /// The tables of the file that are declared by this type.
    fn tables() -> Vec<TableDoc> {
        Vec::new()
    }
}

/// Keys that are declared together: all of a table, or those that a choice in
/// it adds.
pub trait Keys: Sized {
    /// Reads them from a table.
    fn take(reader: &mut Reader<'_, '_>) -> Self;

    /// As the reference shows them.
    fn doc() -> TableDoc;
}

/// A table as the reference shows it.
pub struct TableDoc {
    /// The type that declares it.
    pub name: &'static str,
    /// As it stands in the file, for example `[[bgp.peer]]`; empty for the
    /// file itself.
    pub header: &'static str,
    /// The words of a choice with which these keys stand in the table; none
    /// when they always do.
    pub words: Vec<&'static str>,
    /// Introduction, a paragraph or an example per blank line.
    pub about: String,
    /// Its keys, in the order in which they are best read.
    pub keys: Vec<KeyDoc>,
}

/// A key as the reference shows it.
pub struct KeyDoc {
    pub name: &'static str,
    pub kind: String,
    pub need: Need,
    pub about: String,
}

/// Whether a key must be there.
pub enum Need {
    Required,
    /// The value that is taken, as it would stand in the file.
    Default(&'static str),
    /// What happens without it, in words.
    Optional(&'static str),
}

/// Reads the keys of one table and remembers which there are.
pub struct Reader<'a, 'de> {
    header: &'static str,
    span: &'a Span,
    table: &'a DeTable<'de>,
    known: Vec<&'static str>,
    /// Keys that should be there, each with how to add it.
    missing: Vec<(&'static str, String)>,
    /// Keys that only go with other words than those that were chosen.
    elsewhere: Vec<Elsewhere>,
    report: &'a mut Report,
}

/// Declares a table: a struct with one field per key, how it is read, and its
/// part of the reference. A key is `required`, also only `unless` another is there, has a `default` (as TOML), is
/// `optional` (with words on what happens without it), or is a word that is
/// `chosen` by a `choice!`.
macro_rules! table {
    ($(#[doc = $about:literal])* $name:ident = $header:literal {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty, $need:ident $($else:literal)?;)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[doc = $doc])* pub $key: table!(@field $need $type),)*
        }

        impl Value for $name {
            fn kind() -> String {
                String::from("table")
            }

            fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
                let mut reader = Reader::open($header, value, span, report)?;
                let read = <Self as $crate::config::table::Keys>::take(&mut reader);
                reader.close();
                Some(read)
            }

            fn tables() -> Vec<TableDoc> {
                let mut tables = vec![<Self as $crate::config::table::Keys>::doc()];
                $(tables.extend(<$type>::tables());)*
                tables
            }
        }

        impl $crate::config::table::Keys for $name {
            fn take(reader: &mut Reader<'_, '_>) -> Self {
                Self {
                    $($key: reader.$need(table!(@name $key) $(, $else)?),)*
                }
            }

            fn doc() -> TableDoc {
                TableDoc {
                    name: stringify!($name),
                    header: $header,
                    words: Vec::new(),
                    about: concat!($($about, "\n",)* "").to_owned(),
                    keys: vec![$(KeyDoc {
                        name: table!(@name $key),
                        kind: <$type>::kind(),
                        need: table!(@need $need $($else)?),
                        about: concat!($($doc, "\n",)* "").to_owned(),
                    },)*],
                }
            }
        }
    };
    (@field default $type:ty) => { At<$type> };
    (@field $optional:ident $type:ty) => { Option<At<$type>> };
    (@need required) => { Need::Required };
    (@need chosen) => { Need::Required };
    (@need unless $other:literal) => {
        Need::Optional(concat!("required, unless there is `", $other, "`"))
    };
    (@need default $value:literal) => { Need::Default($value) };
    (@need optional $words:literal) => { Need::Optional($words) };
    (@name $key:ident) => { stringify!($key).trim_start_matches("r#") };
}
pub(super) use table;

impl<'a, 'de> Reader<'a, 'de> {
    /// Starts on `value`, which must be a table.
    pub fn open(
        header: &'static str,
        value: &'a DeValue<'de>,
        span: &'a Span,
        report: &'a mut Report,
    ) -> Option<Self> {
        let Some(table) = value.as_table() else {
            let title = format!("expected a table, found {}", article(value));
            report
                .error(span, title)
                .help(format!("begin it with a line {header}"));
            return None;
        };
        Some(Self {
            header,
            span,
            table,
            known: Vec::new(),
            missing: Vec::new(),
            elsewhere: Vec::new(),
            report,
        })
    }

    /// Reads a key that must be there. `None` is reported.
    pub fn required<T: Value>(&mut self, key: &'static str) -> Option<At<T>> {
        if !self.table.contains_key(key) {
            let help = match T::tables().first() {
                Some(table) => format!("add {}", table.header),
                None => format!("add a line `{key} = ...`, {}", T::kind()),
            };
            self.missing.push((key, help));
        }
        self.read(key)
    }

    /// Reads a key that may be missing if another one is there.
    pub fn unless<T: Value>(&mut self, key: &'static str, other: &str) -> Option<At<T>> {
        if self.table.contains_key(other) {
            self.read(key)
        } else {
            self.required(key)
        }
    }

    /// Reads a key that may be missing.
    pub fn optional<T: Value>(&mut self, key: &'static str, _without: &str) -> Option<At<T>> {
        self.read(key)
    }

    /// Reads a key, or takes its default.
    pub fn default<T: Value>(&mut self, key: &'static str, default: &str) -> At<T> {
        self.read(key).unwrap_or_else(|| At {
            value: constant(default),
            span: self.span.clone(),
        })
    }

    /// Reports the keys nobody has asked for, and those that are missing,
    /// unless one is the other misspelt.
    pub fn close(mut self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if let Some(elsewhere) = self.elsewhere.iter().find(|other| other.key == name) {
                elsewhere.tell(&key.span(), self.report);
                continue;
            }
            if self.known.contains(&name) {
                continue;
            }
            let title = match self.header {
                "" => format!("unknown table or key `{name}`"),
                header => format!("unknown key `{name}` in {header}"),
            };
            let help = match nearest(name, &self.known) {
                Some(known) => {
                    self.missing.retain(|(missing, _)| *missing != known);
                    format!("did you mean `{known}`?")
                }
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report.error(&key.span(), title).help(help);
        }
        for (key, help) in self.missing {
            let title = format!("{} has no `{key}`", self.header);
            self.report.error(self.span, title).help(help);
        }
    }

    fn read<T: Value>(&mut self, key: &'static str) -> Option<At<T>> {
        self.read_by(key, T::read)
    }

    fn read_by<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>, &Span, &mut Report) -> Option<T>,
    ) -> Option<At<T>> {
        self.known.push(key);
        let written = self.table.get(key)?;
        let span = written.span();
        let value = read(written.get_ref(), &span, self.report)?;
        Some(At { value, span })
    }
}

/// A default, which is a constant of this program.
fn constant<T: Value>(text: &str) -> T {
    let mut report = Report::new("default", text);
    let parsed = DeValue::parse(text).ok();
    parsed
        .and_then(|value| T::read(value.get_ref(), &value.span(), &mut report))
        .unwrap_or_else(|| panic!("the default `{text}` is no {}", T::kind()))
}

/// The known word that was most likely meant by `written`.
pub fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |word: &&str| strsim::damerau_levenshtein(written, word);
    let best = known.iter().copied().min_by_key(distance)?;
    let near = distance(&best) <= 1 + best.len() / 4;
    near.then_some(best)
}

/// What kind of TOML value something is, as one would say it.
pub fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
