//! How upstreams may read a path, so that no spelling evades the rule for it.
//!
//! Upstreams differ: some decode `%2f`, some decode twice, some ignore case, Windows reads `\` as `/`. Tomcat drops
//! `;parameters` before it decodes, others after it. For WSGI applications, nothing resolves `..`. A WHATWG URL parser
//! resolves `%2e%2e` and decodes nothing else, and reads what follows `//` as a host. So one `:path` may stand for
//! several paths: `/account/..;/public` is `/public` for Tomcat, and below `/account/` for others. A rule has to apply
//! whichever of them the upstream reads: [`Readings`] contains them all. They are only compared, never sent.

/// The paths that upstreams may read from a request's `:path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readings {
    /// One of these, each in one spelling: in ASCII lower case, without query, empty or dot segments. Each starts with
    /// `/`.
    Paths(Vec<Vec<u8>>),
    /// What remains of one of these lists of segments after some of them were removed: the path contains a `..`, and
    /// upstreams differ in whether and when it removes another segment.
    Segments(Vec<Vec<Vec<u8>>>),
    /// Too long or too contrived to be read in every way: it may be any path.
    Any,
}

/// The maximum number of times that upstreams decode a path.
const DECODINGS: usize = 2;
/// The longest path that is read in more than one way, in bytes.
const MAX_AMBIGUOUS: usize = 2048;
/// The maximum number of spellings of one path that are considered.
const MAX_SPELLINGS: usize = 64;

impl Readings {
    /// The readings of a `:path`, or of the prefix of a rule.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let path = before_query(path);
        let is_plain = !path.iter().any(|byte| matches!(byte, b'%' | b';' | b'\\'));
        let is_plain = is_plain && !path.starts_with(b"//");
        if is_plain && !segments(path).any(|segment| segment == b"..") {
            return Self::Paths(vec![fold(path)]);
        }
        if path.len() > MAX_AMBIGUOUS {
            return Self::Any;
        }
        let Some(spellings) = spellings(path) else { return Self::Any };
        let is_climbing = |spelling: &Vec<u8>| segments(spelling).any(|segment| segment == b"..");
        if spellings.iter().any(is_climbing) {
            let lists = spellings.iter().map(|spelling| segments(spelling).map(<[u8]>::to_ascii_lowercase).collect());
            return Self::Segments(lists.collect());
        }
        let mut paths = Vec::with_capacity(1);
        for spelling in spellings {
            add(&mut paths, fold(&spelling));
        }
        Self::Paths(paths)
    }

    /// Whether one of the readings may start with a `prefix`, which is one that [`fold`](Readings::of) has left.
    #[must_use]
    pub fn may_be_below(&self, prefix: &[u8]) -> bool {
        match self {
            Self::Paths(paths) => paths.iter().any(|path| is_below(path, prefix)),
            Self::Segments(lists) => lists.iter().any(|list| holds(list, prefix)),
            Self::Any => true,
        }
    }
}

/// Whether the path starts with the prefix. The folder itself, without its last `/`, counts too.
#[must_use]
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.starts_with(prefix) || prefix.strip_suffix(b"/").is_some_and(|folder| !folder.is_empty() && path == folder)
}

/// Whether the list contains the segments of the prefix in their order, so that a path below it remains when others are
/// removed.
fn holds(list: &[Vec<u8>], prefix: &[u8]) -> bool {
    let is_folder = prefix.ends_with(b"/");
    let mut wanted = segments(prefix).peekable();
    for segment in list {
        let Some(next) = wanted.peek() else { break };
        let next: &[u8] = next;
        let is_last = wanted.clone().nth(1).is_none();
        if segment == next || (is_last && !is_folder && segment.starts_with(next)) {
            wanted.next();
        }
    }
    wanted.peek().is_none()
}

/// Every form that a path may take in an upstream, with its `..` unresolved: decoded up to twice, with parameters and
/// what looks like a query either dropped or kept before and after each decoding. `None` if there are more spellings
/// than a well-meaning client sends.
fn spellings(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut level = vec![path.to_vec()];
    for _ in 0..=DECODINGS {
        let mut next = Vec::new();
        for spelling in level {
            let cut = before_query(&spelling).to_vec();
            // What looks like a query may be in a segment that is removed before an upstream looks for one.
            let trimmed = without(&spelling, b"?#", b"/\\");
            let variants = [cut, trimmed, spelling].into_iter().flat_map(|path| {
                // For Tomcat, a parameter does not end at a backslash.
                [without(&path, b";", b"/\\"), without(&path, b";", b"/"), path]
            });
            for variant in variants {
                // The whole path comes first: for the prefix of a rule, only that matters.
                add(&mut next, decode(&variant));
                add(&mut all, variant.clone());
                for path in behind_host(&variant).into_iter().flatten() {
                    add(&mut next, decode(path));
                    add(&mut all, path.to_vec());
                }
            }
        }
        next.retain(|spelling| !all.contains(spelling));
        level = next;
        if all.len() > MAX_SPELLINGS {
            return None;
        }
    }
    Some(all)
}

