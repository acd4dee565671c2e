//! The text form of a graph. It is deterministic, and reading it back gives the same graph, so dumps
//! diff cleanly and tests can be written in it.
//!
//! ```text
//! %0 = input {slot=@data:tokens, type=i32[b2, t8]} : i32[b2, t8] ; models/tiny.rs:12:9 @blocks.0
//! output @result:loss = %9
//! ```

use std::fmt::{self, Write};

use crate::graph::{Builder, Graph, Loc, MAX_NODES, Origin, ValueId};
use crate::op::Op;
use crate::ty::{MAX_ELEMENTS, MAX_RANK, is_storable};

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, node) in self.nodes() {
            let join = |items: Vec<String>| items.join(", ");
            let results = join(self.results(node).map(|v| v.to_string()).collect());
            let types = join(self.result_types(node).iter().map(|t| t.to_string()).collect());
            write!(f, "{results} = {}", node.op)?;
            if !node.operands.is_empty() {
                write!(f, " ({})", join(node.operands.iter().map(|v| v.to_string()).collect()))?;
            }
            let origin = &node.origin;
            let back = if origin.backward { " backward" } else { "" };
            let call = origin.call.as_ref().map_or(String::new(), |c| format!(" from {c}"));
            writeln!(f, " : {types} ; {}{call} @{}{back}", origin.loc, origin.scope)?;
        }
        for output in &self.outputs {
            writeln!(f, "output {} = {}", output.slot, output.value)?;
        }
        Ok(())
    }
}

impl Graph {
    /// The text form without places, for comparing what two model texts compute.
    pub fn shape_text(&self) -> String {
        let mut out = String::new();
        for line in self.to_string().lines() {
            let code = line.split(" ; ").next().unwrap_or(line);
            writeln!(out, "{code}").expect("writing to a string does not fail");
        }
        out
    }

    /// Reads the text form. The error names the line.
    pub fn parse(text: &str) -> Result<Graph, String> {
        // Derivatives and passes have made some of the nodes.
        Graph::parse_up_to(text, 8 * MAX_NODES)
    }

    fn parse_up_to(text: &str, nodes: usize) -> Result<Graph, String> {
        let mut b = Builder::default();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let result = match line.strip_prefix("output ") {
                Some(rest) => parse_output(&mut b, rest),
                None => parse_node(&mut b, line),
            };
            let few = |()| match b.graph().node_count() {
                n if n <= nodes => Ok(()),
                _ => Err(format!("a graph in text has at most {nodes} nodes")),
            };
            result.and_then(few).map_err(|e| format!("line {}: {e}", number + 1))?;
        }
        Ok(b.finish())
    }
}

fn parse_value(b: &Builder, text: &str) -> Result<ValueId, String> {
    let id = text.trim().strip_prefix('%').and_then(|t| t.parse().ok()).map(ValueId);
    let known = id.filter(|v: &ValueId| v.index() < b.graph().value_count());
    known.ok_or_else(|| format!("`{text}` is not a value defined before"))
}

fn parse_output(b: &mut Builder, rest: &str) -> Result<(), String> {
    let (slot, value) = rest.split_once(" = ").ok_or("an output looks like `output @result:loss = %9`")?;
    let value = parse_value(b, value)?;
    b.output(slot.trim().parse()?, value);
    Ok(())
}

fn parse_node(b: &mut Builder, line: &str) -> Result<(), String> {
    let (code, origin) = line.split_once(" ; ").unwrap_or((line, "<text>:0:0 @"));
    let (results, rest) =
        code.split_once(" = ").ok_or("a node looks like `%1 = op {attributes} (%0) : type`")?;
    let (rest, types) = rest.rsplit_once(" : ").ok_or("a node ends with ` : ` and its type")?;
    let (head, operands) = match rest.rsplit_once(" (") {
        Some((head, list)) => (head, list.trim().trim_end_matches(')')),
        None => (rest, ""),
    };
    let (name, attrs) = match head.split_once(" {") {
        Some((name, attrs)) => (name, parse_attrs(attrs.trim().trim_end_matches('}'))?),
        None => (head, vec![]),
    };
    attrs.iter().try_for_each(|(key, value)| in_range(key, value))?;
    let op = Op::from_text(name.trim(), &attrs)?;
    let operands = operands.split(',').filter(|t| !t.trim().is_empty());
    let operands: Vec<ValueId> = operands.map(|t| parse_value(b, t)).collect::<Result<_, _>>()?;
    b.set_origin(parse_origin(origin)?);
    let made = b.push(op, &operands)?;
    if let Some(large) =
        made.iter().map(|&v| b.ty(v)).find(|ty| !is_storable(ty.shape()) || ty.rank() > MAX_RANK)
    {
        return Err(format!(
            "a value has at most {MAX_RANK} axes and {MAX_ELEMENTS} elements, and this is {large}"
        ));
    }
    let names: Vec<String> = made.iter().map(|v| v.to_string()).collect();
    if names.join(", ") != results.trim() {
        return Err(format!("defines {results}, but these are {}", names.join(", ")));
    }
    let found: Vec<String> = made.iter().map(|&v| b.ty(v).to_string()).collect();
    if found.join(", ") != types.trim() {
        return Err(format!("says {types}, but the type is {}", found.join(", ")));
    }
    Ok(())
}

/// Sizes, positions and shifts of attributes are so small that sums and products of them stay in range.
fn in_range(key: &str, value: &str) -> Result<(), String> {
    // A number of any size, and a name.
    if matches!(key, "value" | "scale" | "slot") {
        return Ok(());
    }
    let numbers = value.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let is_large = |n: &&str| !n.parse::<usize>().is_ok_and(|n| n <= MAX_ELEMENTS);
    match numbers.clone().find(is_large) {
        Some(_) => Err(format!("a number of `{key}` is over {MAX_ELEMENTS}")),
        None => Ok(()),
    }
}

/// Splits `a=1, b=[2, 3], c=f32[c4]` at commas outside brackets.
fn parse_attrs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("starts with one part").push(c);
    }
    let pair = |part: &String| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not an attribute"))?;
        Ok((key.trim().to_string(), value.trim().to_string()))
    };
    parts.iter().filter(|p| !p.trim().is_empty()).map(pair).collect()
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    let bad = || format!("`{text}` is not a place; one looks like `file.rs:3:5 @scope`");
    let (text, backward) = match text.strip_suffix(" backward") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (loc, scope) = text.split_once(" @").ok_or_else(bad)?;
    let place = |text: &str| {
        let mut parts = text.rsplitn(3, ':');
        let (Some(col), Some(line), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let number = |t: &str| t.parse().map_err(|_| bad());
        Ok(Loc::new(file, number(line)?, number(col)?))
    };
    let (loc, call) = match loc.split_once(" from ") {
        Some((loc, call)) => (loc, Some(place(call)?)),
        None => (loc, None),
    };
    Ok(Origin { loc: place(loc)?, call, scope: scope.into(), backward })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_in_text_has_a_number_of_nodes() {
        let input = "%0 = input {slot=@param:x, type=f32[c4]} : f32[c4]\n";
        let text = format!("{input}%1 = tanh (%0) : f32[c4]\n");
        assert_eq!(Graph::parse_up_to(&text, 2).unwrap().node_count(), 2);
        assert_eq!(Graph::parse_up_to(&text, 1).unwrap_err(), "line 2: a graph in text has at most 1 nodes");
    }
}
