//! Random regions against their meaning in float64.

use pg_codegen::plan::Kernel;
use pg_codegen::region::interp;
use pg_fuzz::regions::{Limits, TOLERANCE, assert_all_met, case, census};

use super::{Data, assert_close, launch_all};

#[test]
fn random_regions_agree_with_their_meaning() {
    let cases: Vec<_> = (0..400).map(|seed| case(seed, Limits::default())).collect();
    for (seed, case) in cases.iter().enumerate() {
        let data: Vec<Data> =
            case.region.args.iter().zip(&case.args).map(|(&dtype, x)| Data::of(dtype, x)).collect();
        let mut want = case.args.clone();
        interp::run(&case.region, &mut want);
        let have = launch_all(&Kernel::Region(case.region.clone()), &data);
        for (i, (have, want)) in have.iter().zip(&want).enumerate().skip(case.loaded) {
            let close = std::panic::catch_unwind(|| assert_close(have.f32(), want, TOLERANCE));
            assert!(close.is_ok(), "seed {seed}, argument {i}: {}", case.region);
        }
    }
    assert_all_met(&census(cases.iter().map(|case| &case.region)), 50);
}
