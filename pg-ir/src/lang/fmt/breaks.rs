//! Where lines end: as the author has it, but that braces whose content has several lines stand at ends of lines, and that
//! nothing stands alone which belongs to the line before.

use super::pieces::{Kind, Piece, Role};

/// Pieces with their line breaks in order.
pub(super) fn normalised<'t>(pieces: &[Piece<'t>]) -> Vec<Piece<'t>> {
    let mut pieces = pieces.to_vec();
    join(&mut pieces);
    open_up(&mut pieces);
    let mut last: Option<Kind> = None;
    for piece in &mut pieces {
        let (is_first, is_closing) = (last == Some(Kind::Open), piece.kind == Kind::Close);
        // One blank line at most, and none inside of delimiters' ends.
        let most = if is_first || is_closing || last.is_none() { 1 } else { 2 };
        let least = usize::from(last == Some(Kind::Comment { is_line: true }));
        piece.newlines = piece.newlines.clamp(least, most);
        last = Some(piece.kind);
    }
    pieces
}

/// Takes to the line before what is part of it.
fn join(pieces: &mut [Piece<'_>]) {
    for at in 1..pieces.len() {
        let [before, piece] = &pieces[at - 1..=at] else { continue };
        let ends =
            before.is(";") || before.is(",") || matches!(before.kind, Kind::Open | Kind::Comment { .. });
        let is_part = match piece.kind {
            Kind::Open if piece.text == "{" => !ends && before.text != "}",
            Kind::Word => piece.text == "else" && before.text == "}",
            Kind::Punct => (piece.is(";") || piece.is(",")) && !before.is_comment(),
            _ => false,
        };
        if is_part {
            pieces[at].newlines = 0;
        }
    }
}

/// Where there is a break inside of braces, there is one behind the opening and one before the closing. Other
/// delimiters that end a line are closed on a line of their own.
fn open_up(pieces: &mut [Piece<'_>]) {
    // For each delimiter that is open, whether there has been a break inside.
    let mut open: Vec<bool> = Vec::new();
    for at in 0..pieces.len() {
        let has_break = pieces[at].newlines > 0;
        if has_break && let Some(inside) = open.last_mut() {
            *inside = true;
        }
        match pieces[at].kind {
            Kind::Open => open.push(false),
            Kind::Close => {
                let is_broken = open.pop().unwrap_or(false);
                let first = pieces[at].pair + 1;
                let is_brace = pieces[at].text == "}";
                if is_broken && first < at && (is_brace || pieces[first].newlines > 0) {
                    pieces[at].newlines = pieces[at].newlines.max(1);
                    // A comment behind the opening delimiter stays there.
                    if !pieces[first].is_comment() {
                        pieces[first].newlines = pieces[first].newlines.max(1);
                    }
                }
                if is_broken && first == at {
                    pieces[at].newlines = 0;
                } else if is_broken && let Some(inside) = open.last_mut() {
                    *inside = true;
                }
            }
            _ => {}
        }
    }
}

/// Breaks the delimited groups that a line, from `first` to before `end`, can best do without, from the last one on, until
/// what is left of it up to a piece is short enough; whether any was broken.
pub(super) fn shorten(
    pieces: &mut [Piece<'_>],
    first: usize,
    end: usize,
    is_short: impl Fn(usize) -> bool,
) -> bool {
    let mut groups = groups(pieces, first, end);
    let mut end = end;
    let mut is_broken = false;
    while !is_short(end)
        && let Some(last) = groups.pop()
    {
        let mut chosen = vec![last];
        if pieces[last.0].text == "{" {
            // Both sides of a choice, not one of them. What stands between them will have lines of its own.
            let is_block = |(open, _): &(usize, usize)| pieces[*open].text == "{";
            let block = groups.iter().position(is_block).unwrap_or(groups.len());
            chosen.extend(groups.drain(block..).filter(is_block));
        }
        end = 1 + chosen.iter().map(|(open, _)| *open).min().unwrap_or(first);
        chosen.into_iter().for_each(|(open, close)| break_group(pieces, open, close));
        is_broken = true;
    }
    is_broken
}

/// The outermost delimited groups with something in them, by their delimiters.
fn groups(pieces: &[Piece<'_>], first: usize, end: usize) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut at = first;
    while at < end {
        let pair = pieces[at].pair;
        if pieces[at].kind == Kind::Open && pair < end {
            if pair > at + 1 {
                groups.push((at, pair));
            }
            at = pair;
        }
        at += 1;
    }
    groups
}

/// Puts what is between delimiters, and each of its statements or arguments, on lines of their own.
fn break_group(pieces: &mut [Piece<'_>], open: usize, close: usize) {
    pieces[open + 1].newlines = 1;
    pieces[close].newlines = 1;
    let mut at = open + 1;
    while at < close {
        if pieces[at].kind == Kind::Open {
            at = pieces[at].pair;
        }
        let is_end = pieces[at].is(";") || (pieces[at].is(",") && pieces[at].role != Role::Parameter);
        if is_end && at + 1 < close && !pieces[at + 1].is_comment() {
            pieces[at + 1].newlines = 1;
        }
        at += 1;
    }
}
