//! Pickles of Python, as far as CIFAR's Python version needs them: dictionaries, lists, numbers, strings and numpy arrays of
//! bytes, in protocols 2 to 4. A pickle is a program for a small stack machine; this one runs no code: every function that a
//! file names but those that make strings and arrays is refused. See <https://docs.python.org/3/library/pickletools.html>.
//!
//! Values lie in one list and refer to each other by their numbers, strings are parts of the file: nothing is copied, nothing
//! recurses, and memory is bounded by the number of operations.

use std::borrow::Cow;
use std::collections::HashMap;

/// Operations of a file at most; the longest published one, CIFAR-100's training file, has 300,000.
const MOST_OPERATIONS: usize = 1 << 21;

/// The number of a value.
type Number = usize;

/// A value of a pickle.
#[derive(Debug, Clone)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// Bytes that Python 3 wrote as text in Latin-1, for Python 2.
    Latin1(&'a str),
    List(Vec<Number>),
    Tuple(Vec<Number>),
    Dict(Vec<(Number, Number)>),
    Function(Function),
    /// The type of an array of bytes.
    ByteType,
    /// An array that has no values yet.
    NewArray,
    /// An array: its shape, and the string of its bytes.
    Array(Vec<usize>, Number),
}

/// A function or class of Python that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Encode,
    Bytes,
    Reconstruct,
    Array,
    Type,
}

/// A pickle that was read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Number,
}

/// Whether a file starts as a pickle of protocol 2 or later.
pub(crate) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// Reads the pickle in `bytes`.
///
/// # Errors
/// The reason, for a message about the file.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    if !is_pickle(bytes) {
        return Err("is no pickle of protocol 2 or later".into());
    }
    let mut machine = Machine { rest: &bytes[2..], ..Machine::default() };
    for _ in 0..MOST_OPERATIONS {
        if let Some(root) = machine.step().map_err(|problem| format!("as a pickle: {problem}"))? {
            if !machine.rest.is_empty() {
                return Err(format!("as a pickle: {} bytes follow its end", machine.rest.len()));
            }
            return Ok(Pickle { values: machine.values, root });
        }
    }
    Err(format!("as a pickle: it has more than {MOST_OPERATIONS} operations; a file of CIFAR has fewer"))
}

impl Pickle<'_> {
    /// The value of a key of the dictionary that the file holds.
    pub(crate) fn get(&self, key: &str) -> Option<Number> {
        let Value::Dict(pairs) = &self.values[self.root] else { return None };
        let is_key = |name: Number| match self.values[name] {
            Value::Bytes(name) => name == key.as_bytes(),
            Value::Text(name) | Value::Latin1(name) => name == key,
            _ => false,
        };
        pairs.iter().rev().find(|(name, _)| is_key(*name)).map(|pair| pair.1)
    }

    /// The numbers of a list.
    pub(crate) fn integers(&self, list: Number) -> Option<Vec<i64>> {
        let Value::List(items) = &self.values[list] else { return None };
        items.iter().map(|&item| if let Value::Int(value) = self.values[item] { Some(value) } else { None }).collect()
    }

    /// The strings of a list of names.
    pub(crate) fn names(&self, list: Number) -> Option<Vec<String>> {
        let Value::List(items) = &self.values[list] else { return None };
        let name = |item: &Number| match self.values[*item] {
            Value::Bytes(name) => String::from_utf8(name.to_vec()).ok(),
            Value::Text(name) | Value::Latin1(name) => Some(name.to_string()),
            _ => None,
        };
        // the same string may be there many times
        items.iter().map(|item| name(item).filter(|name| name.len() <= 256)).collect()
    }

    /// The shape of an array, and its bytes, as many as its shape says.
    pub(crate) fn array(&self, array: Number) -> Option<(&[usize], Cow<'_, [u8]>)> {
        let Value::Array(shape, data) = &self.values[array] else { return None };
        let bytes = self.bytes(*data)?;
        let length = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side))?;
        (length == bytes.len()).then_some((shape, bytes))
    }

    /// The bytes of a string.
    fn bytes(&self, string: Number) -> Option<Cow<'_, [u8]>> {
        match self.values[string] {
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Value::Latin1(text) => {
                text.chars().map(|letter| u8::try_from(letter).ok()).collect::<Option<_>>().map(Cow::Owned)
            }
            _ => None,
        }
    }
}

