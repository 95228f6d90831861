//! One configuration in one VM, and its streams: which of them an event concerns.

use session_filter::config::Config;
use session_filter::edit::{Edit, GrpcStatus, LocalReply};
use session_filter::exchange::{Answer, Exchange, Request, Step};

use crate::callback::Callback;
use crate::calls::{Purpose, Unsent};
use crate::executor::Executor;
use crate::host::{Host, Side};
use crate::ids::ById;
use crate::slots::SharedSlots;
use crate::stream::{PassingResponse, Stream, borrowed, is_grpc};

/// The response if the filter itself can't do its work.
const UNABLE: LocalReply = LocalReply {
    status: 500,
    grpc_status: GrpcStatus::Internal,
    headers: Vec::new(),
    body: "The session filter is not working.\n",
};

/// What happens to the message of the current callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It continues.
    Continue,
    /// It is held until it is resumed, or until its client gets a local reply.
    Hold,
}

/// Refuses the request of the current callback. Its cookies have not been read, so all of them are removed: one may be
/// a token, and logs may show it.
pub(crate) fn refuse(host: &impl Host) -> Flow {
    host.edit_headers(Side::Request, &Edit::Remove("cookie".into()));
    host.reply(&UNABLE, false);
    Flow::Hold
}

/// One configuration in one VM, and its streams.
pub(crate) struct RootContext<H> {
    host: H,
    executor: Executor<H>,
    streams: ById<Stream>,
}

impl<H: Host + Clone> RootContext<H> {
    pub(crate) fn new(config: Config, host: H) -> Self {
        Self { executor: Executor::new(config, host.clone()), host, streams: ById::default() }
    }

    pub(crate) fn stream_ended(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            let callback = self.callback(Some(id));
            if let Some(write) = stream.exchange.end(|| callback.seconds()) {
                SharedSlots(&self.host).write(&write);
            }
        }
        self.executor.stream_ended(id);
    }

    /// A stream begins.
    pub(crate) fn request_headers(&mut self, id: u32) -> Flow {
        let Some(fresh_id) = self.executor.fresh_id() else { return refuse(&self.host) };
        self.streams.entry(id).or_insert_with(|| Stream::new(Exchange::new(self.executor.config())));
        self.event(id, Side::Request, |stream, executor, host, callback| {
            let headers = host.headers(Side::Request);
            let headers = borrowed(&headers);
            stream.is_grpc = is_grpc(&headers);
            let request = Request { headers: &headers, binding: executor.binding(), now: callback.seconds(), fresh_id };
            stream.exchange.request(&request, &SharedSlots(host))
        })
    }

    /// Without a request, the response comes from a filter in front and has no session.
    pub(crate) fn response_headers(&mut self, id: u32) -> Flow {
        self.event(id, Side::Response, |stream, _, host, callback| {
            stream.exchange.response(&PassingResponse(host), &SharedSlots(host), || callback.seconds())
        })
    }

    /// Handles the arrival of a stream's message, and carries out what it leads to.
    fn event(
        &mut self,
        id: u32,
        side: Side,
        event: impl FnOnce(&mut Stream, &Executor<H>, &H, &Callback<H>) -> Step,
    ) -> Flow {
        let callback = self.callback(Some(id));
        let Some(stream) = self.streams.get_mut(&id) else { return Flow::Continue };
        stream.in_hand = Some(side);
        let step = event(stream, &self.executor, &self.host, &callback);
        let released = self.executor.carry_out(id, stream, step, &callback);
        if released == Some(side) { Flow::Continue } else { Flow::Hold }
    }

    /// The trailers of a message have arrived.
    pub(crate) fn trailers(&self, id: u32, side: Side) {
        let Some(Stream { exchange, .. }) = self.streams.get(&id) else { return };
        let trailers = self.host.trailers(side);
        let trailers = borrowed(&trailers);
        let edits = match side {
            Side::Request => exchange.request_trailers(&trailers),
            Side::Response => exchange.response_trailers(&trailers),
        };
        for edit in &edits {
            self.host.edit_trailers(side, edit);
        }
    }

    /// A callout has been answered, in the callback of this stream or of the root. `headers` is 0 if it failed.
    pub(crate) fn call_answered(&mut self, active: Option<u32>, call: u32, headers: usize, body_size: usize) {
        let callback = self.callback(active);
        let Some(purpose) = self.executor.take_purpose(call, &callback) else { return };
        // Without headers there is nothing to read.
        let headers = if headers > 0 { self.host.answer_headers() } else { Vec::new() };
        let body = if body_size > 0 { self.host.answer_body() } else { Vec::new() };
        let answer = Answer::Received { headers: &borrowed(&headers), body: &body };
        match purpose {
            Purpose::Awaited(waiting) => self.answer(&waiting, answer, &callback),
            Purpose::Refresh(look_up, asked, streams) => {
                for id in streams {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.exchange.touched(answer, asked, callback.seconds());
                    }
                }
                self.executor.refreshed(look_up, answer, asked);
            }
        }
    }

    /// The timer has fired: for counts, for callouts of the root, or for the open streams.
    pub(crate) fn timer_fired(&mut self) {
        let callback = self.callback(None);
        self.executor.flush_counts();
        for unsent in self.executor.take_unsent() {
            match unsent {
                Unsent::Call(id, callout, trace) => {
                    if !self.executor.call(id, callout, &trace, &callback) {
                        self.answer(&[id], Answer::NotSent, &callback);
                    }
                }
                Unsent::Refresh(look_up, trace) => self.executor.refresh(look_up, &trace, &callback),
                Unsent::LookUp(look_up, waiting) => {
                    let trace = waiting.iter().find_map(|id| Some(self.streams.get(id)?.exchange.trace()));
                    if !self.executor.look_up_for(look_up, &waiting, &trace.cloned().unwrap_or_default(), &callback) {
                        self.answer(&waiting, Answer::NotSent, &callback);
                    }
                }
            }
        }
        self.executor.look_at(&self.streams, &callback);
    }

    /// The configuration is no longer needed. Its counts must not be lost, and its timer must stop.
    pub(crate) fn end(&mut self) {
        self.executor.flush_counts();
        self.host.set_timer(0);
    }

    /// Passes an answer to the streams that wait for it.
    fn answer(&mut self, waiting: &[u32], answer: Answer<'_>, callback: &Callback<H>) {
        let mut effective = callback.active;
        for id in waiting {
            // Streams whose client has left in the meantime no longer wait. Each is checked right before it is resumed,
            // because the host and the SDK don't know a stream that has ended.
            let Some(stream) = self.streams.get_mut(id) else { continue };
            if effective != Some(*id) && !self.host.act_for(*id) {
                continue;
            }
            effective = Some(*id);
            let step = stream.exchange.answer(answer, &SharedSlots(&self.host), callback.seconds());
            if let Some(side) = self.executor.carry_out(*id, stream, step, callback) {
                self.host.resume(side);
            }
        }
    }

    fn callback(&self, active: Option<u32>) -> Callback<H> {
        Callback::new(self.host.clone(), active)
    }
}
