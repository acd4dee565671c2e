//! Expressions, by precedence climbing. Operators of one level in a row become one chain, which is as flat as it is
//! written.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::lang::ast::*;
use crate::lang::limits::{MAX_ARGUMENTS, MAX_NESTING};
use crate::lang::token::Kind;

/// Rust's keywords, which are no names.
const KEYWORDS: [&str; 39] = [
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false",
    "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return",
    "self", "Self", "static", "struct", "super", "trait", "true", "type", "unsafe", "use", "where", "while",
    "_",
];

/// What ends in braces, and with them a statement.
const BRACED: [&str; 6] = ["if", "while", "loop", "match", "unsafe", "async"];

/// An operator between two operands.
#[derive(Clone, Copy)]
enum Operator {
    Binary(BinOp),
    /// `&&` (true) or `||` (false).
    Logic(bool),
    /// One of Rust's that the language does not have.
    Unknown,
}

/// Comparisons do not chain.
const COMPARISON: u8 = 3;

/// Level of an operator, higher binds tighter.
fn operator(op: &str) -> Option<(u8, Operator)> {
    let binary = |level, op| (level, Operator::Binary(op));
    Some(match op {
        "||" => (1, Operator::Logic(false)),
        "&&" => (2, Operator::Logic(true)),
        "==" => binary(COMPARISON, BinOp::Eq),
        "!=" => binary(COMPARISON, BinOp::Ne),
        "<" => binary(COMPARISON, BinOp::Lt),
        "<=" => binary(COMPARISON, BinOp::Le),
        ">" => binary(COMPARISON, BinOp::Gt),
        ">=" => binary(COMPARISON, BinOp::Ge),
        "|" => (4, Operator::Unknown),
        "^" => (5, Operator::Unknown),
        "&" => (6, Operator::Unknown),
        "<<" | ">>" => (7, Operator::Unknown),
        "+" => binary(8, BinOp::Add),
        "-" => binary(8, BinOp::Sub),
        "*" => binary(9, BinOp::Mul),
        "/" => binary(9, BinOp::Div),
        "%" => binary(9, BinOp::Rem),
        _ => return None,
    })
}

