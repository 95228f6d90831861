//! The VM: which callback concerns which configuration and which stream.

use session_abi::Verdict;
use session_abi::hostcalls::Side;
use session_filter::config::Config;
use session_filter::exchange::{Answer, Exchange, Request, Step};

use crate::calls::Caller;
use crate::context::ById;
use crate::host::{self, Moment};
use crate::worker::{Flow, UNABLE, Worker};

/// Everything that this VM knows. A replaced configuration lives on beside the new one until its last stream ends.
#[derive(Default)]
pub(crate) struct Filter {
    workers: ById<Worker>,
    streams: ById<Stream>,
}

/// One HTTP stream. It has no exchange only if its root was never configured, which Envoy does not let happen.
struct Stream {
    root: u32,
    exchange: Option<Exchange>,
}

impl Filter {
    /// Runs an event of a stream and carries out what comes back.
    fn event(&mut self, stream_id: u32, event: impl FnOnce(&mut Exchange, &mut Worker, &Moment) -> Step) -> Verdict {
        if let Some(Stream { root, exchange: Some(exchange) }) = self.streams.get_mut(&stream_id)
            && let Some(worker) = self.workers.get_mut(root)
        {
            let now = Moment::default();
            let step = event(exchange, worker, &now);
            return match worker.carry_out(stream_id, exchange, step, &now) {
                Flow::Released(_) => Verdict::Continue,
                Flow::Kept => Verdict::Hold,
            };
        }
        host::remove_cookies();
        host::reply(&UNABLE);
        Verdict::Hold
    }
}

impl session_abi::Filter for Filter {
    fn create(&mut self, context: u32, root: u32) {
        // A configuration shows up when it is configured.
        if root != 0 {
            let exchange = self.workers.get(&root).map(Worker::exchange);
            self.streams.insert(context, Stream { root, exchange });
        }
    }

    /// `false` keeps Envoy from starting, or an update from replacing a configuration that works.
    fn configure(&mut self, root: u32) -> bool {
        match Config::parse(&host::configuration(), |name| std::env::var(name).ok()) {
            Ok(config) => {
                self.workers.insert(root, Worker::new(config));
                true
            }
            Err(error) => {
                host::error(&format!("session-mesh configuration: {error}"));
                false
            }
        }
    }

    fn tick(&mut self, root: u32) {
        let Some(worker) = self.workers.get_mut(&root) else { return };
        let streams = self.streams.iter().filter(|(_, stream)| stream.root == root);
        worker.tick(streams.filter_map(|(id, stream)| Some((*id, stream.exchange.as_ref()?))), &Moment::default());
    }

    fn request_headers(&mut self, stream: u32) -> Verdict {
        self.event(stream, |exchange, worker, now| {
            let Some(fresh_id) = worker.fresh_id() else {
                host::remove_cookies();
                return Step::Reply(UNABLE);
            };
            let pairs = host::request_headers();
            let headers = pairs.to_vec();
            let binding = host::binding(&worker.config.bind);
            let request = Request { headers: &headers, binding, now: now.seconds(), fresh_id };
            exchange.request(&request, &host::SharedSlots)
        })
    }

    fn response_headers(&mut self, stream: u32) -> Verdict {
        self.event(stream, |exchange, _, now| {
            exchange.response(&host::PassingResponse, &host::SharedSlots, || now.seconds())
        })
    }

    fn request_trailers(&mut self, stream: u32) {
        if let Some(Stream { exchange: Some(exchange), .. }) = self.streams.get(&stream) {
            host::edit_trailers(Side::Request, |trailers| exchange.request_trailers(trailers));
        }
    }

    fn response_trailers(&mut self, stream: u32) {
        if let Some(Stream { exchange: Some(exchange), .. }) = self.streams.get(&stream) {
            host::edit_trailers(Side::Response, |trailers| exchange.response_trailers(trailers));
        }
    }

    fn http_call_response(&mut self, root: u32, token: u32, headers: usize, body_size: usize) {
        let Some(worker) = self.workers.get_mut(&root) else { return };
        let now = Moment::default();
        let Some(caller) = worker.take_caller(token, &now) else { return };
        let answer = host::answer(headers, body_size);
        let headers = answer.headers.to_vec();
        let answer = Answer::Received { headers: &headers, body: &answer.body };
        let waiting = match caller {
            Caller::Refresh(look_up, asked, streams) => {
                for id in streams {
                    if let Some(Stream { exchange: Some(exchange), .. }) = self.streams.get_mut(&id) {
                        exchange.touched(answer, asked, now.seconds());
                    }
                }
                return worker.refreshed(look_up, answer, asked);
            }
            Caller::Streams(waiting) => waiting,
        };
        for stream_id in waiting {
            // Those whose client has gone in the meantime wait no more.
            let Some(Stream { exchange: Some(exchange), .. }) = self.streams.get_mut(&stream_id) else { continue };
            if !host::act_for(stream_id) {
                continue;
            }
            let step = exchange.answer(answer, &host::SharedSlots, now.seconds());
            if let Flow::Released(side) = worker.carry_out(stream_id, exchange, step, &now) {
                host::resume(side);
            }
        }
    }

    fn delete(&mut self, context: u32) {
        if self.streams.remove(&context).is_some() {
            return;
        }
        // The configuration was replaced, or Envoy ends: what was counted must not be lost with it.
        if let Some(mut worker) = self.workers.remove(&context) {
            worker.flush_counts();
        }
    }
}
