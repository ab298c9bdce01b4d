//! What a file counts on that is not in it: warned of when the file is loaded, and no
//! error, since it may be there later.

use std::{fs, path::Path};

use vipd::config::Config;

#[test]
fn programs_users_and_files_that_vipd_will_not_find_are_warned_of() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    fs::create_dir_all(&folder).expect("the folder can be made");
    let path = folder.join("vipd.toml");
    let text = r#"
[dataplane]
interfaces = ["eth0"]

[[bgp.peer]]
address = "192.0.2.1"
as = 64501

[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[service]]
name = "program"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"
disable_file = "/tmp/disabled"
check = { type = "program", command = ["/no/such/check", "--quick"], user = "root" }

[[service.backend]]
name = "b1"
address = "192.0.2.21"

[[service]]
name = "file"
vips = ["198.51.100.11"]
protocol = "tcp"
port = 80
mode = "ipip"
check = { type = "file", path = "/home/operator/in-service" }

[[service.backend]]
name = "b1"
address = "192.0.2.21"

[[hook]]
name = "page"
on = ["vip"]
command = ["/bin/sh"]
user = "no-such-user"

[[hook]]
name = "good"
on = ["vip"]
command = ["/bin/sh"]
user = "root"
"#;
    fs::write(&path, text).expect("the file can be written");
    let loaded = Config::load(&path);
    let (_, warnings) = loaded.unwrap_or_else(|error| panic!("{error}"));
    let warnings = warnings.iter().map(ToString::to_string);
    let folder = format!("{}/", folder.display());
    let warnings: Vec<_> = warnings.map(|it| it.replace(&folder, "")).collect();
    let hidden = "run by the packaged unit, vipd does not see what others have in";
    let elsewhere = "a place below /run or /usr/local, for example; or";
    assert_eq!(
        warnings,
        [
            format!(
                "vipd.toml:19:16: {hidden} /tmp ({elsewhere} PrivateTmp=no in a drop-in of the \
                 unit)"
            ),
            "vipd.toml:20:40: there is no /no/such/check on this host (it is run without a \
             shell, and must be a file that its user may execute)"
                .to_owned(),
            format!(
                "vipd.toml:32:33: {hidden} /home ({elsewhere} ProtectHome=no in a drop-in of \
                 the unit)"
            ),
            "vipd.toml:42:8: there is no user no-such-user on this host (nothing is run as a \
             user who is not there: make one, for example by `useradd --system`, or name \
             another)"
                .to_owned(),
        ]
    );
    let (_, parsed) = Config::parse(text, "vipd.toml").expect("the same");
    assert_eq!(parsed, [], "without a look at this host");
}
