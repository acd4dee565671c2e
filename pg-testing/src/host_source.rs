//! An emitted kernel rewritten so that a host compiler takes it: its own includes and PTX wrappers go, its
//! buffers and shared arrays become checked ones. Nothing else of the text changes, line by line.

/// What the emitted source becomes, in a namespace of its own, with the function `run_<number>`.
pub fn host_source(source: &str, name: &str, number: usize) -> String {
    let mut out = format!("namespace k{number} {{\n#line 1 \"{name}\"\n");
    let mut lines = source.lines().peekable();
    let mut buffers = Vec::new();
    let mut shared_elements = "";
    while let Some(line) = lines.next() {
        let text = line.trim();
        let is_wrapper = text == "inline __device__ void";
        let is_template = text.starts_with("template <") && text.ends_with('>');
        if is_wrapper {
            out += &"\n".repeat(skip_function(&mut lines));
        } else if text.starts_with("#include") || is_template || text.starts_with("extern __shared__") {
        } else if text.starts_with("extern \"C\" __global__") {
            out += line;
        } else if text.contains("const __grid_constant__ info_st info") {
            buffers = parameters(text);
            let checked = buffers.iter().map(|(ty, name)| format!("host::Pointer<{ty}> {name}, "));
            out += &(checked.collect::<String>() + "const info_st info");
        } else if let Some(sizes) = text.strip_prefix("// Shared array size: ") {
            shared_elements = sizes.split(',').next().unwrap();
        } else if let Some((array, offset)) = shared_barrier(text) {
            out += &format!("auto &{array} = host::shared_barrier({offset});");
        } else if let Some((array, offset)) = shared_array(text) {
            let (ty, array) = array;
            out += &format!("auto {array} = host::shared<{ty}>({offset}, {shared_elements});");
        } else {
            out += &checked(line);
        }
        out += "\n";
    }
    let args: Vec<String> =
        buffers.iter().enumerate().map(|(i, (ty, _))| format!("host::global<{ty}>({i})")).collect();
    out += &format!(
        "}}\nextern \"C\" int run_{number}(const host::Launch *l, char *message, size_t bytes) {{
    return host::launch(l, message, bytes, [] {{ using namespace k{number}; {name}({}, info_st{{}}); }});
}}\n",
        args.join(", ")
    );
    out
}

/// Skips a function's body; how many lines that were, the first not counted.
fn skip_function<'a>(lines: &mut impl Iterator<Item = &'a str>) -> usize {
    let (mut depth, mut begun, mut count) = (0i32, false, 0);
    for line in lines {
        count += 1;
        for c in line.chars() {
            match c {
                '{' => (depth, begun) = (depth + 1, true),
                '}' => depth -= 1,
                _ => {}
            }
        }
        // An asm statement has braces of its own, in pairs.
        if begun && depth == 0 {
            return count;
        }
    }
    panic!("a wrapper function does not end")
}

/// Type and name of each buffer of a parameter list.
fn parameters(list: &str) -> Vec<(String, String)> {
    let pointer = |p: &str| {
        let (ty, name) =
            p.replace("__restrict__", " ").split_once('*').map(|(t, n)| (t.to_string(), n.to_string()))?;
        Some((ty.trim().to_string(), name.trim().to_string()))
    };
    list.split(", ").filter_map(pointer).collect()
}

/// Type and name, and offset in bytes, of a line that declares a shared array.
fn shared_array(line: &str) -> Option<((&str, &str), &str)> {
    let (declared, value) = line.split_once(" = ")?;
    let offset = value.split_once("(&dynamic_shared_mem[")?.1.split(']').next()?;
    let (ty, name) = declared.split_once('*')?;
    Some(((ty.trim(), name.trim()), offset))
}

/// Name, and offset in bytes, of a line that declares a barrier in shared memory.
fn shared_barrier(line: &str) -> Option<(&str, &str)> {
    let (declared, value) =
        line.strip_prefix("cuda::barrier<cuda::thread_scope_block> &")?.split_once(" = ")?;
    Some((declared, value.split_once("(dynamic_shared_mem[")?.1.split(']').next()?))
}

/// A line whose accesses of buffers and shared arrays say where they stand.
fn checked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) =
        ["buffer_", "shared_memory_"].iter().filter_map(|n| rest.find(n).map(|i| i + n.len())).min()
    {
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - at);
        out += &rest[..at + digits];
        rest = &rest[at + digits..];
        if let Some(index) = rest.strip_prefix('[') {
            let end = closing(index);
            out += &format!(".at({}, __LINE__)", &index[..end]);
            rest = &index[end + 1..];
        }
    }
    out + rest
}

/// Where the bracket that is open closes.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (i, c) in text.char_indices() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        if depth == 0 {
            return i;
        }
    }
    panic!("an index does not end: {text}")
}
