//! What a file counts on that is not in it: programs, the users who run them, and files
//! that are looked for. None of it need be there yet, so what is wrong is a warning.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    check_text::Argument,
    report::Report,
    table::At,
    text::Name,
    written::{self, CheckType, File},
};
use crate::run::fitness::{self, Fault, Needed};

/// What the packaged unit shows vipd otherwise than it is, and by which setting.
const HIDDEN: [(&str, &str); 5] = [
    ("/tmp", "PrivateTmp"),
    ("/var/tmp", "PrivateTmp"),
    ("/home", "ProtectHome"),
    ("/root", "ProtectHome"),
    ("/run/user", "ProtectHome"),
];

/// A program as it is written.
struct Written<'a> {
    command: &'a At<Argument>,
    user: &'a At<Name>,
}

/// Warns of what is not as it must be.
pub fn check(file: &File, directory: &Path, report: &mut Report) {
    let programs: Vec<_> = programs(file).collect();
    let needed: BTreeSet<_> = programs.iter().flat_map(Written::needed).collect();
    let lacking = fitness::lacking(needed);
    for program in &programs {
        program.warn(&lacking, report);
    }
    for service in &file.service.value {
        let service = &service.value;
        if let Some(CheckType::File(file)) = kind(service)
            && let Some(path) = &file.path
        {
            warn_hidden(&directory.join(&path.value), path, report);
        }
        if let Some(path) = &service.disable_file {
            warn_hidden(&directory.join(&path.value), path, report);
        }
    }
}

fn programs(file: &File) -> impl Iterator<Item = Written<'_>> {
    let services = file.service.value.iter();
    let checks = services.filter_map(|service| match kind(&service.value)? {
        CheckType::Program(program) => Some((&program.command, &program.user)),
        _ => None,
    });
    let hooks = file.hook.value.iter();
    let hooks = hooks.map(|hook| (&hook.value.command, &hook.value.user));
    checks.chain(hooks).filter_map(|(command, user)| {
        let command = command.as_ref()?.value.first()?;
        Some(Written { command, user })
    })
}

fn kind(service: &written::Service) -> Option<&CheckType> {
    let kind = service.check.value.r#type.as_ref();
    kind.map(|kind| &kind.value)
}

impl Written<'_> {
    fn needed(&self) -> [Needed; 2] {
        [
            Needed::Command(self.command.value.0.clone().into()),
            Needed::User(self.user.value.0.to_string()),
        ]
    }

    fn warn(&self, lacking: &BTreeMap<Needed, Fault>, report: &mut Report) {
        let [command, user] = self.needed();
        if let Some(fault) = lacking.get(&command) {
            report
                .warning(&self.command.span, fault.words())
                .help("it is run without a shell, and must be a file that its user may execute");
        }
        if let Some(fault) = lacking.get(&user) {
            report.warning(&self.user.span, fault.words()).help(
                "nothing is run as a user who is not there: make one, for example by `useradd \
                 --system`, or name another",
            );
        }
        warn_hidden(self.command.value.0.as_ref(), self.command, report);
    }
}

/// Says so when the agent will not see what others do.
fn warn_hidden<T>(path: &Path, written: &At<T>, report: &mut Report) {
    let hidden = HIDDEN.iter().find(|(place, _)| path.starts_with(place));
    if let Some((place, setting)) = hidden {
        report
            .warning(
                &written.span,
                format!("run by the packaged unit, vipd does not see what others have in {place}"),
            )
            .help(format!(
                "a place below /run or /usr/local, for example; or {setting}=no in a drop-in of \
                 the unit"
            ));
    }
}
