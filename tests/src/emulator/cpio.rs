//! The archive that the kernel unpacks into its first file system: cpio, the
//! "newc" format (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file by its absolute path, and the directories above it.
    pub fn add(&mut self, path: &str, content: &[u8], mode: u32) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let directory = &path[..end];
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY | 0o755, &[]);
            }
        }
        self.entry(path, REGULAR | mode, content);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, links) = (self.entries, 1);
        let (size, name_size) = (content.len(), name.len() + 1);
        // Magic, inode, mode, user, group, links, time, size, the device's and
        // the node's numbers, the name's length, and no checksum.
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}\
             {:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}{name}\0",
            0, 0, 0, 0, 0, 0, 0, 0,
        );
        self.bytes.extend(header.as_bytes());
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_follows_its_directories_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.add("/a/b/c", b"12345", 0o644);
        archive.add("/a/d", b"", 0o755);
        let bytes = archive.finish();

        let (mut rest, mut seen) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let field = |n: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * n..14 + 8 * n]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&rest[..6], b"070701");
            let (mode, size, name) = (field(1), field(6), field(11));
            let text = std::str::from_utf8(&rest[110..110 + name - 1]).unwrap();
            seen.push((text.to_owned(), mode, size));
            let content = (110 + name).next_multiple_of(4);
            rest = &rest[(content + size).next_multiple_of(4)..];
        }
        let told = |name: &str, mode, size| (name.to_owned(), mode, size);
        let expected = [
            told("a", 0o040_755, 0),
            told("a/b", 0o040_755, 0),
            told("a/b/c", 0o100_644, 5),
            told("a/d", 0o100_755, 0),
            told("TRAILER!!!", 0, 0),
        ];
        assert_eq!(seen, expected);
    }
}
