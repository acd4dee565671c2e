//! Which programs stand for those of a run, and at which shapes.
//!
//! A program is validated at the least batch and time at which its kernels are of the real program's kind, with every
//! width kept: a fault of a plan depends on how ops lie to each other, not on how many tokens there are. Optimisers run
//! on a layout with a few matrices of each bank and short flat banks. Nothing is compiled here.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use pg_ir::lang::layout::{BankKind, Layout};
use pg_ir::lang::model::Model;
use pg_ir::lang::{Head, Trace};

use crate::session::{Key, Session};

/// Sequences: with one, a program that mixes them up would look right.
const BATCH: usize = 2;

/// Tokens of a sequence, if there are as many: with fewer the processor does not use its tensor cores, and small
/// activations are fused that would not be at their real size.
const TIME: usize = 64;

/// The same where kernels are generated: two tiles of queries, and more blocks of keys than are on their way at once.
const TIME_OF_TILES: usize = 256;

/// Matrices of a bank, the fewest and the most: two show a stride between them, and of several a thread takes each.
const MATRICES: [usize; 2] = [2, 8];

/// Elements of a bank of more than the fewest matrices.
const SMALL_BANK: usize = 1 << 19;

/// Elements of each member of a flat bank: no multiple of a vector, and so many that long rows are cut.
const FLAT: usize = 40_009;

/// Programs that run one after the other on one state: a step's first micro-batch and another one, or a single one.
#[derive(Clone, PartialEq, Debug)]
pub struct Chain {
    /// The programs, each at the shape at which it is validated.
    pub keys: Vec<Key>,
    /// The run's programs that each of them stands for.
    pub stands_for: Vec<Vec<Key>>,
}

/// A model, whole or with fewer parameters, and the programs of it that are validated.
pub struct Subject {
    /// Nothing is compiled yet.
    pub session: Session,
    /// The programs.
    pub chains: Vec<Chain>,
}

impl Subject {
    /// Every program, each once.
    pub fn programs(&self) -> Vec<Key> {
        self.chains.iter().flat_map(|chain| chain.keys.iter().copied()).collect()
    }
}

/// What stands for some programs of a session.
pub fn subjects(session: &Session, programs: &[Key]) -> Vec<Subject> {
    let mut whole = Shapes::default();
    let mut reduced = Shapes::default();
    for &key in programs {
        match key {
            Key::Update | Key::Adapt => reduced.add(key, key),
            _ => whole.add(key, least(session, key)),
        }
    }
    let like = |model: Arc<Model>| {
        let device = session.device().clone();
        Session::on(device, model, Default::default()).storing(session.storage())
    };
    let mut all = Vec::new();
    if !whole.0.is_empty() {
        all.push(Subject { session: like(session.model.clone()), chains: whole.chains() });
    }
    if !reduced.0.is_empty() {
        let model = Arc::new(with_fewer_parameters(&session.model));
        all.push(Subject { session: like(model), chains: reduced.chains() });
    }
    all
}

/// Validated programs with those that they stand for.
#[derive(Default)]
struct Shapes(IndexMap<Key, IndexSet<Key>>);

impl Shapes {
    fn add(&mut self, real: Key, stands_in: Key) {
        if let Some(first) = stands_in.first() {
            // It runs on what the first one left.
            self.0.entry(first).or_default();
        }
        self.0.entry(stands_in).or_default().insert(real);
    }

    fn chains(self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Vec::new();
        for (key, real) in self.0 {
            let real: Vec<Key> = real.into_iter().collect();
            let first = key.first();
            match chains.iter_mut().find(|c| first.is_some_and(|first| c.keys == [first])) {
                Some(chain) => {
                    chain.keys.push(key);
                    chain.stands_for.push(real);
                }
                None => chains.push(Chain { keys: vec![key], stands_for: vec![real] }),
            }
        }
        chains
    }
}

/// The same program at the least shape.
fn least(session: &Session, key: Key) -> Key {
    let Some((batch, seq)) = key.shape() else { return key };
    let batch = batch.min(BATCH);
    let step = if session.device().runs_plans_as_they_are() { TIME } else { TIME_OF_TILES };
    let times = (1..).map(|i| i * step).take_while(|&time| time < seq);
    // A model may ask for more tokens than that, or for a number that something divides.
    let seq = times.into_iter().find(|&seq| traces(session, key, (batch, seq))).unwrap_or(seq);
    key.at(batch, seq)
}

/// Whether the model has the program at a shape.
fn traces(session: &Session, key: Key, (batch, seq): (usize, usize)) -> bool {
    let last = session.model.phases.len() - 1;
    let (phase, qat, head) = match key {
        Key::Grad { phase, qat, .. } => (phase, qat, Head::Loss),
        Key::ScoreGrad { qat, .. } => (last, qat, Head::MeanNll),
        Key::Score { qat, .. } => (last, qat, Head::Nll),
        Key::Logits { qat, .. } => (last, qat, Head::Logits),
        Key::Update | Key::Adapt => return true,
    };
    session.model.trace(&Trace { phase, batch, seq, qat, head }).is_ok()
}

/// The model, for its optimisers only.
fn with_fewer_parameters(model: &Model) -> Model {
    let mut model = model.clone();
    let layout = Layout::new(&model);
    let mut kept: IndexSet<&str> = IndexSet::new();
    for bank in &layout.banks {
        let frozen = |name: &String| model.params[name].ttt_frozen;
        let most = match bank.kind {
            BankKind::Matrices { rows, cols, .. } => {
                (SMALL_BANK / (rows * cols)).clamp(MATRICES[0], MATRICES[1])
            }
            BankKind::Flat { .. } => usize::MAX,
        };
        for (i, name) in bank.members.iter().enumerate() {
            // Test-time training takes frozen and other members apart.
            let is_first = bank.members[..i].iter().all(|other| frozen(other) != frozen(name));
            if i < most || is_first {
                kept.insert(name);
            }
        }
    }
    let is_flat = |name: &str| {
        let bank = layout.position(name).map(|at| layout.banks[at.bank].kind);
        matches!(bank, Some(BankKind::Flat { .. }))
    };
    model.params.retain(|name, param| {
        if is_flat(name) && param.len() > FLAT {
            param.shape = vec![FLAT];
        }
        kept.contains(name.as_str())
    });
    model
}
