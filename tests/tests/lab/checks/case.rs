//! A check of a real server, what must be found, and what the operator reads of it.

use serde_json::Value;

/// What the operator reads about checks.
const DOCUMENT: &str = include_str!("../../../../docs/checks.md");

/// The address of the first backend.
pub const B1: &str = "192.0.2.21";

/// A check, and what must be found.
pub struct Case {
    /// The kind of the check and a row of its table in `docs/checks.md`: `TCP: port
    /// closed`. What stands behind it in brackets is another case of the same row, whose
    /// reason may be another.
    pub situation: &'static str,
    /// Address of the backend.
    pub backend: &'static str,
    /// Lines of `[service.check]`.
    pub check: &'static str,
    /// Word of the result, with the status if there is one.
    pub word: &'static str,
    /// The reason; with `...` at its end only the beginning of it.
    pub reason: &'static str,
}

impl Case {
    /// A check of the first backend.
    pub const fn of_b1(
        situation: &'static str,
        check: &'static str,
        word: &'static str,
        reason: &'static str,
    ) -> Self {
        Self {
            situation,
            backend: B1,
            check,
            word,
            reason,
        }
    }

    /// Whether the check passes, or says nothing.
    pub fn verdict(&self) -> Verdict {
        match self.word.split(' ').next() {
            Some("SOCKERR") => Verdict::Unable,
            Some("L4OK" | "L6OK" | "L7OK" | "PROCOK") => Verdict::Passes,
            _ => Verdict::Fails,
        }
    }
}

/// What a check says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    Fails,
    Unable,
}

impl Verdict {
    /// The state of a backend of which nothing was known, and how it is documented.
    const fn states(self) -> (&'static str, &'static str) {
        match self {
            Self::Passes => ("up", "up"),
            Self::Fails => ("down", "down"),
            Self::Unable => ("unknown", "as before"),
        }
    }
}

/// What is wrong with what was found, and with what is documented.
pub fn judge(case: &Case, state: &Value, check: &Value) -> Vec<String> {
    let mut wrong = judge_result(case, check);
    let (state_then, documented) = case.verdict().states();
    if *state != state_then {
        wrong.push(format!("{}: {state}, {check}", case.situation));
    }
    let (_, title) = case
        .situation
        .split_once(": ")
        .unwrap_or(("", case.situation));
    let (title, is_variant) = match title.split_once(" [") {
        Some((title, _)) => (title, true),
        None => (title, false),
    };
    let row = format!("| {title} | {documented} | `{}` |", case.word);
    let found = if is_variant {
        DOCUMENT.lines().any(|line| line.starts_with(&row))
    } else {
        let shown = match case.reason {
            "" => " |".to_owned(),
            reason => format!(" `{reason}` |"),
        };
        DOCUMENT.lines().any(|line| line == format!("{row}{shown}"))
    };
    if !found {
        wrong.push(format!(
            "docs/checks.md has no line {row} `{}` |",
            case.reason
        ));
    }
    wrong
}

/// What is wrong with the result of a check alone.
pub fn judge_result(case: &Case, check: &Value) -> Vec<String> {
    let code = check["code"].as_str().unwrap_or_default();
    let found = match check["status"].as_u64() {
        Some(status) => format!("{code} {status}"),
        None => code.to_owned(),
    };
    let detail = without_days(check["detail"].as_str().unwrap_or_default());
    let is_reason = match case.reason.strip_suffix("...") {
        Some(beginning) => detail.starts_with(beginning),
        None => detail == case.reason,
    };
    if found == case.word && is_reason {
        Vec::new()
    } else {
        vec![format!("{}: {check}", case.situation)]
    }
}

/// How long ago something was is different each day.
fn without_days(reason: &str) -> String {
    let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    match reason.rsplit_once(", ") {
        Some((before, ago)) if ago.ends_with(" days ago") => {
            let number = ago.split(' ').next().unwrap_or_default();
            let shown = if is_number(number) { "N" } else { number };
            format!("{before}, {shown} days ago")
        }
        _ => reason.to_owned(),
    }
}
