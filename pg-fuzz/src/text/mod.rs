//! Model texts as a syntax tree of our own: what the generator builds, the shrinker cuts down and the printer
//! writes. Expressions carry the shape that they have in the model's own terms, so that one may stand for another of
//! the same shape; whether a whole text is well formed only pg itself decides. Nothing here computes.

mod print;
pub mod walk;

/// Size of an axis, as a text can say it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Size {
    /// Sequences.
    Batch,
    /// Positions.
    Time,
    /// A constant of the model.
    Named(String),
    /// A number.
    Exact(usize),
}

impl Size {
    /// A constant of the model.
    pub fn named(name: &str) -> Size {
        Size::Named(name.into())
    }
}

/// Axes of a tensor, outermost first.
pub type Shape = Vec<Size>;

/// What an expression is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    /// A float tensor.
    Tensor(Shape),
    /// An integer tensor.
    Ints(Shape),
    /// A tensor of booleans.
    Mask(Shape),
    /// A list of so many tensors of one type.
    List(Box<Ty>, usize),
    /// Anything that only stands where it was written: numbers, names of parameters, functions, shapes.
    Fixed,
}

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    /// What it is.
    pub ty: Ty,
    /// How it is written.
    pub node: Node,
}

/// How an expression is written.
#[derive(Clone, PartialEq, Debug)]
pub enum Node {
    /// A variable.
    Var(String),
    /// Text as it stands, without variables: a number, a constant, a quoted string, the name of a function.
    Text(String),
    /// `f(a, b = c)`
    Call(String, Vec<(Option<&'static str>, Expr)>),
    /// `x.f(a)`
    Method(Box<Expr>, &'static str, Vec<Expr>),
    /// `a + b` with one of `+ - * / %` and comparisons.
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `-x`
    Minus(Box<Expr>),
    /// `x[i]`
    Index(Box<Expr>, Box<Expr>),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `if c { … } else { … }`
    If(Box<Expr>, Block, Block),
    /// `scope("path") { … }`, shared or not.
    Scope(String, bool, Block),
    /// `|a, b| body`
    Closure(Vec<String>, Box<Expr>),
    /// `{ … }`
    Block(Block),
}

/// Statements and a value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Block {
    /// Statements.
    pub stmts: Vec<Stmt>,
    /// The value; statements alone have none.
    pub value: Option<Box<Expr>>,
}

/// A statement.
#[derive(Clone, PartialEq, Debug)]
pub enum Stmt {
    /// `let a = value;`, or `let [a, b] = value;`
    Let {
        /// Names with `mut` or without.
        names: Vec<(String, bool)>,
        /// The value; a list for several names.
        value: Expr,
    },
    /// `a = value;` or `a += value;`
    Assign(String, &'static str, Expr),
    /// `for i in items { … }`
    For(String, Expr, Block),
    /// `value;`
    Do(Expr),
}

/// A function of the model.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub params: Vec<(String, Ty)>,
    /// Its body.
    pub body: Block,
}

/// A line of a block beside the functions: `"glob" => value` or `key = value;`.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The pattern.
    pub glob: String,
    /// What it says.
    pub value: String,
}

/// A phase: its name, when it begins, and the constants that it changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it begins.
    pub trigger: String,
    /// Constants with their values.
    pub settings: Vec<(String, String)>,
}

/// A model file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Text {
    /// Its name.
    pub name: String,
    /// Constants with their values, in order.
    pub consts: Vec<(String, String)>,
    /// Functions; `forward` among them.
    pub functions: Vec<Function>,
    /// Rules of the `quant` block.
    pub quant: Vec<Rule>,
    /// Rules of the `optim` block.
    pub optim: Vec<Rule>,
    /// Phases.
    pub phases: Vec<Phase>,
    /// Settings of the `train` block.
    pub train: Vec<(String, String)>,
    /// Settings of test-time training, if the model asks for it.
    pub ttt: Option<Vec<(String, String)>>,
}

impl Text {
    /// A function by name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }

    /// Sets a constant, or declares it.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        match self.consts.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.consts.push((name.into(), value.to_string())),
        }
    }

    /// Sets a line of the `train` block.
    pub fn set_train(&mut self, name: &str, value: impl ToString) {
        match self.train.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.train.push((name.into(), value.to_string())),
        }
    }
}

// ---------------------------------------------------------------- construction

impl Expr {
    /// An expression.
    pub fn new(ty: Ty, node: Node) -> Expr {
        Expr { ty, node }
    }

    /// Text as it stands.
    pub fn text(text: impl ToString) -> Expr {
        Expr::new(Ty::Fixed, Node::Text(text.to_string()))
    }

    /// A variable.
    pub fn var(name: &str, ty: Ty) -> Expr {
        Expr::new(ty, Node::Var(name.into()))
    }

    /// A call by position.
    pub fn call(ty: Ty, name: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::new(ty, Node::Call(name.into(), args.into_iter().map(|a| (None, a)).collect()))
    }

    /// A float tensor of a call by position.
    pub fn tensor(shape: &[Size], name: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::call(Ty::Tensor(shape.to_vec()), name, args)
    }

    /// A function of one tensor that keeps its shape.
    pub fn map(self, name: &str) -> Expr {
        Expr::call(self.ty.clone(), name, [self])
    }

    /// An operator whose result has the left operand's type.
    pub fn op(self, op: &'static str, other: Expr) -> Expr {
        let ty = if self.ty == Ty::Fixed { other.ty.clone() } else { self.ty.clone() };
        Expr::new(ty, Node::Binary(op, Box::new(self), Box::new(other)))
    }

    /// An operator whose result has the right operand's type.
    pub fn into_op(self, op: &'static str, other: Expr) -> Expr {
        let ty = other.ty.clone();
        Expr::new(ty, Node::Binary(op, Box::new(self), Box::new(other)))
    }

    /// `[a, b]`
    pub fn list(items: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::new(Ty::Fixed, Node::List(items.into_iter().collect()))
    }

    /// Axes of a tensor.
    ///
    /// # Panics
    /// If it is none: a bug of the generator.
    pub fn shape(&self) -> &Shape {
        match &self.ty {
            Ty::Tensor(shape) | Ty::Ints(shape) | Ty::Mask(shape) => shape,
            other => panic!("internal error: {other:?} has no shape"),
        }
    }
}

impl Stmt {
    /// `let name = value;`
    pub fn bind(name: &str, value: Expr) -> Stmt {
        Stmt::Let { names: vec![(name.into(), false)], value }
    }

    /// `let mut name = value;`
    pub fn bind_mut(name: &str, value: Expr) -> Stmt {
        Stmt::Let { names: vec![(name.into(), true)], value }
    }
}

impl Block {
    /// A value alone.
    pub fn of(value: Expr) -> Block {
        Block { stmts: Vec::new(), value: Some(Box::new(value)) }
    }
}
