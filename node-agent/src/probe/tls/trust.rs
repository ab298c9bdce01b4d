//! Whom checks trust. What is made of it is kept, since it is much work: the
//! system trusts more than a hundred issuers.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
};
use tokio::{sync::watch, task::spawn_blocking};
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

/// What has become of reading files.
#[derive(Clone, Default)]
struct Loaded {
    /// What came of it last; of a failure only where nothing was read before.
    config: Option<Result<Arc<ClientConfig>, String>>,
    /// When that was.
    at: Option<Instant>,
    /// Whether they are being read.
    loading: bool,
}

/// All that are in use.
static KNOWN: LazyLock<Mutex<HashMap<Trust, watch::Sender<Loaded>>>> =
    LazyLock::new(Mutex::default);

/// How TLS is spoken in this check. It resumes no session, or a certificate that
/// has changed would not be seen. Only who asks first waits for the files: they are
/// read anew beside the checks, which go on with what was read before, however long
/// that takes.
///
/// # Errors
/// In words, why there is nobody to trust.
pub async fn config(tls: &Tls) -> Result<Arc<ClientConfig>, String> {
    let mut loaded = follow(Trust {
        verify: tls.verify,
        ca_file: tls.ca_file.clone(),
        alpn: tls.alpn.clone(),
    });
    let loaded = loaded.wait_for(|loaded| loaded.config.is_some()).await;
    let config = loaded.ok().and_then(|loaded| loaded.config.clone());
    config.unwrap_or_else(|| Err("certificates are not read any more".to_owned()))
}

/// What is read, and has it read where it is old.
fn follow(trust: Trust) -> watch::Receiver<Loaded> {
    let now = Instant::now();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody uses what nobody has made fresh.
    known.retain(|_, loaded| {
        let loaded = loaded.borrow();
        loaded.loading || loaded.at.is_some_and(|at| now - at < 2 * KEPT)
    });
    let loaded = known.entry(trust.clone()).or_default();
    let is_due = {
        let loaded = loaded.borrow();
        !loaded.loading && loaded.at.is_none_or(|at| now - at >= KEPT)
    };
    if is_due {
        loaded.send_modify(|loaded| loaded.loading = true);
        tokio::spawn(refresh(trust, loaded.clone()));
    }
    loaded.subscribe()
}

async fn refresh(trust: Trust, loaded: watch::Sender<Loaded>) {
    let found = load(trust).await;
    loaded.send_modify(|loaded| {
        loaded.loading = false;
        loaded.at = Some(Instant::now());
        match (found, &loaded.config) {
            (Err(error), Some(Ok(_))) => {
                warn!("{error}; checks go on with the certificates that were there before");
            }
            (found, _) => loaded.config = Some(found),
        }
    });
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
