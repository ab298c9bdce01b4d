//! TLS in a connection: the handshake, what is wrong with it, and what is said
//! after it.

mod certificate;
mod trust;
mod verifier;

use std::{io, net::SocketAddr};

use rustls::{AlertDescription, CertificateError, Error, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};
use vipd_control::{
    check::CheckCode,
    model::{Exchange, Tls},
};

use self::verifier::Refused;
use super::{
    check::{Outcome, Target},
    exchange,
    progress::{Progress, Stage},
    tcp::{self, Connection},
};

/// Told with each result of a check that trusts everybody.
const UNVERIFIED: &str = "certificate not verified";

/// Says something within TLS, and hears the answer.
pub async fn ask(
    target: Target<'_>,
    tls: &Tls,
    said: &Exchange,
    progress: &mut Progress,
) -> Outcome {
    match connect(target, tls, progress).await {
        Ok(stream) => exchange::ask(stream, said, CheckCode::L6Ok, progress).await,
        Err(outcome) => outcome,
    }
}

/// Waits until the files that a check needs are read, well or not.
pub async fn files_read(tls: &Tls) {
    // What came of it is told by whoever needs them.
    let _ = trust::config(tls).await;
}

/// Connects and agrees on TLS, or says why not.
pub async fn connect(
    target: Target<'_>,
    tls: &Tls,
    progress: &mut Progress,
) -> Result<TlsStream<Box<dyn Connection>>, Outcome> {
    let own = |words| Outcome::with(CheckCode::SockErr, words);
    progress.begin(Stage::Files);
    let config = trust::config(tls).await.map_err(own)?;
    let name = server_name(tls, target.address).map_err(own)?;
    progress.enter(Stage::Connect);
    let stream = tcp::connect(target).await?;
    progress.enter(Stage::Handshake);
    if !tls.verify {
        progress.remark = Some(UNVERIFIED);
    }
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        let refused = refused(&error);
        progress.certificate_expiry = refused.and_then(|refused| refused.expiry);
        Outcome::with(CheckCode::L6Response, words(&error))
    })?;
    let (_, session) = stream.get_ref();
    progress.certificate_expiry = session
        .peer_certificates()
        .and_then(certificate::first_expiry);
    if !tls.alpn.is_empty() && session.alpn_protocol().is_none() {
        let words = format!("none of these protocols is chosen: {}", tls.alpn.join(", "));
        return Err(Outcome::with(CheckCode::L6Response, words));
    }
    Ok(stream)
}

/// The name that the certificate must have.
fn server_name(tls: &Tls, address: SocketAddr) -> Result<ServerName<'static>, String> {
    match &tls.server_name {
        None => Ok(ServerName::from(address.ip())),
        Some(name) => ServerName::try_from(name.clone())
            .map_err(|_| format!("{name} is not a name that a certificate can have")),
    }
}

/// What was wrong with the certificate, if that was it.
fn refused(error: &io::Error) -> Option<&Refused> {
    match tls_error(error)? {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What went wrong in the handshake.
fn words(error: &io::Error) -> String {
    if let Some(refused) = refused(error) {
        return refused.to_string();
    }
    match tls_error(error) {
        Some(Error::AlertReceived(alert)) => alert_words(*alert),
        Some(Error::NoApplicationProtocol) => {
            "the backend speaks none of the protocols in alpn".to_owned()
        }
        Some(Error::InvalidMessage(_)) => "what answers does not speak TLS".to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "closed during the TLS handshake".to_owned()
        }
        None => format!("{error} during the TLS handshake"),
    }
}

/// What the backend objects to (RFC 8446, section 6.2).
fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnrecognisedName => {
            "the backend does not know the name in server_name".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "the backend speaks none of the protocols in alpn".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "the backend wants a certificate of ours".to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "the backend speaks neither TLS 1.2 nor 1.3".to_owned()
        }
        other => format!("the backend refuses the TLS handshake: {other:?}"),
    }
}
