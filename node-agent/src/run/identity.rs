//! As whom a program runs, and what it is left of our rights: nothing.

use std::{ffi::CString, io};

use nix::unistd::{User, getgrouplist};
use rustix::{
    io::Errno,
    process::{Gid, Resource, Rlimit, Uid, geteuid, getrlimit, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// Open files that a program may have: what most expect. Ours are far more, and
/// some programs go through all that there could be.
const FILES: u64 = 1024;

/// What a program becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    /// Its groups, the first of them its own; `None` when it stays who we are.
    switch: Option<(Gid, Vec<Gid>)>,
}

impl Identity {
    /// The user of that name, with its groups. May ask the network (nsswitch.conf).
    ///
    /// # Errors
    ///
    /// Why we cannot become that user, and what helps.
    pub fn of(name: &str) -> Result<Self, String> {
        let user = User::from_name(name)
            .map_err(|error| format!("cannot look up the user {name}: {error}"))?
            .ok_or_else(|| format!("there is no user {name} on this host"))?;
        let uid = Uid::from_raw(user.uid.as_raw());
        let rights = capabilities(None).map_err(|error| error.to_string())?;
        let lacks = |wanted: CapabilitySet| !rights.effective.contains(wanted);
        let switch = if uid == geteuid() {
            if uid.is_root() && lacks(CapabilitySet::SETPCAP) && bounding().next().is_some() {
                return Err(format!(
                    "vipd lacks CAP_SETPCAP, without which a program of {name} would have \
                     capabilities; name another user"
                ));
            }
            None
        } else {
            if lacks(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL) {
                return Err(format!(
                    "vipd may not run programs as {name}: it needs CAP_SETUID and CAP_SETGID, and \
                     CAP_KILL to end them"
                ));
            }
            let name_of = |_| format!("{name:?} is no name of a user");
            let groups = CString::new(name).map_err(name_of)?;
            let groups = getgrouplist(&groups, user.gid)
                .map_err(|error| format!("cannot look up the groups of {name}: {error}"))?;
            let own = Gid::from_raw(user.gid.as_raw());
            let all = groups.iter().map(|group| Gid::from_raw(group.as_raw()));
            Some((own, all.collect()))
        };
        Ok(Self { uid, switch })
    }

    /// Makes the calling process it, between fork and exec: so there are system
    /// calls here and nothing else, neither memory nor locks.
    pub fn assume(&self) -> io::Result<()> {
        for capability in bounding() {
            match remove_capability_from_bounding_set(capability) {
                // Without our right to it: it means nothing to who is not root and
                // may gain nothing (see below).
                Err(Errno::PERM) if !self.uid.is_root() => break,
                dropped => dropped?,
            }
        }
        if let Some((own, groups)) = &self.switch {
            set_thread_groups(groups)?;
            set_thread_res_gid(*own, *own, *own)?;
            set_thread_res_uid(self.uid, self.uid, self.uid)?;
        }
        let none = CapabilitySet::empty();
        clear_ambient_capability_set()?;
        set_capabilities(
            None,
            CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            },
        )?;
        // No set-user-ID program, and no file with capabilities, gives any.
        set_no_new_privs(true)?;
        let limit = getrlimit(Resource::Nofile);
        let few = limit.current.map_or(FILES, |current| current.min(FILES));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(few),
                ..limit
            },
        )?;
        close_others()
    }
}

/// The capabilities that exec could give at most.
fn bounding() -> impl Iterator<Item = CapabilitySet> {
    // Beyond the last one the kernel knows none.
    (0..u64::BITS)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .filter(|capability| capability_is_in_bounding_set(*capability) == Ok(true))
}

/// Closes all files at exec but input, output and errors: ours are closed anyway,
/// those that somebody has left open for us are not.
fn close_others() -> io::Result<()> {
    let closed = {
        // SAFETY: nothing is closed before exec, so no file that anybody owns goes.
        unsafe {
            libc::close_range(
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
            )
        }
    };
    if closed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
