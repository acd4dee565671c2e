//! From a text that fails to the least one that still does: statements go, expressions give way to their operands,
//! calls, loops and scopes to what is in them, sizes fall. What stays fails in the same way, by the same check.

use crate::text::walk::{below, blocks, reads, replace, with_block, with_expr};
use crate::text::{Block, Expr, Node, Stmt, Text, Ty};

/// Shrinks a text as long as `fails` holds of it and there are trials left. `fails` says no to what pg refuses.
pub fn shrink(text: &Text, trials: usize, fails: impl FnMut(&Text) -> bool) -> Text {
    let mut shrinker = Shrinker { text: text.clone(), fails, left: trials };
    loop {
        let before = shrinker.text.clone();
        shrinker.settings();
        shrinker.statements();
        shrinker.structure();
        shrinker.expressions();
        shrinker.sizes();
        if shrinker.text == before || shrinker.left == 0 {
            return shrinker.text;
        }
    }
}

struct Shrinker<F> {
    text: Text,
    fails: F,
    left: usize,
}

impl<F: FnMut(&Text) -> bool> Shrinker<F> {
    /// Takes a candidate if it is another text and still fails.
    fn attempt(&mut self, candidate: Text) -> bool {
        if self.left == 0 || candidate == self.text {
            return false;
        }
        self.left -= 1;
        let is_taken = (self.fails)(&candidate);
        if is_taken {
            self.text = candidate;
        }
        is_taken
    }

    fn change(&mut self, f: impl FnOnce(&mut Text)) -> bool {
        let mut candidate = self.text.clone();
        f(&mut candidate);
        self.attempt(candidate)
    }

    /// Blocks beside the functions, and functions that nothing calls.
    fn settings(&mut self) {
        self.change(|t| {
            t.quant.clear();
            t.phases.clear();
            t.ttt = None;
            t.optim.truncate(1);
            t.functions.retain(|f| f.name != "loss");
            t.train.retain(|(n, _)| n != "grad_clip" && n != "ema_decay");
        });
        self.change(|t| t.functions.retain(|f| f.name != "loss"));
        self.change(|t| t.phases.clear());
        self.change(|t| t.ttt = None);
        self.change(|t| t.train.retain(|(n, _)| n != "grad_clip"));
        self.change(|t| t.train.retain(|(n, _)| n != "ema_decay"));
        for i in (0..self.text.quant.len()).rev() {
            self.change(|t| drop(t.quant.remove(i)));
        }
        for i in (1..self.text.optim.len()).rev() {
            self.change(|t| drop(t.optim.remove(i)));
        }
        for i in (0..self.text.functions.len()).rev() {
            if !matches!(&*self.text.functions[i].name, "forward" | "loss") {
                self.change(|t| drop(t.functions.remove(i)));
            }
        }
        for i in (0..self.text.consts.len()).rev() {
            self.change(|t| drop(t.consts.remove(i)));
        }
    }

    /// Statements, many at a time and then one by one, last first.
    fn statements(&mut self) {
        for many in [8, 4, 2, 1] {
            let mut number = 0;
            while let Some(count) = with_block(&mut self.text, number, |b, _| b.stmts.len()) {
                let mut end = count;
                while end > 0 {
                    let start = end.saturating_sub(many);
                    if let Some(candidate) = self.without(number, start, end) {
                        self.attempt(candidate);
                    }
                    end = start;
                }
                number += 1;
            }
        }
    }

    /// The text without some statements of a block; what they bound gives way to what is there before them.
    fn without(&self, number: usize, start: usize, end: usize) -> Option<Text> {
        let mut text = self.text.clone();
        let (gone, function) =
            with_block(&mut text, number, |b, i| (b.stmts.drain(start..end).collect::<Vec<_>>(), i))?;
        let known = known(&self.text, function);
        let body = &mut text.functions[function].body;
        for stmt in gone.iter().rev() {
            let Stmt::Let { names, value } = stmt else { continue };
            for (name, _) in names {
                if reads(body, name) == 0 {
                    continue;
                }
                let at = known.iter().position(|(n, _)| n == name)?;
                let instead = known[..at].iter().rev().find(|(n, ty)| {
                    let is_gone = gone.iter().any(|s| binds(s, n));
                    *ty == value.ty && !is_gone
                });
                // Or what it was made of.
                let instead = match instead {
                    Some((n, ty)) => Expr::var(n, ty.clone()),
                    None => below(value, &value.ty).pop()?,
                };
                replace(body, name, &instead);
            }
        }
        Some(text)
    }

