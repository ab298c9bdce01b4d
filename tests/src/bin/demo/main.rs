//! `cargo xtask demo`: the story of a virtual IP that survives, told to a
//! stranger in about a minute and measured by a client.

mod scene;
mod score_card;
mod screen;
mod story;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};
use vipd_tests::{Lab, Vipd, remove_leftovers};

use crate::screen::Screen;

const USAGE: &str = "\
Usage: demo [--ci] [--keep]

  --ci     for machines: no live progress, the score card also goes to
           target/demo/scorecard.json
  --keep   leave the lab standing, to try things yourself
  --clean  only take away what an earlier --keep has left

Ends with 1 if a bound of the score card fails.";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nThe demo could not go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    if options.help {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let removed = remove_leftovers()?;
    if options.clean {
        println!("{removed} lab(s) taken away.");
        return Ok(ExitCode::SUCCESS);
    }
    Vipd::binary()?;

    let screen = Screen::new(options.ci);
    let lab = Lab::new()?;
    let (card, stage) = story::tell(&lab, &screen).inspect_err(|_| eprintln!("{}", lab.logs()))?;
    card.show(&screen);
    if options.ci {
        let path = card.write()?;
        screen.say(&format!("The score card is in {}.", path.display()));
    }
    if options.keep {
        stage.leave_standing(&lab)?;
    }
    Ok(if card.failed_bounds().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Default)]
struct Options {
    ci: bool,
    keep: bool,
    clean: bool,
    help: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--ci" => options.ci = true,
                "--keep" => options.keep = true,
                "--clean" => options.clean = true,
                "--help" | "-h" => options.help = true,
                other => bail!("{other} is no option of the demo\n\n{USAGE}"),
            }
        }
        Ok(options)
    }
}
