//! Whether the programs that vipd is to run can be run.

use std::collections::BTreeSet;

use vipd_control::model::{CheckKind, Program};

use crate::{
    config::Config,
    preflight::{Finding, Name, Severity},
    run::fitness::{self, Fault, Needed},
};

/// Looks at all of them. Takes two seconds when this host does not tell.
pub fn look(config: &Config) -> Vec<Finding> {
    let programs: Vec<_> = programs(config).collect();
    let needed: BTreeSet<_> = programs
        .iter()
        .flat_map(|(_, program)| Needed::of(program))
        .collect();
    let lacking = fitness::lacking(needed);
    let findings = programs.iter().flat_map(|(subject, program)| {
        let lacking = Needed::of(program).filter_map(|needed| {
            let fault = lacking.get(&needed)?;
            Some(finding(subject, &needed, fault))
        });
        lacking.collect::<Vec<_>>()
    });
    findings.collect()
}

/// The programs, each with whom it is for.
fn programs(config: &Config) -> impl Iterator<Item = (String, &Program)> {
    let services = config.model.services.iter();
    let checks = services.filter_map(|service| match &service.check.kind {
        CheckKind::Program(program) => Some((format!("check of {}", service.name), program)),
        _ => None,
    });
    let hooks = config.hooks.iter();
    let hooks = hooks.map(|hook| (format!("hook {}", hook.name), &hook.program));
    checks.chain(hooks)
}

fn finding(subject: &str, needed: &Needed, fault: &Fault) -> Finding {
    let name = match needed {
        Needed::Command(_) => Name::Program,
        Needed::User(_) => Name::ProgramUser,
    };
    let fix = match (needed, fault) {
        (Needed::Command(path), Fault::NotExecutable(_)) => {
            Some(format!("chmod a+rx {}", path.display()))
        }
        (Needed::User(name), Fault::Absent(_)) => Some(format!(
            "useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
        )),
        _ => None,
    };
    let consequence = match fault {
        Fault::Absent(_) | Fault::NotExecutable(_) => ": it cannot be run",
        Fault::Unknown(_) => "",
    };
    Finding {
        name,
        severity: Severity::Error,
        subject: subject.to_owned(),
        message: format!("{}{consequence}", fault.words()),
        fix,
        at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_or_user_that_is_not_there_is_found_before_it_is_needed() {
        let text = r#"
            [dataplane]
            interfaces = ["eth0"]
            [[service]]
            name = "web"
            vips = ["198.51.100.10"]
            protocol = "tcp"
            port = 80
            mode = "ipip"
            check = { type = "program", command = ["/no/such/check"], user = "root" }
            [[service.backend]]
            name = "b1"
            address = "192.0.2.21"
            [[hook]]
            name = "page"
            on = ["vip"]
            command = ["/bin/sh"]
            user = "no-such-user"
            [[hook]]
            name = "good"
            on = ["vip"]
            command = ["/bin/sh"]
            user = "root"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
        let found = look(&config);
        let found = found.iter().map(|it| (it.name.word(), it.to_string()));
        let found: Vec<_> = found.collect();
        let check = "check of web: there is no /no/such/check on this host: it cannot be run";
        let page = "hook page: there is no user no-such-user on this host: it cannot be run; try \
                    `useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user`";
        assert_eq!(
            found,
            [
                ("program", check.to_owned()),
                ("program-user", page.to_owned())
            ]
        );
    }

    #[test]
    fn a_user_of_whom_nobody_can_tell_is_not_made_anew() {
        let user = Needed::User("page".to_owned());
        let unknown = Fault::Unknown("cannot look up the user page: no answer".to_owned());
        let found = finding("hook page", &user, &unknown).to_string();
        assert_eq!(found, "hook page: cannot look up the user page: no answer");
    }
}
