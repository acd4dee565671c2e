//! Texts that must mean the same: sums in another order and association, functions written out or made of parts,
//! constants by their values, scopes under other names, loops written out. The front end and autodiff have no other
//! reference than themselves, so this is what they are held to.

use pg_ir::lang::model::Model;

use crate::rng::Rng;
use crate::rules;
use crate::text::walk::{blocks, exprs, exprs_of, replace};
use crate::text::{Block, Expr, Function, Node, Stmt, Text, Ty};

/// How a text is written another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Twin {
    /// a + b + c as a + (b + c), b + a as a + b, products likewise.
    Reassociated,
    /// Functions written out where they are called.
    Inlined,
    /// Statements as functions of their own.
    Outlined,
    /// Constants by their values.
    Folded,
    /// Every scope under another name.
    Renamed,
    /// Loops over ranges written out.
    Unrolled,
}

impl Twin {
    /// All of them.
    pub const ALL: [Twin; 6] =
        [Twin::Reassociated, Twin::Inlined, Twin::Outlined, Twin::Folded, Twin::Renamed, Twin::Unrolled];
}

/// The text without what names parameters by pattern: parameters may have other names in its twin.
pub fn plain(text: &Text) -> Text {
    let mut plain = text.clone();
    plain.quant.clear();
    plain.optim.truncate(1);
    plain
}

/// The text written another way; `None` where there is nothing to write so.
pub fn twin(how: Twin, text: &Text, seed: u64) -> Result<Option<String>, String> {
    let mut other = plain(text);
    let mut rng = Rng::of(seed, "twin");
    match how {
        Twin::Reassociated => every(&mut other, &mut |e| reassociate(e, &mut rng)),
        Twin::Inlined => inline(&mut other),
        Twin::Outlined => outline(&mut other, &mut rng),
        Twin::Folded => return folded(&other),
        Twin::Renamed => every(&mut other, &mut |e| {
            if let Node::Scope(path, ..) = &mut e.node {
                *path = format!("other_{path}");
            }
        }),
        Twin::Unrolled => {
            let lists = rules::elaborated(&other.to_string())?;
            unroll(&mut other, &lists);
        }
    }
    Ok((other != plain(text)).then(|| other.to_string()))
}

fn every(text: &mut Text, f: &mut dyn FnMut(&mut Expr)) {
    for function in &mut text.functions {
        exprs(&mut function.body, &mut |e| {
            f(e);
            false
        });
    }
}

// ---------------------------------------------------------------- sums and products

fn reassociate(e: &mut Expr, rng: &mut Rng) {
    let ty = e.ty.clone();
    let Node::Binary(op @ ("+" | "*"), a, b) = &mut e.node else { return };
    let op = *op;
    match (&mut a.node, &mut b.node) {
        // (x + y) + b is x + (y + b).
        (Node::Binary(inner, x, y), _) if *inner == op && !rng.once_in(3) => {
            let (x, y, b) = ((**x).clone(), (**y).clone(), (**b).clone());
            let right = Expr::new(ty, Node::Binary(op, Box::new(y), Box::new(b)));
            e.node = Node::Binary(op, Box::new(x), Box::new(right));
        }
        _ if rng.once_in(2) => std::mem::swap(a, b),
        _ => {}
    }
}

// ---------------------------------------------------------------- functions

/// Writes out every call of a function of the model, the entry points' aside.
fn inline(text: &mut Text) {
    let functions = text.functions.clone();
    let mut count = 0;
    // Helpers call helpers, two deep at most.
    for _ in 0..3 {
        every(text, &mut |e| {
            let Node::Call(name, args) = &e.node else { return };
            let Some(f) = functions.iter().find(|f| f.name == *name) else { return };
            let mut body = f.body.clone();
            let mut stmts = Vec::new();
            for ((param, ty), (_, arg)) in f.params.iter().zip(args) {
                count += 1;
                let name = format!("{param}_{count}");
                rename(&mut body, param, &name, ty);
                stmts.push(Stmt::bind(&name, arg.clone()));
            }
            stmts.append(&mut body.stmts);
            e.node = Node::Block(Block { stmts, value: body.value });
        });
    }
    text.functions.retain(|f| f.name == "forward" || f.name == "loss");
}

/// Another name for a variable, in paths and conditions, too.
fn rename(body: &mut Block, from: &str, to: &str, ty: &Ty) {
    replace(body, from, &Expr::var(to, ty.clone()));
    with_number(body, from, to);
}

