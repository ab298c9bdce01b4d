//! The binder and a kernel that does what it is asked for, in sentences.

use super::*;
use crate::netlink::{address::Usability, link::Xdp};

const VIP4: &str = "198.51.100.10";
const VIP6: &str = "2001:db8:100::10";

/// A kernel with some interfaces.
struct World {
    binder: Binder,
    kernel: Snapshot,
    has_dummy: bool,
    refuses: bool,
    now: Instant,
    /// What was done since it was last told.
    done: Vec<String>,
}

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// These are wanted: on this interface, or on one of vipd's own.
    Want(&'static [&'static str], Option<&'static str>),
    /// These are wanted, and others bind them.
    Watch(&'static [&'static str]),
    /// They were taken from this interface.
    Follow(&'static [&'static str], &'static str),
    /// They are about to leave.
    Leave(&'static [&'static str]),
    /// An interface goes up or down.
    Up(&'static str),
    Down(&'static str),
    /// Somebody makes the interface of vipd's name, or takes one away.
    Make,
    Delete(&'static str),
    /// Down and up again, before anybody looks.
    Flap(&'static str),
    /// Somebody adds an address, or takes it away.
    Add(&'static str, &'static str),
    Take(&'static str, &'static str),
    /// It cannot be used: another host has it.
    Duplicate(&'static str),
    /// Somebody wants it all bound.
    Anew,
    /// The kernel begins to refuse, or ends.
    Refuse(bool),
    /// So many seconds pass.
    Wait(u64),
}
use Step::{
    Add, Anew, Delete, Down, Duplicate, Flap, Follow, Leave, Make, Refuse, Take, Up, Wait, Want,
    Watch,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn link(ifindex: u32, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        arp: false,
        carrier: true,
        xdp: Xdp::None,
        ours: false,
    }
}

impl World {
    fn new(has_dummy: bool) -> Self {
        let links = [(1, "lo"), (2, "eth0"), (3, "web0")];
        let links = links.map(|(ifindex, name)| (ifindex, link(ifindex, name)));
        Self {
            binder: Binder::default(),
            kernel: Snapshot {
                links: links.into(),
                ..Snapshot::default()
            },
            has_dummy,
            refuses: false,
            now: Instant::now(),
            done: Vec::new(),
        }
    }

    fn index(&self, name: &str) -> u32 {
        let mut links = self.kernel.links.values();
        links
            .find(|link| link.name == name)
            .expect("a link")
            .ifindex
    }

    fn add(&mut self, address: IpAddr, ifindex: u32, marked: bool) {
        self.kernel.addresses.push(Address {
            address,
            ifindex,
            label: None,
            usability: Usability::Usable,
            permanent: true,
            marked,
        });
    }

    /// As the kernel does it: IPv6 addresses go with an interface that goes down.
    fn set_up(&mut self, name: &str, up: bool) {
        let ifindex = self.index(name);
        let link = self.kernel.links.get_mut(&ifindex).expect("a link");
        link.up = up;
        if !up {
            self.kernel.downed.insert(ifindex);
            let stays = |a: &Address| a.ifindex != ifindex || a.address.is_ipv4();
            self.kernel.addresses.retain(stays);
        }
    }

    fn step(&mut self, step: Step) {
        let vips = |list: &[&str]| -> Vec<Vip> { list.iter().map(|a| ip(a).into()).collect() };
        match step {
            Want(list, interface) => {
                let interface = interface.map(|name| name.parse().expect("a name"));
                let binding = Binding::At(Place {
                    interface,
                    label: None,
                });
                let wanted = vips(list).into_iter().map(|vip| (vip, Some(&binding)));
                self.binder.want(wanted);
            }
            Watch(list) => {
                let wanted = vips(list).into_iter();
                self.binder
                    .want(wanted.map(|vip| (vip, Some(&Binding::ByOthers))));
            }
            Follow(list, interface) => {
                let wish = Wish {
                    interface: interface.parse().expect("a name"),
                    label: None,
                    within: Vec::new(),
                };
                let binding = Binding::Taken(wish.into());
                let wanted = vips(list).into_iter();
                self.binder.want(wanted.map(|vip| (vip, Some(&binding))));
            }
            Make => {
                self.kernel.links.insert(9, link(9, OWN));
            }
            Delete(name) => {
                let ifindex = self.index(name);
                self.kernel.downed.insert(ifindex);
                self.kernel.links.remove(&ifindex);
                self.kernel.addresses.retain(|a| a.ifindex != ifindex);
            }
            Leave(list) => self
                .binder
                .want(vips(list).into_iter().map(|vip| (vip, None))),
            Up(name) => self.set_up(name, true),
            Down(name) => self.set_up(name, false),
            Flap(name) => {
                self.set_up(name, false);
                self.set_up(name, true);
            }
            Add(address, name) => self.add(ip(address), self.index(name), false),
            Take(address, name) => {
                let key = (ip(address), self.index(name));
                let stays = |a: &Address| (a.address, a.ifindex) != key;
                self.kernel.addresses.retain(stays);
            }
            Duplicate(address) => {
                for found in &mut self.kernel.addresses {
                    if found.address == ip(address) {
                        found.usability = Usability::Duplicate;
                    }
                }
            }
            Anew => self.binder.anew(),
            Refuse(refuses) => self.refuses = refuses,
            Wait(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    fn carry_out(&mut self, job: &Job) {
        if self.refuses {
            self.binder.refused(job, "refused", self.now);
            return;
        }
        match job {
            Job::Make if !self.has_dummy => {
                self.binder.cannot_make();
                return;
            }
            Job::Make => {
                let made = Link {
                    ours: true,
                    ..link(9, OWN)
                };
                self.kernel.links.insert(9, made);
                self.done.push(format!("+{OWN}"));
            }
            Job::Bind(address, site) => {
                self.add(*address, site.ifindex, true);
                self.done.push(format!("+{address}@{}", site.interface));
            }
            Job::Unbind(address, site) => {
                let stays = |a: &Address| (a.address, a.ifindex) != (*address, site.ifindex);
                self.kernel.addresses.retain(stays);
                self.done.push(format!("-{address}@{}", site.interface));
            }
            Job::Remove(ifindex) => {
                self.kernel.links.remove(ifindex);
                self.done.push(format!("-{OWN}"));
            }
        }
        self.binder.done(job);
    }

    /// Looks until there is nothing to do, and tells what was done and how the
    /// addresses stand.
    fn settle(&mut self) -> String {
        for _ in 0..9 {
            let (jobs, standings) = self.binder.look(&self.kernel, self.now);
            self.kernel.downed.clear();
            if jobs.is_empty() {
                let done = std::mem::take(&mut self.done).into_iter();
                let standings = standings.into_iter().map(|(vip, standing)| match standing {
                    Ok(Bound {
                        interface, ours, ..
                    }) => {
                        format!(
                            "{vip} on {interface}{}",
                            if ours { "" } else { " by others" }
                        )
                    }
                    Err(reason) => format!("{vip}: {reason}"),
                });
                return done.chain(standings).collect::<Vec<_>>().join("; ");
            }
            for job in jobs {
                self.carry_out(&job);
            }
        }
        panic!("it never ends: {:#?}", self.binder);
    }
}

/// Whether the kernel has interfaces of type dummy; what happens, and what there
/// is to tell then.
#[track_caller]
fn check(sentence: &str, has_dummy: bool, steps: &[(Step, &str)]) {
    let mut world = World::new(has_dummy);
    for (i, (step, expected)) in steps.iter().enumerate() {
        world.step(*step);
        let found = world.settle();
        assert_eq!(found, *expected, "{sentence}, step {i}: {step:?}");
    }
}

#[test]
fn addresses_are_bound_on_an_interface_of_vipds_own() {
    check(
        "made for the first, taken away with the last",
        true,
        &[
            (
                Want(&[VIP4, VIP6], None),
                "+vipd0; +198.51.100.10@vipd0; +2001:db8:100::10@vipd0; \
                 198.51.100.10 on vipd0; 2001:db8:100::10 on vipd0",
            ),
            (
                Want(&[VIP4], None),
                "-2001:db8:100::10@vipd0; 198.51.100.10 on vipd0",
            ),
            (Leave(&[VIP4]), "198.51.100.10 on vipd0"),
            (Leave(&[]), "-198.51.100.10@vipd0; -vipd0"),
        ],
    );
    check(
        "on the loopback where the kernel has no dummy",
        false,
        &[
            (
                Want(&[VIP4], None),
                "+198.51.100.10@lo; 198.51.100.10 on lo",
            ),
            (Want(&[], None), "-198.51.100.10@lo"),
        ],
    );
    check(
        "somebody has made it, and it is down",
        true,
        &[
            (
                Want(&[VIP4], None),
                "+vipd0; +198.51.100.10@vipd0; 198.51.100.10 on vipd0",
            ),
            (
                Down("vipd0"),
                "198.51.100.10: the interface vipd0 is down: `ip link set vipd0 up` announces the \
                 address again",
            ),
            (Up("vipd0"), "198.51.100.10 on vipd0"),
        ],
    );
}

const TAKEN: &str = "198.51.100.10: somebody has taken the address from lo: it is announced when \
                     it is back, and `vipd reload` binds it anew";
const IS_DOWN: &str = "2001:db8:100::10: the interface web0 is down: `ip link set web0 up` \
                       announces the address again";

#[test]
fn whoever_takes_an_address_away_is_not_contradicted() {
    let bound = (
        Want(&[VIP4], Some("lo")),
        "+198.51.100.10@lo; 198.51.100.10 on lo",
    );
    check(
        "put back by the same",
        true,
        &[
            bound,
            (Take(VIP4, "lo"), TAKEN),
            (Wait(3600), TAKEN),
            (Add(VIP4, "lo"), "198.51.100.10 on lo by others"),
            (Want(&[], None), ""),
        ],
    );
    check(
        "put back elsewhere",
        true,
        &[
            bound,
            (Take(VIP4, "lo"), TAKEN),
            (Add(VIP4, "eth0"), "198.51.100.10 on eth0 by others"),
        ],
    );
    check(
        "bound anew when somebody asks for it",
        true,
        &[
            bound,
            (Take(VIP4, "lo"), TAKEN),
            (Anew, "+198.51.100.10@lo; 198.51.100.10 on lo"),
        ],
    );
    check(
        "but not when it is about to leave",
        true,
        &[
            bound,
            (Take(VIP4, "lo"), TAKEN),
            (Leave(&[VIP4]), TAKEN),
            (Anew, TAKEN),
        ],
    );
}

#[test]
fn what_goes_with_its_interface_comes_back_with_it() {
    let bound = (
        Want(&[VIP6], Some("web0")),
        "+2001:db8:100::10@web0; 2001:db8:100::10 on web0",
    );
    let again = "+2001:db8:100::10@web0; 2001:db8:100::10 on web0";
    check(
        "down and up",
        true,
        &[bound, (Down("web0"), IS_DOWN), (Up("web0"), again)],
    );
    check(
        "down and up before anybody looks",
        true,
        &[bound, (Flap("web0"), again)],
    );
    check(
        "an interface that is not there is waited for",
        true,
        &[(
            Want(&[VIP6], Some("web7")),
            "2001:db8:100::10: there is no interface web7 to bind the address on",
        )],
    );
}

#[test]
fn what_others_bind_is_only_watched() {
    const MISSING: &str = "198.51.100.10: no interface of this host has the address, which others \
                           are to bind (`bind = false`)";
    check(
        "comes and goes",
        true,
        &[
            (Watch(&[VIP4]), MISSING),
            (Add(VIP4, "eth0"), "198.51.100.10 on eth0 by others"),
            (
                Down("eth0"),
                "198.51.100.10: the interface eth0 is down: `ip link set eth0 up` announces the \
                 address again",
            ),
            (Up("eth0"), "198.51.100.10 on eth0 by others"),
            (Take(VIP4, "eth0"), MISSING),
        ],
    );
    check(
        "found on another host",
        true,
        &[
            (Add(VIP6, "eth0"), ""),
            (Watch(&[VIP6]), "2001:db8:100::10 on eth0 by others"),
            (
                Duplicate(VIP6),
                "2001:db8:100::10: another host on the link of eth0 has the address (duplicate \
                 address detection)",
            ),
        ],
    );
    check(
        "bound by others before vipd could, it stays theirs",
        true,
        &[
            (Add(VIP4, "eth0"), ""),
            (Want(&[VIP4], Some("lo")), "198.51.100.10 on eth0 by others"),
            (Want(&[], None), ""),
        ],
    );
}

#[test]
fn the_interface_of_vipds_name_is_another_s_if_he_has_made_it() {
    check(
        "it stays when it is empty",
        true,
        &[
            (Make, ""),
            (
                Want(&[VIP4], None),
                "+198.51.100.10@vipd0; 198.51.100.10 on vipd0",
            ),
            (Want(&[], None), "-198.51.100.10@vipd0"),
        ],
    );
    let released = |steps: &[Step]| {
        let mut world = World::new(true);
        for step in steps {
            world.step(*step);
            world.settle();
        }
        world.binder.release(&world.kernel)
    };
    let removes = |jobs: &[Job]| jobs.iter().any(|job| matches!(job, Job::Remove(_)));
    assert!(!removes(&released(&[Make])), "at the end, too");
    assert!(
        removes(&released(&[Want(&[VIP4], None)])),
        "vipd's own goes"
    );
    let shared = [Want(&[VIP4], None), Add("192.0.2.7", OWN)];
    assert!(!removes(&released(&shared)), "not with another's address");
}

#[test]
fn whoever_takes_the_interface_of_vipds_own_away_is_not_contradicted() {
    const GONE: &str = "198.51.100.10: somebody has taken the address from vipd0: it is announced \
                        when it is back, and `vipd reload` binds it anew";
    let anew = "+vipd0; +198.51.100.10@vipd0; 198.51.100.10 on vipd0";
    check(
        "until somebody asks for it",
        true,
        &[
            (Want(&[VIP4], None), anew),
            (Delete(OWN), GONE),
            (Wait(3600), GONE),
            (Anew, anew),
        ],
    );
}

#[test]
fn what_is_taken_from_an_interface_counts_only_there() {
    const GONE: &str = "198.51.100.10: lo does not have the address any more, from which it was \
                        taken (`vips_from`)";
    check(
        "another interface does not do",
        true,
        &[
            (Add(VIP4, "lo"), ""),
            (Follow(&[VIP4], "lo"), "198.51.100.10 on lo by others"),
            (Add(VIP4, "eth0"), "198.51.100.10 on lo by others"),
            (Take(VIP4, "lo"), GONE),
            (Anew, GONE),
            (Add(VIP4, "lo"), "198.51.100.10 on lo by others"),
            (Follow(&[], "lo"), ""),
        ],
    );
}

#[test]
fn services_may_take_what_others_have_bound_for_good() {
    let mut world = World::new(true);
    world.step(Add("192.0.2.7", "lo"));
    world.step(Add("192.0.2.8", "eth0"));
    world.kernel.addresses[1].permanent = false;
    world.step(Want(&[VIP4], Some("lo")));
    world.settle();
    let found = world.binder.found(&world.kernel);
    let found: Vec<_> = found
        .iter()
        .map(|f| format!("{}@{}", f.address, f.interface))
        .collect();
    assert_eq!(found, ["192.0.2.7@lo"], "neither a lease nor vipd's own");
}

#[test]
fn an_address_moves_to_where_it_is_wanted_and_is_never_nowhere() {
    check(
        "there first",
        true,
        &[
            (
                Want(&[VIP4], Some("lo")),
                "+198.51.100.10@lo; 198.51.100.10 on lo",
            ),
            (
                Want(&[VIP4], Some("web0")),
                "+198.51.100.10@web0; -198.51.100.10@lo; 198.51.100.10 on web0",
            ),
        ],
    );
}

#[test]
fn what_the_kernel_refuses_is_asked_for_again_later() {
    let mut world = World::new(true);
    world.step(Refuse(true));
    world.step(Want(&[VIP4], Some("lo")));
    assert_eq!(world.settle(), "198.51.100.10: refused");
    assert_eq!(world.binder.next(), Some(world.now + RETRY));
    world.step(Refuse(false));
    assert_eq!(world.settle(), "198.51.100.10: refused", "not at once");
    world.step(Wait(10));
    assert_eq!(
        world.settle(),
        "+198.51.100.10@lo; 198.51.100.10 on lo",
        "after a while"
    );
}

#[test]
fn what_an_agent_before_has_bound_is_taken_over_or_goes_in_its_time() {
    // With the kernel's mark, and where it keeps none.
    for marked in [true, false] {
        let mut world = World::new(true);
        world.add(ip(VIP4), 1, marked);
        world.add(ip(VIP6), 1, marked);
        world.add(ip("198.51.100.77"), 1, false);
        if !marked {
            let bound = [VIP4, VIP6].map(|text| (ip(text), Arc::from("lo")));
            world.binder = Binder::new(bound.into());
        }
        world.step(Want(&[VIP4], Some("lo")));
        assert_eq!(world.settle(), "198.51.100.10 on lo", "marked: {marked}");
        world.step(Wait(59));
        assert_eq!(world.settle(), "198.51.100.10 on lo", "marked: {marked}");
        world.step(Wait(1));
        let gone = "-2001:db8:100::10@lo; 198.51.100.10 on lo";
        assert_eq!(world.settle(), gone, "marked: {marked}");
        for job in world.binder.release(&world.kernel) {
            world.carry_out(&job);
        }
        let left: Vec<_> = world.kernel.addresses.iter().map(|a| a.address).collect();
        assert_eq!(left, [ip("198.51.100.77")], "it is somebody else's");
    }
}
