//! Lists of headers, as both sides of the ABI write them: the number of headers, the lengths of each name and value,
//! then the names and values, each with a zero byte behind it. Numbers have 32 bits and are little-endian.

/// A list of headers that came from the host, read where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<u8>);

impl Pairs {
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Each header's name and value. A list that is cut short ends where it is cut.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        let (count, rest) = number(&self.0).unwrap_or_default();
        let (lengths, texts) = count.checked_mul(8).and_then(|size| rest.split_at_checked(size)).unwrap_or_default();
        Iter { lengths, texts }
    }

    /// The same, as a list.
    #[must_use]
    pub fn to_vec(&self) -> Vec<(&[u8], &[u8])> {
        let pairs = self.iter();
        // Two lengths of four bytes for each; there are no more of them than the host has sent.
        let mut list = Vec::with_capacity(pairs.lengths.len() / 8);
        list.extend(pairs);
        list
    }
}

impl<'a> IntoIterator for &'a Pairs {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// See [`Pairs::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    lengths: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_length, rest) = number(self.lengths)?;
        let (value_length, rest) = number(rest)?;
        self.lengths = rest;
        Some((self.text(name_length)?, self.text(value_length)?))
    }
}

impl<'a> Iter<'a> {
    /// The next text, without the zero byte behind it.
    fn text(&mut self, length: usize) -> Option<&'a [u8]> {
        let (text, rest) = self.texts.split_at_checked(length)?;
        self.texts = rest.get(1..)?;
        Some(text)
    }
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// A list for the host.
pub(crate) fn encode<V: AsRef<[u8]>>(pairs: &[(&str, V)]) -> Vec<u8> {
    let texts = || pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_ref()]);
    let size = 4 + texts().map(|text| 4 + text.len() + 1).sum::<usize>();
    let mut list = Vec::with_capacity(size);
    let mut write = |length: usize| list.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    write(pairs.len());
    texts().for_each(|text| write(text.len()));
    for text in texts() {
        list.extend(text);
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_is_the_hosts() {
        let list = b"\x02\0\0\0\x05\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0:path\0/\0a\0\0";
        assert_eq!(encode(&[(":path", "/"), ("a", "")]), list);
        let pairs = Pairs::new(list.to_vec());
        assert!(pairs.iter().eq([(&b":path"[..], &b"/"[..]), (b"a", b"")]));
        assert_eq!(Pairs::default().iter().count(), 0);
    }

    proptest! {
        #[test]
        fn written_and_read_back(pairs: Vec<(String, String)>) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let read = Pairs::new(encode(&pairs));
            prop_assert!(read.iter().eq(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))));
        }

        #[test]
        fn arbitrary_bytes_are_some_list(bytes: Vec<u8>, end: proptest::sample::Index, pairs: Vec<(String, String)>) {
            let _ = Pairs::new(bytes).iter().count();
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut cut = encode(&pairs);
            cut.truncate(end.index(cut.len()));
            prop_assert!(Pairs::new(cut).iter().count() <= pairs.len());
        }
    }
}
