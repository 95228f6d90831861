//! The response: how the upstream wants to change the session, and what the client gets.

use std::borrow::Cow;

use serde_json::Value;

use super::caching;
use crate::config::Config;
use crate::cookie_expiry;
use crate::edit::{Edit, Headers, LocalReply, replace_all, values};
use crate::upstream_api;
use session::limits::is_upstream_cookie;
use session::merge_patch::{self, Object, Spoken};
use session::rotation::Rotation;
use session::time::UnixSeconds;

/// The headers that make it worth reading a response.
pub(super) const NAMES: [&str; 4] = [upstream_api::PATCH, upstream_api::CONTROL, upstream_api::ERROR, "set-cookie"];

/// What an upstream asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Instructions {
    /// Merge patches, to be applied in order.
    pub(super) patches: Vec<Object>,
    /// Whether older tokens should end.
    rotation: Rotation,
    pub(super) destroy: bool,
    /// The upstream has renewed its own session id.
    pub(super) upstream_cookie: Option<String>,
    /// An instruction was invalid.
    pub(super) is_invalid: bool,
}

impl Instructions {
    /// Whether they change a session (other than to end it).
    pub(super) fn is_write(&self) -> bool {
        !self.patches.is_empty() || self.rotation() > Rotation::None
    }

    /// Whether the only change is that the upstream has renewed its own id.
    pub(super) fn is_mere_renewal(&self) -> bool {
        self.upstream_cookie.is_some() && self.patches.is_empty() && self.rotation == Rotation::None && !self.destroy
    }

    /// Drops a renewal that came too late, if there are patches that can be saved without it: parallel requests renew
    /// the id at the same time, and only the first of them has a token that may rotate.
    pub(super) fn give_up_renewal(&mut self) -> bool {
        let is_worth_it = !self.patches.is_empty() && self.rotation == Rotation::None && !self.destroy;
        is_worth_it && self.upstream_cookie.take().is_some()
    }

    /// Whether older tokens should end. An upstream that renews its own id asks for that, too.
    pub(super) fn rotation(&self) -> Rotation {
        let renewed = if self.upstream_cookie.is_some() { Rotation::Asked } else { Rotation::None };
        self.rotation.max(renewed)
    }

    /// The patches as a JSON array.
    pub(super) fn patches_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.patches).unwrap_or_default()
    }

    /// The data that results from applying the patches to an empty session.
    pub(super) fn initial_data(&self) -> Object {
        let mut data = Object::new();
        for patch in &self.patches {
            merge_patch::apply(&mut data, patch.clone());
        }
        data
    }
}

/// A response that waits for the session.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldResponse {
    pub(super) instructions: Instructions,
    /// The edits to make whatever becomes of the instructions.
    cleanup: Vec<Edit>,
    /// Cookies to clear when ours is set.
    variants: Vec<String>,
    /// The edits that keep the response out of shared caches, as far as it does not do so itself.
    private: Vec<Edit>,
    /// The headers that let a script read the response: a response that replaces it has them, too.
    readable: Vec<(Cow<'static, str>, Vec<u8>)>,
}

impl HeldResponse {
    /// Reads a response. `sent_cookie` is what the upstream was sent as its own cookie; `None` if what it does to that
    /// says nothing about the session.
    pub(super) fn read(config: &Config, headers: &Headers<'_>, sent_cookie: Option<&str>, now: UnixSeconds) -> Self {
        let mut held = Self { private: caching::keep_away(headers), readable: readable(headers), ..Self::default() };
        for name in [upstream_api::PATCH, upstream_api::CONTROL, upstream_api::ERROR] {
            if values(headers, name).next().is_some() {
                held.cleanup.push(Edit::remove(name));
            }
        }
        for patch in values(headers, upstream_api::PATCH) {
            match merge_patch::parse_spoken(patch) {
                Some(spoken) if !guesses_subject(config, &spoken) => held.instructions.patches.push(spoken.patch),
                _ => held.instructions.is_invalid = true,
            }
        }
        for control in values(headers, upstream_api::CONTROL) {
            let instructions = &mut held.instructions;
            match control.trim_ascii() {
                b"rotate" => instructions.rotation = instructions.rotation.max(Rotation::Asked),
                b"authenticated" => instructions.rotation = Rotation::Authenticated,
                b"destroy" => instructions.destroy = true,
                _ => instructions.is_invalid = true,
            }
        }
        held.take_cookies(config, headers, sent_cookie, now);
        held
    }

