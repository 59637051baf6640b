//! Files of torch.save: the three formats that `golden/lucidrains/make.py` wrote, and files that are damaged or hostile.

use std::{
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use interchange::torch_file::{TorchFile, Value, write};
use zip::{CompressionMethod, write::SimpleFileOptions, write::ZipWriter};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lucidrains").join(name)
}

#[test]
fn every_format_is_read() {
    for name in ["zip.pt", "protocol4.pt", "older.pt"] {
        let file = TorchFile::open(&golden(name)).expect(name);
        let values = |name: &str| -> Vec<f32> {
            file.tensor(name).expect("read").unwrap_or_else(|| panic!("{name} is there")).iter::<f32>().collect()
        };
        assert_eq!(values("square"), (0..12).map(|value| value as f32).collect::<Vec<_>>());
        assert_eq!((file.shape("turned"), &values("turned")[..3]), (Some(&[4, 3][..]), &[0.0, 4.0, 8.0][..]));
        assert_eq!((file.shape("part"), values("part")), (Some(&[2, 2][..]), vec![5.0, 6.0, 9.0, 10.0]));
        assert_eq!((values("half"), values("brain")), (vec![0.5, -2.0], vec![0.5, -2.0]));
        assert_eq!((values("double"), values("long"), values("truth")), (vec![0.1], vec![1.0, -2.0, 3.0], vec![1.0]));
        assert_eq!((file.shape("empty"), values("empty")), (Some(&[0, 3][..]), Vec::new()));
        assert_eq!(file.shape("module.weight"), Some(&[1, 2][..]));
        assert_eq!(file.number(&["numbers", "0", "step"]), Some(5.0));
        assert_eq!(file.number(&["numbers", "1", "1"]), Some(0.25));
        assert_eq!(file.number(&["numbers", "1", "4", "1"]), Some(2.0));
        assert_eq!(file.number(&["numbers", "1", "2"]), None);
        assert_eq!(file.tensor("nothing").expect("no error"), None);
    }
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.pt");
    let matrix = TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    let content = Value::dict([
        ("matrix", Value::Tensor(matrix.clone())),
        ("scalar", Value::Tensor(TensorData::new(vec![-(1i64 << 40)], Vec::<usize>::new()))),
        ("truth", Value::Tensor(TensorData::new(vec![true, false], [2]))),
        ("large", Value::Int(-(1 << 40))),
        (
            "list",
            Value::List(vec![Value::Float(0.5), Value::Tuple(vec![Value::Int(-3), Value::None]), Value::Bool(true)]),
        ),
    ]);
    write(&path, &content).expect("written");
    let file = TorchFile::open(&path).expect("read");
    assert_eq!(file.tensor("matrix").expect("read"), Some(matrix));
    assert_eq!(file.number(&["scalar"]), Some(-(2f64.powi(40))));
    assert_eq!(file.tensor("truth").expect("read"), Some(TensorData::new(vec![1.0f32, 0.0], [2])));
    assert_eq!(file.number(&["large"]), Some(-(2f64.powi(40))));
    assert_eq!(file.number(&["list", "1", "0"]), Some(-3.0));
    assert_eq!(file.number(&["list", "2"]), Some(1.0));
    let error = write(&path, &Value::Tensor(TensorData::new(vec![1.0f64], [1]))).expect_err("not written");
    assert!(error.to_string().contains("F64"), "{error}");
    assert!(TorchFile::open(&path).is_ok(), "the file of before is there");
}

/// A zip with this pickle and the storage `0` of these bytes.
fn zipped(folder: &Path, pickle: &[u8], storage: &[u8], method: CompressionMethod) -> PathBuf {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", storage), ("a/version", b"3\n")] {
        writer.start_file(name, options).expect("an entry");
        writer.write_all(bytes).expect("written");
    }
    let path = folder.join("hostile.pt");
    std::fs::write(&path, writer.finish().expect("a zip").into_inner()).expect("written");
    path
}

