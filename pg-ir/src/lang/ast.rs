//! The syntax tree of a model file. Bodies are Rust expressions cut down to what the language has.

use std::sync::Arc;

use indexmap::IndexMap;

use super::glob::Glob;
use super::span::Span;

/// Declarations by name, in order.
pub(crate) type Named<T> = IndexMap<Arc<str>, T>;

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
    pub(crate) consts: Named<Const>,
    pub(crate) functions: Named<Arc<Function>>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) phases: Named<PhaseAst>,
    pub(crate) profiles: Named<ProfileAst>,
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
    /// The pattern, compiled.
    pub(crate) pattern: Arc<Glob>,
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
    /// Height of the tree beneath.
    pub(crate) height: usize,
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

/// An expression. Its height is bounded (`limits`), and whatever walks a tree may recurse.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
    /// Height of the tree: 1 for a leaf.
    pub(crate) height: usize,
}

/// A link of a chain of operators of one level.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Link {
    pub(crate) op: BinOp,
    /// The right operand.
    pub(crate) value: Expr,
    /// From the start of the chain to the end of this operand.
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
    /// `a + b − c`: from left to right, at any length without depth.
    Chain(Box<Expr>, Vec<Link>),
    /// `a && b && c` (true) or `a || b || c` (false): the later ones are not always evaluated.
    Logic(bool, Vec<Expr>),
    /// `if a { … } else if b { … } else { … }`
    If {
        arms: Vec<(Expr, Body)>,
        otherwise: Option<Body>,
    },
    Block(Body),
    /// `scope("path", shared = true) { … }`
    Scope {
        args: Vec<Arg>,
        body: Body,
    },
    Closure {
        params: Arc<[Pattern]>,
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

impl ExprKind {
    /// Height of the tallest child.
    pub(crate) fn tallest_child(&self) -> usize {
        let args = |args: &[Arg]| tallest(args.iter().map(|a| a.value.height));
        match self {
            ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Bool(_)
            | ExprKind::Name(_)
            | ExprKind::Poison => 0,
            ExprKind::Text(parts) => tallest(parts.iter().map(|part| match part {
                TextPart::Lit(_) => 0,
                TextPart::Expr(e) => e.height,
            })),
            ExprKind::List(items) | ExprKind::Logic(_, items) => tallest(items.iter().map(|e| e.height)),
            ExprKind::Unary(_, x) => x.height,
            ExprKind::Range(a, b) | ExprKind::Index(a, b) => a.height.max(b.height),
            ExprKind::Chain(first, rest) => first.height.max(tallest(rest.iter().map(|l| l.value.height))),
            ExprKind::If { arms, otherwise } => {
                let arms = tallest(arms.iter().map(|(cond, then)| cond.height.max(then.height)));
                arms.max(otherwise.as_ref().map_or(0, |body| body.height))
            }
            ExprKind::Block(body) => body.height,
            ExprKind::Scope { args: list, body } => args(list).max(body.height),
            ExprKind::Closure { body, .. } => body.height,
            ExprKind::Call { args: list, .. } => args(list),
            ExprKind::Method { receiver, args: list, .. } => receiver.height.max(args(list)),
        }
    }
}

impl Stmt {
    /// Height of the tree: a loop's body is beneath it.
    pub(crate) fn height(&self) -> usize {
        match self {
            Stmt::Let { value, .. } | Stmt::Assign { value, .. } | Stmt::Expr(value) => value.height,
            Stmt::For { items, body, .. } => 1 + items.height.max(body.height),
        }
    }
}

fn tallest(heights: impl Iterator<Item = usize>) -> usize {
    heights.max().unwrap_or(0)
}
