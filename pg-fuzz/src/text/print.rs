//! Model texts as text, the way people write them. What it writes must mean what the tree says: operators keep
//! their association, and blocks stand in parentheses where a statement would end after them.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Block, Expr, Function, Node, Size, Stmt, Text};

/// How strongly an expression holds together; operands below their operator's strength stand in parentheses.
fn strength(e: &Expr) -> u8 {
    match &e.node {
        Node::If(..) | Node::Scope(..) | Node::Block(_) | Node::Closure(..) => 0,
        Node::Binary(op, ..) => operator(op),
        Node::Text(t) if t.starts_with('-') => 4,
        Node::Text(t) if t.contains(' ') && !t.starts_with('"') => 0,
        Node::Minus(_) => 4,
        _ => 5,
    }
}

fn operator(op: &str) -> u8 {
    match op {
        "+" | "-" => 2,
        "*" | "/" | "%" => 3,
        ".." => 0,
        _ => 1,
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Size::Batch => f.write_str("B"),
            Size::Time => f.write_str("T"),
            Size::Named(name) => f.write_str(name),
            Size::Exact(n) => write!(f, "{n}"),
        }
    }
}

struct Writer<'a, 'b> {
    f: &'a mut Formatter<'b>,
    indent: usize,
}

impl Writer<'_, '_> {
    fn line(&mut self) -> fmt::Result {
        write!(self.f, "\n{:1$}", "", 4 * self.indent)
    }

    fn operand(&mut self, e: &Expr, least: u8) -> fmt::Result {
        if strength(e) >= least {
            return self.expr(e);
        }
        self.f.write_char('(')?;
        self.expr(e)?;
        self.f.write_char(')')
    }

    fn separated(&mut self, items: &[Expr]) -> fmt::Result {
        for (i, item) in items.iter().enumerate() {
            self.f.write_str(if i > 0 { ", " } else { "" })?;
            self.expr(item)?;
        }
        Ok(())
    }

    fn expr(&mut self, e: &Expr) -> fmt::Result {
        match &e.node {
            Node::Var(text) | Node::Text(text) => self.f.write_str(text),
            Node::Call(name, args) => {
                write!(self.f, "{name}(")?;
                for (i, (name, value)) in args.iter().enumerate() {
                    self.f.write_str(if i > 0 { ", " } else { "" })?;
                    if let Some(name) = name {
                        write!(self.f, "{name} = ")?;
                    }
                    self.expr(value)?;
                }
                self.f.write_char(')')
            }
            Node::Method(receiver, name, args) => {
                self.operand(receiver, 5)?;
                write!(self.f, ".{name}(")?;
                self.separated(args)?;
                self.f.write_char(')')
            }
            Node::Binary(op, a, b) => {
                let own = operator(op);
                // Comparisons do not chain.
                self.operand(a, if own < 2 { 2 } else { own })?;
                match *op {
                    ".." => self.f.write_str("..")?,
                    op => write!(self.f, " {op} ")?,
                }
                self.operand(b, own.max(1) + 1)
            }
            Node::Minus(x) => {
                self.f.write_char('-')?;
                self.operand(x, 5)
            }
            Node::Index(x, i) => {
                self.operand(x, 5)?;
                self.f.write_char('[')?;
                self.expr(i)?;
                self.f.write_char(']')
            }
            Node::List(items) => {
                self.f.write_char('[')?;
                self.separated(items)?;
                self.f.write_char(']')
            }
            Node::If(cond, then, otherwise) => {
                self.f.write_str("if ")?;
                self.expr(cond)?;
                self.f.write_char(' ')?;
                self.block(then)?;
                self.f.write_str(" else ")?;
                self.block(otherwise)
            }
            Node::Scope(path, shared, body) => {
                let shared = if *shared { ", shared = true" } else { "" };
                write!(self.f, "scope(\"{path}\"{shared}) ")?;
                self.block(body)
            }
            Node::Closure(params, body) => {
                write!(self.f, "|{}| ", params.join(", "))?;
                self.expr(body)
            }
            Node::Block(body) => self.block(body),
        }
    }

    fn block(&mut self, block: &Block) -> fmt::Result {
        if let (true, Some(value)) = (block.stmts.is_empty(), &block.value) {
            self.f.write_str("{ ")?;
            self.expr(value)?;
            return self.f.write_str(" }");
        }
        self.f.write_char('{')?;
        self.indent += 1;
        for stmt in &block.stmts {
            self.line()?;
            self.stmt(stmt)?;
        }
        if let Some(value) = &block.value {
            self.line()?;
            // A block at the start of an operator's left side would be a statement.
            self.expr(value)?;
        }
        self.indent -= 1;
        self.line()?;
        self.f.write_char('}')
    }

