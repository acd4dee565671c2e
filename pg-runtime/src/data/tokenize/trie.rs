//! Reader of a darts-clone double array: the form in which a SentencePiece model stores its normalisation rules.

/// A static trie from byte strings to 31-bit values, one 32-bit unit a node.
///
/// ```text
/// bits 0..8   label: the byte on the edge to this node
/// bit  8      whether a key ends here
/// bit  9      whether the offset is shifted by 8
/// bits 10..31 offset: children lie at (own index xor offset) xor label
/// bit  31     set in the unit of a value, whose lower 31 bits are the value
/// ```
#[derive(Clone, PartialEq, Debug)]
pub(super) struct DoubleArray {
    units: Vec<u32>,
}

impl DoubleArray {
    /// The units as stored, little endian; bytes after the last whole unit are ignored.
    pub(super) fn from_bytes(bytes: &[u8]) -> DoubleArray {
        let units = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        DoubleArray { units }
    }

    /// Length and value of the longest key that `text` begins with. An index outside the array, which only a
    /// damaged one has, ends the walk.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut at = 0;
        let mut unit = *self.units.first()?;
        let mut best = None;
        at ^= offset(unit);
        for (i, &byte) in text.iter().enumerate() {
            at ^= usize::from(byte);
            let Some(&next) = self.units.get(at) else { break };
            unit = next;
            // A value's unit has bit 31 set and so equals no label.
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let Some(value) = self.units.get(at) else { break };
                best = Some((i + 1, value & !(1 << 31)));
            }
        }
        best
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys "a" and "ab" with values 5 and 6, laid out by hand: root 0 with offset 256, so that 'a' is at
    /// 256 ^ 97; its children at offset 512, value at 512, 'b' at 512 ^ 98, whose value is at 768.
    fn trie() -> DoubleArray {
        let mut units = vec![0; 1024];
        let (a, b) = (256 ^ 97, 512 ^ 98);
        units[0] = 256 << 10;
        units[a] = ((a as u32) ^ 512) << 10 | 1 << 8 | 97;
        units[512] = 1 << 31 | 5;
        units[b] = ((b as u32) ^ 768) << 10 | 1 << 8 | 98;
        units[768] = 1 << 31 | 6;
        DoubleArray { units }
    }

    #[test]
    fn finds_the_longest_key() {
        let trie = trie();
        assert_eq!(trie.longest_prefix(b"a"), Some((1, 5)));
        assert_eq!(trie.longest_prefix(b"ac"), Some((1, 5)));
        assert_eq!(trie.longest_prefix(b"abc"), Some((2, 6)));
        assert_eq!(trie.longest_prefix(b"b"), None);
        assert_eq!(trie.longest_prefix(b""), None);
        // The value's own unit is not an edge of label 0.
        assert_eq!(trie.longest_prefix(b"a\0"), Some((1, 5)));
    }

    #[test]
    fn a_damaged_array_is_not_read_past_its_end() {
        assert_eq!(DoubleArray::from_bytes(&[]).longest_prefix(b"a"), None);
        for len in 0..1024 {
            let cut = DoubleArray { units: trie().units[..len].to_vec() };
            cut.longest_prefix(b"abc");
        }
        let all = DoubleArray { units: vec![u32::MAX; 300] };
        assert_eq!(all.longest_prefix(b"abc"), None);
    }
}
