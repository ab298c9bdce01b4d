//! What a certificate says, in words for operators.

use std::{net::IpAddr, num::NonZeroU64, time::Duration};

use rustls::{
    CertificateError,
    pki_types::{CertificateDer, UnixTime},
};
use x509_cert::{
    Certificate,
    der::{DateTime, Decode},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The most names of a certificate that are told.
const NAMES_MAX: usize = 5;

/// When the first of these expires, in seconds since 1970 UTC; one that cannot be
/// read counts for nothing.
pub fn first_expiry<'a>(
    shown: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Option<NonZeroU64> {
    let parsed = shown.into_iter().filter_map(|der| parse(der));
    let expiry = parsed.map(|certificate| {
        let end = certificate.tbs_certificate.validity.not_after;
        end.to_unix_duration().as_secs()
    });
    expiry.min().and_then(NonZeroU64::new)
}

/// What is wrong with what the backend shows, in one line.
pub fn words(reason: &CertificateError, shown: &CertificateDer<'_>) -> String {
    let certificate = parse(shown);
    match reason {
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = (time.as_secs().saturating_sub(not_after.as_secs())) / 86_400;
            let whose = match first_expiry([shown]) {
                Some(own) if own.get() == not_after.as_secs() => "the certificate",
                _ => "a certificate above the backend's",
            };
            format!("{whose} expired on {}, {ago} days ago", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is valid only from {}", date(*not_before))
        }
        CertificateError::UnknownIssuer => match certificate {
            Some(certificate) => unknown_issuer(&certificate),
            None => "unknown issuer".to_owned(),
        },
        CertificateError::NotValidForNameContext { expected, .. } => {
            let names = certificate.as_ref().map(names).unwrap_or_default();
            let names = match names.get(..NAMES_MAX) {
                _ if names.is_empty() => "no name".to_owned(),
                Some(first) if names.len() > NAMES_MAX => {
                    format!("{} and {} more", first.join(", "), names.len() - NAMES_MAX)
                }
                _ => names.join(", "),
            };
            format!(
                "the certificate is for {names}, not for {}",
                expected.to_str()
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not one for servers".to_owned()
        }
        other => format!("invalid certificate: {other}"),
    }
}

fn unknown_issuer(certificate: &Certificate) -> String {
    let certificate = &certificate.tbs_certificate;
    if certificate.issuer == certificate.subject {
        return format!(
            "unknown issuer: the certificate is signed by itself ({})",
            certificate.subject
        );
    }
    format!(
        "unknown issuer: {} is not trusted, or the backend does not send its certificate",
        certificate.issuer
    )
}

/// The names that it is valid for (RFC 9525, section 2).
fn names(certificate: &Certificate) -> Vec<String> {
    let names = certificate.tbs_certificate.get::<SubjectAltName>();
    let Ok(Some((_, names))) = names else {
        return Vec::new();
    };
    let names = names.0.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(octets) => address(octets.as_bytes()).map(|ip| ip.to_string()),
        _ => None,
    });
    names.collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn parse(der: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(der).ok()
}

/// Day and time in UTC.
fn date(time: UnixTime) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.as_secs())).map_or_else(
        |_| format!("second {} since 1970", time.as_secs()),
        |date| date.to_string(),
    )
}
