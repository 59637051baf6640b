//! Files of earlier versions, which are read as long as their format version is. A newer format version is refused by its number.
//!
//! `tests/files/format-1` is a run of six steps (of its `config.toml`), with its state after step 4 and its model and images after
//! step 6. It is never written anew: a format that cannot read it needs a new number and a folder beside it.

use std::path::Path;

use end_to_end::Workplace;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/format-1");
/// Bound of the rounding errors in a weight, which differ between processors.
const ROUNDING: f32 = 1e-3;

/// A folder with a copy of the run, as `run`.
fn workplace() -> Workplace {
    let workplace = Workplace::new();
    for name in ["config.toml", "model.safetensors", "checkpoints/step-0000004.safetensors"] {
        workplace.write(format!("run/{name}"), std::fs::read(Path::new(FOLDER).join(name)).expect("a file"));
    }
    workplace
}

#[test]
fn an_old_model_draws_the_images_that_it_drew() {
    let workplace = workplace();
    workplace.run(&["sample", "run", "--count", "2", "--save", "png"]).succeeded();
    for name in ["00000.png", "00001.png"] {
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).expect("a picture").into_luma8().into_raw();
        let old = pixels(&std::fs::read(Path::new(FOLDER).join(name)).expect("a file"));
        let new = pixels(&workplace.read(format!("samples/{name}")));
        assert_eq!(old.len(), 28 * 28);
        let (least, most) = (old.iter().min(), old.iter().max());
        assert!(most > least, "{name} shows nothing");
        let differing = old.iter().zip(&new).filter(|(old, new)| old.abs_diff(**new) > 1).count();
        assert!(old.len() == new.len() && differing == 0, "{name}: {differing} pixels differ");
    }
}

#[test]
fn an_old_state_is_trained_on_to_the_same_model() {
    let workplace = workplace();
    let weights = || -> Vec<f32> {
        let model = checkpoint::Model::load(&workplace.path("run/model.safetensors"), &burn::tensor::Device::flex());
        let state = model.expect("a model").unet.state_dict();
        state.iter().flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>()).collect()
    };
    let expected = weights();
    std::fs::remove_file(workplace.path("run/model.safetensors")).expect("a file");
    let resumed = workplace.run(&["train", "--resume", "--run", "run"]).succeeded();
    assert!(resumed.error.contains("going on after step 4\n"), "{resumed}");
    let found = weights();
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(&expected).fold(0f32, |largest, (a, b)| largest.max((a - b).abs()));
    assert!(largest < ROUNDING, "a weight differs by {largest}");
}

#[test]
fn a_newer_version_is_refused_by_its_number_whatever_its_keys() {
    let workplace = workplace();
    let (model, state) = ("run/model.safetensors", "run/checkpoints/step-0000004.safetensors");
    // the newest versions that are read
    let files = [(model, 2), (state, 2)];
    for (file, newest) in files {
        let bytes = workplace.read(file);
        let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
        let (header, tensors) = bytes[8..].split_at(length);
        let header = String::from_utf8(header.to_vec()).expect("a header");
        let old = "{\\\"format_version\\\":1,";
        assert!(header.contains(old), "{header:.300}");
        let newer = format!("{{\\\"format_version\\\":{},\\\"of_the_future\\\":[1],", newest + 1);
        let newer = header.replacen(old, &newer, 1);
        workplace.write(file, [&(newer.len() as u64).to_le_bytes(), newer.as_bytes(), tensors].concat());
    }
    for (command, (file, newest)) in
        [&["sample", "run"][..], &["train", "--resume", "--run", "run"]].into_iter().zip(files)
    {
        let (version, supported) = (format!("format version {}", newest + 1), format!("reads up to {newest}"));
        workplace.run(command).refused(&[file, &version, &supported, "use a newer build"]);
    }
}
