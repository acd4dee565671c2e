//! Walks over texts: every block and every expression, in the order in which they are written. A visitor that says
//! so ends the walk.

use super::{Block, Expr, Node, Stmt, Text, Ty};

/// Goes on, or has seen enough.
pub type Enough = bool;

/// Visits an expression and all below it, outermost first.
pub fn exprs_of(e: &mut Expr, f: &mut dyn FnMut(&mut Expr) -> Enough) -> Enough {
    f(e) || parts(e, &mut |part| match part {
        Part::Expr(e) => exprs_of(e, f),
        Part::Block(b) => exprs(b, f),
    })
}

/// Visits every expression of a block.
pub fn exprs(block: &mut Block, f: &mut dyn FnMut(&mut Expr) -> Enough) -> Enough {
    let mut stmts = block.stmts.iter_mut();
    stmts.any(|stmt| match stmt {
        Stmt::Let { value, .. } | Stmt::Assign(_, _, value) | Stmt::Do(value) => exprs_of(value, f),
        Stmt::For(_, items, body) => exprs_of(items, f) || exprs(body, f),
    }) || block.value.as_mut().is_some_and(|value| exprs_of(value, f))
}

/// Visits every block of a block, itself first.
pub fn blocks(block: &mut Block, f: &mut dyn FnMut(&mut Block) -> Enough) -> Enough {
    if f(block) {
        return true;
    }
    let mut stmts = block.stmts.iter_mut();
    stmts.any(|stmt| match stmt {
        Stmt::Let { value, .. } | Stmt::Assign(_, _, value) | Stmt::Do(value) => blocks_of(value, f),
        Stmt::For(_, items, body) => blocks_of(items, f) || blocks(body, f),
    }) || block.value.as_mut().is_some_and(|value| blocks_of(value, f))
}

fn blocks_of(e: &mut Expr, f: &mut dyn FnMut(&mut Block) -> Enough) -> Enough {
    parts(e, &mut |part| match part {
        Part::Expr(e) => blocks_of(e, f),
        Part::Block(b) => blocks(b, f),
    })
}

/// What an expression is made of.
enum Part<'a> {
    Expr(&'a mut Expr),
    Block(&'a mut Block),
}

fn parts(e: &mut Expr, f: &mut dyn FnMut(Part<'_>) -> Enough) -> Enough {
    match &mut e.node {
        Node::Var(_) | Node::Text(_) => false,
        Node::Call(_, args) => args.iter_mut().any(|(_, a)| f(Part::Expr(a))),
        Node::Method(x, _, args) => f(Part::Expr(x)) || args.iter_mut().any(|a| f(Part::Expr(a))),
        Node::Binary(_, a, b) | Node::Index(a, b) => f(Part::Expr(a)) || f(Part::Expr(b)),
        Node::Minus(x) | Node::Closure(_, x) => f(Part::Expr(x)),
        Node::List(items) => items.iter_mut().any(|e| f(Part::Expr(e))),
        Node::If(cond, then, otherwise) => {
            f(Part::Expr(cond)) || f(Part::Block(then)) || f(Part::Block(otherwise))
        }
        Node::Scope(_, _, body) | Node::Block(body) => f(Part::Block(body)),
    }
}

/// Calls `f` with the expression of this number, in the order of the text; nothing where there are fewer.
pub fn with_expr<T>(text: &mut Text, number: usize, f: impl FnOnce(&mut Expr) -> T) -> Option<T> {
    let (mut left, mut f, mut result) = (number, Some(f), None);
    for function in &mut text.functions {
        exprs(&mut function.body, &mut |e| {
            if left == 0 {
                result = f.take().map(|f| f(e));
                return true;
            }
            left -= 1;
            false
        });
        if result.is_some() {
            break;
        }
    }
    result
}

/// Calls `f` with the block of this number and the number of the function that it is part of.
pub fn with_block<T>(text: &mut Text, number: usize, f: impl FnOnce(&mut Block, usize) -> T) -> Option<T> {
    let (mut left, mut f, mut result) = (number, Some(f), None);
    for (i, function) in text.functions.iter_mut().enumerate() {
        blocks(&mut function.body, &mut |b| {
            if left == 0 {
                result = f.take().map(|f| f(b, i));
                return true;
            }
            left -= 1;
            false
        });
        if result.is_some() {
            break;
        }
    }
    result
}

/// How often a block reads a variable.
pub fn reads(block: &mut Block, name: &str) -> usize {
    let mut count = 0;
    exprs(block, &mut |e| {
        count += usize::from(matches!(&e.node, Node::Var(n) if n == name));
        false
    });
    count
}

/// Puts an expression in the place of a variable.
pub fn replace(block: &mut Block, name: &str, by: &Expr) {
    exprs(block, &mut |e| {
        if matches!(&e.node, Node::Var(n) if n == name) {
            *e = by.clone();
        }
        false
    });
}

/// Every expression of a type strictly below one, nearest first.
pub fn below(e: &Expr, ty: &Ty) -> Vec<Expr> {
    let mut found = Vec::new();
    let mut copy = e.clone();
    let mut is_first = true;
    exprs_of(&mut copy, &mut |inner| {
        if !std::mem::take(&mut is_first) && inner.ty == *ty {
            found.push(inner.clone());
        }
        false
    });
    found
}
