//! The functions that a pickle names: checked before it is read, so that a file with code in it is an error and not a file whose
//! code is passed over.
//!
//! This walks over the operations of a pickle without doing them. See <https://docs.python.org/3/library/pickletools.html>.

use std::{
    collections::HashMap,
    io::{BufRead, Read, copy, sink},
};

/// Operations of all pickles of a file at most. A training state of a thousand parameters has some 300,000.
const MOST_OPERATIONS: usize = 1 << 24;

/// The longest name of a function or module.
const LONGEST_NAME: u64 = 256;

/// Whether a function or class makes tensors, dictionaries or their parts, as in PyTorch's loader of weights alone.
fn is_known(module: &str, name: &str) -> bool {
    match module {
        "collections" => name == "OrderedDict",
        "torch._utils" => matches!(
            name,
            "_rebuild_tensor"
                | "_rebuild_tensor_v2"
                | "_rebuild_tensor_v3"
                | "_rebuild_parameter"
                | "_rebuild_parameter_with_state"
        ),
        "torch.storage" => matches!(name, "UntypedStorage" | "TypedStorage"),
        "torch" => {
            name.ends_with("Storage")
                || matches!(name, "Size" | "device" | "bfloat16" | "bool" | "uint8")
                || ["float", "int", "uint"]
                    .iter()
                    .any(|kind| name.strip_prefix(kind).is_some_and(|bits| matches!(bits, "8" | "16" | "32" | "64")))
        }
        "builtins" | "__builtin__" => matches!(name, "set" | "frozenset"),
        _ => false,
    }
}

/// Checks every function that `count` pickles, one after the other, name.
///
/// # Errors
/// The reason, for a message about the file.
pub(super) fn check(reader: &mut impl BufRead, count: usize) -> Result<(), String> {
    let mut walk = Walk { reader, last: [None, None], memo: HashMap::new() };
    let mut ended = 0;
    for _ in 0..MOST_OPERATIONS {
        if walk.step()? {
            ended += 1;
            walk.memo.clear();
            if ended == count {
                return Ok(());
            }
        }
    }
    Err(format!("its pickle has more than {MOST_OPERATIONS} operations; save the state dict alone"))
}

struct Walk<'a, R> {
    reader: &'a mut R,
    /// The last two values that were put on the stack, where they are short texts.
    last: [Option<String>; 2],
    /// Those of them that are kept.
    memo: HashMap<u32, Option<String>>,
}

