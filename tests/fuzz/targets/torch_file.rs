//! Files of torch.save.
#![no_main]

use interchange::torch_file::TorchFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::with_file("a.pt", bytes, |path| {
    let Ok(file) = TorchFile::open(path) else { return };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        drop(file.tensor(&name));
    }
}));
