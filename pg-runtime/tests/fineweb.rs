//! Byte accounting on the challenge's own tokens, which do not ship with the project: runs where
//! `PG_FINEWEB` names a folder with `fineweb_val_*.bin` and `fineweb_1024_bpe.model`.

use std::path::Path;

use pg_runtime::data::{Dataset, Tokenizer, stats};

#[test]
fn targets_cost_the_known_bytes() {
    let Ok(folder) = std::env::var("PG_FINEWEB") else {
        println!("did not run: PG_FINEWEB is not set");
        return;
    };
    let tokenizer = Tokenizer::open(&Path::new(&folder).join("fineweb_1024_bpe.model")).unwrap();
    tokenizer.check_vocabulary(1024).unwrap();
    let data = Dataset::open(&format!("{folder}/fineweb_val_*.bin"), 1024).unwrap();
    let all = stats(&data, &tokenizer).unwrap();
    println!("{all:?}");
    assert_eq!((all.shards, all.tokens, all.targets, all.bytes), (1, 1_040_298, 1_040_297, 2_504_867));
    // Others count 901 in the same stream without its first BOS.
    assert_eq!(all.documents, 902);
    let head = data.scan(0, |all| tokenizer.tables().stream_bytes(all.take(131_072))).unwrap();
    assert_eq!(head, 315_257);
    let first: Vec<u16> = data.scan(0, |all| all.take(8).collect()).unwrap();
    assert_eq!(first, [1, 966, 945, 946, 343, 551, 795, 954]);
}
