//! The keys that only some kinds of checks have.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::config::{
    check_text::{Alpn, Argument, DomainName, Rcode, RecordType, ServerName, Variable},
    http::{HeaderName, HeaderText, Host, Method, Path, StatusRange},
    map::Map,
    report::{Report, Span},
    said::{Octets, Sought},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    text::Name,
    value::{Int, read_word, words},
};

table! {
    /// What is said in the connection, or in the datagram.
    ///
    /// ```toml
    /// [service.check]
    /// type = "tcp"
    /// send = "PING\r\n"
    /// expect = "+PONG"
    /// ```
    Exchange = "[service.check]" {
        /// What is sent first: text, with TOML's escapes such as `\r\n`, or octets
        /// in hexadecimal digits. Must be given for `"udp"`.
        send: Octets, optional "nothing is sent";
        /// What must stand somewhere in the first 16 KiB of the answer: text,
        /// octets, or a regular expression.
        expect: Sought, optional "no answer is waited for";
    }
}

table! {
    /// How TLS is spoken, 1.2 or 1.3.
    ///
    /// ```toml
    /// [service.check]
    /// type = "https"
    /// host = "www.example.com"
    /// ca_file = "ca.pem"
    /// ```
    Tls = "[service.check]" {
        /// Whether the certificate must be valid: now, for `server_name`, and
        /// issued by somebody we trust. Without that anybody can answer for the
        /// backend; it is told with each result.
        verify: bool, default "true";
        /// The name that is asked for (SNI), and that the certificate must have.
        server_name: ServerName, optional "`host`, if that is a name; else the address asked, which is not sent";
        /// File with the certificates of those we trust, in PEM. A change of it
        /// counts within a minute.
        ca_file: PathBuf, optional "whom the system trusts";
        /// Protocols that are offered (ALPN); the backend must choose one of them.
        alpn: Vec<At<Alpn>>, default "[]";
    }
}

table! {
    /// The HTTP/1.1 request, and which answers are good.
    ///
    /// ```toml
    /// [service.check]
    /// type = "http"
    /// method = "GET"
    /// path = "/status"
    /// host = "www.example.com"
    /// headers = { Accept = "application/json" }
    /// status = ["200"]
    /// expect_headers = { Content-Type = { regex = "^application/json" } }
    /// expect_body = "\"ready\":true"
    /// ```
    Http = "[service.check]" {
        /// Request method.
        method: Method, default "\"GET\"";
        /// What is asked for.
        path: Path, default "\"/\"";
        /// `Host` header.
        host: Host, optional "the address asked";
        /// More headers.
        headers: Map<HeaderName, HeaderText>, default "{}";
        /// Status codes that count as healthy.
        status: Vec<At<StatusRange>>, default "[\"200-399\"]";
        /// Headers that the answer must have, each with what its value must hold.
        expect_headers: Map<HeaderName, Sought>, default "{}";
        /// What the body must hold in its first 64 KiB.
        expect_body: Sought, optional "the body is not read";
    }
}

table! {
    /// The query, and which answers are good.
    ///
    /// ```toml
    /// [service.check]
    /// type = "dns"
    /// name = "health.example.com"
    /// record_type = "A"
    /// answer = "192.0.2.80"
    /// ```
    Dns = "[service.check]" {
        /// Name that is asked for.
        name: DomainName, required;
        /// Type of the records: a name such as `"AAAA"`, or a number as `"TYPE65"`.
        record_type: RecordType, default "\"A\"";
        /// Response codes that count as healthy.
        rcode: Vec<At<Rcode>>, default "[\"NOERROR\"]";
        /// What the data of one record of that type in the answer must hold.
        answer: Sought, optional "an answer without records is good too";
        /// How it is asked.
        transport: Transport, default "\"udp\"";
    }
}

table! {
    /// The echo request.
    ///
    /// ```toml
    /// [service.check]
    /// type = "icmp"
    /// size = 56
    /// ```
    Icmp = "[service.check]" {
        /// Octets of data in it.
        size: Int<u16, 0, 65_507>, default "56";
    }
}

table! {
    /// The program, which is run without a shell. It succeeds by exit code 0.
    ///
    /// ```toml
    /// [service.check]
    /// type = "program"
    /// command = ["/usr/local/bin/check-web", "--quick"]
    /// environment = { LANG = "C" }
    /// user = "nobody"
    /// ```
    Program = "[service.check]" {
        /// Absolute path of the program, and its arguments.
        command: Vec<At<Argument>>, required;
        /// Variables besides those that vipd sets, which begin with `VIPD_`.
        environment: Map<Variable, Argument>, default "{}";
        /// User who runs it.
        user: Name, default "\"nobody\"";
    }
}

table! {
    /// The file, on this host.
    ///
    /// ```toml
    /// [service.check]
    /// type = "file"
    /// path = "/run/web-is-in-service"
    /// up_while = "present"
    /// ```
    File = "[service.check]" {
        /// Where it is looked for.
        path: PathBuf, required;
        /// Whether backends are healthy while it is there, or while it is not.
        up_while: Presence, default "\"present\"";
    }
}

/// How DNS is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In datagrams.
    Udp,
    /// In a connection.
    Tcp,
}
words! { Transport { "udp" => Self::Udp, "tcp" => Self::Tcp, } }

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not.
    Absent,
}
words! { Presence { "present" => Self::Present, "absent" => Self::Absent, } }