/// What remains of a path for a parser of URL references, which reads what follows two slashes as a host (RFC 3986
/// section 4.2). WHATWG's parser also ends the host at `\`, others only at `/`.
fn behind_host(path: &[u8]) -> Option<[&[u8]; 2]> {
    let is_separator = |byte: &u8| matches!(byte, b'/' | b'\\');
    let start = path.iter().position(|byte| !is_separator(byte)).unwrap_or(path.len());
    let (slashes, rest) = path.split_at(start);
    let behind = |is_end: &dyn Fn(&u8) -> bool| {
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        rest.get(end..).unwrap_or_default()
    };
    (slashes.len() >= 2).then(|| [behind(&is_separator), behind(&|byte| *byte == b'/')])
}

fn add(list: &mut Vec<Vec<u8>>, path: Vec<u8>) {
    if !list.contains(&path) {
        list.push(path);
    }
}

/// What is before the query, or the fragment.
fn before_query(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    path.get(..end).unwrap_or_default()
}

/// The path without what follows one of the `marks` up to the next of the `ends`: the `;parameters` of its segments
/// (RFC 3986 section 3.3).
fn without(path: &[u8], marks: &[u8], ends: &[u8]) -> Vec<u8> {
    let mut is_dropped = false;
    let mut kept = Vec::with_capacity(path.len());
    for byte in path {
        is_dropped = marks.contains(byte) || (is_dropped && !ends.contains(byte));
        if !is_dropped {
            kept.push(*byte);
        }
    }
    kept
}

/// The segments that are neither empty nor `.`.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|byte| matches!(byte, b'/' | b'\\')).filter(|segment| !matches!(*segment, b"" | b"."))
}

/// One spelling of a path without `..`.
fn fold(path: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(path.len() + 1);
    for segment in segments(path) {
        folded.push(b'/');
        folded.extend(segment.iter().map(u8::to_ascii_lowercase));
    }
    let last = path.rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
    if folded.is_empty() || matches!(last, b"" | b".") {
        folded.push(b'/');
    }
    folded
}

