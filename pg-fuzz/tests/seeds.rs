//! A fixed list of seeds, each through everything.

#[test]
fn first() {
    let seeds = std::env::var("PG_FUZZ_SEEDS").unwrap_or("0..40".into());
    let (from, to) = seeds.split_once("..").unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    for seed in from..to {
        let text = pg_fuzz::generate::model(seed).to_string();
        let report = pg_fuzz::harness::check(&text, seed, &Default::default());
        for f in &report.failures {
            println!("seed {seed}: {f}");
        }
        println!(
            "{seed} {:?} {} nf {} un {}",
            report.times, report.compared, report.not_finite, report.undecided
        );
        if std::env::var("PG_PRINT").is_ok() {
            println!("{text}");
        }
    }
}
