//! One spelling for every path, so that a rule for a path can't be walked around.
//!
//! Upstreams differ in what they take for the same path: some decode `%2f`, some ignore case, Tomcat drops
//! `;parameters`, Windows takes `\` for `/`. A rule has to hold whichever of them is behind it, so all
//! of that is folded together here. The folded path is only ever compared, never sent.

/// Folds a request's `:path`: without query and parameters, decoded, in ASCII lower case, without
/// empty or dot segments. It starts with `/`.
///
/// What is encoded twice is decoded twice: an upstream that decodes once too often is not rare.
#[must_use]
pub fn fold(path: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let decoded = decode(decode(path.get(..end).unwrap_or_default().to_vec()));
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        // RFC 3986 section 3.3: parameters belong to a segment.
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut folded = Vec::with_capacity(decoded.len() + 1);
    for segment in &segments {
        folded.push(b'/');
        folded.extend(segment.iter().map(u8::to_ascii_lowercase));
    }
    let is_folder = decoded.last().is_none_or(|byte| matches!(byte, b'/' | b'\\'));
    if is_folder || segments.is_empty() {
        folded.push(b'/');
    }
    folded
}

/// Undoes percent-encoding once (RFC 3986 section 2.1); what isn't one stays.
fn decode(mut path: Vec<u8>) -> Vec<u8> {
    if !path.contains(&b'%') {
        return path;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => decoded.push(byte),
        }
    }
    path.clear();
    decoded
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;
    use proptest::prelude::*;

    fn folded(path: &str) -> String {
        String::from_utf8(fold(path.as_bytes())).unwrap()
    }

    #[test]
    fn many_spellings_are_one_path() {
        for path in [
            "/account/settings",
            "//account//settings",
            "/account/settings?x=/static/",
            "/account/settings#top",
            "/account%2fsettings",
            "/account%2Fsettings",
            "/account%252fsettings",
            "/%61ccount/settings",
            "/%2561ccount/settings",
            "/ACCOUNT/Settings",
            "/x/../account/settings",
            "/x/%2e%2e/account/settings",
            "/x/%2E./account/settings",
            "/../../account/settings",
            "/./account/./settings",
            "/account;jsessionid=1/settings;v=2",
            "/x/..;/account/settings",
            "\\account\\settings",
            "/account%5csettings",
            "account/settings",
        ] {
            assert_eq!(folded(path), "/account/settings", "{path}");
        }
    }

    #[test]
    fn ends_are_kept() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("*", "/*"),
            ("/account/", "/account/"),
            ("/account", "/account"),
            ("/account/..", "/"),
            ("/account/x/..", "/account"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/%", "/%"),
        ] {
            assert_eq!(folded(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_fold_to_a_plain_path(path: Vec<u8>) {
            let folded = fold(&path);
            prop_assert_eq!(folded.first(), Some(&b'/'));
            prop_assert!(!folded.windows(2).any(|pair| pair == b"//"));
            prop_assert!(!folded.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
        }

        /// Any octet of a path may be encoded, or its case changed, and it is the same path.
        #[test]
        fn no_spelling_escapes(path in "(/[a-z]{1,4}){1,4}", spelling in proptest::collection::vec(0..4_u8, 40)) {
            let mut spelled = String::new();
            for (symbol, how) in path.chars().zip(&spelling) {
                match how {
                    0 => spelled.push(symbol),
                    1 => write!(spelled, "%{:02x}", symbol as u32).unwrap(),
                    2 => write!(spelled, "%25{:02X}", symbol as u32).unwrap(),
                    _ if symbol == '/' => spelled.push_str("/./"),
                    _ => spelled.push(symbol.to_ascii_uppercase()),
                }
            }
            prop_assert_eq!(folded(&spelled), path);
        }
    }
}
