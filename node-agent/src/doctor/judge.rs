//! Judges what the doctor sees: one small function per thing that can be wrong.

mod attached;
mod reached;

use crate::preflight::{Finding, Name, Severity, judge::ipv4_setting};

use super::{
    facts::{Bound, Facts, Placed},
    firewall::Blocked,
};

/// The oldest kernel that is supported.
const KERNEL: (u32, u32) = (6, 1);

/// All that is worth saying.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(kernel(facts));
    findings.extend(interpreted(facts));
    findings.extend(bpf_fs(facts));
    findings.extend(attached::judge(facts));
    findings.extend(forwarding(facts));
    findings.extend(folded(facts.bound.iter().filter_map(arp)));
    findings.extend(multipath(facts));
    findings.extend(md5(facts));
    findings.extend(facts.blocked.iter().map(blocked));
    findings.extend(facts.filter_unread.iter().map(unread));
    findings.extend(taken(facts));
    findings.extend(no_agent(facts));
    findings.extend(files(facts));
    findings.extend(bfd(facts));
    findings.extend(reached::judge(facts));
    findings
}

/// One finding for all that the same command mends.
fn folded(findings: impl Iterator<Item = Finding>) -> impl Iterator<Item = Finding> {
    let mut all: Vec<(Finding, usize)> = Vec::new();
    for found in findings {
        let same = |known: &Finding| {
            (known.name, &known.fix, known.at) == (found.name, &found.fix, found.at)
        };
        match all.iter_mut().find(|(known, _)| same(known)) {
            Some((_, more)) => *more += 1,
            None => all.push((found, 0)),
        }
    }
    all.into_iter().map(|(mut finding, more)| {
        if more > 0 {
            finding.message += &format!(" (the same {more} times more)");
        }
        finding
    })
}

fn finding(
    name: Name,
    severity: Severity,
    subject: impl Into<String>,
    message: impl Into<String>,
    fix: Option<String>,
) -> Finding {
    Finding {
        name,
        severity,
        subject: subject.into(),
        message: message.into(),
        fix,
        at: None,
    }
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let (major, minor) = facts.kernel.filter(|version| *version < KERNEL)?;
    Some(finding(
        Name::Kernel,
        Severity::Error,
        "kernel",
        format!(
            "this is Linux {major}.{minor}, and {}.{} is the oldest that vipd is made for: the \
             XDP program may be refused",
            KERNEL.0, KERNEL.1
        ),
        None,
    ))
}

fn interpreted(facts: &Facts) -> Option<Finding> {
    facts.interpreted.then(|| {
        finding(
            Name::BpfJit,
            Severity::Warning,
            "kernel",
            "BPF programs are interpreted and not compiled: every packet takes several times as \
             long",
            Some("sysctl -w net.core.bpf_jit_enable=1".to_owned()),
        )
    })
}

fn bpf_fs(facts: &Facts) -> Option<Finding> {
    let place = facts.no_bpf_fs.as_ref()?.display();
    Some(finding(
        Name::BpfFs,
        Severity::Error,
        place.to_string(),
        "no BPF file system is mounted there: nothing can be pinned, so the data plane cannot \
         start, and could not outlive the agent",
        Some(format!(
            "mkdir -p {place} && mount -t bpf -o mode=0700 bpf {place}"
        )),
    ))
}

fn forwarding(facts: &Facts) -> Option<Finding> {
    let [first, ..] = facts.forwarding.as_slice() else {
        return None;
    };
    let off: Vec<_> = facts
        .forwarding
        .iter()
        .map(|setting| format!("{setting}=0"))
        .collect();
    Some(finding(
        Name::Forwarding,
        Severity::Info,
        *first,
        "this host forwards packets for others, which vipd does not need: a host that is no \
         router sends back what reaches it by mistake",
        Some(format!("sysctl -w {}", off.join(" "))),
    ))
}

