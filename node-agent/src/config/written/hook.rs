//! Hooks, as they are written.

use std::time::Duration;

use toml::de::DeValue;

use crate::{
    config::{
        check_text::{Argument, Variable},
        map::Map,
        report::{Report, Span},
        table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
        text::Name,
        value::read_text,
    },
    hooks::subject::Trigger,
};

table! {
    /// A program that is run when something changes its state; see
    /// [Hooks](hooks.md). It learns from its environment what has happened.
    ///
    /// ```toml
    /// [[hook]]
    /// name = "page"
    /// on = ["vip", "backend:down", "peer:down"]
    /// command = ["/usr/local/bin/page", "--team", "network"]
    /// user = "nobody"
    /// timeout = "10s"
    /// ```
    Hook = "[[hook]]" {
        /// Name in status, logs and metrics. Unique among hooks.
        name: Name, required;
        /// What it is run for: `"backend"`, `"service"`, `"vip"`, `"aggregate"` or
        /// `"peer"`, for each of its states or, as in `"backend:down"`, for one.
        on: Vec<At<Trigger>>, required;
        /// Absolute path of the program, and its arguments. There is no shell.
        command: Vec<At<Argument>>, required;
        /// Variables besides those that vipd sets, which begin with `VIPD_`.
        environment: Map<Variable, Argument>, default "{}";
        /// User who runs it, without capabilities.
        user: Name, default "\"nobody\"";
        /// A run that takes longer is killed; at most `"5m"`.
        timeout: Duration, default "\"10s\"";
    }
}

impl Value for Trigger {
    fn kind() -> String {
        String::from("triggers")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(
            value,
            span,
            report,
            "\"vip\" or \"backend:down\"",
            Self::parse,
        )
    }
}
