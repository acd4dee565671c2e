//! Item headers.
//!
//! ```text
//! model   := docs NAME [from "file"] { item* }
//! item    := docs const NAME = expr ;
//!          | docs fn NAME ( NAME [= expr], … ) { body }
//!          | (quant | optim | export | weight_std | train | eval) { entry* }
//!          | phases { (NAME at expr { setting* })* }
//!          | profile NAME { setting* }
//! entry   := "glob" [if expr] => expr ,
//!          | setting
//!          | NAME { setting* }
//! setting := NAME(.NAME)* = expr ;
//! ```

use std::sync::Arc;

use super::{Parsed, Parser, shortened};
use crate::lang::ast::*;
use crate::lang::diag::{Diagnostic, nearest};
use crate::lang::glob::Glob;
use crate::lang::limits::MAX_ARGUMENTS;
use crate::lang::span::Span;
use crate::lang::token::Kind;

/// The blocks of settings and rules that a model can have.
pub(crate) const BLOCKS: [&str; 6] = ["quant", "optim", "export", "weight_std", "train", "eval"];

pub(super) fn empty(name: Name, doc: String) -> ModelAst {
    ModelAst {
        name,
        doc,
        base: None,
        consts: Named::new(),
        functions: Named::new(),
        blocks: Vec::new(),
        phases: Named::new(),
        profiles: Named::new(),
    }
}