impl Parser<'_> {
    /// One expression.
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let first = self.operators(0)?;
        self.range(start, first)
    }

    /// An expression at the start of a statement, and whether it ends the statement as it is: what ends in braces
    /// does, unless a method follows.
    pub(super) fn statement_expr(&mut self) -> Parsed<(Expr, bool)> {
        let is_block = self.is(&Kind::Open('{')) || BRACED.iter().any(|word| self.is_word(word));
        if !is_block && !self.is_word("scope") {
            return Ok((self.expr()?, false));
        }
        let start = self.at;
        let first = self.deeper(Self::operand)?;
        let is_complete = is_block || matches!(first.kind, ExprKind::Scope { .. });
        if is_complete && !self.is_punct(".") {
            Ok((first, true))
        } else {
            Ok((self.rest(start, first)?, false))
        }
    }

    /// Goes on behind the first operand of an expression that began at token `start`.
    fn rest(&mut self, start: usize, first: Expr) -> Parsed<Expr> {
        let first = self.links(start, first)?;
        let first = self.climb(start, first, 0)?;
        self.range(start, first)
    }

    fn range(&mut self, start: usize, first: Expr) -> Parsed<Expr> {
        if self.is_punct("..=") {
            return self.closed_range();
        }
        if !self.take("..") {
            return Ok(first);
        }
        let last = self.operators(0)?;
        self.node(ExprKind::Range(Box::new(first), Box::new(last)), self.span_from(start))
    }

    fn closed_range<T>(&mut self) -> Parsed<T> {
        self.refuse_here("ranges are `a..b`", "`b` itself is not in the range")
    }

    /// Operands with operators of level `least` or higher between them.
    fn operators(&mut self, least: u8) -> Parsed<Expr> {
        if self.depth >= MAX_NESTING {
            return self.too_deep(&self.here());
        }
        self.depth += 1;
        let start = self.at;
        let result = self.prefixed().and_then(|first| self.climb(start, first, least));
        self.depth -= 1;
        result
    }

    /// Goes on behind the first operand, which began at token `start`.
    fn climb(&mut self, start: usize, mut left: Expr, least: u8) -> Parsed<Expr> {
        while let Some((level, op)) = self.operator().filter(|(level, _)| *level >= least) {
            let kind = match op {
                Operator::Logic(and) => ExprKind::Logic(and, self.conditions(left, level)?),
                Operator::Binary(_) => ExprKind::Chain(Box::new(left), self.chain(start, level)?),
                Operator::Unknown => return self.unknown_operator(),
            };
            left = self.node(kind, self.span_from(start))?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(u8, Operator)> {
        if let Some(Kind::Punct(op)) = self.peek() { operator(op) } else { None }
    }

    /// The rest of a chain of operators of one level.
    fn chain(&mut self, start: usize, level: u8) -> Parsed<Vec<Link>> {
        let mut links = Vec::new();
        while let Some((_, Operator::Binary(op))) = self.operator().filter(|(l, _)| *l == level) {
            if level == COMPARISON && !links.is_empty() {
                return self.refuse_here("comparisons do not chain", "a < b && b < c");
            }
            self.at += 1;
            let value = self.operators(level + 1)?;
            links.push(Link { op, value, span: self.span_from(start) });
        }
        Ok(links)
    }

    /// All of `a && b && c`.
    fn conditions(&mut self, first: Expr, level: u8) -> Parsed<Vec<Expr>> {
        let mut all = vec![first];
        while self.operator().is_some_and(|(l, _)| l == level) {
            self.at += 1;
            all.push(self.operators(level + 1)?);
        }
        Ok(all)
    }

    fn unknown_operator<T>(&mut self) -> Parsed<T> {
        if self.is_punct("^") {
            return self.no("`^`", "use pow(a, b), or xor(a, b) on integers");
        }
        self.no("this operator", "")
    }

    /// `-x`, `!x`, or without an operator.
    fn prefixed(&mut self) -> Parsed<Expr> {
        let mut signs = Vec::new();
        while let Some(Kind::Punct(sign @ ("-" | "!"))) = self.peek() {
            signs.push((self.at, if *sign == "-" { UnOp::Neg } else { UnOp::Not }));
            self.at += 1;
        }
        let start = self.at;
        let first = self.operand()?;
        let mut x = self.links(start, first)?;
        for (start, op) in signs.into_iter().rev() {
            x = self.node(ExprKind::Unary(op, Box::new(x)), self.span_from(start))?;
        }
        Ok(x)
    }

    /// Methods and indices behind an operand that began at token `start`.
    fn links(&mut self, start: usize, mut x: Expr) -> Parsed<Expr> {
        loop {
            let kind = match self.peek() {
                Some(Kind::Punct(".")) => self.method(x)?,
                Some(Kind::Open('[')) => self.index(x)?,
                Some(Kind::Open('(')) => return self.refuse(&x.span, "only a name can be called", ""),
                Some(Kind::Punct("?")) => return self.no("`?`", "an error ends elaboration by itself"),
                Some(Kind::Word(word)) if **word == *"as" => {
                    return self
                        .no("`as`", "use float(x) for tensors; Int becomes Float where one is expected");
                }
                _ => return Ok(x),
            };
            x = self.node(kind, self.span_from(start))?;
        }
    }

    /// `.name(arguments)`
    fn method(&mut self, receiver: Expr) -> Parsed<ExprKind> {
        let [name, open] = [1, 2].map(|i| self.tokens.get(self.at + i).map(|t| &t.kind));
        if !matches!((name, open), (Some(Kind::Word(_)), Some(Kind::Open('(')))) {
            return self.no("fields", "call a function: x.mean() is mean(x)");
        }
        self.at += 1;
        let method = self.word("a method's name")?;
        Ok(ExprKind::Method { receiver: Box::new(receiver), method, args: self.args()? })
    }

    /// `[index]`
    fn index(&mut self, x: Expr) -> Parsed<ExprKind> {
        self.at += 1;
        let index = self.expr()?;
        self.close("`]`")?;
        Ok(ExprKind::Index(Box::new(x), Box::new(index)))
    }

    /// `(argument, name = argument)`
    fn args(&mut self) -> Parsed<Vec<Arg>> {
        let start = self.at;
        self.open('(')?;
        let (args, _) = self.list(Self::arg)?;
        self.close("`)`")?;
        if args.len() > MAX_ARGUMENTS {
            let message =
                format!("a call has at most {MAX_ARGUMENTS} arguments, and this one has {}", args.len());
            return self.refuse(&self.span_from(start), &message, "pass lists");
        }
        Ok(args)
    }

    fn arg(&mut self) -> Parsed<Arg> {
        let is_named = matches!(self.tokens.get(self.at + 1).map(|t| &t.kind), Some(Kind::Punct("=")));
        if !is_named {
            return Ok(Arg { name: None, value: self.expr()? });
        }
        let name = self.name()?;
        self.expect("=")?;
        Ok(Arg { name: Some(name), value: self.expr()? })
    }

    /// A name that is no keyword.
    pub(super) fn name(&mut self) -> Parsed<Name> {
        if let Some(Kind::Word(word)) = self.peek()
            && KEYWORDS.contains(&&**word)
        {
            return self.expected("a name");
        }
        self.word("a name")
    }

    /// What operators and methods apply to.
    fn operand(&mut self) -> Parsed<Expr> {
        match self.peek() {
            Some(Kind::Word(word)) => self.worded(word),
            Some(Kind::Open('(')) => self.parenthesised(),
            Some(Kind::Open('[')) => self.listed(),
            Some(Kind::Open('{')) => self.block_value(),
            Some(Kind::Punct("|" | "||")) => self.closure(),
            Some(Kind::Text(text)) => self.interpolated(text),
            Some(Kind::Int(v)) => self.leaf(ExprKind::Int(*v)),
            Some(Kind::Float(v)) => self.leaf(ExprKind::Float(*v)),
            Some(Kind::Punct("&" | "&&" | "*")) => self.no("references", "values are copied"),
            Some(Kind::Punct(".." | "..=")) => self.closed_range(),
            _ => self.expected("an expression"),
        }
    }

    /// An expression of one token.
    fn leaf(&mut self, kind: ExprKind) -> Parsed<Expr> {
        self.at += 1;
        self.node(kind, self.span_from(self.at - 1))
    }

    /// `[a, b]`
    fn listed(&mut self) -> Parsed<Expr> {
        let start = self.at;
        self.at += 1;
        let (items, _) = self.list(Self::expr)?;
        self.close("`]`")?;
        self.node(ExprKind::List(items), self.span_from(start))
    }

    fn block_value(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let body = self.body()?;
        self.node(ExprKind::Block(body), self.span_from(start))
    }

    /// `(a)` is a, whose place it keeps; `(a, b)` is a list.
    fn parenthesised(&mut self) -> Parsed<Expr> {
        let start = self.at;
        self.at += 1;
        let (mut items, comma) = self.list(Self::expr)?;
        self.close("`)`")?;
        match items.pop() {
            Some(one) if items.is_empty() && !comma => Ok(one),
            last => {
                items.extend(last);
                self.node(ExprKind::List(items), self.span_from(start))
            }
        }
    }

    /// `|a, b| value`
    fn closure(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let mut params = Vec::new();
        if !self.take("||") {
            self.expect("|")?;
            while !self.is_punct("|") {
                params.push(self.pattern()?);
                if !self.take(",") && !self.is_punct("|") {
                    return self.expected("`,` or `|`");
                }
            }
            self.expect("|")?;
        }
        let body = Arc::new(self.expr()?);
        self.node(ExprKind::Closure { params: params.into(), body }, self.span_from(start))
    }

    /// What begins with a word: a name, a call, `if`, `scope(…) { … }`.
    fn worded(&mut self, word: &str) -> Parsed<Expr> {
        match word {
            "true" | "false" => self.leaf(ExprKind::Bool(word == "true")),
            "if" => self.conditional(),
            "for" => self.loop_value(),
            "move" => {
                self.at += 1;
                self.closure()
            }
            "let" => self.no("`if let`", ""),
            "return" => self.unsupported_value("`return`", "the last expression of a body is its value"),
            "break" | "continue" => self.unsupported_value("open-ended loops", "use `for i in a..b`"),
            "loop" => self.unsupported_braced("open-ended loops", "use `for i in a..b`"),
            "while" => self.unsupported_braced("`while`", "use `for i in a..b`"),
            "match" => self.unsupported_braced("`match`", "use `if … else if …`"),
            "unsafe" | "async" => self.unsupported_braced("this", ""),
            _ => self.named(),
        }
    }

    fn loop_value(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let stmt = self.for_loop()?;
        let (height, span) = (stmt.height(), self.span_from(start));
        self.node(ExprKind::Block(Body { stmts: vec![stmt], value: None, span: span.clone(), height }), span)
    }

    fn named(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let callee = self.name()?;
        let kind = match self.peek() {
            Some(Kind::Open('(')) => self.called(callee)?,
            Some(Kind::Punct("::")) => {
                return self.refuse(
                    &callee.span,
                    "paths with `::` have no meaning here",
                    "a function is called by its name alone",
                );
            }
            Some(Kind::Punct("!")) => {
                return self.no("macros", "strings interpolate by themselves: \"blocks.{i}\"");
            }
            _ => ExprKind::Name(callee.text),
        };
        self.node(kind, self.span_from(start))
    }

    /// `(arguments)`, and the body of `scope(…) { … }`.
    fn called(&mut self, callee: Name) -> Parsed<ExprKind> {
        let args = self.args()?;
        if &*callee.text == "scope" && self.is(&Kind::Open('{')) {
            return Ok(ExprKind::Scope { args, body: self.body()? });
        }
        Ok(ExprKind::Call { callee, args })
    }

    /// `if a { … } else if b { … } else { … }`
    fn conditional(&mut self) -> Parsed<Expr> {
        let start = self.at;
        let mut arms = Vec::new();
        let mut otherwise = None;
        while self.take("if") {
            let cond = self.expr()?;
            arms.push((cond, self.body()?));
            if !self.take("else") {
                break;
            }
            if !self.is_word("if") {
                otherwise = Some(self.body()?);
                break;
            }
        }
        self.node(ExprKind::If { arms, otherwise }, self.span_from(start))
    }
}
