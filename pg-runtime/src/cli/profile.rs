//! `pg profile`: the time of a training step, launch by launch.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use pg_codegen::report::summary::generalise;
use pg_runtime::artifact::write_atomically;
use pg_runtime::device::DeviceName;
use pg_runtime::profile::{self, LaunchTime, Profile, ProfileOptions};
use pg_runtime::session::Session;

use super::devices::DeviceArgs;
use super::format::{counted, table, table_without};
use super::model::{ModelArgs, PrecisionArgs};
use super::run::count;
use super::ui::Ui;

/// Arguments of `pg profile`.
#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Sequences of a micro-batch [default: the model's; without CUDA at most 2048 tokens].
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<usize>,
    /// Tokens of a sequence [default: the model's].
    #[arg(long, value_name = "N", value_parser = count)]
    seq_len: Option<usize>,
    /// Micro-batches of a step.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    micro_batches: usize,
    /// Phase of training, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    phase: usize,
    /// Steps to time, after two that are not.
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    steps: usize,
    /// Launches to list, the most expensive first.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Plan one kernel an op.
    #[arg(long)]
    no_fuse: bool,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Write the last step as a trace for Chrome (chrome://tracing) or Perfetto.
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// More tokens take long on a CPU and say nothing more.
const TOKENS: usize = 2048;

/// Profiles a model's training step.
pub(crate) fn profile(args: ProfileArgs, ui: &Ui) -> anyhow::Result<()> {
    let model = args.model.load(ui)?;
    let seq = args.seq_len.unwrap_or(model.train.seq_len);
    let device = args.device.open()?;
    let most = if matches!(device.name(), DeviceName::Cuda(_)) { usize::MAX } else { TOKENS };
    let tokens = model.train.micro_batch_tokens.min(most);
    let batch = args.batch.unwrap_or((tokens / seq).max(1));
    let phases = model.phases.len();
    anyhow::ensure!(
        args.phase < phases,
        "there is no phase {}: the model's are 0 to {}",
        args.phase,
        phases - 1
    );
    let fuse = pg_codegen::Options { fuse: !args.no_fuse, ..Default::default() };
    let session = Session::on(device, Arc::new(model), fuse);
    let mut session = args.precision.of(session);
    let (accumulation, phase, steps) = (args.micro_batches, args.phase, args.steps);
    let options = ProfileOptions { batch, seq, accumulation, phase, steps };
    ui.note(format_args!(
        "{} of {} tokens, and {} to warm up",
        counted(steps as u64, "step"),
        accumulation * batch * seq,
        profile::WARM_UP
    ));
    let profile = profile::profile(&mut session, options)?;
    if let Some(bundle) = session.device().bundle_report() {
        ui.note(bundle);
    }
    if let Some(path) = &args.trace {
        let text = profile::trace(&profile).to_string();
        write_atomically(path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    ui.report(&profile, || text(&profile, args.top))?;
    Ok(())
}

fn text(p: &Profile, top: usize) -> String {
    let mut out = String::new();
    let tokens = p.accumulation * p.batch * p.seq_len;
    let _ = writeln!(
        out,
        "{}: {:.0} ms a step of {} × {} × {} tokens (median of {}; {:.0} to {:.0} ms), {:.0} tokens/s, {} threads",
        p.model,
        p.ms_per_step,
        p.accumulation,
        p.batch,
        p.seq_len,
        p.steps,
        p.ms_range.0,
        p.ms_range.1,
        tokens as f64 / p.ms_per_step * 1e3,
        p.threads
    );
    let _ = writeln!(
        out,
        "{:.1} GFLOP and {:.2} GB a step: {:.0} GFLOP/s; a plain matrix product runs at {:.0} GFLOP/s here, a copy at {:.1} \
         GB/s; compiled in {:.2} s",
        p.flops / 1e9,
        p.bytes / 1e9,
        p.flops / p.ms_per_step / 1e6,
        p.roof.gemm_gflop_s,
        p.roof.copy_gb_s,
        p.compile_s
    );
    let _ = writeln!(
        out,
        "\nby kernel family\n{}",
        grouped(p, "family", |l| format!("{} {}", l.program, l.family))
    );
    let _ = writeln!(
        out,
        "\nby scope\n{}",
        grouped(p, "scope", |l| format!("{} {}", l.program, generalise(&l.scope)))
    );
    let _ = write!(out, "\nthe most expensive launches\n{}", launches(p, top));
    out
}

/// Sums of launches.
#[derive(Default)]
struct Sum {
    launches: usize,
    ms: f64,
    flops: f64,
    bytes: f64,
}

impl Sum {
    fn add(&mut self, l: &LaunchTime) {
        let count = l.count as f64;
        self.launches += l.count;
        self.ms += l.total_ms();
        self.flops += l.flops * count;
        self.bytes += l.bytes * count;
    }

    fn cells(&self, profile: &Profile) -> [String; 4] {
        [
            format!("{:.2}", self.ms),
            format!("{:.1} %", 100.0 * self.ms / profile.ms_per_step),
            format!("{:.1}", self.flops / self.ms / 1e6),
            format!("{:.1}", self.bytes / self.ms / 1e6),
        ]
    }
}

fn grouped(p: &Profile, what: &str, key: impl Fn(&LaunchTime) -> String) -> String {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    p.launches.iter().for_each(|l| sums.entry(key(l)).or_default().add(l));
    let mut sums: Vec<(String, Sum)> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.ms.total_cmp(&a.1.ms));
    let rows = sums
        .iter()
        .map(|(name, sum)| [vec![name.clone(), sum.launches.to_string()], sum.cells(p).to_vec()].concat());
    table(&[what, "launches", "ms", "share", "GFLOP/s", "GB/s"], &[1, 2, 3, 4, 5], rows.collect())
}

fn launches(p: &Profile, top: usize) -> String {
    let mut all: Vec<&LaunchTime> = p.launches.iter().collect();
    all.sort_by(|a, b| b.total_ms().total_cmp(&a.total_ms()));
    let rows = all.iter().take(top).map(|l| {
        let mut sum = Sum::default();
        sum.add(l);
        let place = format!("{} #{}", l.program, l.index);
        [vec![place, l.family.into()], sum.cells(p).to_vec(), vec![shortened(&l.note)]].concat()
    });
    let headings = ["launch", "family", "ms", "share", "GFLOP/s", "GB/s", "computes"];
    table_without(&headings, &[2, 3, 4, 5], &[5, 1], rows.collect())
}

/// Notes of large launches name every line of a block.
fn shortened(note: &str) -> String {
    const LONGEST: usize = 90;
    match note.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &note[..at]),
        None => note.into(),
    }
}
