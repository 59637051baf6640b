//! The files of the page; `peers/page.mjs` draws with it in a browser.

use burn::tensor::Device;
use checkpoint::{Header, ImageFormat, Model};
use interchange::page::export;
use unet::UnetConfig;

/// The files of onnxruntime-web that a page copies.
const RUNTIME: [&str; 3] = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
/// The files of a page that name others.
const TEXTS: [&str; 5] = ["index.html", "style.css", "page.js", "worker.js", "diffusion.js"];

fn model() -> Model {
    let config = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
    let unet = config.init(&Device::flex()).expect("a possible configuration");
    Model { unet: unet.into(), header: Header::new(config, ImageFormat::new(1, 8, 8)) }
}

/// A folder with files of the names of onnxruntime-web at `place`.
fn package(place: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let dist = folder.path().join(place);
    std::fs::create_dir_all(&dist).expect("a folder");
    for name in RUNTIME {
        std::fs::write(dist.join(name), name).expect("a file");
    }
    folder
}

#[test]
fn the_folder_has_all_that_its_files_name_and_can_be_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page");
    for place in ["dist", "", "onnxruntime-web/dist", "package/dist"] {
        let account = export(&model(), &page, Some(package(place).path())).expect("a page");
        assert!(account.to_string().contains("classes, image format"), "{account}");
    }
    assert!(page.join("model.onnx").is_file());
    // what the files load is there, and nothing of it is on another server
    for name in TEXTS {
        let content = std::fs::read_to_string(page.join(name)).expect("a file of the page");
        assert!(!content.contains("https://"), "{name} names another server");
        let quoted = content.split('"').skip(1).step_by(2);
        for path in quoted.filter(|text| [".js", ".css", ".wasm", ".onnx"].iter().any(|end| text.ends_with(end))) {
            assert!(page.join(path).is_file(), "{name} names {path}, which is not in the folder");
        }
    }
}

#[test]
fn without_a_runtime_nothing_is_written_and_the_message_says_how_to_get_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page");
    let message = export(&model(), &page, None).unwrap_err().to_string();
    assert!(message.contains("npm pack onnxruntime-web") && message.contains("--onnxruntime-web"), "{message}");
    let message = export(&model(), &page, Some(folder.path())).unwrap_err().to_string();
    assert!(message.contains("dist/ort.wasm.min.mjs"), "{message}");
    assert!(!page.exists());
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.txt"), "all of it").expect("a file");
    let message = export(&model(), folder.path(), Some(package("dist").path())).unwrap_err().to_string();
    assert!(message.contains("thesis.txt") && message.contains("choose another folder"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}
