//! The proof of causality against random graphs: seeds 0 to 5999, or `PG_CAUSALITY_SEEDS=FROM..TO`. What it accepts does not
//! leak, and it accepts and refuses enough for that to mean something.

use pg_fuzz::causality::search;
use pg_fuzz::search::parse_seeds;

#[test]
fn accepted_graphs_do_not_leak() {
    let given = std::env::var("PG_CAUSALITY_SEEDS");
    let seeds = given.as_deref().unwrap_or("0..6000");
    let (from, to) = parse_seeds(seeds).unwrap_or_else(|e| panic!("PG_CAUSALITY_SEEDS: {e}"));
    let totals = search(from..to);
    println!("{totals}");
    assert!(totals.leaks.is_empty(), "{totals}");
    assert_eq!(totals.graphs, to - from);
    if given.is_err() {
        let [refused, silent] = totals.refused_in_all();
        assert!(totals.accepted > 1500 && totals.accepted_tables > 750, "{totals}");
        // Leaks are there to be found, and a proof that refuses whatever has a mask is noticed.
        assert!(refused > 1500 && silent < refused / 2, "{totals}");
    }
}