    /// Loops, conditions, scopes, blocks and calls give way to what is in them.
    fn structure(&mut self) {
        let mut number = 0;
        while let Some(count) = with_block(&mut self.text, number, |b, _| b.stmts.len()) {
            for at in (0..count).rev() {
                let mut text = self.text.clone();
                let changed = with_block(&mut text, number, |b, _| opened(b, at));
                if changed == Some(true) {
                    self.attempt(text);
                }
            }
            number += 1;
        }
        let mut number = 0;
        loop {
            let functions = self.text.functions.clone();
            let mut text = self.text.clone();
            let changed = with_expr(&mut text, number, |e| {
                match &mut e.node {
                    Node::If(_, then, _) => Some(Node::Block(std::mem::take(then))),
                    Node::Scope(_, _, body) => Some(Node::Block(std::mem::take(body))),
                    Node::Block(body) if body.stmts.is_empty() => body.value.take().map(|v| v.node),
                    Node::Call(name, args) => {
                        let function = functions.iter().find(|f| f.name == *name)?;
                        let mut body = function.body.clone();
                        let given = function.params.iter().zip(args.iter());
                        for ((param, _), (_, arg)) in given {
                            replace(&mut body, param, arg);
                        }
                        Some(Node::Block(body))
                    }
                    _ => None,
                }
                .map(|node| e.node = node)
            });
            match changed {
                None => break,
                Some(None) => number += 1,
                Some(Some(())) => {
                    if !self.attempt(text) {
                        number += 1;
                    }
                }
            }
        }
    }

    /// Expressions give way to what they are made of, or to a variable.
    fn expressions(&mut self) {
        let mut number = 0;
        while let Some(e) = with_expr(&mut self.text, number, |e| e.clone()) {
            number += 1;
            if !matches!(e.ty, Ty::Tensor(_)) || matches!(e.node, Node::Var(_)) {
                continue;
            }
            let mut instead = below(&e, &e.ty);
            // The smallest first.
            instead.reverse();
            for smaller in instead {
                let mut text = self.text.clone();
                with_expr(&mut text, number - 1, |e| *e = smaller);
                if self.attempt(text) {
                    number -= 1;
                    break;
                }
            }
        }
    }

    /// Constants, batch and length.
    fn sizes(&mut self) {
        for i in 0..self.text.consts.len() {
            for value in ["1", "2", "3", "4", "8"] {
                let is_smaller = match self.text.consts[i].1.parse::<usize>() {
                    Ok(now) => value.parse().is_ok_and(|v: usize| v < now),
                    Err(_) => !self.text.consts[i].1.contains('.'),
                };
                if is_smaller && self.change(|t| t.consts[i].1 = value.into()) {
                    break;
                }
            }
        }
        let setting = |t: &Text, name: &str| -> Option<usize> {
            t.train.iter().find(|(n, _)| n == name)?.1.parse().ok()
        };
        let (Some(seq), Some(micro)) =
            (setting(&self.text, "seq_len"), setting(&self.text, "micro_batch_tokens"))
        else {
            return;
        };
        let batch = (micro / seq.max(1)).max(1);
        for (b, t) in
            [(1, 1), (1, 2), (2, 1), (1, 3), (1, 4), (2, 2), (1, seq), (batch, 2), (batch, 3), (batch, 4)]
        {
            if b * t < micro && b <= batch && t <= seq {
                let is_taken = self.change(|text| {
                    text.set_train("batch_tokens", b * t);
                    text.set_train("micro_batch_tokens", b * t);
                    text.set_train("seq_len", t);
                });
                if is_taken {
                    break;
                }
            }
        }
    }
}

fn binds(stmt: &Stmt, name: &str) -> bool {
    matches!(stmt, Stmt::Let { names, .. } if names.iter().any(|(n, _)| n == name))
}

/// Variables of a function with their types, in the order in which they are bound.
fn known(text: &Text, function: usize) -> Vec<(String, Ty)> {
    let mut function = text.functions[function].clone();
    let mut all = function.params.clone();
    blocks(&mut function.body, &mut |block| {
        for stmt in &block.stmts {
            if let Stmt::Let { names, value } = stmt
                && let [(name, _)] = &names[..]
            {
                all.push((name.clone(), value.ty.clone()));
            }
        }
        false
    });
    all
}

/// Takes the statements out of a loop, which then run once, or out of a block that a name is bound to.
fn opened(block: &mut Block, at: usize) -> bool {
    match &mut block.stmts[at] {
        Stmt::For(name, _, body) => {
            let mut body = std::mem::take(body);
            replace(&mut body, name, &Expr::text(0));
            let name = format!("{{{name}}}");
            // Paths name the loop's variable.
            crate::text::walk::exprs(&mut body, &mut |e| {
                if let Node::Scope(path, ..) = &mut e.node {
                    *path = path.replace(&name, "0");
                }
                false
            });
            block.stmts.splice(at..=at, body.stmts);
            true
        }
        Stmt::Let { value, .. } | Stmt::Assign(_, _, value) => {
            let Node::Block(inner) = &mut value.node else { return false };
            let Some(last) = inner.value.take() else { return false };
            let stmts = std::mem::take(&mut inner.stmts);
            *value = *last;
            block.stmts.splice(at..at, stmts);
            true
        }
        Stmt::Do(_) => false,
    }
}
