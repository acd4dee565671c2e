//! Mutated texts of models, of the standard library and of graphs: nothing panics, nothing overflows the smallest stack
//! that a caller has, and everything ends. `PG_SEEDS=N` asks for more of them.

use pg_fuzz::mutate::{Corpus, Outcome};
use pg_testing::files::model_files;

const SEEDS: u64 = 300;

#[test]
fn mutated_texts_end_in_a_model_or_in_findings() {
    let given = std::env::var("PG_SEEDS").ok();
    let seeds = given.map_or(SEEDS, |n| n.parse().unwrap_or_else(|e| panic!("PG_SEEDS={n}: {e}")));
    let all = move || {
        let read = |path: std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        };
        let files: Vec<(String, String)> = model_files().into_iter().map(read).collect();
        let corpus = Corpus::new(&files);
        let mut accepted = [0, 0];
        for seed in 0..seeds {
            let outcomes = [corpus.model(seed, &files), corpus.graph(seed)];
            accepted.iter_mut().zip(outcomes).for_each(|(n, o)| *n += u64::from(o == Outcome::Accepted));
        }
        println!("of {seeds} texts each, {} models and {} graphs", accepted[0], accepted[1]);
        // Mutations that nothing survives, or everything, show little.
        for n in accepted {
            assert!((seeds / 100..seeds).contains(&n), "{n} of {seeds}");
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(all).unwrap().join().unwrap();
}
