//! Secrets live in files of their own. A configuration holds where; whoever
//! needs the secret reads it.

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A file that holds a secret and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
    max_len: usize,
}

/// A secret. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The file is there, and there is nothing in it.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Others than owner and group may open the file.
    #[error("{path} is open to everybody on this machine (mode {mode:04o})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More than its use allows.
    #[error("{path} holds {len} bytes, at most {max_len} are possible")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes in the file, without a closing line break.
        len: usize,
        /// Bytes allowed.
        max_len: usize,
    },
}

impl SecretFile {
    /// A file at `path` with a secret of at most `max_len` bytes. It need not
    /// exist yet.
    #[must_use]
    pub fn new(path: PathBuf, max_len: usize) -> Self {
        Self { path, max_len }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the secret, without a closing line break.
    ///
    /// # Errors
    /// The file cannot be read, is open to everybody, or holds nothing or too
    /// much.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = || self.path.clone();
        let read_error = |source| SecretError::Read {
            path: path(),
            source,
        };
        let metadata = fs::metadata(&self.path).map_err(read_error)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(SecretError::Open { path: path(), mode });
        }
        let mut bytes = fs::read(&self.path).map_err(read_error)?;
        while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            bytes.pop();
        }
        match bytes.len() {
            0 => Err(SecretError::Empty { path: path() }),
            len if len > self.max_len => Err(SecretError::TooLong {
                path: path(),
                len,
                max_len: self.max_len,
            }),
            _ => Ok(Secret(bytes)),
        }
    }
}

impl SecretError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => format!(
                "create it, readable for its owner only: install -m 600 /dev/null {}",
                path.display()
            ),
            Self::Read { .. } => String::from("run this as the user the agent runs as"),
            Self::Empty { .. } => String::from("write the secret into it, on one line"),
            Self::Open { path, .. } => format!("chmod o= {}", path.display()),
            Self::TooLong { .. } => String::from("write a shorter secret into it, on one line"),
        }
    }
}

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret(b"swordfish".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
