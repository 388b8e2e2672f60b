//! A small blocking HTTP/1.1 client that shows what is on the wire: it decodes nothing, retries nothing, and
//! follows only where a test says so.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use registry_core::response::{Location, ReceivedResponse};

/// How long a client waits for a byte before a test fails.
const SILENCE: Duration = Duration::from_secs(120);
/// Bytes that are moved at once.
const BUFFER: usize = 256 << 10;
/// Bytes of a response that are held in memory at most.
const RESPONSE_LIMIT: u64 = 64 << 20;

/// The body of a request.
enum Body<'a> {
    None,
    Sized(Box<dyn Read + 'a>, u64),
    Chunked(Box<dyn Read + 'a>),
}

/// A request that is put together and then sent on a connection.
pub(crate) struct Request<'a> {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Starts a request; `target` is what stands in the request line.
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends `bytes` with their length.
    pub(crate) fn body(self, bytes: &'a [u8]) -> Self {
        self.stream(bytes, bytes.len() as u64)
    }

    /// Sends `length` bytes of `reader` with their length.
    pub(crate) fn stream(mut self, reader: impl Read + 'a, length: u64) -> Self {
        self.body = Body::Sized(Box::new(reader), length);
        self
    }

    /// Sends `reader` to its end in the chunked transfer coding, without a length.
    pub(crate) fn chunked(mut self, reader: impl Read + 'a) -> Self {
        self.body = Body::Chunked(Box::new(reader));
        self
    }

    /// Sends the request on a connection of its own and returns the whole response.
    ///
    /// # Panics
    /// If the server can't be reached or breaks the protocol.
    pub(crate) fn send(self) -> Response {
        let line = format!("{} {}", self.method, self.target);
        self.try_send().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends the request as [`Self::send`], and if the answer sends it to another host (307), there as well: with the same
    /// headers, except for credentials. Returns the last response.
    ///
    /// # Panics
    /// Also if that is no address of a host with a port.
    pub(crate) fn send_and_follow(self) -> Response {
        let again = self.again();
        let response = self.send();
        match again(&response) {
            Some(request) => request.send(),
            None => response,
        }
    }

    /// Returns what finds the same request to another host in the answer to this one.
    fn again(&self) -> impl FnOnce(&Response) -> Option<Request<'static>> + use<> {
        let (method, mut headers) = (self.method.clone(), self.headers.clone());
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Authorization"));
        move |response| {
            let location = response.header("Location").filter(|_| response.status == 307)?;
            let host = location
                .strip_prefix("http://")
                .and_then(|rest| rest.split('/').next());
            let address = host.and_then(|host| host.parse().ok());
            let address = address.unwrap_or_else(|| panic!("{location} is not followed"));
            let request = Request::new(address, &method, &target_of(location));
            Some(Request { headers, ..request })
        }
    }

    /// As [`Self::send`], with an error where the server can't be reached or breaks the protocol.
    pub(crate) fn try_send(self) -> io::Result<Response> {
        let mut connection = Connection::open(self.address)?;
        connection.exchange(self.header("Connection", "close"))?.collect()
    }

    /// As [`Self::send_and_follow`], with an error as [`Self::try_send`]; copies a 2xx body to `sink` and returns the response
    /// without it.
    pub(crate) fn try_pull_to(self, sink: &mut impl Write) -> io::Result<Response> {
        let again = self.again();
        let response = self.try_send_to(sink)?;
        match again(&response) {
            Some(request) => request.try_send_to(sink),
            None => Ok(response),
        }
    }

    /// Sends the request on a connection of its own, copies a 2xx body to `sink` and returns the response without it.
    fn try_send_to(self, sink: &mut impl Write) -> io::Result<Response> {
        let mut connection = Connection::open(self.address)?;
        let mut incoming = connection.exchange(self.header("Connection", "close"))?;
        if (200..300).contains(&incoming.status) {
            incoming.copy_to(sink)?;
        }
        incoming.collect()
    }
}