    fn stmt(&mut self, stmt: &Stmt) -> fmt::Result {
        match stmt {
            Stmt::Let { names, value } => {
                let name = |(name, mutable): &(String, bool)| {
                    if *mutable { format!("mut {name}") } else { name.clone() }
                };
                let all: Vec<String> = names.iter().map(name).collect();
                match &all[..] {
                    [one] => write!(self.f, "let {one} = ")?,
                    all => write!(self.f, "let [{}] = ", all.join(", "))?,
                }
                self.expr(value)?;
                self.f.write_char(';')
            }
            Stmt::Assign(name, op, value) => {
                write!(self.f, "{name} {op} ")?;
                self.expr(value)?;
                self.f.write_char(';')
            }
            Stmt::For(name, items, body) => {
                write!(self.f, "for {name} in ")?;
                self.expr(items)?;
                self.f.write_char(' ')?;
                self.block(body)
            }
            Stmt::Do(value) => {
                self.expr(value)?;
                self.f.write_char(';')
            }
        }
    }

    fn function(&mut self, function: &Function) -> fmt::Result {
        let params: Vec<&str> = function.params.iter().map(|(name, _)| name.as_str()).collect();
        write!(self.f, "fn {}({}) ", function.name, params.join(", "))?;
        match function.body.stmts.is_empty() {
            // On lines of its own even if it is short.
            true => {
                self.f.write_char('{')?;
                self.indent += 1;
                self.line()?;
                if let Some(value) = &function.body.value {
                    self.expr(value)?;
                }
                self.indent -= 1;
                self.line()?;
                self.f.write_char('}')
            }
            false => self.block(&function.body),
        }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "pg_macros::model! {{\n    {} {{", self.name)?;
        for (name, value) in &self.consts {
            write!(f, "\n        const {name} = {value};")?;
        }
        for function in &self.functions {
            f.write_str("\n\n        ")?;
            Writer { f, indent: 2 }.function(function)?;
        }
        for (name, rules) in [("quant", &self.quant), ("optim", &self.optim)] {
            if !rules.is_empty() {
                write!(f, "\n\n        {name} {{")?;
                for rule in rules {
                    write!(f, "\n            \"{}\" => {},", rule.glob, rule.value)?;
                }
                f.write_str("\n        }")?;
            }
        }
        if !self.phases.is_empty() {
            f.write_str("\n\n        phases {")?;
            for phase in &self.phases {
                write!(f, "\n            {} at {} {{ ", phase.name, phase.trigger)?;
                for (name, value) in &phase.settings {
                    write!(f, "{name} = {value}; ")?;
                }
                f.write_str("}")?;
            }
            f.write_str("\n        }")?;
        }
        let lines = |f: &mut Formatter<'_>, lines: &[(String, String)], indent: usize| -> fmt::Result {
            for (name, value) in lines {
                write!(f, "\n{:indent$}{name} = {value};", "")?;
            }
            Ok(())
        };
        if !self.train.is_empty() {
            f.write_str("\n\n        train {")?;
            lines(f, &self.train, 12)?;
            f.write_str("\n        }")?;
        }
        if let Some(settings) = &self.ttt {
            f.write_str("\n\n        eval {\n            ttt {")?;
            lines(f, settings, 16)?;
            f.write_str("\n            }\n        }")?;
        }
        f.write_str("\n    }\n}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Block, Expr, Node, Size, Stmt, Ty};
    use super::*;

    fn print(e: &Expr) -> String {
        struct Shown<'a>(&'a Expr);
        impl Display for Shown<'_> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                Writer { f, indent: 0 }.expr(self.0)
            }
        }
        Shown(e).to_string()
    }

    fn x(name: &str) -> Expr {
        Expr::var(name, Ty::Tensor(vec![Size::Batch]))
    }

    #[test]
    fn operators_keep_their_association() {
        assert_eq!(print(&x("a").op("+", x("b")).op("+", x("c"))), "a + b + c");
        assert_eq!(print(&x("a").op("+", x("b").op("+", x("c")))), "a + (b + c)");
        assert_eq!(print(&x("a").op("-", x("b")).op("*", x("c"))), "(a - b) * c");
        assert_eq!(print(&x("a").op("/", x("b").op("*", x("c")))), "a / (b * c)");
        let minus = Expr::new(x("a").ty, Node::Minus(Box::new(x("a").op("+", x("b")))));
        assert_eq!(print(&minus.op("*", Expr::text("-0.5"))), "-(a + b) * -0.5");
    }

    #[test]
    fn blocks_are_operands_in_parentheses() {
        let scope = Expr::new(x("a").ty, Node::Scope("s".into(), false, Block::of(x("a"))));
        assert_eq!(print(&scope.clone().op("+", x("b"))), "(scope(\"s\") { a }) + b");
        let block = Block { stmts: vec![Stmt::bind("c", x("a"))], value: Some(Box::new(x("c"))) };
        let block = Expr::new(x("a").ty, Node::Block(block));
        assert_eq!(print(&x("b").op("*", block)), "b * ({\n    let c = a;\n    c\n})");
    }
}
