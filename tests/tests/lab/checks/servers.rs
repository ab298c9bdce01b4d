//! The servers that checks ask: nginx with certificates right and wrong, HAProxy
//! that lets clients wait, and a port whose packets vanish.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use vipd_tests::{Host, Nginx, Process, wait_until};

/// When the good certificate expires: 2099-01-01.
pub const EXPIRY: u64 = 4_070_908_800;

/// Names of the backend.
const NAMES: &[&str] = &["www.example.com", "192.0.2.21"];

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Years in which a certificate is valid, from the first day of one to that of
/// the other.
type Years = (i32, i32);

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name, &[], (2020, 2100))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate and its key, in one file.
    fn sign(&self, names: &[&str], years: Years) -> Result<String> {
        let key = KeyPair::generate()?;
        let certificate = params("www.example.com", names, years)?.signed_by(&key, &self.issuer)?;
        Ok(certificate.pem() + &key.serialize_pem())
    }
}

fn signed_by_itself() -> Result<String> {
    let key = KeyPair::generate()?;
    let certificate = params("www.example.com", NAMES, (2020, 2099))?.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

fn params(name: &str, names: &[&str], (from, to): Years) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    Ok(params)
}

/// All of them, on one host.
pub struct Servers {
    _nginx: Nginx,
    _haproxy: Process,
}

impl Servers {
    /// Starts them, and returns when they listen. Port 9998 is closed, and packets
    /// to 9999 are dropped.
    pub fn start(host: &Host, authority: &Authority) -> Result<Self> {
        let good = authority.sign(NAMES, (2020, 2099))?;
        let other = Authority::new("Another CA")?.sign(NAMES, (2020, 2099))?;
        let certificates = [
            (8443, good.clone()),
            (8444, authority.sign(NAMES, (2020, 2024))?),
            (8445, authority.sign(NAMES, (2100, 2101))?),
            (
                8446,
                authority.sign(&["shop.example.com", "192.0.2.99"], (2020, 2099))?,
            ),
            (8447, signed_by_itself()?),
            (8448, other),
        ];
        let mut blocks = "    server { listen 8080; return 503; }\n".to_owned();
        for (port, pem) in certificates {
            let file = host.write(&format!("{port}.pem"), &pem)?;
            let file = file.display();
            blocks += &format!(
                "    server {{\n        listen {port} ssl;\n        ssl_certificate {file};\n        \
                 ssl_certificate_key {file};\n        \
                 location = /missing {{ return 404; }}\n        \
                 location / {{ return 200 \"secure\\n\"; }}\n    }}\n"
            );
        }
        let nginx = Nginx::start_with(host, &blocks)?;
        let haproxy = start_haproxy(host, &good)?;
        let drop = "table inet silent {\n chain input {\n  type filter hook input priority 0\n  \
                    tcp dport 9999 drop\n }\n}\n";
        let rules = host.write("silent.nft", drop)?;
        host.run("nft", &["-f", &rules.to_string_lossy()])?;
        Ok(Self {
            _nginx: nginx,
            _haproxy: haproxy,
        })
    }
}

/// It holds back HTTP answers (8081), says nothing at all (8082), and serves TLS
/// to who knows its name (8450).
fn start_haproxy(host: &Host, certificate: &str) -> Result<Process> {
    let certificate = host.write("haproxy.pem", certificate)?;
    let config = format!(
        "defaults\n    timeout client 1m\n    timeout server 1m\n    timeout connect 1s\n    \
         timeout tarpit 30s\n\
         frontend slow\n    mode http\n    bind :8081\n    http-request tarpit\n\
         frontend silent\n    mode tcp\n    bind :8082\n    tcp-request inspect-delay 30s\n    \
         tcp-request content reject if WAIT_END\n\
         frontend named\n    mode http\n    bind :8450 ssl crt {} strict-sni\n    \
         http-request return status 200\n",
        certificate.display()
    );
    let config = host.write("haproxy.cfg", &config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    let mut process = host.spawn("haproxy", &mut command)?;
    wait_until("haproxy listens", Duration::from_secs(5), || {
        process.ensure_running()?;
        let sockets = host.run("ss", &["-Hltn", "sport = :8450"])?;
        ensure!(sockets.contains(":8450"), "sockets: {sockets:?}");
        Ok(())
    })?;
    Ok(process)
}
