//! The request's `Cookie` header: bytes in, bytes out.
//!
//! Servers disagree on what a cookie may contain, so nothing is decoded or normalized here: the lines are split at `;`,
//! our cookies are removed, and the rest is passed on byte for byte.

use crate::path;

/// What the `Cookie` lines of one request contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies<'a> {
    /// The values of our cookie, in order, without surrounding white space. More than one is
    /// possible: an attacker on a sibling domain can add some (RFC 6265 section 8.6).
    pub values: Vec<&'a [u8]>,
    /// The lines without the removed cookies; `None` if none were removed, so that the request's lines stay unchanged.
    pub remaining: Option<Vec<Vec<u8>>>,
}

/// Takes the cookie `name` out of the request's `Cookie` lines, and any cookie that an upstream may take for `drop`.
pub fn extract<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone, name: &[u8], drop: Option<&[u8]>) -> Cookies<'a> {
    let is_dropped = |pair_name: &[u8]| drop.is_some_and(|drop| is_spelling_of(pair_name, drop));
    let is_taken = |pair: &[u8]| {
        let (pair_name, _) = split(pair);
        pair_name == name || is_dropped(pair_name) || (drop.is_some() && inner_names(pair).any(is_dropped))
    };
    let mut values = Vec::new();
    let mut is_any_taken = false;
    for pair in lines.clone().flat_map(pairs) {
        let (pair_name, value) = split(pair);
        if pair_name == name {
            values.push(value.trim_ascii());
        }
        is_any_taken |= is_taken(pair);
    }
    let remaining = is_any_taken.then(|| lines.filter_map(|line| without(line, is_taken)).collect());
    Cookies { values, remaining }
}

/// Possible names of cookies inside a pair: Python's `SimpleCookie` ends a cookie at white space, and the grammar of
/// RFC 2109 at a comma.
fn inner_names(pair: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pieces = pair.split(|byte| byte.is_ascii_whitespace() || matches!(byte, 0x0b | b',' | b'"'));
    pieces.map(|piece| split(piece).0)
}

/// Whether an upstream may take a cookie of this name for `own`. PHP turns spaces, `.` and `[` into `_`, reads the text
/// before `[` as the name of a list, and before 8.0 decoded names. Others ignore case.
fn is_spelling_of(name: &[u8], own: &[u8]) -> bool {
    let decoded = path::decode(name);
    let folded = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    // C's `isspace` knows the vertical tab, Rust's does not.
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    [name, &decoded].into_iter().any(|name| {
        let list = name.split(|byte| *byte == b'[').next().unwrap_or_default();
        // Programs written in C end the name at a zero byte.
        let end = name.split(|byte| *byte == 0).next().unwrap_or_default();
        [name, list, end].into_iter().any(|name| {
            let start = name.iter().position(|byte| !is_space(byte)).unwrap_or(name.len());
            let name = name.get(start..).unwrap_or_default().trim_ascii_end();
            name.iter().map(folded).eq(own.iter().map(folded))
        })
    })
}

/// The line without the pairs that are taken; `None` when no pair is left.
fn without(line: &[u8], is_taken: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(line.len());
    let mut is_first = true;
    let mut is_changed = false;
    for pair in pairs(line) {
        if is_taken(pair) {
            is_changed = true;
        } else if is_first {
            // The space after the preceding `;` belonged to the separator.
            kept.extend(if is_changed { pair.trim_ascii_start() } else { pair });
            is_first = false;
        } else {
            kept.push(b';');
            kept.extend(pair);
        }
    }
    (!is_changed || !kept.is_empty()).then_some(kept)
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| *byte == b';')
}

