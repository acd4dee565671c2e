//! What the instructions of a compiled kernel say against what its plan says of it: every warp can be followed, products
//! multiply what the plan counts, and nothing takes several times its roofline without a reason that stands here.

use pg_codegen::cuda::Compiled;
use pg_codegen::kernels::Entry;
use pg_codegen::machine::H100;

/// How often the time at peak rates a kernel's instructions may take.
const MOST: f64 = 3.0;

/// Families that take more, what those of them compute, and why.
const SLOW: &[(&str, &str, &str)] = &[
    ("flash", "attention", "an exponential of eight instructions, and masks on every block"),
    (
        "flash_dkv",
        "attention_grad",
        "operands of mma.sync pass shared memory; the two passes run 7 products for 5",
    ),
    (
        "flash_dq",
        "attention_grad",
        "operands of mma.sync pass shared memory; the two passes run 7 products for 5",
    ),
    ("region", "cast×4 max sqrt div mul×5 sum×2 add×2", "each element is divided, by IEEE's rules"),
    ("histogram", "scatter_add", "each id is compared with the others of its segment"),
];

/// Families whose control flow depends on data.
const DATA: &[&str] = &["segment_sum", "segment_fixup"];

/// What is wrong with a kernel's instructions, if anything.
pub(crate) fn fault(entry: &Entry, place: &str, compiled: &Compiled) -> Result<(), String> {
    let family = entry.kernel.name().rsplit_once('_').map_or("", |(family, _)| family);
    let launches = entry.launches.len() as f64;
    let bound = compiled.walked(entry, &H100).map_err(|e| e.to_string())?.bound;
    if bound.assumed_branches > 0 && !DATA.contains(&family) {
        return Err(format!("{} branches depend on data", bound.assumed_branches));
    }
    let (useful, executed) = (entry.flops / launches, bound.executed_flops);
    // Sampled thread blocks stand for all.
    if matches!(family, "mma" | "flash" | "flash_dq" | "flash_dkv") && executed < 0.97 * useful {
        return Err(format!("{executed:e} operations executed of {useful:e}"));
    }
    let roofline = entry.seconds / launches;
    let times = bound.seconds / roofline;
    if times > MOST && !SLOW.iter().any(|(slow, computes, _)| *slow == family && place.ends_with(computes)) {
        let (pipe, micro) = (bound.pipe, 1e6 * bound.seconds);
        return Err(format!("{micro:.1} us by {pipe}, {times:.1} times its roofline"));
    }
    Ok(())
}
