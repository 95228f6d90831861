//! Keeps responses that get our cookie out of every shared cache, because they are for one client.

use std::borrow::Cow;

use crate::edit::{Edit, Headers, values};

/// The edits for a response that gets a cookie. Its own instructions for caches stay as far as they do no harm.
///
/// Shared caches obey different headers, and most prefer their own to `cache-control`: `cdn-cache-control` and the like
/// (RFC 9213), `surrogate-control` (Edge Architecture), `edge-control` (Akamai), `x-accel-expires` (nginx).
pub(super) fn keep_away(headers: &Headers<'_>) -> Vec<Edit> {
    let mut edits = Vec::new();
    if let Some(private) = private(values(headers, "cache-control")) {
        edits.push(Edit::set("cache-control", private));
    }
    let mut seen: Vec<&str> = Vec::new();
    for name in headers.iter().filter_map(|(name, _)| core::str::from_utf8(name).ok()) {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let replacement = match name {
            "x-accel-expires" => (!values(headers, name).all(|value| value.trim_ascii() == b"0")).then_some("0"),
            "surrogate-control" | "edge-control" => {
                let is_kept_out = directives(values(headers, name)).iter().any(|it| is(it, "no-store"));
                (!is_kept_out).then_some("no-store")
            }
            name if name.ends_with("-cache-control") => {
                (!is_private(&directives(values(headers, name)))).then_some("no-store")
            }
            _ => None,
        };
        if let Some(value) = replacement {
            edits.push(Edit::Set(Cow::Owned(name.to_owned()), value.into()));
        }
    }
    edits
}

/// The `cache-control` value with `private` added, or `None` if shared caches are kept away already (RFC 9111 section
/// 5.2.2). `public` is removed: next to `private` it would be meaningless.
fn private<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let directives = directives(lines);
    if is_private(&directives) {
        return None;
    }
    let mut kept: Vec<&[u8]> = directives.into_iter().filter(|directive| !is(directive, "public")).collect();
    kept.push(b"private");
    Some(kept.join(&b", "[..]))
}

fn directives<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let directives = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    directives.filter(|directive| !directive.is_empty()).collect()
}

/// Next to `must-understand`, `no-store` applies only to caches that do not understand the status (RFC 9111 section
/// 5.2.2.3).
fn is_private(directives: &[&[u8]]) -> bool {
    let has = |name| directives.iter().any(|directive| is(directive, name));
    has("private") || (has("no-store") && !has("must-understand"))
}

const fn is(directive: &[u8], name: &str) -> bool {
    directive.eq_ignore_ascii_case(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_caches_are_kept_away() {
        let rows: &[(&[&str], Option<&str>)] = &[
            (&[], Some("private")),
            (&["max-age=60"], Some("max-age=60, private")),
            (&["public, max-age=60"], Some("max-age=60, private")),
            (&["max-age=60", "s-maxage=60"], Some("max-age=60, s-maxage=60, private")),
            (&["private"], None),
            (&["max-age=60,PRIVATE"], None),
            (&["no-store"], None),
            (&["must-understand, no-store"], Some("must-understand, no-store, private")),
            (&["no-store", "Must-Understand, max-age=60"], Some("no-store, Must-Understand, max-age=60, private")),
            (&["must-understand, no-store, private"], None),
            // Only these fields are private, not the response (RFC 9111 section 5.2.2.7).
            (&["private=\"x\""], Some("private=\"x\", private")),
        ];
        for (lines, expected) in rows {
            let value = private(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{lines:?}");
        }
    }

    #[test]
    fn caches_with_a_header_of_their_own_are_kept_away() {
        let rows: &[(&str, &[&str], Option<&str>)] = &[
            ("cdn-cache-control", &["max-age=60"], Some("no-store")),
            ("cdn-cache-control", &["max-age=60", "public"], Some("no-store")),
            ("cdn-cache-control", &["no-store, max-age=60"], None),
            ("cdn-cache-control", &["private"], None),
            ("cdn-cache-control", &["must-understand, no-store"], Some("no-store")),
            ("cloudflare-cdn-cache-control", &["max-age=60"], Some("no-store")),
            ("vercel-cdn-cache-control", &["s-maxage=60"], Some("no-store")),
            ("surrogate-control", &["max-age=60, content=\"ESI/1.0\""], Some("no-store")),
            ("surrogate-control", &["no-store"], None),
            // This header has no such directive.
            ("surrogate-control", &["private"], Some("no-store")),
            ("edge-control", &["cache-maxage=60m"], Some("no-store")),
            ("edge-control", &["!no-store"], Some("no-store")),
            ("x-accel-expires", &["60"], Some("0")),
            ("x-accel-expires", &["@1800000000"], Some("0")),
            ("x-accel-expires", &["0"], None),
            ("x-accel-expires", &["0", "60"], Some("0")),
            ("x-cache", &["HIT"], None),
        ];
        for (name, lines, expected) in rows {
            let mut headers: Vec<(&[u8], &[u8])> = vec![(b"cache-control", b"private")];
            headers.extend(lines.iter().map(|line| (name.as_bytes(), line.as_bytes())));
            let expected: Vec<Edit> =
                expected.iter().map(|value| Edit::Set(Cow::Owned((*name).to_owned()), (*value).into())).collect();
            assert_eq!(keep_away(&headers), expected, "{name}: {lines:?}");
        }
    }
}
