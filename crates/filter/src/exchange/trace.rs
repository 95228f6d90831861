//! What a callout says about its request, so that the gateway's log lines for that request can be found.

use crate::edit::{Headers, values};

/// The headers that name a request or its trace (W3C Trace Context), and how many bytes of each are sent on. Longer
/// values from clients would only fill logs.
const NAMES: [(&str, usize); 3] = [("x-request-id", 256), ("traceparent", 256), ("tracestate", 512)];

/// The headers of one request that its callouts also carry. Their values are in one text, because few requests need
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    text: String,
    /// How many bytes of it are each header's, none for those that are not sent.
    lengths: [usize; NAMES.len()],
}

impl Trace {
    pub(super) fn read(headers: &Headers<'_>) -> Self {
        let values = NAMES.map(|(name, limit)| {
            let mut given = values(headers, name);
            // A header that occurs twice identifies nothing.
            let value = given.next().filter(|_| given.next().is_none())?;
            let is_sent = value.len() <= limit && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
            core::str::from_utf8(value).ok().filter(|_| is_sent)
        });
        let values = values.map(Option::unwrap_or_default);
        Self { text: values.concat(), lengths: values.map(str::len) }
    }

    /// The headers: name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let mut rest = self.text.as_str();
        let all = NAMES.iter().zip(self.lengths).map(move |((name, _), length)| {
            let (value, others) = rest.split_at_checked(length).unwrap_or_default();
            rest = others;
            (*name, value)
        });
        all.filter(|(_, value)| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent<'a>(headers: &[(&'a str, &'a [u8])]) -> Vec<(&'static str, String)> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
        Trace::read(&headers).headers().map(|(name, value)| (name, value.to_owned())).collect()
    }

    #[test]
    fn a_callout_names_the_request_it_is_made_for() {
        let headers: [(&str, &[u8]); 4] = [
            ("tracestate", b"a=1, b=2"),
            ("accept", b"*/*"),
            ("traceparent", b"00-ab-cd-01"),
            ("x-request-id", b"5d3e"),
        ];
        let expected = [("x-request-id", "5d3e"), ("traceparent", "00-ab-cd-01"), ("tracestate", "a=1, b=2")];
        assert_eq!(sent(&headers), expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(sent(&[("accept", b"*/*")]), []);
    }

    #[test]
    fn what_is_long_or_odd_is_left_out() {
        for (name, limit) in NAMES {
            let longest = vec![b'a'; limit];
            assert_eq!(sent(&[(name, &longest)]).len(), 1, "{name}");
            assert_eq!(sent(&[(name, &[longest, vec![b'a']].concat())]), [], "{name}");
            for odd in [&b""[..], b"a\tb", b"a\0", b"a\r\nb", b"\x7f", "é".as_bytes(), b"\xff"] {
                assert_eq!(sent(&[(name, odd)]), [], "{name} {odd:?}");
            }
            assert_eq!(sent(&[(name, b"a"), (name, b"b")]), [], "{name} twice");
        }
    }
}
