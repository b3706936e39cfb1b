//! The part of Python's pickle format that a PyTorch state dict is written in, read as data.
//!
//! A pickle is a program for a stack machine that may name any function and call it. Here nothing is ever called: the
//! few functions that a state dict needs are known by name and stand for what they would build, and any other is an
//! error. Values lie in one list and refer to each other by index, so that neither depth nor sharing nor cycles can
//! exhaust the stack, and what is referred to is never copied, so that memory is bounded by the length of the pickle.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    rc::Rc,
};

/// The most dimensions that a tensor may have.
const MOST_DIMENSIONS: usize = 8;

/// The longest name of a type of storage, in bytes.
const LONGEST_KIND: usize = 64;

/// The longest name within a dictionary that lies in another, in bytes: names may be shared, and are copied there.
const LONGEST_NESTED: usize = 256;

/// What went wrong, as the end of a sentence that begins with the file.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// A tensor as a state dict describes it: a view of a storage, in numbers of elements.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TensorView {
    pub(crate) storage: Rc<Storage>,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// A storage: the name of its type (`FloatStorage`) and the name of its entry in the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) kind: Rc<str>,
    pub(crate) key: Rc<str>,
}

/// A value by its index.
type Index = usize;

#[derive(Clone, Debug)]
enum Value {
    /// None, a flag, a float or bytes: nothing that a tensor is described by.
    Other,
    Int(i64),
    Text(Rc<str>),
    Tuple(Vec<Index>),
    List(Vec<Index>),
    Dict(Vec<(Index, Index)>),
    /// A function or class: its module and its name.
    Global(Rc<str>, Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<TensorView>),
}

/// The tensors of a pickled state dict by name. Those of a dictionary in it (`model`, `state_dict`) have its name before
/// theirs; entries that are neither are passed over.
pub(crate) fn state_dict(pickle: &[u8]) -> Result<BTreeMap<String, Rc<TensorView>>> {
    let mut machine = Machine { input: pickle, ..Machine::default() };
    let top = machine.run()?;
    if !matches!(machine.values[top], Value::Dict(_)) {
        return Err("its pickle does not hold a state dict".into());
    }
    let mut tensors = BTreeMap::new();
    let mut dicts = vec![(top, String::new())];
    // A dictionary is looked into once, wherever it lies.
    let mut seen = HashSet::from([top]);
    while let Some((dict, path)) = dicts.pop() {
        let Value::Dict(entries) = &machine.values[dict] else { continue };
        for &(key, value) in entries {
            let Value::Text(key) = &machine.values[key] else { continue };
            if !path.is_empty() && path.len() + key.len() > LONGEST_NESTED {
                continue;
            }
            match &machine.values[value] {
                Value::Tensor(tensor) => match tensors.entry(format!("{path}{key}")) {
                    Entry::Vacant(entry) => drop(entry.insert(tensor.clone())),
                    Entry::Occupied(entry) => return Err(format!("tensor `{}` is there twice", entry.key())),
                },
                Value::Dict(_) if key.len() < LONGEST_NESTED && seen.insert(value) => {
                    dicts.push((value, format!("{path}{key}.")));
                }
                _ => {}
            }
        }
    }
    Ok(tensors)
}

