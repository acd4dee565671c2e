//! Byte counts that come with shards, for tokenizers of text that was changed before it was tokenized: a shard of
//! counts beside each shard of tokens.

use super::error::DataError;
use super::loader::Dataset;
use super::tokenizer::Tokenizer;

/// Bytes of text behind each target of `tokens`, as `counts` says, one for each token. `[tokens - 1]`
///
/// # Errors
/// [`DataError::Counts`] where there is not one for each token, or one claims more bytes than the token's piece
/// has: text that is changed before it is tokenized gains bytes, so the original has no more than the pieces.
pub fn check_counts(
    tokens: &Dataset,
    counts: &Dataset,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, DataError> {
    let fail = |what: String| DataError::Counts { pattern: counts.name().to_owned(), what };
    if tokens.len() != counts.len() {
        let (have, want) = (counts.len(), tokens.len());
        return Err(fail(format!("it has {have} counts, `{}` has {want} tokens", tokens.name())));
    }
    let own = tokens.scan(0, |all| tokenizer.tables().target_bytes(all))?;
    let claimed: Vec<u32> = counts.scan(1, |all| all.map(u32::from).collect())?;
    let mut pairs = own.iter().zip(&claimed).enumerate();
    if let Some((index, (own, claimed))) = pairs.find(|(_, (own, claimed))| claimed > own) {
        let index = index + 1;
        return Err(fail(format!(
            "count {index} is {claimed}, but the token there stands for {own} bytes at most"
        )));
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::shard::{Shard, shard_bytes};
    use super::*;

    fn dataset(tokens: &[u16]) -> Dataset {
        let shard = Shard::embedded("x", shard_bytes(tokens)).unwrap();
        Dataset::new("x", vec![shard], 1 << 16).unwrap()
    }

    #[test]
    fn counts_are_those_of_the_tokens_or_fewer() {
        let tokenizer = sample::tokenizer();
        let tokens: Vec<u16> = sample::val().scan(0, |all| all.take(100).collect()).unwrap();
        let own = tokenizer.tables().target_bytes(tokens.iter().copied());
        let mut counts: Vec<u16> = std::iter::once(0).chain(own.iter().map(|&b| b as u16)).collect();
        let check = |counts: &[u16]| check_counts(&dataset(&tokens), &dataset(counts), &tokenizer);
        assert_eq!(check(&counts).unwrap(), own);
        assert!(check(&counts[..99]).unwrap_err().to_string().contains("99 counts"));
        counts[50] -= 1;
        assert_eq!(check(&counts).unwrap()[49], own[49] - 1);
        counts[50] += 2;
        let error = check(&counts).unwrap_err().to_string();
        assert!(error.contains("count 50 is"), "{error}");
    }
}
