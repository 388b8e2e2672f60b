//! Parsing YAML into a tree with line numbers.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, StrInput};

use super::{Entry, Node, Value};
use crate::config::origin::Origin;
use crate::config::problem::Problem;

/// The most values of one document, with aliases expanded: far above any configuration, and far below what hurts.
const MOST_VALUES: usize = 100_000;

/// How deep values may be nested.
const DEEPEST_LEVEL: usize = 64;

/// Parses one document. The origin of a value is its line, or `origin` if that is given.
///
/// # Errors
/// If the text is not YAML, has more than one document or a duplicate key, or is too large. The message contains no
/// values.
pub(crate) fn parse(text: &str, origin: Option<&Origin>) -> Result<Node, Problem> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        origin,
        anchors: HashMap::new(),
        values: 0,
    };
    let mut root = None;
    while let Some((event, place)) = reader.next()? {
        match event {
            Event::DocumentStart(..) if root.is_some() => {
                return Err(Problem::new("there is a second document; keep one").at(&place));
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => root = Some(reader.node(event, place, 0)?),
        }
    }
    Ok(root.unwrap_or_else(|| Node::null(&reader.place(1))))
}

struct Reader<'a, 'input> {
    events: Parser<'input, StrInput<'input>>,
    origin: Option<&'a Origin>,
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl<'input> Reader<'_, 'input> {
    fn place(&self, line: usize) -> Origin {
        self.origin.cloned().unwrap_or(Origin::Line(line))
    }

    fn next(&mut self) -> Result<Option<(Event<'input>, Origin)>, Problem> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Ok((mut event, span))) => {
                    // The parser returns `~` for an absent value; the tree distinguishes the two.
                    let is_there = span.start.index() < span.end.index();
                    if let (Event::Scalar(text, ScalarStyle::Plain, ..), false) = (&mut event, is_there) {
                        *text = "".into();
                    }
                    let place = self.place(span.start.line());
                    if is_content(&event) {
                        return Ok(Some((event, place)));
                    }
                }
                Some(Err(error)) => {
                    let message = format!("this is not YAML: {}", error.kind());
                    return Err(Problem::new(message).at(&self.place(error.marker().line())));
                }
            }
        }
    }

    fn must_next(&mut self) -> Result<(Event<'input>, Origin), Problem> {
        self.next()?
            .ok_or_else(|| Problem::new("the document ends too early"))
    }

    fn node(&mut self, event: Event<'input>, origin: Origin, depth: usize) -> Result<Node, Problem> {
        self.values += 1;
        if self.values > MOST_VALUES || depth > DEEPEST_LEVEL {
            return Err(Problem::new("there are too many values, or they are nested too deep").at(&origin));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let text = text.into_owned();
                (Value::Scalar { text, plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or_else(|| Problem::new("an alias is inside what it names").at(&origin))?;
                self.values += node.size();
                return Ok(node);
            }
            _ => return Err(Problem::new("this is not YAML").at(&origin)),
        };
        let node = Node { value, origin };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.must_next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, origin) => items.push(self.node(event, origin, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_origin) = self.must_next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(Problem::new("a key must be plain text").at(&key_origin)),
            };
            if let Some(twin) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("the key is given twice, first at {}; keep one", twin.key_origin);
                return Err(Problem::new(message).below(&key).at(&key_origin));
            }
            let (event, origin) = self.must_next()?;
            let node = self
                .node(event, origin, depth + 1)
                .map_err(|problem| problem.below(&key))?;
            if key == "<<" {
                merged.push(node);
            } else {
                entries.push(Entry {
                    key,
                    key_origin,
                    node,
                });
            }
        }
        for node in merged {
            merge(&mut entries, node)?;
        }
        Ok(Value::Map(entries))
    }
}

/// Adds the entries of a merge key that the map does not set itself.
fn merge(entries: &mut Vec<Entry>, node: Node) -> Result<(), Problem> {
    match node.value {
        Value::Map(others) => {
            for other in others {
                if entries.iter().all(|entry| entry.key != other.key) {
                    entries.push(other);
                }
            }
            Ok(())
        }
        Value::List(nodes) => nodes.into_iter().try_for_each(|node| merge(entries, node)),
        Value::Scalar { .. } => Err(Problem::new("`<<` takes an alias of a map").at(&node.origin)),
    }
}

fn is_content(event: &Event<'_>) -> bool {
    event.is_node()
        || matches!(
            event,
            Event::SequenceEnd | Event::MappingEnd | Event::DocumentStart(..) | Event::DocumentEnd
        )
}

impl Node {
    fn size(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 1,
            Value::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|entry| entry.node.size()).sum::<usize>(),
        }
    }
}
