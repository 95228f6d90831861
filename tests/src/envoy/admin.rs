//! What an operator does to a running Envoy: look at its pages, change its log level, restart it with other secrets.

use super::Envoy;
use crate::http::Request;
use crate::wait;

impl Envoy {
    /// A page of the admin interface.
    pub fn page(&self, path: &str) -> String {
        let page = Request::get(path).send(self.admin_port());
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        page.text()
    }

    /// Has it log everything that one of its components has to say.
    pub fn log_everything_of(&self, component: &str) {
        let answer = Request::new("POST", &format!("/logging?{component}=trace")).send(self.admin_port());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Waits until one of the filter's counters has reached a value: they need not be raised at once.
    pub fn until_counted(&self, name: &str, at_least: u64) {
        wait::until(&format!("{name} reaches {at_least}"), || (self.counter(name) >= at_least).then_some(()));
    }

    /// Waits until this many requests of clients are under way.
    pub fn until_active(&self, requests: u64) {
        wait::until(&format!("{requests} requests are under way"), || {
            (self.statistic("http.ingress.downstream_rq_active") == requests).then_some(())
        });
    }

    /// Restarts it with other secrets, base64 and comma-separated, on the same ports.
    pub fn restart_with_secrets(&mut self, secrets: &str) {
        secrets.clone_into(&mut self.configuration.secrets);
        self.restart();
    }
}