#[derive(Default)]
struct Machine<'a> {
    input: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Index>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Index>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Index> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                0x80 => drop(self.bytes(1)?), // PROTO
                0x95 => drop(self.bytes(8)?), // FRAME
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'N' | 0x88 | 0x89 => self.push(Value::Other),
                b'G' => {
                    self.bytes(8)?;
                    self.push(Value::Other);
                }
                b'K' => self.int(1)?,
                b'M' => self.int(2)?,
                b'J' => self.signed(4)?,
                0x8a => {
                    let length = self.byte()? as usize;
                    self.signed(length)?; // LONG1
                }
                b'X' | b'T' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                0x8d => self.text(8)?,
                b'B' => self.skip_bytes(4)?,
                b'C' => self.skip_bytes(1)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(module.into(), name.into()));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?); // STACK_GLOBAL
                    let global = match (&self.values[module], &self.values[name]) {
                        (Value::Text(module), Value::Text(name)) => Value::Global(module.clone(), name.clone()),
                        _ => return Err("its pickle names a function by something that is not text".into()),
                    };
                    self.push(global);
                }
                b')' => self.push(Value::Tuple(Vec::new())),
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items));
                }
                count @ 0x85..=0x87 => {
                    let mut items = (0x84..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                    items.reverse();
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'}' => self.push(Value::Dict(Vec::new())),
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set(&items)?;
                }
                b'q' => {
                    let at = u32::from(self.byte()?);
                    self.memoize(at)?;
                }
                b'r' => {
                    let at = self.number(4)? as u32;
                    self.memoize(at)?;
                }
                0x94 => self.memoize(self.memo.len() as u32)?,
                b'h' => {
                    let at = u32::from(self.byte()?);
                    self.recall(at)?;
                }
                b'j' => {
                    let at = self.number(4)? as u32;
                    self.recall(at)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => {
                    // The state of an object: a state dict's `_metadata`, which says nothing of its tensors.
                    self.pop()?;
                    let object = self.top()?;
                    if !matches!(self.values[object], Value::Dict(_)) {
                        return Err("its pickle builds an object that a state dict does not have".into());
                    }
                }
                0x81 => return Err(AN_OBJECT.into()),
                other => return Err(format!("its pickle has the instruction {other:#04x}, which no state dict needs")),
            }
        }
    }

    /// The storage that a persistent id names: `("storage", type, key, device, elements)`.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &self.values[id] else { return Err(NOT_A_STORAGE.into()) };
        let [tag, kind, key, ..] = parts[..] else { return Err(NOT_A_STORAGE.into()) };
        let storage = match (&self.values[tag], &self.values[kind], &self.values[key]) {
            (Value::Text(tag), Value::Global(_, kind), Value::Text(key))
                if &**tag == "storage" && kind.len() <= LONGEST_KIND =>
            {
                Storage { kind: kind.clone(), key: key.clone() }
            }
            _ => return Err(NOT_A_STORAGE.into()),
        };
        self.push(Value::Storage(Rc::new(storage)));
        Ok(())
    }

    /// What a call would return, for the functions that are known; no call is made.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(module, function) = &self.values[function] else {
            return Err("its pickle calls something that is not a function".into());
        };
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err(format!("its pickle calls `{module}.{function}` without arguments"));
        };
        let result = match (&**module, &**function, &arguments[..]) {
            ("collections", "OrderedDict", []) => Value::Dict(Vec::new()),
            ("torch._utils", "_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
                self.tensor([*storage, *offset, *shape, *strides])?
            }
            // The sizes of something, an entry that is no tensor.
            ("torch", "Size", [_]) => Value::Other,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                self.stack.push(*data);
                return Ok(());
            }
            _ => {
                return Err(format!(
                    "its pickle would call `{module}.{function}`: only tensors are read, nothing in a file is executed"
                ));
            }
        };
        self.push(result);
        Ok(())
    }

    fn tensor(&self, [storage, offset, shape, strides]: [Index; 4]) -> Result<Value> {
        let sizes = |at: Index| match &self.values[at] {
            Value::Tuple(items) if items.len() <= MOST_DIMENSIONS => {
                items.iter().map(|&item| self.size(item)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        match (&self.values[storage], self.size(offset), sizes(shape), sizes(strides)) {
            (Value::Storage(storage), Some(offset), Some(shape), Some(strides)) => {
                Ok(Value::Tensor(Rc::new(TensorView { storage: storage.clone(), offset, shape, strides })))
            }
            _ => Err("its pickle describes a tensor by something else than a storage and at most 8 sizes".into()),
        }
    }

    fn size(&self, at: Index) -> Option<usize> {
        match self.values[at] {
            Value::Int(size) => usize::try_from(size).ok(),
            _ => None,
        }
    }

    fn append(&mut self, items: Vec<Index>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            _ => return Err("its pickle appends to something that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Index]) -> Result<()> {
        let dict = self.top()?;
        let (Value::Dict(dict), (pairs, [])) = (&mut self.values[dict], items.as_chunks::<2>()) else {
            return Err("its pickle sets items of something that is not a dict".into());
        };
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn memoize(&mut self, at: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<()> {
        let value = *self.memo.get(&at).ok_or("its pickle recalls what it has not stored")?;
        self.stack.push(value);
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> Result<Index> {
        self.stack.last().copied().ok_or_else(|| EMPTY_STACK.into())
    }

    /// Takes the top value; a mark above it goes with it.
    fn pop(&mut self) -> Result<Index> {
        let value = self.stack.pop().ok_or(EMPTY_STACK)?;
        while self.marks.last().is_some_and(|&mark| mark > self.stack.len()) {
            self.marks.pop();
        }
        Ok(value)
    }

    /// Takes everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Index>> {
        let mark = self.marks.pop().ok_or("its pickle closes what it has not opened")?;
        Ok(self.stack.split_off(mark))
    }

    /// A number whose highest bit is its sign. None that describes a tensor is negative.
    fn signed(&mut self, bytes: usize) -> Result<()> {
        if self.input.get(bytes.wrapping_sub(1)).is_some_and(|byte| byte >> 7 == 1) {
            self.bytes(bytes as u64)?;
            self.push(Value::Other);
            return Ok(());
        }
        self.int(bytes)
    }

    fn int(&mut self, bytes: usize) -> Result<()> {
        if bytes > 8 {
            return Err(format!("its pickle has a number of {bytes} bytes"));
        }
        let number = self.number(bytes)?;
        self.push(i64::try_from(number).map_or(Value::Other, Value::Int));
        Ok(())
    }

    fn text(&mut self, bytes: usize) -> Result<()> {
        let length = self.number(bytes)?;
        let text = self.bytes(length)?;
        let text = std::str::from_utf8(text).map_err(|_| "its pickle holds text that is not UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn skip_bytes(&mut self, bytes: usize) -> Result<()> {
        let length = self.number(bytes)?;
        self.bytes(length)?;
        self.push(Value::Other);
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.input.iter().position(|&byte| byte == b'\n').ok_or(CUT_OFF)?;
        let line = self.bytes(end as u64)?;
        self.byte()?;
        std::str::from_utf8(line).map_err(|_| "its pickle names a function in text that is not UTF-8".into())
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.bytes(bytes as u64)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn bytes(&mut self, count: u64) -> Result<&'a [u8]> {
        let count = usize::try_from(count).ok().filter(|&count| count <= self.input.len()).ok_or(CUT_OFF)?;
        let (bytes, rest) = self.input.split_at(count);
        self.input = rest;
        Ok(bytes)
    }
}

const AN_OBJECT: &str = "its pickle has the instruction 0x81, which makes an object: a whole model was saved, or something of a \
                         trainer's, expected the tensors alone (`state_dict()`)";
const EMPTY_STACK: &str = "its pickle takes more values than it has made";
const NOT_A_STORAGE: &str = "its pickle refers to something outside itself that is not a storage";
const CUT_OFF: &str = "its pickle ends in the middle";
