//! Which keys a memcached has. Only the classic protocol tells: `lru_crawler metadump`, since memcached 1.4.31, with
//! `hash`, which walks the table of all items, since 1.6.0 (`doc/protocol.txt`, section *LRU Crawler*).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use percent_encoding::percent_decode;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A longer line is no item: a key has at most 250 bytes, each of them encoded as up to three.
const MAX_LINE_BYTES: u64 = 4 * 1024;
/// How long the node may say nothing at all.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
/// The crawler does one thing at a time: this is when it is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// How a line of the list goes on.
enum Line<'a> {
    Item(&'a [u8]),
    End,
    Busy,
    Other,
}

impl<'a> From<&'a [u8]> for Line<'a> {
    fn from(line: &'a [u8]) -> Self {
        match line.trim_ascii() {
            b"END" => Self::End,
            line => match line.strip_prefix(b"key=") {
                Some(item) => Self::Item(item.split(|byte| *byte == b' ').next().unwrap_or_default()),
                None if line.starts_with(b"BUSY") || line.starts_with(b"LOCKED") => Self::Busy,
                None => Self::Other,
            },
        }
    }
}

/// All keys for which `wanted` returns something. Waits while the node lists its keys to somebody else; callers limit
/// the time.
pub(super) async fn list<T>(
    addresses: &[SocketAddr],
    connect_timeout: Duration,
    wanted: impl Fn(&str) -> Option<T>,
) -> io::Result<Vec<T>> {
    loop {
        let stream = timeout(connect_timeout, TcpStream::connect(addresses)).await??;
        if let Some(found) = list_once(stream, &wanted).await? {
            return Ok(found);
        }
        sleep(BUSY_PAUSE).await;
    }
}

/// `None` while the node is busy.
async fn list_once<T>(mut stream: TcpStream, wanted: &impl Fn(&str) -> Option<T>) -> io::Result<Option<Vec<T>>> {
    stream.write_all(b"lru_crawler metadump hash\r\n").await?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut found) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        timeout(LONGEST_SILENCE, (&mut stream).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)).await??;
        match Line::from(line.as_slice()) {
            Line::Item(key) => found.extend(percent_decode(key).decode_utf8().ok().and_then(|key| wanted(&key))),
            Line::End => return Ok(Some(found)),
            Line::Busy => return Ok(None),
            Line::Other => {
                let said = String::from_utf8_lossy(line.trim_ascii());
                return Err(io::Error::other(format!("lists no keys: {}", said.escape_debug())));
            }
        }
    }
}
