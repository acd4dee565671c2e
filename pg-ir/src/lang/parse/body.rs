//! Bodies: statements and patterns. They read as Rust's do; what the language does not have is one clear error each.

use super::{Parsed, Parser};
use crate::lang::ast::*;
use crate::lang::token::Kind;

/// What begins an item of Rust.
const ITEMS: [&str; 11] =
    ["fn", "const", "static", "struct", "enum", "use", "mod", "impl", "trait", "type", "pub"];

/// A statement as read.
enum Read {
    Stmt(Stmt),
    /// An expression without a semicolon at the end of its body.
    Value(Expr),
}

impl Parser<'_> {
    /// A braced group of statements.
    pub(super) fn body(&mut self) -> Parsed<Body> {
        let start = self.at;
        self.open('{')?;
        let (stmts, value) = self.statements()?;
        self.close("`}`")?;
        let heights = stmts.iter().map(Stmt::height).chain(value.iter().map(|e| e.height));
        let height = heights.max().unwrap_or(0);
        Ok(Body { stmts, value: value.map(Box::new), span: self.span_from(start), height })
    }

    fn statements(&mut self) -> Parsed<(Vec<Stmt>, Option<Expr>)> {
        let mut stmts = Vec::new();
        let mut value = None;
        while !self.is_end() {
            if self.take(";") {
                continue;
            }
            let start = self.at;
            match self.statement() {
                Ok(Read::Stmt(stmt)) => stmts.push(stmt),
                Ok(Read::Value(e)) => value = Some(e),
                Err(_) => self.skip(start, false),
            }
        }
        Ok((stmts, value))
    }

    fn statement(&mut self) -> Parsed<Read> {
        match self.peek() {
            Some(Kind::Word(word)) if **word == *"let" => self.binding(),
            Some(Kind::Word(word)) if **word == *"for" => self.for_loop().map(Read::Stmt),
            Some(Kind::Word(word)) if ITEMS.contains(&&**word) => self.misplaced_item(),
            _ => self.expression_statement(),
        }
    }

    /// `let pattern = value;`
    fn binding(&mut self) -> Parsed<Read> {
        self.expect("let")?;
        let pattern = self.pattern()?;
        if self.is_punct(";") {
            return self.refuse_here("`let` needs a value", "");
        }
        self.expect("=")?;
        let value = self.expr()?;
        self.expect(";")?;
        Ok(Read::Stmt(Stmt::Let { pattern, value }))
    }

    fn misplaced_item(&mut self) -> Parsed<Read> {
        let help = "functions and constants stand beside `fn forward`, not inside a body";
        self.unsupported("an item inside a function body", help, true).map(Stmt::Expr).map(Read::Stmt)
    }

    /// `for pattern in items { … }`
    pub(super) fn for_loop(&mut self) -> Parsed<Stmt> {
        self.deeper(|p| {
            p.expect("for")?;
            let pattern = p.pattern()?;
            p.expect("in")?;
            let items = p.expr()?;
            Ok(Stmt::For { pattern, items, body: p.body()? })
        })
    }

    /// An expression, an assignment, or the body's value.
    fn expression_statement(&mut self) -> Parsed<Read> {
        let (e, is_complete) = self.statement_expr()?;
        match self.assignment() {
            Some(op) if !is_complete => self.assigned(e, op),
            _ if self.is_end() => Ok(Read::Value(e)),
            _ if is_complete => Ok(Read::Stmt(Stmt::Expr(e))),
            _ => self.end_of_statement(Stmt::Expr(e)),
        }
    }

    /// `= value;` behind what is assigned.
    fn assigned(&mut self, to: Expr, op: Option<BinOp>) -> Parsed<Read> {
        self.at += 1;
        let value = self.expr()?;
        let ExprKind::Name(text) = to.kind else {
            let message = "only a `let mut` name can be assigned";
            return self.refuse(&to.span, message, "lists are values: push to them");
        };
        let name = Name { text, span: to.span };
        self.end_of_statement(Stmt::Assign { name, op, value })
    }

    fn end_of_statement(&mut self, stmt: Stmt) -> Parsed<Read> {
        if !self.is_end() && !self.take(";") {
            let is_next_line = self.at > 0 && self.tokens[self.at - 1].end.0 < self.here().start.0;
            return if is_next_line { self.forgotten(";") } else { self.expected("an operator, `;` or `}`") };
        }
        Ok(Read::Stmt(stmt))
    }

    /// Whether an assignment follows, and of which kind.
    fn assignment(&self) -> Option<Option<BinOp>> {
        let Some(Kind::Punct(op)) = self.peek() else { return None };
        Some(match *op {
            "=" => None,
            "+=" => Some(BinOp::Add),
            "-=" => Some(BinOp::Sub),
            "*=" => Some(BinOp::Mul),
            "/=" => Some(BinOp::Div),
            "%=" => Some(BinOp::Rem),
            _ => return None,
        })
    }

    /// What `let`, `for` and a closure bind.
    pub(super) fn pattern(&mut self) -> Parsed<Pattern> {
        self.deeper(Self::pattern_here)
    }

    fn pattern_here(&mut self) -> Parsed<Pattern> {
        let start = self.at;
        let mutable = self.take("mut");
        match self.peek() {
            Some(Kind::Word(text)) if **text == *"_" => {
                self.at += 1;
                Ok(Pattern::Ignore)
            }
            Some(Kind::Word(_)) => Ok(Pattern::Bind { name: self.name()?, mutable }),
            Some(Kind::Open('(' | '[')) if !mutable => {
                let is_tuple = self.is(&Kind::Open('('));
                self.at += 1;
                let (mut patterns, comma) = self.list(Self::pattern)?;
                self.close("`)` or `]`")?;
                match patterns.pop() {
                    Some(one) if is_tuple && patterns.is_empty() && !comma => Ok(one),
                    last => {
                        patterns.extend(last);
                        Ok(Pattern::List(patterns, self.span_from(start)))
                    }
                }
            }
            _ => self.expected("a name, `_`, or a list of names"),
        }
    }

    /// Entries up to the end of a group with commas between them, and whether a comma ends them.
    pub(super) fn list<T>(
        &mut self,
        mut entry: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<(Vec<T>, bool)> {
        let mut entries = Vec::new();
        let mut comma = false;
        while !self.is_end() {
            entries.push(entry(self)?);
            comma = self.take(",");
            if !comma && !self.is_end() {
                return self.expected("`,` or the end of the list");
            }
        }
        Ok((entries, comma))
    }
}