/// Gives a number that is named in paths and conditions another name, or its value.
fn with_number(body: &mut Block, name: &str, value: &str) {
    exprs(body, &mut |e| {
        match &mut e.node {
            Node::Scope(path, ..) => *path = path.replace(&format!("{{{name}}}"), &format!("{{{value}}}")),
            Node::Text(text) => {
                if let Some(rest) = text.strip_prefix(&format!("{name} ")) {
                    *text = format!("{value} {rest}");
                }
            }
            _ => {}
        }
        false
    });
}

/// Makes functions of some statements of `forward`.
fn outline(text: &mut Text, rng: &mut Rng) {
    let Some(at) = text.functions.iter().position(|f| f.name == "forward") else { return };
    let mut known: Vec<(String, Ty)> = text.functions[at].params.clone();
    let mut made = Vec::new();
    for stmt in &mut text.functions[at].body.stmts {
        let Stmt::Let { names, value } = stmt else { continue };
        let [(name, mutable)] = &names[..] else { continue };
        let (mut reads, mut is_closed) = (Vec::new(), true);
        exprs_of(value, &mut |e| {
            match &e.node {
                Node::Var(v) if known.iter().any(|(n, _)| n == v) => {
                    let is_new = !reads.contains(v);
                    reads.extend(is_new.then(|| v.clone()));
                }
                // Bound inside, or of a kind that is not passed on.
                Node::Var(_) | Node::Closure(..) | Node::Block(_) | Node::Scope(..) | Node::If(..) => {
                    is_closed = false
                }
                _ => {}
            }
            false
        });
        if is_closed && !reads.is_empty() && matches!(value.ty, Ty::Tensor(_)) && rng.once_in(2) {
            let function = format!("part_{name}");
            let of = |v: &String| known.iter().find(|(n, _)| n == v).cloned();
            let params: Vec<(String, Ty)> = reads.iter().filter_map(of).collect();
            let args: Vec<Expr> = params.iter().map(|(n, ty)| Expr::var(n, ty.clone())).collect();
            let call = Expr::call(value.ty.clone(), &function, args);
            let body = Block::of(std::mem::replace(value, call));
            made.push(Function { name: function, params, body });
        }
        if !mutable {
            known.push((name.clone(), value.ty.clone()));
        }
    }
    text.functions.extend(made);
}

// ---------------------------------------------------------------- constants and loops

/// Numbers in the place of constants.
fn folded(text: &Text) -> Result<Option<String>, String> {
    let model = rules::elaborated(&text.to_string())?;
    let bare = Text { consts: Vec::new(), ..text.clone() };
    // A phase changes a constant, so that one stays.
    let mut kept = bare.clone();
    let is_kept = |name: &str| text.phases.iter().flat_map(|p| &p.settings).any(|(n, _)| n == name);
    kept.consts = text.consts.iter().filter(|(n, _)| is_kept(n)).cloned().collect();
    let written = kept.to_string();
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        match model.consts.get(word.as_str()) {
            Some(value) if !is_kept(word) => out.push_str(value),
            _ => out.push_str(word),
        }
        word.clear();
    };
    for c in written.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    Ok((!text.consts.is_empty()).then_some(out))
}

/// The text of a model with another value of a constant.
pub fn with_constant(text: &str, name: &str, value: usize) -> String {
    let start = format!("const {name} = ");
    let line = |line: &str| match line.split_once(&start) {
        Some((before, _)) => format!("{before}{start}{value};\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Writes out loops over ranges, and `unet`'s order as a list.
fn unroll(text: &mut Text, model: &Model) {
    let value = |bound: &str| -> Option<usize> {
        bound.parse().ok().or_else(|| model.consts.get(bound).and_then(|v| v.parse().ok()))
    };
    for function in &mut text.functions {
        blocks(&mut function.body, &mut |block| {
            let mut at = 0;
            while at < block.stmts.len() {
                let unrolled = match &block.stmts[at] {
                    Stmt::For(name, Expr { node: Node::Text(range), .. }, body) => range
                        .split_once("..")
                        .and_then(|(a, b)| Some((value(a)?, value(b)?)))
                        .map(|(a, b)| (a..b).flat_map(|i| turn(body, name, i)).collect::<Vec<Stmt>>()),
                    _ => None,
                };
                let count = unrolled.as_ref().map_or(1, Vec::len);
                if let Some(stmts) = unrolled {
                    block.stmts.splice(at..=at, stmts);
                }
                at += count;
            }
            false
        });
    }
}

/// One turn of a loop.
fn turn(body: &Block, name: &str, i: usize) -> Vec<Stmt> {
    let mut body = body.clone();
    with_number(&mut body, name, &i.to_string());
    replace(&mut body, name, &Expr::text(i));
    body.stmts
}
