//! Checks that cannot be meant.

use super::Case;

/// The lines that say what is asked, in the good file.
const LINES: &str = "type = \"http\"\npath = \"/healthz\"\n";

pub const CHECKS: &[Case] = &[
    (
        "a kind that nobody knows",
        &[("type = \"http\"", "type = \"htpps\"")],
    ),
    (
        "no kind at all",
        &[("type = \"http\"\npath = \"/healthz\"\n", "rise = 1\n")],
    ),
    (
        "large packets on no way at all",
        &[(LINES, "type = \"tcp\"\nfull_mtu = true\n")],
    ),
    (
        "another address on the way of traffic",
        &[(
            LINES,
            "type = \"tcp\"\nthrough = true\naddress = \"192.0.2.99\"\n",
        )],
    ),
    (
        "a source of another family than the virtual address",
        &[(
            LINES,
            "type = \"tcp\"\nthrough = true\nsource = \"2001:db8:1::11\"\n",
        )],
    ),
    (
        "an HTTP path in a TCP check",
        &[("type = \"http\"", "type = \"tcp\"")],
    ),
    (
        "TLS in a check without it",
        &[(LINES, "type = \"http\"\nverify = false\n")],
    ),
    (
        "a misspelt key of a kind",
        &[(LINES, "type = \"http\"\nexpect_header = {}\n")],
    ),
    (
        "a key that is missing for its kind",
        &[(LINES, "type = \"dns\"\nnames = \"example.com\"\n")],
    ),
    (
        "a port in an echo request",
        &[(LINES, "type = \"icmp\"\nport = 7\n")],
    ),
    (
        "an address for a check of nothing",
        &[(LINES, "type = \"none\"\naddress = \"192.0.2.99\"\n")],
    ),
    (
        "a virtual address that checks ask",
        &[(LINES, "type = \"tcp\"\naddress = \"198.51.100.10\"\n")],
    ),
    (
        "an address of another family than the source",
        &[(
            LINES,
            "type = \"tcp\"\naddress = \"2001:db8:2::31\"\nsource = \"192.0.2.11\"\n",
        )],
    ),
    (
        "octets that are none",
        &[(LINES, "type = \"tcp\"\nsend = { hex = \"0g\" }\n")],
    ),
    (
        "an expression that is none",
        &[(LINES, "type = \"tcp\"\nexpect = { regex = \"(\" }\n")],
    ),
    (
        "a form of text that nobody knows",
        &[(LINES, "type = \"tcp\"\nexpect = { glob = \"a*\" }\n")],
    ),
    (
        "the expectation of nothing",
        &[(LINES, "type = \"tcp\"\nexpect = \"\"\n")],
    ),
    (
        "a datagram of nothing",
        &[(LINES, "type = \"udp\"\nexpect = \"x\"\n")],
    ),
    (
        "certificates of those we trust where nothing is verified",
        &[(
            LINES,
            "type = \"tls\"\nverify = false\nca_file = \"ca.pem\"\n",
        )],
    ),
    (
        "a server name that is none",
        &[(LINES, "type = \"tls\"\nserver_name = \"a b\"\n")],
    ),
    (
        "HTTP/2",
        &[(LINES, "type = \"https\"\nalpn = [\"h2\", \"http/1.1\"]\n")],
    ),
    (
        "methods that are none",
        &[(LINES, "type = \"http\"\nmethod = \"get\"\n")],
    ),
    (
        "a path with a fragment",
        &[("path = \"/healthz\"", "path = \"/healthz#top\"")],
    ),
    (
        "headers that are ours or none",
        &[(
            LINES,
            "type = \"http\"\nheaders = { Host = \"a\", \"X Y\" = \"b\", Z = \" c\", D = 1 }\n",
        )],
    ),
    (
        "no status that is good",
        &[(LINES, "type = \"http\"\nstatus = []\n")],
    ),
    (
        "the body of an answer to HEAD",
        &[(
            LINES,
            "type = \"http\"\nmethod = \"HEAD\"\nexpect_body = \"x\"\n",
        )],
    ),
    (
        "what DNS does not know",
        &[(
            LINES,
            "type = \"dns\"\nname = \"a..b\"\nrecord_type = \"AXFR\"\nrcode = [\"OK\"]\n",
        )],
    ),
    (
        "a program without its path",
        &[(LINES, "type = \"program\"\ncommand = [\"check-web\"]\n")],
    ),
    (
        "variables that are ours or none",
        &[(
            LINES,
            "type = \"program\"\ncommand = [\"/bin/true\"]\n\
             environment = { VIPD_NAME = \"a\", \"1\" = \"b\" }\n",
        )],
    ),
    (
        "an echo that is larger than any packet",
        &[(LINES, "type = \"icmp\"\nsize = 65508\n")],
    ),
    (
        "a file without its path",
        &[(LINES, "type = \"file\"\nup_while = \"there\"\n")],
    ),
];