impl<R: BufRead> Walk<'_, R> {
    /// Passes one operation; whether it was the end of a pickle.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.bytes()?;
        match code {
            b'.' => return Ok(true),
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(Some(module), Some(name))?;
            }
            0x93 => {
                let [module, name] = std::mem::take(&mut self.last);
                self.name(module, name)?;
            }
            // numbers of functions that both sides have agreed on
            0x82..=0x84 => return Err(code_in_it("a function by a number")),
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' | 0x8a => self.skip(1)?,
            b'B' | 0x8b => self.skip(4)?,
            0x8e | 0x96 => self.skip(8)?,
            b'q' | b'r' | 0x94 => self.remember(code)?,
            b'h' | b'j' => {
                let place = self.place(code == b'j')?;
                let text = self.memo.get(&place).cloned().flatten();
                self.push(text);
            }
            b'p' | b'g' | b'I' | b'L' | b'F' | b'S' | b'V' | b'P' => {
                self.line()?;
                self.push(None);
            }
            // the version; the length of a frame
            0x80 => drop(self.bytes::<1>()?),
            0x95 => drop(self.bytes::<8>()?),
            b'K' => self.number::<1>()?,
            b'M' => self.number::<2>()?,
            b'J' => self.number::<4>()?,
            b'G' => self.number::<8>()?,
            b'('
            | b'0'
            | b'1'
            | b'2'
            | b'N'
            | b'R'
            | b'b'
            | b'd'
            | b'l'
            | b't'
            | b's'
            | b'a'
            | b')'
            | b']'
            | b'}'
            | b'e'
            | b'u'
            | b'Q'
            | b'o'
            | 0x81
            | 0x85..=0x89
            | 0x8f..=0x92
            | 0x97
            | 0x98 => self.push(None),
            _ => return Err(format!("its pickle has the unknown operation {code:#04x}; save or copy it again")),
        }
        Ok(false)
    }

    /// Checks a function or class.
    fn name(&mut self, module: Option<String>, name: Option<String>) -> Result<(), String> {
        self.push(None);
        match (module, name) {
            (Some(module), Some(name)) if is_known(&module, &name) => Ok(()),
            (Some(module), Some(name)) => {
                let shown: String = format!("{module}.{name}").chars().take(80).collect();
                Err(code_in_it(&format!("`{}`", shown.escape_debug())))
            }
            _ => Err(code_in_it("a function by something that is no short text")),
        }
    }

    fn push(&mut self, text: Option<String>) {
        self.last = [self.last[1].take(), text];
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(cut)?;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<(), String> {
        self.bytes::<N>()?;
        self.push(None);
        Ok(())
    }

    /// An unsigned length of `count` bytes, least significant first.
    fn length(&mut self, count: usize) -> Result<u64, String> {
        (0..count).try_fold(0, |sum, place| Ok(sum | u64::from(self.bytes::<1>()?[0]) << (8 * place)))
    }

    /// Passes a value with its length before it.
    fn skip(&mut self, count: usize) -> Result<(), String> {
        let length = self.length(count)?;
        let passed = copy(&mut self.reader.by_ref().take(length), &mut sink()).map_err(cut)?;
        if passed < length {
            return Err("its pickle is cut off; save or copy it again".to_owned());
        }
        self.push(None);
        Ok(())
    }

    fn text(&mut self, count: usize) -> Result<(), String> {
        let length = self.length(count)?;
        let mut start = Vec::new();
        let short = self.reader.by_ref().take(length.min(LONGEST_NAME)).read_to_end(&mut start).map_err(cut)?;
        let rest = length - length.min(LONGEST_NAME);
        let passed = copy(&mut self.reader.by_ref().take(rest), &mut sink()).map_err(cut)?;
        if short as u64 + passed < length {
            return Err("its pickle is cut off; save or copy it again".to_owned());
        }
        self.push(if rest == 0 { String::from_utf8(start).ok() } else { None });
        Ok(())
    }

    fn place(&mut self, long: bool) -> Result<u32, String> {
        Ok(self.length(if long { 4 } else { 1 })? as u32)
    }

    fn remember(&mut self, code: u8) -> Result<(), String> {
        let place = if code == 0x94 { self.memo.len() as u32 } else { self.place(code == b'r')? };
        self.memo.insert(place, self.last[1].clone());
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        self.reader.by_ref().take(LONGEST_NAME).read_until(b'\n', &mut line).map_err(cut)?;
        if line.pop() != Some(b'\n') {
            return Err("its pickle has a line without an end; save or copy it again".to_owned());
        }
        String::from_utf8(line).map_err(|_| "its pickle has a name that is not UTF-8".to_owned())
    }
}

fn cut(error: std::io::Error) -> String {
    format!("its pickle is cut off ({error}); save or copy it again")
}

fn code_in_it(function: &str) -> String {
    format!(
        "its pickle names {function}, which makes no tensor, and no code of a file is run; save the state dict alone: \
         torch.save(model.state_dict(), PATH)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(pickle: &[u8]) -> Result<(), String> {
        check(&mut &pickle[..], 1)
    }

    #[test]
    fn functions_are_found_however_they_are_named() {
        let error = |pickle: &[u8]| result(pickle).expect_err("code");
        assert!(error(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.").contains("`os.system`"));
        assert!(error(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93.").contains("`posix.system`"));
        // recalled from the memo, and passed over before an innocent dictionary
        assert!(error(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94N0h\0h\x01\x93)R0}.").contains("`posix.system`"));
        assert!(error(b"\x80\x02(ibuiltins\neval\n.").contains("`builtins.eval`"));
        assert!(error(b"\x80\x02\x82\x01.").contains("by a number"));
        assert!(error(b"\x80\x04K\x01K\x02\x93.").contains("no short text"));
        assert!(error(b"\x80\x02ctorch\nload\n.").contains("`torch.load`"));
        assert!(result(b"\x80\x02ccollections\nOrderedDict\n)Rctorch\nFloatStorage\n0.").is_ok());
    }

    #[test]
    fn cut_and_claiming_pickles_are_refused() {
        for pickle in [
            &b"\x80"[..],
            b"\x80\x02X\xff\xff\xff\xffab.",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x3fab.",
            b"\x80\x02cos",
        ] {
            assert!(result(pickle).is_err(), "{pickle:?}");
        }
        assert!(result(b"\x80\x02\xff.").expect_err("unknown").contains("0xff"));
    }
}