/// The stack machine.
#[derive(Default)]
struct Machine<'a> {
    /// What is still to be read.
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Number>,
    /// The heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Number>,
}

impl<'a> Machine<'a> {
    /// Does one operation; returns the result after the last.
    fn step(&mut self) -> Result<Option<Number>, String> {
        let code = self.take(1)?[0];
        match code {
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool(code == 0x88)),
            b'J' | b'K' | b'M' | 0x8a => self.integer(code)?,
            b'U' | b'T' | b'C' | b'B' | b'X' | 0x8c => self.string(code)?,
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84)).ok_or("its stack is empty")?;
                self.tuple(from);
            }
            b't' => {
                let from = self.mark()?;
                self.tuple(from);
            }
            b'a' | b'e' => self.append(code == b'e')?,
            b's' | b'u' => self.set_items(code == b'u')?,
            b'q' | b'r' | 0x94 => self.remember(code)?,
            b'h' | b'j' => {
                let place = self.place(code == b'j')?;
                self.stack.push(*self.memo.get(&place).ok_or("it recalls a value that it never kept")?);
            }
            // the length of a frame of protocol 4
            0x95 => drop(self.take(8)?),
            b'c' | 0x93 => self.function(code == 0x93)?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            _ => return Err(format!("operation {code:#04x} is not among those of CIFAR's files")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it is cut; get it again")?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned integer of `count` bytes, least significant first.
    fn unsigned(&mut self, count: usize) -> Result<u32, String> {
        Ok(self.take(count)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Number, String> {
        // what lies below the last mark belongs to others
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err("its stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    fn mark(&mut self) -> Result<usize, String> {
        self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(|| "it lacks a mark".into())
    }

    fn integer(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' => i64::from(self.unsigned(1)?),
            b'M' => i64::from(self.unsigned(2)?),
            b'J' => i64::from(self.unsigned(4)?.cast_signed()),
            _ => {
                let length = self.unsigned(1)? as usize;
                let bytes = self.take(length)?;
                if length > 8 {
                    return Err(format!("it has a number of {length} bytes"));
                }
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                bytes.iter().rev().fold(if negative { -1 } else { 0 }, |sum: i64, &byte| sum << 8 | i64::from(byte))
            }
        };
        self.push(Value::Int(value));
        Ok(())
    }

    fn string(&mut self, code: u8) -> Result<(), String> {
        let length = self.unsigned(if matches!(code, b'U' | b'C' | 0x8c) { 1 } else { 4 })?;
        let bytes = self.take(length as usize)?;
        self.push(if matches!(code, b'X' | 0x8c) {
            Value::Text(str::from_utf8(bytes).map_err(|_| "it has a text that is not UTF-8")?)
        } else {
            Value::Bytes(bytes)
        });
        Ok(())
    }

    fn tuple(&mut self, from: usize) {
        let items = self.stack.split_off(from);
        self.push(Value::Tuple(items));
    }

    fn append(&mut self, many: bool) -> Result<(), String> {
        let items = if many {
            let mark = self.mark()?;
            self.stack.split_off(mark)
        } else {
            vec![self.pop()?]
        };
        match self.stack.last().map(|&list| &mut self.values[list]) {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err("it appends to something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, many: bool) -> Result<(), String> {
        let from = if many { Some(self.mark()?) } else { self.stack.len().checked_sub(2) };
        let items = self.stack.split_off(from.ok_or("its stack is empty")?);
        match self.stack.last().map(|&dict| &mut self.values[dict]) {
            Some(Value::Dict(pairs)) => pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return Err("it sets keys of something that is no dictionary".into()),
        }
        Ok(())
    }

    /// A place of the memo.
    fn place(&mut self, long: bool) -> Result<u32, String> {
        self.unsigned(if long { 4 } else { 1 })
    }

    fn remember(&mut self, code: u8) -> Result<(), String> {
        let place = if code == 0x94 { self.memo.len() as u32 } else { self.place(code == b'r')? };
        let value = *self.stack.last().ok_or("its stack is empty")?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length =
            self.rest.iter().take(256).position(|&byte| byte == b'\n').ok_or("it has a name without an end")?;
        let line = self.take(length + 1)?;
        str::from_utf8(&line[..length]).map_err(|_| "it has a name that is not UTF-8".into())
    }

    /// A function by its name, in the file or on the stack.
    fn function(&mut self, on_stack: bool) -> Result<(), String> {
        let (module, name) = if on_stack {
            let (name, module) = (self.pop()?, self.pop()?);
            let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                return Err("it names a function by something that is no text".into());
            };
            (*module, *name)
        } else {
            (self.line()?, self.line()?)
        };
        let function = match (module, name) {
            ("_codecs", "encode") => Function::Encode,
            ("__builtin__" | "builtins", "bytes") => Function::Bytes,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Function::Reconstruct,
            ("numpy", "ndarray") => Function::Array,
            ("numpy", "dtype") => Function::Type,
            _ => {
                let shown: String = format!("{module}.{name}").chars().take(80).collect();
                return Err(format!("it calls `{}`, and no code of a file is run", shown.escape_debug()));
            }
        };
        self.push(Value::Function(function));
        Ok(())
    }

    /// Calls a function.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Function(function)) = (&self.values[arguments], &self.values[function])
        else {
            return Err("it calls something that is no function".into());
        };
        let arguments: Vec<&Value<'a>> = arguments.iter().map(|&argument| &self.values[argument]).collect();
        let result = match (function, arguments.as_slice()) {
            (Function::Encode, [Value::Text(text), Value::Text("latin1")]) => Value::Latin1(text),
            (Function::Bytes, []) => Value::Bytes(&[]),
            (Function::Reconstruct, [Value::Function(Function::Array), ..]) => Value::NewArray,
            (Function::Type, [Value::Bytes(b"u1") | Value::Text("u1"), ..]) => Value::ByteType,
            (Function::Type, [kind, ..]) => {
                let kind = match kind {
                    Value::Bytes(bytes) => String::from_utf8_lossy(bytes).chars().take(20).collect(),
                    Value::Text(text) => text.chars().take(20).collect(),
                    _ => String::from("something else"),
                };
                return Err(format!("it has an array of `{}`, expected bytes (`u1`)", kind.escape_debug()));
            }
            (function, _) => return Err(format!("it calls {function:?} with unusual arguments")),
        };
        self.push(result);
        Ok(())
    }

    /// Completes an array by its state: version, shape, type, order, bytes.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let object = *self.stack.last().ok_or("its stack is empty")?;
        match self.values[object] {
            // its state is the order of bytes, of which a byte has none
            Value::ByteType => return Ok(()),
            Value::NewArray => {}
            _ => return Err("it builds something that is no array".into()),
        }
        let unusual = "it has an array of an unusual form";
        let Value::Tuple(state) = &self.values[state] else { return Err(unusual.into()) };
        let [_, shape, kind, is_fortran, data] = state.as_slice() else { return Err(unusual.into()) };
        let (Value::Tuple(sides), Value::ByteType, Value::Bool(false)) =
            (&self.values[*shape], &self.values[*kind], &self.values[*is_fortran])
        else {
            return Err(unusual.into());
        };
        let side =
            |&side: &Number| if let Value::Int(side) = self.values[side] { usize::try_from(side).ok() } else { None };
        let sides: Option<Vec<usize>> = sides.iter().map(side).collect();
        self.values[object] = Value::Array(sides.ok_or(unusual)?, *data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cifar_pickle, mutations};

    fn error(bytes: &[u8]) -> String {
        read(bytes).unwrap_err()
    }

    #[test]
    fn batches_of_either_python_are_read() {
        let data: Vec<u8> = (0..2 * 3072u32).map(|at| ((at * 7) >> 2) as u8).collect();
        for python3 in [false, true] {
            let bytes = cifar_pickle(python3, "labels", &[3, 250], &data);
            let pickle = read(&bytes).unwrap();
            assert_eq!(pickle.integers(pickle.get("labels").unwrap()), Some(vec![3, 250]));
            let (shape, values) = pickle.array(pickle.get("data").unwrap()).unwrap();
            assert_eq!((shape, &*values), ([2, 3072].as_slice(), data.as_slice()));
            assert_eq!(pickle.names(pickle.get("filenames").unwrap()).unwrap(), ["leptodactylus_s_000004.png"]);
            assert_eq!(pickle.get("fine_labels"), None);
            assert_eq!(pickle.array(pickle.get("labels").unwrap()), None);
        }
        // protocol 4: a frame, functions by names on the stack, numbers of any length, a negative one
        let bytes = b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(J\xfe\xff\xff\xffM\0\x01\x8a\x01\xff\x8a\0\x8a\x02\0\x80eu.";
        let pickle = read(bytes).unwrap();
        assert_eq!(pickle.integers(pickle.get("a").unwrap()), Some(vec![-2, 256, -1, 0, -32768]));
    }

    #[test]
    fn no_code_is_run() {
        assert!(error(b"\x80\x02cos\nsystem\n(X\x02\0\0\0lsR.").contains("`os.system`, and no code"));
        assert!(error(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.").contains("`posix.system`"));
        assert!(error(b"\x80\x02c__builtin__\neval\n.").contains("`__builtin__.eval`"));
        // a known function with other arguments
        assert!(error(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R.").contains("unusual arguments"));
        assert!(error(b"\x80\x02cnumpy\ndtype\nU\x02f4\x85R.").contains("an array of `f4`, expected bytes"));
        assert!(error(b"(dp0\nS'a'\n.").contains("no pickle of protocol 2"));
    }

    #[test]
    fn damaged_and_endless_pickles_are_refused() {
        let bytes = cifar_pickle(false, "labels", &[1, 2], &[5; 2 * 3072]);
        assert!(error(&bytes[..bytes.len() / 2]).contains("cut"));
        assert!(error(&[bytes.as_slice(), b"N."].concat()).contains("2 bytes follow its end"));
        assert!(error(&[b"\x80\x02".as_slice(), &[b'N'; MOST_OPERATIONS + 1]].concat()).contains("operations"));
        // a list in itself, values that were never kept, stacks that are too short
        assert!(read(b"\x80\x02]q\0h\0a.").is_ok_and(|pickle| pickle.integers(pickle.root).is_none()));
        for bad in ["h\u{1}.", "\u{85}.", "t.", "(.", "e.", "s.", "R.", "b.", "q\u{1}.", ".", "("] {
            let bytes: Vec<u8> = [0x80, 2].into_iter().chain(bad.chars().map(|letter| letter as u8)).collect();
            assert!(read(&bytes).is_err(), "{bad:?}");
        }
        // an array that claims more than it has
        let mut lie = bytes.clone();
        let at = lie.windows(3).position(|part| part == b"M\0\x0c").unwrap();
        lie[at + 1..at + 3].fill(0xff);
        let pickle = read(&lie).unwrap();
        assert_eq!(pickle.array(pickle.get("data").unwrap()), None);
    }

    #[test]
    fn a_damaged_pickle_is_read_or_refused() {
        let mut refused = 0;
        for python3 in [false, true] {
            let bytes = cifar_pickle(python3, "labels", &[1, 2], &[5; 30]);
            for mutated in mutations(&bytes, 5000) {
                match read(&mutated) {
                    Ok(pickle) => {
                        let _ = pickle.get("data").map(|data| pickle.array(data).map(|array| array.0.len()));
                        let _ = pickle.get("labels").map(|labels| pickle.integers(labels));
                        let _ = pickle.get("filenames").map(|names| pickle.names(names));
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 1000, "only {refused} of 10000 were refused");
    }
}
