//! What the demo prints, with colours and a live line only on a terminal.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stdout},
};

/// The demo's output.
pub struct Screen {
    terminal: bool,
    colours: bool,
}

impl Screen {
    /// `plain`: as if there were no terminal.
    pub fn new(plain: bool) -> Self {
        let terminal = !plain && stdout().is_terminal();
        Self {
            terminal,
            colours: terminal && env::var_os("NO_COLOR").is_none(),
        }
    }

    /// The beginning of a new part.
    pub fn heading(&self, text: &str) {
        println!("\n{}", self.painted("1;36", text));
    }

    /// A line, or several.
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// What another program printed, indented.
    pub fn quote(&self, command: &str, text: &str) {
        println!("  {}", self.painted("2", &format!("$ {command}")));
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            println!("  {}", self.painted("33", line));
        }
    }

    /// A line that the next one overwrites; nothing without a terminal.
    pub fn progress(&self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K  {text}");
            // A closed terminal is no reason to stop measuring.
            let _ = stdout().flush();
        }
    }

    /// Takes the live line away.
    pub fn end_progress(&self) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
    }

    /// `ok` or `FAILED`.
    pub fn mark(&self, good: bool) -> String {
        if good {
            self.painted("32", "ok")
        } else {
            self.painted("1;31", "FAILED")
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
