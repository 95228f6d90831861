//! What upstreams may take a path for, so that a rule for a path can't be walked around.
//!
//! Upstreams differ: some decode `%2f`, some decode twice, some ignore case, Tomcat drops `;parameters`, Windows
//! takes `\` for `/`. One and the same `:path` may so be several paths. `/account/..;/public` is `/public` to Tomcat, and below
//! `/account/` to others. A rule has to hold whichever of them is behind it: [`readings`] gives them all, each in one
//! spelling. They are only ever compared, never sent.

/// What a request's `:path` may be to an upstream: without query, decoded as often as upstreams do, with and without
/// parameters, in ASCII lower case, without empty or dot segments. Each starts with `/`.
///
/// What is encoded twice is read decoded twice, too: an upstream that decodes once too often is not rare.
#[must_use]
pub fn readings(path: &[u8]) -> Vec<Vec<u8>> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let mut decoded = path.get(..end).unwrap_or_default().to_vec();
    let mut readings = Vec::with_capacity(1);
    let mut add = |reading| {
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    for _ in 0..=DECODINGS {
        add(fold(&decoded, Parameters::Kept));
        if decoded.contains(&b';') {
            add(fold(&decoded, Parameters::Dropped));
        }
        if !decoded.contains(&b'%') {
            break;
        }
        decoded = decode(&decoded);
    }
    readings
}

/// How often upstreams decode a path, at most.
const DECODINGS: usize = 2;

/// What an upstream does with a segment's `;parameters` (RFC 3986 section 3.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    Kept,
    Dropped,
}

fn fold(decoded: &[u8], parameters: Parameters) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = match parameters {
            Parameters::Kept => segment,
            Parameters::Dropped => segment.split(|byte| *byte == b';').next().unwrap_or_default(),
        };
        match name {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
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
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
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

    fn all(path: &str) -> Vec<String> {
        readings(path.as_bytes()).into_iter().map(|reading| String::from_utf8(reading).unwrap()).collect()
    }

    #[test]
    fn many_spellings_can_be_one_path() {
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
            "/x/%252e%252e/account/settings",
            "/../../account/settings",
            "/./account/./settings",
            "/account;jsessionid=1/settings;v=2",
            "/x/..;/account/settings",
            "/x/..%3b/account/settings",
            "\\account\\settings",
            "/account%5csettings",
            "account/settings",
        ] {
            assert!(all(path).contains(&"/account/settings".to_owned()), "{path}: {:?}", all(path));
        }
    }

    /// What one upstream resolves away is a folder to another, which then serves what is below it.
    #[test]
    fn no_reading_hides_another() {
        for path in
            ["/account/..;/public", "/account/%2e%2e/public", "/account/%252e%252e/public", "/account/..%3b/public"]
        {
            assert!(all(path).iter().any(|reading| reading.starts_with("/account/")), "{path}: {:?}", all(path));
            assert!(all(path).contains(&"/public".to_owned()), "{path}: {:?}", all(path));
        }
    }

    #[test]
    fn a_plain_path_has_one_reading() {
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
            assert_eq!(all(path), [expected], "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_read_as_plain_paths(path: Vec<u8>) {
            let readings = readings(&path);
            prop_assert!((1..=6).contains(&readings.len()));
            for reading in readings {
                prop_assert_eq!(reading.first(), Some(&b'/'));
                prop_assert!(!reading.windows(2).any(|pair| pair == b"//"));
                prop_assert!(!reading.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
            }
        }

        /// Any octet of a path may be encoded, or its case changed: the path is still among its readings.
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
            prop_assert!(all(&spelled).contains(&path), "{spelled}: {:?}", all(&spelled));
        }
    }
}