/// A pickle of `{"w": tensor}` whose storage claims `elements`, with these integers of 8 bytes as size and stride.
fn tensor(elements: i64, offset: i64, size: i64, stride: i64) -> Vec<u8> {
    let int = |value: i64| [&[0x8a, 8][..], &value.to_le_bytes()].concat();
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(elements),
        b"tQ".to_vec(),
        int(offset),
        [b"(".to_vec(), int(size), b"t(".to_vec(), int(stride), b"t".to_vec()].concat(),
        b"\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn hostile_tensors_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = |pickle: &[u8]| zipped(folder.path(), pickle, &[0; 16], CompressionMethod::Stored);
    let good = TorchFile::open(&stored(&tensor(4, 0, 4, 1))).expect("a good one");
    assert_eq!(good.tensor("w").expect("read").map(|data| data.num_elements()), Some(4));
    let huge = 1i64 << 62;
    // a claim beyond all limits, a stride, an offset and a size beyond the storage, a negative size
    for (elements, offset, size, stride) in [
        (huge, 0, huge, 1),
        (4, 0, 2, huge),
        (4, huge, 1, 1),
        (4, 0, 5, 1),
        (4, 0, -1, 1),
        (4, 3, 2, 1),
        (huge, 0, 2, huge / 2),
    ] {
        let result = TorchFile::open(&stored(&tensor(elements, offset, size, stride)));
        let error = match result {
            Err(error) => error.to_string(),
            Ok(file) => file.tensor("w").expect_err("refused").to_string(),
        };
        assert!(error.contains("hostile.pt: "), "{elements} {offset} {size} {stride}: {error}");
    }
    // a storage that is shorter than it claims
    let file = TorchFile::open(&stored(&tensor(1 << 20, 0, 1 << 20, 1))).expect("only its tensor is wrong");
    let error = file.tensor("w").expect_err("refused").to_string();
    assert!(error.contains("`w`: its 4194304 bytes are more than"), "{error}");
    let file = TorchFile::open(&stored(&tensor(8, 0, 8, 1))).expect("only its tensor is wrong");
    let error = file.tensor("w").expect_err("refused").to_string();
    assert!(error.contains("`w`: ") && error.contains("again"), "{error}");
    // one number, repeated without end
    let file = TorchFile::open(&stored(&tensor(1, 0, 1 << 30, 0))).expect("only its tensor is wrong");
    assert!(file.tensor("w").expect_err("refused").to_string().contains("expanded view"));
}

#[test]
fn files_with_code_or_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = |path: &Path| TorchFile::open(path).expect_err("refused").to_string();
    let code = b"\x80\x02cos\nsystem\nX\x09\0\0\0touch \x2fx.\x85R0}.";
    let message = error(&zipped(folder.path(), code, b"", CompressionMethod::Stored));
    assert!(
        message.contains("hostile.pt: its pickle names `os.system`") && message.contains("state_dict()"),
        "{message}"
    );
    // a pickle that unpacks to far more than the file has
    let bomb = [b"\x80\x02".as_slice(), &vec![b'N'; 1 << 20]].concat();
    let message = error(&zipped(folder.path(), &bomb, b"", CompressionMethod::Deflated));
    assert!(message.contains("claims 1048578 bytes"), "{message}");
    let message = error(&zipped(folder.path(), b"\x80\x02K\x05.", b"", CompressionMethod::Stored));
    assert!(message.contains("dictionary"), "{message}");

    let path = folder.path().join("other.pt");
    for (bytes, expected) in [
        (&b"PK\x03\x04 and no more"[..], "cut off"),
        (b"", "does not start"),
        (b"\x80\x02}.", "does not start"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "cut off"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let message = error(&path);
        assert!(message.contains("other.pt: ") && message.contains(expected), "{bytes:?}: {message}");
    }
    let whole = std::fs::read(golden("zip.pt")).expect("a golden file");
    for length in [whole.len() / 4, whole.len() / 2, whole.len() - 30] {
        std::fs::write(&path, &whole[..length]).expect("written");
        assert!(error(&path).contains("other.pt: "));
    }
    let whole = std::fs::read(golden("older.pt")).expect("a golden file");
    std::fs::write(&path, &whole[..whole.len() - 8]).expect("written");
    let is_refused = TorchFile::open(&path).is_err_and(|error| error.to_string().contains("again"));
    assert!(is_refused, "the last storage is cut");
    assert!(error(&folder.path().join("none.pt")).contains("none.pt: "));
}