/// Decodes percent-encoding once (RFC 3986 section 2.1); anything else stays unchanged.
pub(crate) fn decode(path: &[u8]) -> Vec<u8> {
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

    fn may_be(path: &str, prefix: &str) -> bool {
        Readings::of(path.as_bytes()).may_be_below(prefix.as_bytes())
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
            // Tomcat drops parameters, then decodes.
            "/%61ccount;%2f..%2f..%2fpublic/settings",
            "/%2561ccount;%252f..%252f..%252fpublic/settings",
            // A WHATWG parser undoes %2e%2e before anything is decoded, and does not merge slashes.
            "/public%2fx/%2e%2e/account/settings",
            "/account//../settings",
            // What follows two slashes is a host to a parser of URL references.
            "//x/account/settings",
            "///x/account/settings",
            "/\\x/account/settings",
            "//x%2fy/%61ccount/settings",
            "//x\\y/account/settings",
            "/%2fx/account/settings",
            "/;v/x/account/settings",
            // What is decoded may look like a query.
            "/account/settings%3fx",
        ] {
            assert!(may_be(path, "/account/"), "{path}");
        }
    }

    /// What one upstream resolves away is a folder to another, which then serves what is below it.
    #[test]
    fn no_reading_hides_another() {
        for path in [
            "/account/..;/public",
            "/account/%2e%2e/public",
            "/account/%252e%252e/public",
            "/account/..%3b/public",
            "/account%2f..%2fpublic",
            "/users/%40me;%2f..%2f..%2f..%2faccount/public",
        ] {
            assert!(may_be(path, "/account/"), "{path}");
            assert!(may_be(path, "/public"), "{path}");
            assert!(!may_be(path, "/private/"), "{path}");
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
            ("/Account/x/.", "/account/x/"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/%", "/%"),
            ("/a;b", "/a"),
        ] {
            let Readings::Paths(paths) = Readings::of(path.as_bytes()) else { panic!("{path}") };
            assert!(paths.contains(&expected.as_bytes().to_vec()), "{path}: {paths:?}");
            assert!(paths.len() == 1 || path.contains(';'), "{path}: {paths:?}");
        }
    }

    #[test]
    fn a_long_path_is_read_in_one_way_or_counts_as_any() {
        let long = "x".repeat(MAX_AMBIGUOUS);
        assert!(!may_be(&format!("/{long}"), "/account/"));
        assert!(may_be(&format!("/{long}%2f"), "/account/"));
    }

    /// What upstreams make of a path, as naively as it can be said.
    mod upstream {
        pub(super) fn cut(path: &str) -> String {
            path.split(['?', '#']).next().unwrap().to_owned()
        }

        pub(super) fn drop_parameters(path: &str) -> String {
            path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
        }

        pub(super) fn decode(path: &str) -> String {
            String::from_utf8_lossy(&super::super::decode(path.as_bytes())).into_owned()
        }

        pub(super) fn merge(path: &str) -> String {
            let mut merged = path.to_owned();
            while merged.contains("//") {
                merged = merged.replace("//", "/");
            }
            merged
        }

        /// RFC 3986 section 5.2.4; `..` in whatever spelling `is_up` knows.
        pub(super) fn resolve(path: &str, is_up: impl Fn(&str) -> bool, is_here: impl Fn(&str) -> bool) -> String {
            let mut kept: Vec<&str> = Vec::new();
            for segment in path.split('/').skip(1) {
                if is_up(segment) {
                    kept.pop();
                } else if !is_here(segment) {
                    kept.push(segment);
                }
            }
            format!("/{}", kept.join("/"))
        }

        fn plain(path: &str) -> String {
            resolve(path, |segment| segment == "..", |segment| segment == ".")
        }

        pub(super) fn tomcat(path: &str) -> String {
            plain(&merge(&decode(&drop_parameters(&cut(path))).replace('\\', "/")))
        }

        pub(super) fn jetty(path: &str) -> String {
            plain(&drop_parameters(&decode(&cut(path))))
        }

        pub(super) fn nginx(path: &str) -> String {
            plain(&merge(&decode(&cut(path))))
        }

        pub(super) fn nginx_before_tomcat(path: &str) -> String {
            tomcat(&nginx(path))
        }

        /// `decodeURIComponent(new URL(request.url, base).pathname)`
        pub(super) fn node(path: &str) -> String {
            let path = cut(path).replace('\\', "/");
            let dots = |segment: &str| segment.to_ascii_lowercase().replace("%2e", ".");
            decode(&resolve(&path, |segment| dots(segment) == "..", |segment| dots(segment) == "."))
        }

        /// What is behind the host, to a parser of URL references: `//host/path` (RFC 3986 section 4.2).
        fn behind_host<'a>(path: &'a str, separators: &[char]) -> &'a str {
            let rest = path.trim_start_matches(separators);
            if path.len() - rest.len() < 2 { path } else { rest.find(separators).map_or("/", |end| &rest[end..]) }
        }

        /// As `node`, with the host that the parser finds.
        pub(super) fn node_reference(path: &str) -> String {
            node(behind_host(&cut(path), &['/', '\\']))
        }

        /// `parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)`, or `urlsplit(...).path`; decoded then.
        pub(super) fn php_reference(path: &str) -> String {
            let path = cut(path);
            let is_reference = path.starts_with("//") && !path.starts_with("///");
            decode(if is_reference { behind_host(&path, &['/']) } else { &path })
        }

        /// `PATH_INFO`, as Flask and Django route it.
        pub(super) fn wsgi(path: &str) -> String {
            decode(&cut(path))
        }

        pub(super) fn php(path: &str) -> String {
            plain(&decode(&cut(path)))
        }

        pub(super) fn twice(path: &str) -> String {
            plain(&decode(&decode(&cut(path))))
        }

        pub(super) fn unnormalized(path: &str) -> String {
            cut(path)
        }
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "/",
            "/",
            "/",
            "//",
            "\\",
            "%2f",
            "%252f",
            "%5c",
            "..",
            "..",
            "%2e%2e",
            ".%2E",
            "%252e%252e",
            ".",
            ";",
            "%3b",
            "%253b",
            ";v=1",
            "?",
            "%3f",
            "#",
            "account",
            "account",
            "%61ccount",
            "%2561ccount",
            "ACCOUNT",
            "public",
            "x",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whatever an upstream makes of a path: if that is below a prefix, the rule for it is known to matter.
        #[test]
        fn no_upstream_reads_what_is_not_read_here(pieces in proptest::collection::vec(piece(), 0..12)) {
            let path = format!("/{}", pieces.concat());
            let readings = Readings::of(path.as_bytes());
            for (name, upstream) in [
                ("Tomcat", upstream::tomcat as fn(&str) -> String),
                ("Jetty", upstream::jetty),
                ("nginx", upstream::nginx),
                ("nginx before Tomcat", upstream::nginx_before_tomcat),
                ("Node", upstream::node),
                ("Node with a host", upstream::node_reference),
                ("PHP or Python with a host", upstream::php_reference),
                ("WSGI", upstream::wsgi),
                ("PHP", upstream::php),
                ("decoding twice", upstream::twice),
                ("nothing", upstream::unnormalized),
            ] {
                let read = upstream(&path).to_ascii_lowercase();
                for prefix in ["/account/", "/account", "/public/account/", "/acc", "/"] {
                    if is_below(read.as_bytes(), prefix.as_bytes()) {
                        prop_assert!(readings.may_be_below(prefix.as_bytes()), "{name} reads {path} as {read}: {readings:?}");
                    }
                }
            }
        }

        #[test]
        fn any_bytes_read_as_plain_paths(path: Vec<u8>) {
            if let Readings::Paths(paths) = Readings::of(&path) {
                prop_assert!(!paths.is_empty());
                for reading in paths {
                    prop_assert_eq!(reading.first(), Some(&b'/'));
                    prop_assert!(!reading.windows(2).any(|pair| pair == b"//"));
                    prop_assert!(!reading.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
                }
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
            prop_assert!(may_be(&spelled, &path), "{spelled}");
        }
    }
}
