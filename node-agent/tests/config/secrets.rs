//! Files with secrets: found, closed to others, and not empty.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use vipd::config::{Config, ConfigError};

use crate::edited;

/// A folder of this test's own, with a configuration that names `secret`.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder can be made");
    let text = edited(&[("source = \"192.0.2.11\"", "password_file = \"secret\"")]);
    fs::write(folder.join("vipd.toml"), text).expect("the file can be written");
    folder
}

fn write_secret(folder: &Path, secret: &str, mode: u32) {
    let path = folder.join("secret");
    fs::write(&path, secret).expect("the secret can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

fn load(folder: &Path) -> Result<Config, ConfigError> {
    Config::load(&folder.join("vipd.toml")).map(|(config, _)| config)
}

#[test]
fn a_secret_is_read_without_its_line_break() {
    let folder = folder("secret-good");
    write_secret(&folder, "swordfish\n", 0o600);
    let config = load(&folder).expect("the file is right");
    let bgp = config.bgp.expect("there is BGP");
    let password = bgp.peers[0].password.as_ref().expect("there is a password");
    let secret = password.read().expect("the secret can be read");
    assert_eq!(secret.bytes(), b"swordfish");
    assert!(!format!("{secret:?} {bgp:?}").contains("swordfish"));
}

#[test]
fn a_key_for_bfd_is_looked_at_like_other_secrets() {
    let folder = folder("secret-bfd");
    let next_hop = "next_hop_ipv6 = \"2001:db8::11\"";
    let bfd = "[bgp.peer.bfd]\nauth = \"keyed-md5\"\nkey_file = \"secret\"";
    let text = edited(&[(next_hop, &format!("{next_hop}\n{bfd}"))]);
    fs::write(folder.join("vipd.toml"), text).expect("the file can be written");
    write_secret(&folder, &"x".repeat(16), 0o600);
    load(&folder).expect("the file is right");
    write_secret(&folder, &"x".repeat(17), 0o600);
    let error = load(&folder).expect_err("MD5 takes 16 bytes");
    assert!(error.to_string().contains("at most 16"), "{error}");
}

#[test]
fn a_secret_that_cannot_be_used_is_refused() {
    let folder = folder("secret-bad");
    let mut page = String::new();
    let long = "x".repeat(81);
    let table = [
        ("missing", None),
        ("empty", Some(("\n", 0o600))),
        ("open to everybody", Some(("swordfish\n", 0o644))),
        ("too long", Some((long.as_str(), 0o640))),
    ];
    for (sentence, secret) in table {
        if let Some((secret, mode)) = secret {
            write_secret(&folder, secret, mode);
        }
        let error = load(&folder).expect_err(sentence);
        page += &format!("# {sentence}\n\n");
        for finding in error.findings {
            page += &format!("{}\n\n", finding.render(false));
        }
    }
    let page = page.replace(&format!("{}", folder.display()), "/etc/vipd");
    insta::assert_snapshot!("secrets", page);
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let folder = folder("certificates");
    write_secret(&folder, "x", 0o600);
    let text = fs::read_to_string(folder.join("vipd.toml")).expect("it is there");
    let text = text.replace("type = \"http\"", "type = \"https\"\nca_file = \"ca.pem\"");
    fs::write(folder.join("vipd.toml"), text).expect("the file can be written");
    let check = |ca: Option<&str>, words: &str| {
        let path = folder.join("ca.pem");
        match ca {
            Some(text) => fs::write(&path, text).expect("the file can be written"),
            None => assert!(!path.exists()),
        }
        let error = load(&folder).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    };
    check(None, "No such file");
    check(Some("secret"), "there is no certificate in");
    check(Some("-----BEGIN CERTIFICATE-----\nx\n"), "it is not PEM");
    let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(folder.join("ca.pem"), one).expect("the file can be written");
    load(&folder).expect("what a certificate says is looked at by who uses it");
}
