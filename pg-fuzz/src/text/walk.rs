//! Walks over texts: every expression of a body, and which names it reads.

use super::{Block, Expr, Node, Stmt};

/// Calls `f` with every expression below and including one, outermost first.
pub fn each<'a>(e: &'a Expr, f: &mut dyn FnMut(&'a Expr)) {
    f(e);
    match &e.node {
        Node::Var(_) | Node::Text(_) => {}
        Node::Call(_, args) => args.iter().for_each(|(_, a)| each(a, f)),
        Node::Method(x, _, args) => {
            each(x, f);
            args.iter().for_each(|a| each(a, f));
        }
        Node::Binary(_, a, b) | Node::Index(a, b) => {
            each(a, f);
            each(b, f);
        }
        Node::Minus(x) | Node::Closure(_, x) => each(x, f),
        Node::List(items) => items.iter().for_each(|e| each(e, f)),
        Node::If(cond, then, otherwise) => {
            each(cond, f);
            each_of(then, f);
            each_of(otherwise, f);
        }
        Node::Scope(_, _, body) | Node::Block(body) => each_of(body, f),
    }
}

/// Calls `f` with every expression of a block.
pub fn each_of<'a>(block: &'a Block, f: &mut dyn FnMut(&'a Expr)) {
    for stmt in &block.stmts {
        match stmt {
            Stmt::Let { value, .. } | Stmt::Assign(_, _, value) | Stmt::Do(value) => each(value, f),
            Stmt::For(_, items, body) => {
                each(items, f);
                each_of(body, f);
            }
        }
    }
    if let Some(value) = &block.value {
        each(value, f);
    }
}
