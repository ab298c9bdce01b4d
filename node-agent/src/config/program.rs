//! A program that is run, of a check or of a hook, as validated.

use vipd_control::model::Program;

use super::{
    check_text::{Argument, Variable},
    map::Map,
    report::Report,
    table::At,
    text::Name,
};

/// The program, or `None` when it is not named; what is wrong is reported.
pub fn validate(
    command: Option<&At<Vec<At<Argument>>>>,
    environment: &Map<Variable, Argument>,
    user: &Name,
    report: &mut Report,
) -> Option<Program> {
    let command = command?;
    let program = command.value.first();
    if program.is_none_or(|at| !at.value.0.starts_with('/')) {
        let span = program.map_or(&command.span, |at| &at.span);
        report
            .error(span, "the program is not named by its absolute path")
            .help("for example [\"/usr/local/bin/check-web\", \"--quick\"]");
    }
    let environment = environment.0.iter();
    Some(Program {
        command: command.value.iter().map(|at| at.value.0.clone()).collect(),
        environment: environment
            .map(|(name, at)| (name.value.0.clone(), at.value.0.clone()))
            .collect(),
        user: user.0.to_string(),
    })
}