    /// Removes the cookies that the upstream may not set: ours, and the one that carries our id to it.
    fn take_cookies(&mut self, config: &Config, headers: &Headers<'_>, sent_cookie: Option<&str>, now: UnixSeconds) {
        let all = values(headers, "set-cookie");
        let own_name = config.cookie.name().as_bytes();
        let upstream_name = config.upstream.cookie.as_deref().map(str::as_bytes);
        let mut kept = Vec::new();
        let mut adopted: Vec<(Scope<'_>, UpstreamCookie<'_>)> = Vec::new();
        for line in all.clone() {
            let (name, value) = name_and_value(line);
            if Some(name) == upstream_name {
                // The last one for a scope counts: PHP deletes its cookie and sets it again in one response.
                let scope = Scope::of(line);
                adopted.retain(|(other, _)| *other != scope);
                adopted.push((scope, UpstreamCookie::read(line, value, now)));
            } else if name != own_name {
                kept.push(line.to_vec());
            }
        }
        let is_deleted = |(_, cookie): &(_, UpstreamCookie<'_>)| matches!(cookie, UpstreamCookie::Deleted);
        let left = adopted.iter().rev().find(|cookie| !is_deleted(cookie));
        match (left, sent_cookie) {
            (None, Some(_)) if !adopted.is_empty() => self.instructions.destroy = true,
            (Some((_, UpstreamCookie::Is(value))), Some(known)) if *value != known => {
                self.instructions.upstream_cookie = Some((*value).to_owned());
            }
            _ => {}
        }
        if kept.len() < all.count() {
            replace_all(&mut self.cleanup, "set-cookie", kept);
        }
    }

    /// Clears these cookies when ours is set.
    pub(super) fn clear(&mut self, variants: &[String]) {
        variants.clone_into(&mut self.variants);
    }

    /// The response that replaces this one.
    pub(super) fn replace_by(self, mut reply: LocalReply) -> LocalReply {
        reply.headers.extend(self.readable);
        reply
    }

    /// The edits for the client's response: removals, and our `Set-Cookie`.
    pub(super) fn into_edits(self, set_cookie: Option<String>, error: Option<&'static str>) -> Vec<Edit> {
        let mut edits = self.cleanup;
        if let Some(set_cookie) = set_cookie {
            edits.extend(self.variants.into_iter().map(|variant| Edit::Add("set-cookie", variant.into_bytes())));
            edits.push(Edit::Add("set-cookie", set_cookie.into_bytes()));
            edits.extend(self.private);
        }
        if let Some(error) = error {
            edits.push(Edit::set(upstream_api::ERROR, error));
        }
        edits
    }
}

/// Whether the subject depends on reading bytes as either UTF-8 or Latin-1: it could be another user.
fn guesses_subject(config: &Config, spoken: &Spoken) -> bool {
    let subject = spoken.patch.get(&config.subject_key).and_then(Value::as_str);
    spoken.is_guessed && subject.is_some_and(|subject| !subject.is_ascii())
}

/// The headers that tell a browser which scripts may read a response (Fetch section 3.3), and `vary`, which belongs to
/// them.
fn readable(headers: &Headers<'_>) -> Vec<(Cow<'static, str>, Vec<u8>)> {
    let named = headers.iter().filter_map(|(name, value)| Some((core::str::from_utf8(name).ok()?, *value)));
    named
        .filter(|(name, _)| name.starts_with("access-control-") || *name == "vary")
        .filter(|(_, value)| !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)))
        .map(|(name, value)| (Cow::Owned(name.to_owned()), value.to_vec()))
        .collect()
}

/// What a `Set-Cookie` says about the upstream's own session.
enum UpstreamCookie<'a> {
    /// It has this id.
    Is(&'a str),
    /// It has an id that can't be stored.
    Unkept,
    /// It has ended, and ours ends too: what follows belongs to no user yet.
    Deleted,
}

impl<'a> UpstreamCookie<'a> {
    fn read(line: &[u8], value: &'a [u8], now: UnixSeconds) -> Self {
        if value.is_empty() || cookie_expiry::is_deletion(line, now) {
            return Self::Deleted;
        }
        core::str::from_utf8(value).ok().filter(|_| is_upstream_cookie(value)).map_or(Self::Unkept, Self::Is)
    }
}

/// Which of a browser's cookies of the same name a `Set-Cookie` affects (RFC 6265 section 5.3, step 11): the values of
/// its last `Domain` and `Path`.
#[derive(PartialEq, Eq)]
struct Scope<'a>([&'a [u8]; 2]);

impl<'a> Scope<'a> {
    fn of(line: &'a [u8]) -> Self {
        Self(["domain", "path"].map(|wanted| {
            let attributes = line.split(|byte| *byte == b';').skip(1).map(name_and_value);
            let named = attributes.filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
            named.last().map_or(&[][..], |(_, value)| value)
        }))
    }
}

/// The name and value of a `Set-Cookie` line. Browsers send a cookie without a name as its value alone, which is then
/// read as a name and a value.
fn name_and_value(line: &[u8]) -> (&[u8], &[u8]) {
    let mut pair = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_start();
    while let Some(nameless) = pair.strip_prefix(b"=") {
        pair = nameless.trim_ascii_start();
    }
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = pair.split_at(at);
            (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
        }
        None => (pair.trim_ascii(), &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_cookie_lines_are_cut_as_browsers_do() {
        let rows: &[(&str, &str, &str)] = &[
            ("a=1; Path=/", "a", "1"),
            (" a = 1 ;x", "a", "1"),
            ("a=b=c", "a", "b=c"),
            ("a", "a", ""),
            ("=1", "1", ""),
            (" = =a=1; b", "a", "1"),
            ("", "", ""),
        ];
        for (line, name, value) in rows {
            assert_eq!(name_and_value(line.as_bytes()), (name.as_bytes(), value.as_bytes()), "{line}");
        }
    }
}
