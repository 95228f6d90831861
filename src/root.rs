//! The root context: one per worker and configuration.
//!
//! It does what no single stream can: resumes those that waited for another's lookup, asks again when that other is
//! gone, tells the store of sessions that are in use, and hands what was counted to Envoy. Its timer only runs while
//! there is such work.

use std::collections::HashMap;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use session_core::config::Config;
use session_core::exchange::{Answer, LookUp};
use session_core::time::UnixSeconds;

use crate::flights::{Left, Question, Waiter};
use crate::host::{self, OwnedAnswer};
use crate::stream::Stream;
use crate::worker::Worker;

pub(crate) struct Root {
    context_id: u32,
    worker: Option<Rc<Worker>>,
    /// The questions whose answers are awaited, by Envoy's token.
    asked: HashMap<u32, Question>,
}

impl Root {
    pub(crate) fn new(context_id: u32) -> Self {
        Self { context_id, worker: None, asked: HashMap::new() }
    }

    /// Hands an answer to a stream, and does as its context would.
    fn resume(&mut self, worker: &Worker, waiter: Waiter, answer: Answer<'_>) {
        // Gone in the meantime: there is nobody to resume.
        let Some(stream) = waiter.stream.upgrade() else { return };
        let Ok(mut inner) = stream.try_borrow_mut() else { return };
        if !host::act_for(waiter.context_id) {
            return;
        }
        let flow = inner
            .handle(host::Caller::Root { own: worker.root_id, stream: waiter.context_id }, |exchange, _| {
                exchange.answer(answer, host::now())
            });
        if let Some(token) = inner.take_root_callout() {
            self.asked.insert(token, Question::Stream(waiter));
        }
        if let Some(message) = flow.released() {
            host::resume(message);
        }
        host::act_for(worker.root_id);
    }

    fn ask(&mut self, worker: &Worker, question: Question) {
        let look_up = match &question {
            Question::Orphans(look_up, _) | Question::Refresh(look_up, _) => *look_up,
            Question::Stream(_) => return,
        };
        let gateway = &worker.config.gateway;
        match host::dispatch(&gateway.cluster, &look_up.callout(&worker.config), gateway.timeout) {
            Ok(token) => {
                self.asked.insert(token, question);
            }
            Err(_) => self.answered(worker, question, Answer::NotSent),
        }
    }

    fn answered(&mut self, worker: &Worker, question: Question, answer: Answer<'_>) {
        match question {
            Question::Orphans(_, waiters) => {
                for waiter in waiters {
                    self.resume(worker, waiter, answer);
                }
            }
            Question::Stream(waiter) => self.resume(worker, waiter, answer),
            Question::Refresh(look_up, asked) => refresh(worker, look_up, answer, asked),
        }
    }
}

fn refresh(worker: &Worker, look_up: LookUp, answer: Answer<'_>, asked: UnixSeconds) {
    worker.leave(|flights| (flights.refreshed(look_up.id), false));
    if let Some(write) = look_up.refresh(&worker.config, answer, asked) {
        host::write_slot(&write);
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        let (Some(worker), Some(question)) = (self.worker.clone(), self.asked.remove(&token)) else { return };
        let OwnedAnswer { headers, body } = host::answer(headers, body_size);
        self.answered(&worker, question, Answer::Received { headers: &headers, body: &body });
    }

    /// The configuration is replaced, or Envoy ends: what was counted must not be lost with it.
    fn on_done(&mut self) -> bool {
        if let Some(worker) = &self.worker {
            worker.flush_counts();
        }
        true
    }
}

impl RootContext for Root {
    /// `false` keeps Envoy from starting, or an update from replacing a configuration that works.
    fn on_configure(&mut self, _size: usize) -> bool {
        match Config::parse(&host::plugin_configuration(), |name| std::env::var(name).ok()) {
            Ok(config) => {
                self.worker = Some(Rc::new(Worker::new(config, self.context_id)));
                true
            }
            Err(error) => {
                log::error!("session-mesh configuration: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let Some(worker) = self.worker.clone() else { return };
        let Left { landed, questions } = worker.wake();
        for (OwnedAnswer { headers, body }, waiters) in landed {
            for waiter in waiters {
                self.resume(&worker, waiter, Answer::Received { headers: &headers, body: &body });
            }
        }
        for question in questions {
            self.ask(&worker, question);
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(self.worker.as_ref(), context_id)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