impl Parser<'_> {
    pub(super) fn model(&mut self) -> Parsed<ModelAst> {
        let doc = self.docs()?.0;
        let name = self.word("the model's name")?;
        let mut model = empty(name, doc);
        if self.take("from") {
            model.base = Some(self.text_literal("the base model's file, as in `from \"base.rs\"`")?);
        }
        if !self.is(&Kind::Open('{')) {
            return self.expected("`from \"file.rs\"` or `{`");
        }
        self.open('{')?;
        self.items(&mut model)?;
        self.close("`}`")?;
        Ok(model)
    }

    /// A string literal as it stands.
    fn text_literal(&mut self, what: &str) -> Parsed<Name> {
        let Some(Kind::Text(text)) = self.peek() else { return self.expected(what) };
        let text = text.clone();
        self.at += 1;
        Ok(Name { text, span: self.span_from(self.at - 1) })
    }

    /// Doc comments, with the place of the first.
    fn docs(&mut self) -> Parsed<(String, Option<Span>)> {
        let mut doc = String::new();
        let mut first = None;
        while let Some(Kind::Doc(text)) = self.peek() {
            self.at += 1;
            first.get_or_insert_with(|| self.span_from(self.at - 1));
            doc.push_str(text.strip_prefix(' ').unwrap_or(text));
            doc.push('\n');
        }
        if self.is_punct("#") {
            return match self.tokens.get(self.at + 1).map(|t| &t.kind) {
                Some(Kind::Open('[')) => {
                    self.refuse_here("attributes have no meaning here", "comments begin with `//`")
                }
                _ => self.refuse_here("`#` has no meaning here", "comments begin with `//`"),
            };
        }
        Ok((doc.trim_end().to_string(), first))
    }

    pub(super) fn items(&mut self, model: &mut ModelAst) -> Parsed<()> {
        while !self.is_end() {
            let start = self.at;
            if self.item(model).is_err() {
                self.skip(start, false);
            }
        }
        Ok(())
    }

    fn item(&mut self, model: &mut ModelAst) -> Parsed<()> {
        let (doc, doc_span) = self.docs()?;
        if self.take("const") {
            let name = self.word("the constant's name")?;
            self.untyped("a constant is what its value is: `const RATE = 0.1;`")?;
            self.expect("=")?;
            let value = self.expr()?;
            self.expect(";")?;
            let first = model.consts.get(&name.text).map(|c| &c.name);
            self.unique("constant", first, &name);
            model.consts.insert(name.text.clone(), Const { name, value });
        } else if self.is_word("fn") {
            let function = self.function(doc, doc_span)?;
            let first = model.functions.get(&function.name.text).map(|f| &f.name);
            self.unique("function", first, &function.name);
            model.functions.insert(function.name.text.clone(), Arc::new(function));
        } else {
            self.block(model)?;
        }
        Ok(())
    }

    fn unique(&mut self, what: &str, first: Option<&Name>, name: &Name) {
        if let Some(first) = first {
            let message = format!("{what} `{}` is defined twice", shortened(&name.text));
            self.error(Diagnostic::error(&name.span, message).label(&first.span, "first defined here"));
        }
    }

    fn function(&mut self, doc: String, doc_span: Option<Span>) -> Parsed<Function> {
        let keyword = self.at;
        self.expect("fn")?;
        let start = doc_span.unwrap_or_else(|| self.span_from(keyword));
        let name = self.word("the function's name")?;
        self.open('(')?;
        let mut params: Named<FnParam> = Named::new();
        while !self.is_end() {
            let name = self.word("a parameter's name")?;
            self.untyped("a parameter is what it is given: `fn mlp(x, width = 64) { … }`")?;
            let default = if self.take("=") { Some(self.expr()?) } else { None };
            self.unique("parameter", params.get(&name.text).map(|p| &p.name), &name);
            params.insert(name.text.clone(), FnParam { name, default });
            if !self.is_end() {
                self.expect(",")?;
            }
        }
        if params.len() > MAX_ARGUMENTS {
            let message = format!(
                "a function has at most {MAX_ARGUMENTS} parameters, and this one has {}",
                params.len()
            );
            self.error(Diagnostic::error(&name.span, message).help("pass lists"));
        }
        self.close("`)`")?;
        if self.is_punct("->") {
            return self.no("types", "a function gives what its last expression is: `fn mlp(x) { … }`");
        }
        if !self.is(&Kind::Open('{')) {
            return self.expected("the function's body in braces");
        }
        let body = self.body()?;
        let span = start.to(&body.span);
        Ok(Function { name, doc, params: params.into_values().collect(), body, span })
    }

    /// An error where a type follows a name.
    fn untyped(&mut self, help: &str) -> Parsed<()> {
        if self.is_punct(":") { self.no("types", help) } else { Ok(()) }
    }

    fn block(&mut self, model: &mut ModelAst) -> Parsed<()> {
        let name = self.word("`const`, `fn`, or a block such as `quant { … }`")?;
        match &*name.text {
            "phases" => {
                self.open('{')?;
                while !self.is_end() {
                    self.docs()?;
                    let phase = self.phase()?;
                    self.unique("phase", model.phases.get(&phase.name.text).map(|p| &p.name), &phase.name);
                    model.phases.insert(phase.name.text.clone(), phase);
                }
                self.close("`}`")
            }
            "profile" => {
                let name = self.word("the profile's name")?;
                let settings = self.settings("")?;
                self.unique("profile", model.profiles.get(&name.text).map(|p| &p.name), &name);
                model.profiles.insert(name.text.clone(), ProfileAst { name, settings });
                Ok(())
            }
            known if BLOCKS.contains(&known) => {
                let block = self.entries(name)?;
                model.blocks.push(block);
                Ok(())
            }
            other => {
                let known = BLOCKS.iter().copied().chain(["phases", "profile", "const", "fn"]);
                let message = format!("unknown item `{}`", shortened(other));
                let help = match nearest(other, known.clone()) {
                    Some(best) => format!("a similar name exists: `{best}`"),
                    None => format!("items are {}", known.collect::<Vec<_>>().join(", ")),
                };
                self.refuse(&name.span, &message, &help)
            }
        }
    }

    fn phase(&mut self) -> Parsed<PhaseAst> {
        let name = self.word("a phase's name")?;
        if !self.take("at") {
            let help = "a phase looks like `late at fraction(0.5) { MLP_CLIP = 7; }`";
            return self.expected_as("`at`", help);
        }
        let trigger = self.expr()?;
        Ok(PhaseAst { name, trigger, settings: self.settings("")? })
    }

    /// `{ setting* }`
    fn settings(&mut self, prefix: &str) -> Parsed<Vec<Setting>> {
        self.open('{')?;
        let mut settings = Vec::new();
        while !self.is_end() {
            let start = self.at;
            match self.docs().and_then(|_| self.setting(prefix)) {
                Ok(setting) => settings.push(setting),
                Err(_) => self.skip(start, true),
            }
        }
        self.close("`}`")?;
        Ok(settings)
    }

    fn setting(&mut self, prefix: &str) -> Parsed<Setting> {
        let start = self.at;
        let mut text = format!("{prefix}{}", self.word("a setting's name")?.text);
        while self.take(".") {
            text.push('.');
            text.push_str(&self.word("a setting's name")?.text);
        }
        let path = Name { text: text.into(), span: self.span_from(start) };
        if self.is_punct("=>") {
            let help = format!("\"{}\" => …", path.text);
            return self.refuse(&path.span, "a rule's pattern is a string", &help);
        }
        if !self.take("=") {
            return self.expected_as("`=`", "a setting is `name = value;`");
        }
        let value = self.expr()?;
        self.expect(";")?;
        Ok(Setting { path, value })
    }

    fn entries(&mut self, name: Name) -> Parsed<Block> {
        let mut block = Block { name, rules: Vec::new(), settings: Vec::new(), groups: Vec::new() };
        self.open('{')?;
        while !self.is_end() {
            let start = self.at;
            if self.docs().and_then(|_| self.entry(&mut block)).is_err() {
                self.skip(start, true);
            }
        }
        self.close("`}`")?;
        Ok(block)
    }

    fn entry(&mut self, block: &mut Block) -> Parsed<()> {
        if matches!(self.peek(), Some(Kind::Text(_))) {
            let glob = self.text_literal("a pattern")?;
            let pattern = match Glob::new(&glob.text) {
                Ok(pattern) => Arc::new(pattern),
                Err(e) => return self.refuse(&glob.span, &e, ""),
            };
            let guard = if self.take("if") { Some(self.expr()?) } else { None };
            if !self.take("=>") {
                return self.expected_as("`=>`", "a rule is `\"pattern\" => value,`");
            }
            let value = self.expr()?;
            block.rules.push(Rule { glob, pattern, guard, value });
            if !self.is_end() {
                self.expect(",")?;
            }
        } else if matches!(self.tokens.get(self.at + 1).map(|t| &t.kind), Some(Kind::Open('{'))) {
            let group = self.word("a group's name")?;
            block.settings.extend(self.settings(&format!("{}.", group.text))?);
            block.groups.push(group);
        } else {
            block.settings.push(self.setting("")?);
        }
        Ok(())
    }
}