/// One connection, for several requests in a row or bytes that no well-behaved client would send.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
        })
    }

    /// Writes `bytes` as they are.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends `request` and reads the head of its response.
    pub(crate) fn exchange(&mut self, request: Request<'_>) -> io::Result<Incoming<'_>> {
        let bodyless = request.method == "HEAD";
        // A server may answer and close before it read everything: what it said counts, not that writing failed.
        let sent = self.write_request(request);
        match (self.read_response(bodyless), sent) {
            (Err(_), Err(error)) => Err(error),
            (received, _) => received,
        }
    }

    fn write_request(&mut self, request: Request<'_>) -> io::Result<()> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            request.method, request.target, request.address
        );
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &request.body {
            Body::None if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") => {
                head.push_str("Content-Length: 0\r\n");
            }
            Body::None => {}
            Body::Sized(_, length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        match request.body {
            Body::None => Ok(()),
            Body::Sized(reader, length) => write_sized(stream, reader, length),
            Body::Chunked(reader) => write_chunked(stream, reader),
        }
    }

    /// Reads the head of a response, passing over interim ones (1xx).
    pub(crate) fn read_response(&mut self, bodyless: bool) -> io::Result<Incoming<'_>> {
        loop {
            let (status, headers) = self.read_head()?;
            if (100..200).contains(&status) {
                continue;
            }
            let length = find(&headers, "Content-Length");
            let framing = if bodyless || status == 204 || status == 304 {
                // Nothing may follow. Where the connection is closed that is checked.
                if find(&headers, "Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    Framing::Close
                } else {
                    Framing::Length(0)
                }
            } else if find(&headers, "Transfer-Encoding")
                .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
            {
                Framing::Chunked { left: 0, first: true }
            } else if let Some(length) = length {
                Framing::Length(length.parse().map_err(invalid)?)
            } else {
                Framing::Close
            };
            return Ok(Incoming {
                status,
                headers,
                framing,
                stream: &mut self.stream,
            });
        }
    }

    /// Reads a status line and headers, interim responses (1xx) included.
    pub(crate) fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = read_line(&mut self.stream)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| invalid(&line))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut self.stream)?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// How the end of a body is found.
enum Framing {
    Length(u64),
    Chunked { left: u64, first: bool },
    Close,
    Done,
}

/// A response whose body is still to be read.
pub(crate) struct Incoming<'c> {
    /// The status code.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
    stream: &'c mut BufReader<TcpStream>,
}

impl Incoming<'_> {
    /// Copies what is left of the body and returns its length.
    pub(crate) fn copy_to(&mut self, sink: &mut impl Write) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let buffer = self.next_bytes()?;
            if buffer == 0 {
                return Ok(total);
            }
            sink.write_all(&self.stream.buffer()[..buffer])?;
            self.stream.consume(buffer);
            total += buffer as u64;
        }
    }

    /// Reads what is left of the body into memory.
    pub(crate) fn collect(mut self) -> io::Result<Response> {
        let mut body = Limited(Vec::new());
        self.copy_to(&mut body)?;
        Ok(Response {
            status: self.status,
            headers: self.headers,
            body: body.0,
        })
    }

    /// Fills the stream's buffer and returns how many of its bytes belong to the body; 0 at its end.
    fn next_bytes(&mut self) -> io::Result<usize> {
        let left = match &mut self.framing {
            Framing::Done | Framing::Length(0) => return Ok(0),
            Framing::Close => return Ok(self.stream.fill_buf()?.len()),
            Framing::Length(left) => left,
            Framing::Chunked { left, first } => {
                if *left == 0 {
                    if !*first {
                        read_line(self.stream)?;
                    }
                    *first = false;
                    let line = read_line(self.stream)?;
                    let size = line.split(';').next().unwrap_or_default();
                    *left = u64::from_str_radix(size.trim(), 16).map_err(invalid)?;
                    if *left == 0 {
                        while !read_line(self.stream)?.is_empty() {}
                        self.framing = Framing::Done;
                        return Ok(0);
                    }
                }
                left
            }
        };
        let available = self.stream.fill_buf()?.len();
        if available == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let taken = available.min((*left).try_into().unwrap_or(usize::MAX));
        *left -= taken as u64;
        Ok(taken)
    }
}

/// A response, read to its end. The body of an answer to HEAD is whatever the server wrongly sent.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The headers in the order they came in, spelled as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Returns the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Returns the response as a client of the protocol reads it.
    pub(crate) fn received(&self) -> ReceivedResponse<'_, &[(String, String)]> {
        ReceivedResponse::new(self.status, &self.headers, &self.body)
    }

    /// Returns the comma-separated values of all headers of this name.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let all = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        all.flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .collect()
    }
}

/// Returns the path and query of a `Location`, whether relative or absolute.
///
/// # Panics
/// If it is none.
pub(crate) fn target_of(location: &str) -> String {
    let location = Location::parse(location).unwrap_or_else(|| panic!("{location:?} is no Location"));
    let target = location.target();
    target
        .unwrap_or_else(|| panic!("{location} has no path"))
        .to_owned()
}

/// Returns `target` with one more query parameter; `value` stands as it is.
pub(crate) fn with_query(target: &str, name: &str, value: &str) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}{name}={value}")
}

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > RESPONSE_LIMIT {
            return Err(invalid("the response is too large to be held in memory"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.take(64 << 10).read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn write_sized(stream: &mut TcpStream, mut reader: impl Read, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(left.try_into().unwrap_or(usize::MAX));
        let read = reader.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

fn write_chunked(stream: &mut TcpStream, mut reader: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return stream.write_all(b"0\r\n\r\n");
        }
        stream.write_all(format!("{read:x}\r\n").as_bytes())?;
        stream.write_all(&buffer[..read])?;
        stream.write_all(b"\r\n")?;
    }
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