/// A pair's name and value; a pair without `=` is a name (no cookie of ours is spelled so).
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii();
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = pair.split_at(at);
            (name.trim_ascii_end(), value.get(1..).unwrap_or_default())
        }
        None => (pair, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take_from<'a>(lines: &[&'a str]) -> (Vec<&'a str>, Option<Vec<String>>) {
        let cookies = extract(lines.iter().map(|line| line.as_bytes()), b"sid", Some(b"JSESSIONID"));
        (
            cookies.values.iter().map(|value| str::from_utf8(value).unwrap()).collect(),
            cookies.remaining.map(|lines| lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()),
        )
    }

    #[test]
    fn ours_is_taken_and_the_rest_stays() {
        let rows: &[(&[&str], &[&str], Option<&[&str]>)] = &[
            (&[], &[], None),
            (&[""], &[], None),
            (&["a=1; b=2"], &[], None),
            (&["sid=x"], &["x"], Some(&[])),
            (&["sid=x; a=1"], &["x"], Some(&["a=1"])),
            (&["a=1; sid=x"], &["x"], Some(&["a=1"])),
            (&["a=1; sid=x; b=2"], &["x"], Some(&["a=1; b=2"])),
            (&["a=1;sid=x;b=2"], &["x"], Some(&["a=1;b=2"])),
            (&["sid=x; sid=y"], &["x", "y"], Some(&[])),
            (&["a=1", "sid=x"], &["x"], Some(&["a=1"])),
            (&["sid=x; a=1", "b=2"], &["x"], Some(&["a=1", "b=2"])),
            (&["sid = x ;a=1"], &["x"], Some(&["a=1"])),
            (&["sid"], &[""], Some(&[])),
            (&["sid=a=b"], &["a=b"], Some(&[])),
            (&["SID=x; sidx=1; xsid=2"], &[], None),
            (&["a=sid=x"], &[], None),
            (&["JSESSIONID=evil; a=1"], &[], Some(&["a=1"])),
            (&[" a=1;; ;sid=x;"], &["x"], Some(&[" a=1;; ;"])),
        ];
        for (lines, values, remaining) in rows {
            let remaining = remaining.map(|lines| lines.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(take_from(lines), (values.to_vec(), remaining), "{lines:?}");
        }
    }

    /// Any pair that isn't ours: no `;`, and no name that trims to ours.
    fn foreign_pair() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>().prop_filter("separator", |byte| *byte != b';'), 1..12)
            .prop_filter("ours", |pair| split(pair).0 != b"sid")
            .prop_filter("leading space belongs to the separator", |pair| !pair[0].is_ascii_whitespace())
    }

    /// The names of the cookies that PHP makes of a line (`php_default_treat_data`, `php_register_variable_ex`); before
    /// 8.0 it decoded them.
    fn names_in_php(line: &[u8], is_decoded: bool) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        for pair in line.split(|byte| *byte == b';') {
            let is_space = |byte: &u8| b" \t\n\x0b\x0c\r".contains(byte);
            let pair: Vec<u8> = pair.iter().copied().skip_while(|byte| is_space(byte)).collect();
            let name = pair.split(|byte| *byte == b'=').next().unwrap().to_vec();
            let name = if is_decoded { path::decode(&name) } else { name };
            let name: Vec<u8> =
                name.into_iter().skip_while(|byte| *byte == b' ').take_while(|byte| *byte != 0).collect();
            let opened = name.iter().position(|byte| *byte == b'[');
            let is_list = opened.is_some_and(|opened| name[opened..].contains(&b']'));
            let name = if is_list { &name[..opened.unwrap()] } else { &name[..] };
            names.push(name.iter().map(|byte| if b" .[".contains(byte) { b'_' } else { *byte }).collect());
        }
        names
    }

    #[test]
    fn what_php_takes_for_the_adopted_cookie_is_taken() {
        for name in
            ["ci_session", "ci.session", "ci session", "ci[session", "ci_session[x]", "ci.session[x", "\x0bci_session"]
        {
            let line = format!("a=1; {name}=x; b=2");
            let cookies = extract(core::iter::once(line.as_bytes()), b"sid", Some(b"ci_session"));
            assert_eq!(cookies.remaining, Some(vec![b"a=1; b=2".to_vec()]), "{name}");
        }
        for name in ["ci_sessions", "cisession", "xci_session", "ci"] {
            let line = format!("a=1; {name}=x; b=2");
            assert_eq!(
                extract(core::iter::once(line.as_bytes()), b"sid", Some(b"ci_session")).remaining,
                None,
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn php_finds_no_adopted_cookie_of_the_client(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", "a", "b", "b", "_", ".", " ", "[", "]", "=", ";", "; ", "%5f", "%2E", "%61", "%20", "%5b", "%00",
                    "\0", "\t", "\x0b", "A",
                ]),
                0..12,
            ),
            own in proptest::sample::select(vec!["a_b", "a.b", "a"]),
        ) {
            let line = pieces.concat().into_bytes();
            let cookies = extract(core::iter::once(line.as_slice()), b"sid", Some(own.as_bytes()));
            let left = cookies.remaining.unwrap_or_else(|| vec![line]);
            let own = own.replace('.', "_");
            for line in left {
                for is_decoded in [false, true] {
                    let names = names_in_php(&line, is_decoded);
                    prop_assert!(!names.contains(&own.as_bytes().to_vec()), "{}", line.escape_ascii());
                }
            }
        }

        /// Put our cookie anywhere into a line of others: without it the line is what it was.
        #[test]
        fn returned_byte_for_byte_without_ours(
            others in proptest::collection::vec(foreign_pair(), 1..6),
            position: proptest::sample::Index,
            value in "[A-Za-z0-9_-]{0,20}",
        ) {
            let original = others.join(&b"; "[..]);
            let mut pairs = others;
            pairs.insert(position.index(pairs.len() + 1), format!("sid={value}").into_bytes());
            let line = pairs.join(&b"; "[..]);
            let cookies = extract(core::iter::once(line.as_slice()), b"sid", None);
            prop_assert_eq!(cookies.values, vec![value.as_bytes()]);
            prop_assert_eq!(cookies.remaining, Some(vec![original]));
        }

        #[test]
        fn nothing_of_ours_is_ever_left(lines: Vec<Vec<u8>>) {
            let cookies = extract(lines.iter().map(Vec::as_slice), b"a", None);
            let left = cookies.remaining.as_ref().unwrap_or(&lines);
            let again = extract(left.iter().map(Vec::as_slice), b"a", None);
            prop_assert_eq!(again.values, Vec::<&[u8]>::new());
            prop_assert_eq!(again.remaining, None);
        }
    }

    #[test]
    fn nothing_hides_in_the_value_of_another() {
        for line in [
            "a=b JSESSIONID=evil",
            "a=\"x\" JSESSIONID=evil",
            "a=\"x\tJSESSIONID=evil",
            "a JSESSIONID=evil",
            "a=b JSESSIONID = evil",
            "a=b,jsessionid=evil",
        ] {
            assert_eq!(take_from(&[line, "c=d"]).1, Some(vec!["c=d".to_owned()]), "{line}");
        }
        assert_eq!(take_from(&["a=b XJSESSIONID=fine; c=\"d e\""]).1, None);
    }
}
