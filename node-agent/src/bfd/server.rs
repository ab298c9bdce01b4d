//! The process's side of its socket: clients, their lines, and what is still to
//! be written to them. Nobody is waited for; a client that does not read is cut
//! off.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags},
    fd::{AsFd, BorrowedFd},
};

use super::protocol::{Message, Request, line};
use crate::api;

/// The longest line of a client, in bytes.
const LINE_MAX: usize = 1 << 16;
/// The most that waits for a client to read it, in bytes.
const UNREAD_MAX: usize = 1 << 22;
/// The most clients at once: when another comes, the one who has been there for
/// longest goes, unless it is an agent.
const CLIENTS_MAX: usize = 32;
/// The most that are let in before others have their turn.
const ADMITTED_MAX: usize = 8;

/// All clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    clients: Vec<Client>,
    last: u64,
    /// Nobody else can be let in now, for want of descriptors; asking for it would
    /// not let us rest.
    full: bool,
}

/// A client, by a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(u64);

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    unparsed: Vec<u8>,
    unread: Vec<u8>,
    attends: bool,
    gone: bool,
}

impl Server {
    /// Opens the socket.
    ///
    /// # Errors
    /// When another process serves it, for example.
    pub fn open(path: &Path) -> io::Result<Self> {
        let listener = api::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            last: 0,
            full: false,
        })
    }

    /// Whether an agent is connected.
    pub fn has_agent(&self) -> bool {
        self.clients.iter().any(|client| client.attends)
    }

    /// From now on this client is an agent, and gets changes.
    pub fn attend(&mut self, id: ClientId) {
        if let Some(client) = self.client(id) {
            client.attends = true;
        }
    }

    /// Says something to one client.
    pub fn answer(&mut self, id: ClientId, message: &Message) {
        if let Some(client) = self.client(id) {
            client.say(&line(message));
        }
    }

    /// Says something to all agents.
    pub fn publish(&mut self, message: &Message) {
        if self.has_agent() {
            let line = line(message);
            let agents = self.clients.iter_mut().filter(|client| client.attends);
            agents.for_each(|client| client.say(&line));
        }
    }

    /// What to wait for.
    pub fn poll_fds<'s>(&'s self, fds: &mut Vec<PollFd<'s>>) {
        if !self.full {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !client.unread.is_empty());
            PollFd::from_borrowed_fd(client.as_fd(), wanted)
        }));
    }

    /// Lets clients in and out, writes what waits, and gives back what they ask;
    /// a line that is no request comes as its error.
    pub fn serve(&mut self) -> Vec<(ClientId, Result<Request, String>)> {
        self.admit();
        let mut requests = Vec::new();
        for client in &mut self.clients {
            client.read(&mut requests);
            client.flush();
        }
        self.forget_gone();
        requests
    }

    fn forget_gone(&mut self) {
        let before = self.clients.len();
        self.clients.retain(|client| !client.gone);
        self.full &= self.clients.len() == before;
    }

    fn admit(&mut self) {
        self.full = false;
        for _ in 0..ADMITTED_MAX {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    self.make_room();
                    self.last += 1;
                    self.clients.push(Client::new(ClientId(self.last), stream));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // No descriptor is left, most likely.
                Err(_) => {
                    self.full = true;
                    return;
                }
            }
        }
    }

    /// So that idle clients never keep an agent out.
    fn make_room(&mut self) {
        if self.clients.len() >= CLIENTS_MAX {
            let oldest = self.clients.iter().position(|client| !client.attends);
            self.clients.remove(oldest.unwrap_or(0));
        }
    }

    /// Writes what waits, as far as clients take it.
    pub fn flush(&mut self) {
        self.clients.iter_mut().for_each(Client::flush);
        self.forget_gone();
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }
}

impl Client {
    fn new(id: ClientId, stream: UnixStream) -> Self {
        Self {
            id,
            stream,
            unparsed: Vec::new(),
            unread: Vec::new(),
            attends: false,
            gone: false,
        }
    }

    fn say(&mut self, line: &[u8]) {
        if self.unread.len() + line.len() > UNREAD_MAX {
            self.gone = true;
        } else {
            self.unread.extend_from_slice(line);
        }
    }

    fn read(&mut self, requests: &mut Vec<(ClientId, Result<Request, String>)>) {
        let mut buffer = [0; 4096];
        // One piece at a time: sessions come first.
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(length) => self.unparsed.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.gone = true,
        }
        while let Some(end) = self.unparsed.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unparsed.drain(..=end).collect();
            let request = serde_json::from_slice(&line).map_err(|error| error.to_string());
            requests.push((self.id, request));
        }
        self.gone |= self.unparsed.len() > LINE_MAX;
    }

    fn flush(&mut self) {
        while !self.unread.is_empty() && !self.gone {
            match self.stream.write(&self.unread) {
                Ok(written) => drop(self.unread.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn clients_ask_are_answered_and_the_idlest_makes_room_for_another() {
        let path = env::temp_dir().join(format!("vipd-bfd-server-{}", process::id()));
        let mut server = Server::open(&path).expect("a socket");
        let connect = || UnixStream::connect(&path).expect("it is let in or waits");
        let mut first = connect();
        first
            .write_all(b"{\"request\":\"status\"}\nnonsense\n{\"requ")
            .expect("it is read");
        let asked = server.serve();
        let [(client, Ok(Request::Status)), (_, Err(_))] = &asked[..] else {
            panic!("it was understood as {asked:?}");
        };
        let client = *client;
        server.answer(client, &Message::Done);
        server.publish(&Message::Refused {
            why: "for agents only".into(),
        });
        server.flush();
        let mut answer = [0; 100];
        let length = first.read(&mut answer).expect("an answer");
        assert_eq!(&answer[..length], b"{\"message\":\"done\"}\n");
        assert!(!server.has_agent());
        server.attend(client);

        let mut others: Vec<_> = (0..CLIENTS_MAX).map(|_| connect()).collect();
        for _ in 0..=CLIENTS_MAX / ADMITTED_MAX {
            server.serve();
        }
        assert_eq!(server.clients.len(), CLIENTS_MAX);
        assert!(server.has_agent(), "an agent stays");
        let ended = |stream: &mut UnixStream| {
            stream.set_nonblocking(true).expect("it can be set");
            matches!(stream.read(&mut [0; 1]), Ok(0))
        };
        assert!(ended(&mut others[0]), "the oldest of the others goes");
        assert!(!ended(&mut others[1]) && !ended(&mut others[CLIENTS_MAX - 1]));

        drop(others);
        server.serve();
        server.serve();
        assert_eq!(server.clients.len(), 1);
        drop(first);
        server.serve();
        assert!(
            !server.has_agent(),
            "the agent lives as long as its connection"
        );
        let _ = fs::remove_file(&path);
    }
}
