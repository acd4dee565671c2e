//! The formatter's style, by examples.

use pg_ir::lang::format;

#[track_caller]
fn formats(text: &str, expected: &str) {
    let out = format("m.rs", text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(out, expected, "\n{out}");
    assert_eq!(format("m.rs", &out).unwrap(), out);
}

#[test]
fn spaces_and_indentation() {
    formats(
        r#"// before   it {
  pg_macros::model!{
  /// Doc.
 m from"tiny.rs"
 {
const A=1 ;   // one
const B = [ 1,-2 ,- A ] ;


fn mlp( x,y=  - 1.0 )
{ let z=x [ 0 ]. relu ( )-y*-1 ;
for(i,w)in[ (0,1) ] { let _=|a,b|a+b; }
if !( A==1 )&&true { x }
else { feed_forward( x ,MLP_DIM , | h | silu( h ) ) } }

optim { "a.*" if A>0=>adamw( lr=1e-3 ),
"{a,b}"=>
muon(lr = 1.0) , }
profile full { }
phases { late at step( 3 ) { A=2; } }
  } } fn  outside( ) { }
"#,
        r#"// before   it {
  pg_macros::model!{
      /// Doc.
      m from "tiny.rs" {
          const A = 1;   // one
          const B = [1, -2, -A];

          fn mlp(x, y = -1.0) {
              let z = x[0].relu() - y * -1;
              for (i, w) in [(0, 1)] { let _ = |a, b| a + b; }
              if !(A == 1) && true { x } else { feed_forward(x, MLP_DIM, |h| silu(h)) }
          }

          optim {
              "a.*" if A > 0 => adamw(lr = 1e-3),
              "{a,b}" =>
                  muon(lr = 1.0),
          }
          profile full {}
          phases { late at step(3) { A = 2; } }
      }
  } fn  outside( ) { }
"#,
    );
}

#[test]
fn lines_are_the_authors_and_long_ones_are_broken() {
    formats(
        r#"model! { m {
    fn forward(tokens) {
        let x = very_long_name_of_a_function(tokens, 1.0, first = 2.0) + another_function_of_that_kind(tokens, [1, 2], |a, b| a * b);
        let y = x
        + 1.0
        // why
        * 2.0;
        values.push(if contains(LAYERS, i) {
        a
        } else {
        b });
        assert(x > 0, "a text that is so long that nothing which stands beside it could make the line any shorter {x}, so");
        if x { "a text that is so long that nothing which stands beside it can stay" } else { "and another one of them" + x }
        /* a
  block */
        y // end
    }
} }
"#,
        r#"model! {
    m {
        fn forward(tokens) {
            let x = very_long_name_of_a_function(tokens, 1.0, first = 2.0) + another_function_of_that_kind(
                tokens,
                [1, 2],
                |a, b| a * b
            );
            let y = x
                + 1.0
                // why
                * 2.0;
            values.push(if contains(LAYERS, i) {
                a
            } else {
                b
            });
            assert(
                x > 0,
                "a text that is so long that nothing which stands beside it could make the line any shorter {x}, so"
            );
            if x {
                "a text that is so long that nothing which stands beside it can stay"
            } else {
                "and another one of them" + x
            }
            /* a
  block */
            y // end
        }
    }
}
"#,
    );
}

#[test]
fn what_does_not_parse_is_refused() {
    let error = format("m.rs", "model! { m { fn forward(tokens) { let x = ; x } } }").unwrap_err();
    assert!(error.to_string().contains("expected an expression"), "{error}");
    assert!(format("m.rs", "fn main() {}").unwrap_err().to_string().contains("no `model! { … }`"));
    assert!(format("m.pg", "fn f(x) { x").is_err());
    assert_eq!(format("m.pg", "fn f( x ){x}\n\n\n").unwrap(), "fn f(x) { x }\n");
    assert_eq!(format("m.pg", "").unwrap(), "");
}

/// Lines end as they did, and as deep as a text may nest it can be formatted.
#[test]
fn line_ends_and_depth() {
    assert_eq!(format("m.pg", "fn f(x)\r\n{\r\nx }\r\n").unwrap(), "fn f(x) {\r\n    x\r\n}\r\n");
    let deep = format!("fn f(x) {{ {}x{} }}\n", "(".repeat(120), ")".repeat(120));
    let out = format("m.pg", &deep).unwrap();
    assert_eq!(format("m.pg", &out).unwrap(), out);
    assert_eq!(out.replace(char::is_whitespace, ""), deep.replace(char::is_whitespace, ""));
}

/// Every group of a line is looked at once for each depth at which groups are within each other, not once for each other group.
#[test]
fn a_line_of_very_many_groups_is_broken_in_one_go() {
    let terms = 20_000;
    let sum = vec!["f(x)"; terms].join(" + ");
    let text =
        format!("model! {{\n    m {{\n        fn g(x) {{\n            {sum}\n        }}\n    }}\n}}\n");
    let out = format("m.rs", &text).unwrap();
    assert_eq!(out.matches("f(").count(), terms);
    assert!(out.lines().all(|line| line.len() <= 120));
    assert_eq!(format("m.rs", &out).unwrap(), out);
}