/// In the table of ip-sysctl: 0 answers for an address by any interface, 1 by that
/// which has it.
fn arp(bound: &Bound) -> Option<Finding> {
    let Bound { vip, interface, .. } = bound;
    let quiet = bound.arp_ignore > 0 && bound.arp_announce >= 2;
    if !vip.is_ipv4() || (quiet && bound.on_it.is_none()) {
        return None;
    }
    let told = "neighbours may send its packets here and nowhere else, past the routers";
    let (message, fix) = match bound.on_it {
        None => (
            format!("it is an address of this host, which tells so by ARP on {interface}: {told}"),
            Some(format!(
                "sysctl -w {}=1 {}=2",
                ipv4_setting(interface, "arp_ignore"),
                ipv4_setting(interface, "arp_announce")
            )),
        ),
        Some(Placed::ByOthers) => (
            format!("it is on {interface}, which tells so by ARP whatever is set: {told}"),
            Some(format!(
                "ip address add {vip}/32 dev lo && ip address flush dev {interface} to {vip}/32"
            )),
        ),
        Some(Placed::Taken) => (
            format!(
                "it is on {interface}, where [service.vips_from] finds it, which tells so by ARP \
                 whatever is set: {told}; on an interface of its own, or lo, nobody asks for it"
            ),
            None,
        ),
        Some(Placed::Configured) => (
            format!(
                "it is bound on {interface}, which tells so by ARP whatever is set: {told}; \
                 without `interface` in [service.bind] it is bound where nobody asks for it"
            ),
            None,
        ),
    };
    Some(finding(
        Name::Arp,
        Severity::Warning,
        format!("virtual address {vip}"),
        message,
        fix,
    ))
}

fn multipath(facts: &Facts) -> Option<Finding> {
    let [first, ..] = facts.by_addresses.as_slice() else {
        return None;
    };
    let ports: Vec<_> = facts
        .by_addresses
        .iter()
        .map(|setting| format!("{setting}=1"))
        .collect();
    Some(finding(
        Name::MultipathHash,
        Severity::Warning,
        *first,
        "this host has routes with several next hops, and chooses one by addresses only: all it \
         sends to one address takes the same way, and checks see no other",
        Some(format!("sysctl -w {}", ports.join(" "))),
    ))
}

fn md5(facts: &Facts) -> Option<Finding> {
    let error = facts.no_md5.as_ref()?;
    Some(finding(
        Name::TcpMd5,
        Severity::Error,
        "kernel",
        format!(
            "it does not sign TCP segments by MD5 ({error}): no session with a password can be \
             established; the kernel must have CONFIG_TCP_MD5SIG"
        ),
        None,
    ))
}

fn blocked(blocked: &Blocked) -> Finding {
    let Blocked {
        port,
        chain,
        handle,
    } = blocked;
    let lost = match port.protocol {
        "tcp" => "routers cannot connect to this host by BGP",
        _ => "BFD sessions do not come up, or go down",
    };
    let by = match handle {
        Some(handle) => format!("rule {handle} of the chain {chain}"),
        None => format!("the policy of the chain {chain}"),
    };
    finding(
        Name::PortBlocked,
        Severity::Error,
        format!("{} port {}", port.protocol, port.number),
        format!("what comes to it is dropped by {by}: {lost}"),
        Some(blocked.fix()),
    )
}

fn unread(why: &String) -> Finding {
    finding(
        Name::FilterUnread,
        Severity::Info,
        "packet filter",
        format!("{why}: whether it drops what routers and backends send is not known"),
        None,
    )
}

fn taken(facts: &Facts) -> Option<Finding> {
    let port = facts.taken?;
    Some(finding(
        Name::PortTaken,
        Severity::Warning,
        format!("tcp port {port}"),
        "another program listens there: routers that connect would not reach vipd",
        Some(format!("ss -Hltnp 'sport = :{port}'")),
    ))
}

fn no_agent(facts: &Facts) -> Option<Finding> {
    facts.agent.is_none().then(|| {
        finding(
            Name::Agent,
            Severity::Info,
            "agent",
            "it does not run, or serves another control socket: nothing is checked or announced",
            Some("systemctl start vipd".to_owned()),
        )
    })
}

fn files(facts: &Facts) -> Option<Finding> {
    let agent = facts.agent?;
    let files = agent.files.filter(|files| *files < facts.sockets)?;
    Some(finding(
        Name::OpenFiles,
        Severity::Warning,
        format!("process {}", agent.pid),
        format!(
            "it may have {files} files open, and checks of all backends together may need {}: \
             some would not be possible (LimitNOFILE= of the unit makes it lasting)",
            facts.sockets
        ),
        Some(format!(
            "prlimit --pid {} --nofile={1}:{1}",
            agent.pid, facts.sockets
        )),
    ))
}

fn bfd(facts: &Facts) -> Option<Finding> {
    let error = facts.no_bfd.as_ref()?;
    Some(finding(
        Name::BfdProcess,
        Severity::Error,
        "BFD",
        format!(
            "{error}; routers with BFD do not come up or find a dead host late, and backends with \
             BFD are found dead by their checks alone"
        ),
        Some("systemctl enable --now vipd-bfd".to_owned()),
    ))
}

#[cfg(test)]
mod tests;
