//! HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3): a client, and an application that echoes.

use std::future::Future;
use std::net::Ipv4Addr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::ports;
use crate::upstream::RESPOND;
use crate::wait::PATIENCE;

/// Runs a client; fails if it takes longer than anything may take.
pub fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async { timeout(PATIENCE, client).await.expect("the client comes to an end") })
}

/// Connects to a port of this machine.
pub async fn connect(port: u16) -> SendRequest<Bytes> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("the port is open");
    let (requests, connection) = h2::client::handshake(stream).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    requests.ready().await.expect("the connection takes requests")
}

/// The next piece of a body, empty at its end.
pub async fn piece(body: &mut RecvStream) -> Bytes {
    match body.data().await {
        Some(piece) => {
            let piece = piece.expect("the stream goes on");
            body.flow_control().release_capacity(piece.len()).expect("what came can be given back");
            piece
        }
        None => Bytes::new(),
    }
}

/// The rest of a body, and the trailers.
pub async fn rest(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    loop {
        let piece = piece(&mut body).await;
        if piece.is_empty() {
            return (all, body.trailers().await.expect("the stream ends in order"));
        }
        all.extend(piece);
    }
}

/// An application on HTTP/2. Its response begins with the request's head, goes on with each piece of the request's body
/// as it comes, and ends with the request's trailers, a trailer `seen: NAME` for each of them, and `grpc-status: 0`. A
/// request header or trailer `respond-NAME: VALUE` becomes the response header or trailer `NAME: VALUE`.
pub struct Echo {
    port: u16,
    /// Dropped with everything that runs in it.
    _runtime: Runtime,
}

impl Echo {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let port = ports::free();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("a free port");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { port, _runtime: runtime }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, response))) = connection.accept().await {
        // A client that goes away ends its stream.
        tokio::spawn(async move { drop(echo(request, response).await) });
    }
}

async fn echo(request: Request<RecvStream>, mut response: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let mut head = Response::builder().status(200);
    let mut shown = Vec::new();
    for (name, value) in &parts.headers {
        if let Some(name) = name.as_str().strip_prefix(RESPOND) {
            head = head.header(name, value);
        }
        shown.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    let head = head.body(()).expect("the headers were headers before");
    let mut out: SendStream<Bytes> = response.send_response(head, false)?;
    out.send_data(shown.into(), false)?;
    loop {
        let piece = match body.data().await {
            Some(piece) => piece?,
            None => break,
        };
        body.flow_control().release_capacity(piece.len())?;
        out.send_data(piece, false)?;
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in &body.trailers().await?.unwrap_or_default() {
        trailers.append("seen", name.as_str().parse().expect("a name is a value, too"));
        let told = name.as_str().strip_prefix(RESPOND).map(|name| name.parse().expect("the rest of a name is a name"));
        trailers.append(told.unwrap_or_else(|| name.clone()), value.clone());
    }
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    out.send_trailers(trailers)
}
