//! The syntax tree of a model file. Bodies are Rust expressions cut down to what the language has.

use std::sync::Arc;

use super::span::Span;

/// A name with its place.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Name {
    pub(crate) text: Arc<str>,
    pub(crate) span: Span,
}

/// One `model! { … }` or one library file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ModelAst {
    pub(crate) name: Name,
    pub(crate) doc: String,
    /// Path of the model this one derives from, relative to this file.
    pub(crate) base: Option<Name>,
    pub(crate) consts: Vec<Const>,
    pub(crate) functions: Vec<Arc<Function>>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) phases: Vec<PhaseAst>,
    pub(crate) profiles: Vec<ProfileAst>,
}

/// `const NAME = value;`
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Const {
    pub(crate) name: Name,
    pub(crate) value: Expr,
}

/// `fn name(a, b = 1) { … }`
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Function {
    pub(crate) name: Name,
    /// Doc comment.
    pub(crate) doc: String,
    pub(crate) params: Vec<FnParam>,
    pub(crate) body: Body,
    /// From the first line of the doc comment to the closing brace.
    pub(crate) span: Span,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FnParam {
    pub(crate) name: Name,
    pub(crate) default: Option<Expr>,
}

/// A block beside the forward function: `quant`, `optim`, `train`, `export`, `eval`, `weight_std`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Block {
    pub(crate) name: Name,
    /// `"glob" if guard => value`, in order; of those that match a parameter the last one wins.
    pub(crate) rules: Vec<Rule>,
    /// `key = value;` and, flattened, `group { key = value; }`.
    pub(crate) settings: Vec<Setting>,
    /// Groups that appear, even if empty: `ttt { }` switches TTT on.
    pub(crate) groups: Vec<Name>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Rule {
    pub(crate) glob: Name,
    pub(crate) guard: Option<Expr>,
    pub(crate) value: Expr,
}

/// `path = value;` where the path is `steps`, `ttt.chunk`, `train.seq_len` or `DIM`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Setting {
    pub(crate) path: Name,
    pub(crate) value: Expr,
}

/// `name at trigger { CONST = value; }`
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PhaseAst {
    pub(crate) name: Name,
    pub(crate) trigger: Expr,
    pub(crate) settings: Vec<Setting>,
}

/// `profile name { path = value; }`
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ProfileAst {
    pub(crate) name: Name,
    pub(crate) settings: Vec<Setting>,
}

/// `{ statements }`; the last expression without a semicolon is the value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Body {
    pub(crate) stmts: Vec<Stmt>,
    pub(crate) value: Option<Box<Expr>>,
    pub(crate) span: Span,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Stmt {
    /// `let pattern = value;`
    Let {
        pattern: Pattern,
        value: Expr,
    },
    /// `name = value;`, or `name += value;` with the operator.
    Assign {
        name: Name,
        op: Option<BinOp>,
        value: Expr,
    },
    /// `for pattern in items { … }`
    For {
        pattern: Pattern,
        items: Expr,
        body: Body,
    },
    Expr(Expr),
}

/// What `let` and `for` bind.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Pattern {
    Bind {
        name: Name,
        mutable: bool,
    },
    /// `_`
    Ignore,
    /// `[a, b]` or `(a, b)`
    List(Vec<Pattern>, Span),
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ExprKind {
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A string with `{name}` parts.
    Text(Vec<TextPart>),
    Name(Arc<str>),
    List(Vec<Expr>),
    /// `a..b`, the list of a to b − 1.
    Range(Box<Expr>, Box<Expr>),
    Unary(UnOp, Box<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    /// `a && b` (true) or `a || b` (false): the right side is not always evaluated.
    Logic(bool, Box<Expr>, Box<Expr>),
    If {
        cond: Box<Expr>,
        then: Body,
        otherwise: Option<Box<Expr>>,
    },
    Block(Body),
    /// `scope("path", shared = true) { … }`
    Scope {
        args: Vec<Arg>,
        body: Body,
    },
    Closure {
        params: Vec<Pattern>,
        body: Arc<Expr>,
    },
    Call {
        callee: Name,
        args: Vec<Arg>,
    },
    /// `receiver.method(args)`, which is `method(receiver, args)` except for lists' push and pop.
    Method {
        receiver: Box<Expr>,
        method: Name,
        args: Vec<Arg>,
    },
    Index(Box<Expr>, Box<Expr>),
    /// What did not parse; already reported.
    Poison,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TextPart {
    Lit(String),
    Expr(Expr),
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arg {
    pub(crate) name: Option<Name>,
    pub(crate) value: Expr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnOp {
    Neg,
    Not,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl BinOp {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            BinOp::Add => "+",
            BinOp::Sub => "-",
            BinOp::Mul => "*",
            BinOp::Div => "/",
            BinOp::Rem => "%",
            BinOp::Eq => "==",
            BinOp::Ne => "!=",
            BinOp::Lt => "<",
            BinOp::Le => "<=",
            BinOp::Gt => ">",
            BinOp::Ge => ">=",
        }
    }
}
