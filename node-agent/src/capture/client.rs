//! The command line's side of a capture: its arguments, a line for each packet,
//! and the file.

use std::{fs::File, io::BufWriter, net::IpAddr, path::Path};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::signal::ctrl_c;

use super::{
    Counts, Message, Packet, Request,
    pcapng::{Direction, Frame, Writer},
};
use crate::{api::Client, explain::Transport, terminal};

/// What is to be captured. Conditions are joined by "and".
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Filter {
    /// Source address or prefix.
    #[arg(long, value_parser = net)]
    src: Option<IpNet>,
    /// Destination address or prefix.
    #[arg(long, value_parser = net)]
    dst: Option<IpNet>,
    /// Source or destination port.
    #[arg(long)]
    port: Option<u16>,
    /// Transport protocol.
    #[arg(long)]
    protocol: Option<Transport>,
    /// A verdict, as in docs/verdicts.md; may be given again for more.
    #[arg(long)]
    verdict: Vec<String>,
    /// A service, by name.
    #[arg(long)]
    service: Option<String>,
    /// Look at one packet in so many.
    #[arg(long)]
    sample: Option<u32>,
    /// Most packets in a second on one processor [default: 1000].
    #[arg(long)]
    rate: Option<u32>,
    /// End after so many packets.
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds, at most an hour [default: 60].
    #[arg(long)]
    seconds: Option<u64>,
}

impl From<Filter> for Request {
    fn from(filter: Filter) -> Self {
        Self {
            source: filter.src,
            destination: filter.dst,
            port: filter.port,
            protocol: filter.protocol,
            verdicts: filter.verdict,
            service: filter.service,
            sample: filter.sample,
            rate: filter.rate,
            count: filter.count,
            seconds: filter.seconds,
        }
    }
}

/// An address, or a prefix.
fn net(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let net = address.or_else(|_| text.parse());
    net.map_err(|_| format!("`{text}` is no address or prefix, such as 203.0.113.0/24"))
}

/// Captures until the end, or until the user has had enough.
///
/// # Errors
///
/// When the agent cannot be reached or refuses, or the file cannot be written.
pub async fn run(socket: &Path, request: &Request, file: Option<&Path>) -> anyhow::Result<()> {
    let mut screen = Screen::new(file);
    let mut why = None;
    let client = Client::new(socket);
    let capture = client.capture(request, |message| {
        why = screen.take(&message)?;
        Ok(why.is_none())
    });
    let result = tokio::select! {
        result = capture => result,
        result = ctrl_c() => result.map_err(Into::into),
    };
    let counts = screen.end()?;
    result?;
    terminal::tell(format_args!(
        "{}: {counts}",
        why.as_deref().unwrap_or("interrupted")
    ));
    Ok(())
}

/// Shows or writes what is captured.
struct Screen<'a> {
    path: Option<&'a Path>,
    /// Made with the first message: a refusal leaves an old file alone.
    file: Option<Writer<BufWriter<File>>>,
    counts: Counts,
}

impl<'a> Screen<'a> {
    /// To the terminal, or to a new file.
    fn new(path: Option<&'a Path>) -> Self {
        Self {
            path,
            file: None,
            counts: Counts::default(),
        }
    }

    /// Takes a message; the capture has ended when it gives back why.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or the terminal is closed.
    fn take(&mut self, message: &Message) -> anyhow::Result<Option<String>> {
        if let Some(path) = self.path.filter(|_| self.file.is_none()) {
            let file = File::create(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            self.file = Some(Writer::new(BufWriter::new(file))?);
        }
        match message {
            Message::Packet(packet) => match &mut self.file {
                Some(file) => write(file, packet).context("cannot write the file")?,
                None => {
                    let line = packet.line();
                    terminal::line(format_args!("{} {line}", clock(packet.nanos)))?;
                }
            },
            Message::Counts(counts) => self.counts = *counts,
            Message::Ended { why, counts } => {
                self.counts = *counts;
                return Ok(Some(why.clone()));
            }
        }
        Ok(None)
    }

    /// Puts the file in order and says how much there was.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    fn end(&mut self) -> anyhow::Result<String> {
        if let Some(file) = &mut self.file {
            file.flush().context("cannot write the file")?;
        }
        let Counts {
            captured,
            limited,
            lost,
        } = self.counts;
        Ok(format!(
            "{captured} packets captured, {limited} not looked at above the bounds, {lost} lost to \
             a slow reader"
        ))
    }
}

/// The frame as it came and, if it did, as it left.
fn write(file: &mut Writer<BufWriter<File>>, packet: &Packet) -> std::io::Result<()> {
    let comment = packet.fate();
    let left = packet.left.iter().map(|frame| (Direction::Out, frame));
    for (direction, frame) in std::iter::once((Direction::In, &packet.came)).chain(left) {
        file.write(&Frame {
            interface: &frame.interface,
            direction,
            nanos: packet.nanos,
            bytes: &frame.bytes,
            length: frame.length,
            comment: &comment,
        })?;
    }
    Ok(())
}

/// Time of day in UTC, to the microsecond.
fn clock(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        nanos / 1000 % 1_000_000
    )
}
