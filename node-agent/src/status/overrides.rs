//! What `vipd status` and `vipd overrides` show of the operator's orders.

use std::{fmt::Write as _, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::ago;

/// What [`Override::will`] can be.
pub const OVERRIDE_WILLS: [&str; 2] = ["drained", "disabled"];

/// What the operator has ordered, other than the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// `SERVICE/BACKEND` or `SERVICE`.
    pub target: String,
    /// `drained` or `disabled`.
    pub will: String,
    /// Who said so, as far as it is known.
    pub by: String,
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: Option<String>,
    /// When a drain ends what remains, in seconds since 1970.
    #[serde(default)]
    pub deadline_seconds: Option<u64>,
    /// Whether that time has come.
    #[serde(default)]
    pub over: bool,
    /// Whether the configuration has the target; an order for one that it does
    /// not have is kept and changes nothing.
    pub configured: bool,
    /// Flows that are recorded for the backend, open ones and closing ones.
    #[serde(default)]
    pub flows: Option<(u64, u64)>,
}

/// One line for the status; `None` when all is as configured.
pub(super) fn line(overrides: &[Override]) -> Option<String> {
    const NAMED: usize = 5;
    let names = overrides.iter().take(NAMED);
    let names: Vec<_> = names
        .map(|it| format!("{} {}", it.target, it.will))
        .collect();
    let mut names = names.join(", ");
    if overrides.len() > NAMED {
        names += ", ...";
    }
    let differ = match overrides.len() {
        0 => return None,
        1 => "1 override differs".to_owned(),
        count => format!("{count} overrides differ"),
    };
    Some(format!(
        "{differ} from the configuration: {names}; see `vipd overrides`"
    ))
}

impl Override {
    /// All of them, for people.
    #[must_use]
    pub fn table(overrides: &[Self]) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::table_at(overrides, now.unwrap_or_default().as_secs())
    }

    fn table_at(overrides: &[Self], now: u64) -> String {
        if overrides.is_empty() {
            return "no overrides: all is as configured\n".to_owned();
        }
        let mut out = format!(
            "{:<32} {:<9} {:<12} {:>8}  WHY\n",
            "TARGET", "IS", "BY", "FOR"
        );
        for it in overrides {
            let by = if it.by.is_empty() { "unknown" } else { &it.by };
            let age = ago(seconds(now.saturating_sub(it.at_seconds)));
            // Writing into a string cannot fail.
            let _ = writeln!(
                out,
                "{:<32} {:<9} {by:<12} {age:>8}  {}",
                it.target,
                it.will,
                it.words(now)
            );
        }
        out
    }

    fn words(&self, now: u64) -> String {
        let mut words: Vec<String> = self.reason.iter().cloned().collect();
        if !self.configured {
            words.push("not in the configuration, so it changes nothing".to_owned());
        }
        match self.flows {
            Some((0, 0)) | None => {}
            Some((1, 0)) => words.push("1 flow recorded".to_owned()),
            Some((open, 0)) => words.push(format!("{open} flows recorded")),
            Some((open, closing)) => words.push(format!("{open}+{closing} flows recorded")),
        }
        match self.deadline_seconds {
            Some(_) if self.over => words.push("its deadline has come".to_owned()),
            Some(at) => {
                let left = ago(seconds(at.saturating_sub(now)));
                words.push(format!("leaves in {left}"));
            }
            None => {}
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join("; ")
        }
    }
}

fn seconds(whole: u64) -> f64 {
    std::time::Duration::from_secs(whole).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(target: &str, will: &str) -> Override {
        Override {
            target: target.to_owned(),
            will: will.to_owned(),
            by: "anna".to_owned(),
            at_seconds: 1000,
            reason: None,
            deadline_seconds: None,
            over: false,
            configured: true,
            flows: None,
        }
    }

    #[test]
    fn overrides_read_as_a_table() {
        let all = [
            Override {
                reason: Some("new kernel".to_owned()),
                deadline_seconds: Some(1600),
                flows: Some((7, 3)),
                ..over("web/b1", "drained")
            },
            Override {
                deadline_seconds: Some(1030),
                over: true,
                flows: Some((1, 0)),
                ..over("web/b2", "drained")
            },
            Override {
                by: String::new(),
                configured: false,
                ..over("gone", "disabled")
            },
            over("web", "disabled"),
        ];
        insta::assert_snapshot!(Override::table_at(&all, 1060), @r"
        TARGET                           IS        BY                FOR  WHY
        web/b1                           drained   anna            1m00s  new kernel; 7+3 flows recorded; leaves in 9m00s
        web/b2                           drained   anna            1m00s  1 flow recorded; its deadline has come
        gone                             disabled  unknown         1m00s  not in the configuration, so it changes nothing
        web                              disabled  anna            1m00s  -
        ");
        assert_eq!(
            Override::table_at(&[], 0),
            "no overrides: all is as configured\n"
        );
    }

    #[test]
    fn the_status_says_in_a_line_what_differs() {
        let check = |count: usize, expected: Option<&str>| {
            let all = vec![over("web/b1", "drained"); count];
            assert_eq!(line(&all).as_deref(), expected);
        };
        check(0, None);
        check(
            1,
            Some("1 override differs from the configuration: web/b1 drained; see `vipd overrides`"),
        );
        check(
            6,
            Some(
                "6 overrides differ from the configuration: web/b1 drained, web/b1 drained, \
                 web/b1 drained, web/b1 drained, web/b1 drained, ...; see `vipd overrides`",
            ),
        );
    }
}
