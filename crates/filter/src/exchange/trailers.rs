//! Trailers: they have nothing to do with sessions, in either direction.
//!
//! A request's trailers come from the client alone, and a response's arrive long after its headers, with our cookie,
//! were sent. Names that are not allowed in headers are not allowed in trailers either, because some servers and
//! clients merge trailers into the headers.

use std::borrow::Cow;

use super::Exchange;
use crate::edit::{Edit, Headers};
use crate::exposed;
use crate::upstream_api::is_reserved;

impl Exchange {
    /// The edits for the trailers of the request, also where it has no session.
    #[must_use]
    pub fn request_trailers(&self, trailers: &Headers<'_>) -> Vec<Edit> {
        remove(trailers, |name| is_reserved(name) || exposed::is_exposed(&self.config, name) || name == b"cookie")
    }

    /// The edits for the trailers of the response, also where its request had no session.
    #[must_use]
    pub fn response_trailers(&self, trailers: &Headers<'_>) -> Vec<Edit> {
        remove(trailers, |name| is_reserved(name) || name == b"set-cookie")
    }
}

fn remove(trailers: &Headers<'_>, is_refused: impl Fn(&[u8]) -> bool) -> Vec<Edit> {
    trailers
        .iter()
        .filter(|(name, _)| is_refused(name))
        // These names are ASCII, so that they are always text.
        .filter_map(|(name, _)| Some(Edit::Remove(Cow::Owned(core::str::from_utf8(name).ok()?.to_owned()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn exchange() -> Exchange {
        let configuration = json!({"gateway": {"cluster": "g"}, "upstream": {"expose": {"user": "x-user"}}});
        let environment = |_: &str| Some("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned());
        let config = Config::parse(configuration.to_string().as_bytes(), environment);
        Exchange::new(Rc::new(config.expect("it is as documented")))
    }

    proptest! {
        /// Exactly the names that are not allowed in a request's headers are removed, whatever other trailers there
        /// are.
        #[test]
        fn only_names_that_are_not_the_senders_go(
            names in proptest::collection::vec("(x[-_]session[-_][a-z]{0,4}|x[-_]user|cookie|set-cookie|[a-z-]{1,12})", 0..8)
        ) {
            let exchange = exchange();
            let trailers: Vec<_> = names.iter().map(|name| (name.as_bytes(), &b"v"[..])).collect();
            let left = |edits: Vec<Edit>| {
                let gone = |name: &String| edits.iter().any(|edit| matches!(edit, Edit::Remove(other) if other == name));
                names.iter().filter(|name| !gone(name)).cloned().collect::<Vec<_>>()
            };
            let dashed = |name: &String| name.replace('_', "-");
            let naive = |refused: &[&str]| {
                let is_kept = |name: &&String| {
                    !dashed(name).starts_with("x-session-") && !refused.contains(&dashed(name).as_str())
                };
                names.iter().filter(is_kept).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(left(exchange.request_trailers(&trailers)), naive(&["x-user", "cookie"]));
            prop_assert_eq!(left(exchange.response_trailers(&trailers)), naive(&["set-cookie"]));
        }
    }
}
