//! Whom checks trust. What is made of it is kept, since it is much work: the
//! system trusts more than a hundred issuers.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
};
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::warn;
use vipd_control::model::Tls;

use super::verifier::Verifier;
use crate::config::authorities;

/// For so long files count as they were.
const KEPT: Duration = Duration::from_secs(60);

/// What checks have in common that can share a configuration.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Trust {
    verify: bool,
    ca_file: Option<PathBuf>,
    alpn: Vec<String>,
}

/// A configuration, and when its files were read.
struct Loaded {
    config: Arc<ClientConfig>,
    at: Instant,
}

/// All that are in use. Files are read by one check while others wait.
static LOADED: Mutex<Option<HashMap<Trust, Loaded>>> = Mutex::const_new(None);

/// How TLS is spoken in this check. It resumes no session, or a certificate that
/// has changed would not be seen.
///
/// # Errors
/// In words, why there is nobody to trust.
pub async fn config(tls: &Tls) -> Result<Arc<ClientConfig>, String> {
    let trust = Trust {
        verify: tls.verify,
        ca_file: tls.ca_file.clone(),
        alpn: tls.alpn.clone(),
    };
    let mut loaded = LOADED.lock().await;
    let loaded = loaded.get_or_insert_default();
    let now = Instant::now();
    let old = loaded.get(&trust);
    if let Some(fresh) = old.filter(|old| now - old.at < KEPT) {
        return Ok(Arc::clone(&fresh.config));
    }
    let old = old.map(|old| Arc::clone(&old.config));
    let config = match (load(trust.clone()).await, old) {
        (Ok(config), _) => config,
        (Err(error), Some(old)) => {
            warn!("{error}; checks go on with the certificates that were there before");
            old
        }
        (Err(error), None) => return Err(error),
    };
    // Nobody uses what nobody has made fresh.
    loaded.retain(|_, loaded| now - loaded.at < 2 * KEPT);
    let fresh = Loaded {
        config: Arc::clone(&config),
        at: now,
    };
    loaded.insert(trust, fresh);
    Ok(config)
}

async fn load(trust: Trust) -> Result<Arc<ClientConfig>, String> {
    let loaded = spawn_blocking(move || build(&trust)).await;
    loaded.map_err(|error| format!("cannot load certificates: {error}"))?
}

fn build(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let inner = match trust.verify {
        true => Some(strict(trust, &provider)?),
        false => None,
    };
    let verifier = Verifier::new(inner, Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = trust.alpn.iter().map(|name| name.clone().into()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn strict(
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let certificates = match &trust.ca_file {
        Some(path) => authorities(path).map_err(|error| error.to_string())?,
        None => of_the_system()?,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(match &trust.ca_file {
            Some(path) => format!("no certificate in {} can be used", path.display()),
            None => "no certificate of the system can be used".to_owned(),
        });
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())
}

fn of_the_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let why = loaded
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!(
            "this system trusts nobody{why}: install ca-certificates, or give `ca_file`"
        ));
    }
    Ok(loaded.certs)
}
