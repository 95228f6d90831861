//! The bearer tokens that callers need (RFC 6750). They come only from the environment or a file, and appear nowhere.

use std::fmt;
use std::path::{Path, PathBuf};

use ctutils::{Choice, CtEq as _};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// The environment variable with the tokens.
pub const BEARER_TOKEN_ENV: &str = "SESSION_GATEWAY_TOKEN";
/// The shortest token: 16 characters of base64 are 96 bits.
const MIN_BYTES: usize = 16;

/// The tokens, of which a caller needs one. There can be several, so that they can be replaced one caller after
/// another.
#[derive(Clone)]
pub struct BearerTokens(Vec<Box<[u8]>>);

/// There are no usable tokens.
#[derive(Debug, thiserror::Error)]
pub enum BearerTokenError {
    /// Neither the variable nor a file is set.
    #[error(
        "no bearer token: set {BEARER_TOKEN_ENV}, or SESSION_GATEWAY_TOKEN_FILE (--token-file) to a file that holds it"
    )]
    Missing,
    /// The variable and the file are both set.
    #[error("both {BEARER_TOKEN_ENV} and --token-file (SESSION_GATEWAY_TOKEN_FILE) are set: use one of them")]
    Both,
    /// The file can't be read.
    #[error("--token-file {}: {error}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        error: std::io::Error,
    },
    /// A guessable token.
    #[error("a bearer token is shorter than {MIN_BYTES} characters; `openssl rand -base64 32` makes a good one")]
    Short,
    /// A token that no header can carry.
    #[error("a bearer token contains characters other than letters, digits and -._~+/=")]
    Characters,
}

impl BearerTokens {
    /// The tokens in `variable` (what [`BEARER_TOKEN_ENV`] holds) or in the file.
    pub fn load(variable: Option<&str>, file: Option<&Path>) -> Result<Self, BearerTokenError> {
        match (variable, file) {
            (None, None) => Err(BearerTokenError::Missing),
            (Some(_), Some(_)) => Err(BearerTokenError::Both),
            (Some(text), None) => Self::parse(text),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| BearerTokenError::File { path: path.to_owned(), error })?;
                Self::parse(&text)
            }
        }
    }

    /// The tokens in a list separated by commas; space around them does not count.
    pub fn parse(text: &str) -> Result<Self, BearerTokenError> {
        let tokens: Vec<&str> = text.split(',').map(str::trim).filter(|token| !token.is_empty()).collect();
        if tokens.is_empty() {
            return Err(BearerTokenError::Missing);
        }
        // RFC 6750 section 2.1, b64token.
        let character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !tokens.iter().all(|token| token.bytes().all(character)) {
            return Err(BearerTokenError::Characters);
        }
        if tokens.iter().any(|token| token.len() < MIN_BYTES) {
            return Err(BearerTokenError::Short);
        }
        Ok(Self(tokens.into_iter().map(|token| token.as_bytes().into()).collect()))
    }

    /// Whether the request has one of the tokens. The time that this takes reveals nothing about them except their
    /// lengths.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let found = self.0.iter().fold(Choice::FALSE, |found, known| found | known.ct_eq(token));
        found.to_bool()
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerTokens({} redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const OLD: &str = "0123456789abcdef";
    const NEW: &str = "fedcba9876543210+/=";

    fn admits(tokens: &BearerTokens, value: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        tokens.admit(&headers)
    }

    #[test]
    fn any_of_the_tokens_will_do() {
        let tokens = BearerTokens::parse(&format!(" {OLD} ,{NEW}\n")).unwrap();
        assert!(admits(&tokens, format!("Bearer {OLD}").as_bytes()));
        assert!(admits(&tokens, format!("bearer {NEW}").as_bytes()));
        for refused in ["", "Bearer", "Bearer ", "Basic 0123456789abcdef", OLD, "Bearer  0123456789abcdef"] {
            assert!(!admits(&tokens, refused.as_bytes()), "{refused}");
        }
        assert!(!admits(&tokens, format!("Bearer {OLD},{NEW}").as_bytes()));
        assert!(!admits(&tokens, b"Bearer \xff"));
        assert!(!tokens.admit(&HeaderMap::new()));
        let mut twice = HeaderMap::new();
        for token in ["Bearer wrong", &format!("Bearer {OLD}")] {
            twice.append(AUTHORIZATION, HeaderValue::from_str(token).unwrap());
        }
        assert!(!tokens.admit(&twice));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(matches!(BearerTokens::load(None, None), Err(BearerTokenError::Missing)));
        assert!(matches!(BearerTokens::parse(" , "), Err(BearerTokenError::Missing)));
        assert!(matches!(BearerTokens::parse("0123456789abcde"), Err(BearerTokenError::Short)));
        assert!(matches!(BearerTokens::parse("0123456789 abcdef"), Err(BearerTokenError::Characters)));
        let nowhere = Path::new("/nonexistent/token");
        assert!(matches!(BearerTokens::load(Some(OLD), Some(nowhere)), Err(BearerTokenError::Both)));
        let error = BearerTokens::load(None, Some(nowhere)).unwrap_err().to_string();
        assert!(error.contains("--token-file /nonexistent/token"), "{error}");
    }

    #[test]
    fn debug_shows_no_token() {
        let tokens = BearerTokens::parse(OLD).unwrap();
        assert!(!format!("{tokens:?}").contains(OLD));
    }
}
