//! What a network driver says about itself, by the ethtool ioctl: its name and
//! its offloads (linux/ethtool.h).

use std::{
    collections::BTreeMap,
    ffi::c_char,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketType, socket};

const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;

/// The set of strings that names the features.
const FEATURE_NAMES: u32 = 4;
/// Bytes of a string in a set.
const NAME: usize = 32;
/// More features than any kernel has; 64 today.
const FEATURES_MAX: usize = 1024;

/// A socket to ask drivers by.
pub struct Ethtool(OwnedFd);

/// An offload of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    /// Whether it is on.
    pub on: bool,
    /// Whether it cannot be changed.
    pub fixed: bool,
}

impl Ethtool {
    pub fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::INET, SocketType::DGRAM, None)?))
    }

    /// The name of the driver of an interface.
    pub fn driver(&self, interface: &str) -> io::Result<String> {
        // struct ethtool_drvinfo: command, driver, 160 bytes of other things.
        let mut info = [0; 1 + 8 + 40];
        info[0] = GET_DRIVER;
        // SAFETY: the buffer is the whole struct.
        unsafe { self.ask(interface, &mut info) }?;
        Ok(text(&info[1..9]))
    }

    /// The features of an interface by the kernel's names of them.
    pub fn features(&self, interface: &str) -> io::Result<BTreeMap<String, Feature>> {
        let names = self.feature_names(interface)?;
        // struct ethtool_gfeatures: command, number of blocks, then blocks of
        // available, requested, active, never changed; a bit per feature.
        let blocks = names.len().div_ceil(32);
        let mut features = vec![0; 2 + 4 * blocks];
        features[0] = GET_FEATURES;
        features[1] = blocks as u32;
        // SAFETY: the kernel writes as many blocks as it is told, at most.
        unsafe { self.ask(interface, &mut features) }?;
        let bit = |row: usize, index: usize| {
            features[2 + 4 * (index / 32) + row] >> (index % 32) & 1 == 1
        };
        let features = names.into_iter().enumerate().map(|(index, name)| {
            let fixed = !bit(0, index) || bit(3, index);
            (
                name,
                Feature {
                    on: bit(2, index),
                    fixed,
                },
            )
        });
        Ok(features.collect())
    }

    fn feature_names(&self, interface: &str) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: command, reserved, a 64-bit mask of sets,
        // a count for each set of the mask.
        let mut counts = [GET_STRING_COUNTS, 0, 0, 0, 0];
        let mask = (1_u64 << FEATURE_NAMES).to_ne_bytes();
        counts[2..4].copy_from_slice(&words(&mask));
        // SAFETY: the buffer is the whole struct with the one count asked for.
        unsafe { self.ask(interface, &mut counts) }?;
        let count = counts[4] as usize;
        if count > FEATURES_MAX {
            return Err(io::Error::other(format!("{count} features are too many")));
        }
        // struct ethtool_gstrings: command, set, count, strings.
        let mut strings = vec![0; 3 + count * NAME / 4];
        strings[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, count as u32]);
        // SAFETY: the number of features is fixed when a kernel is built, so
        // the kernel writes as many strings as it has just counted.
        unsafe { self.ask(interface, &mut strings) }?;
        Ok(strings[3..].chunks(NAME / 4).map(text).collect())
    }

    /// Hands `command` to the driver, which answers in its place.
    ///
    /// # Safety
    /// `command` must be as long as the kernel's struct for its first word,
    /// with all that the kernel may write behind it.
    unsafe fn ask(&self, interface: &str, command: &mut [u32]) -> io::Result<()> {
        let mut name: [c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in name.iter_mut().zip(interface.bytes()) {
            *place = byte as c_char;
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: command.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the request names an interface and points to a buffer that
        // is long enough, says the caller; both outlive the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// The text in a field, up to its first zero byte.
fn text(field: &[u32]) -> String {
    let bytes = field.iter().flat_map(|word| word.to_ne_bytes());
    let text: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// Eight bytes as they lie in memory, in words.
fn words(bytes: &[u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = *bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_its_first_zero_byte() {
        let field = words(b"veth\0xyz");
        assert_eq!(text(&field), "veth");
        assert_eq!(text(&words(b"ixgbe-vf")), "ixgbe-vf");
    }
}
