//! Files with the certificates of those that are trusted.

use std::path::{Path, PathBuf};

use rustls::pki_types::{
    CertificateDer,
    pem::{self, PemObject},
};

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read, or is not PEM.
    #[error("cannot read certificates from {path}: {}", words(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// It can be read, and there is nothing in it.
    #[error("there is no certificate in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// It cannot be read, or has none.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read = |source| CertificateError::Read {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(read)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(read)?;
    if certificates.is_empty() {
        let path = path.to_owned();
        return Err(CertificateError::Empty { path });
    }
    Ok(certificates)
}

/// What the kernel or the parser says, without the words of a library.
fn words(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("it is not PEM ({other:?})"),
    }
}
