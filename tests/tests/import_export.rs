//! `diffuse import` and `diffuse export`: lucidrains' checkpoint comes in, is used by every command, goes on learning, and leaves.

use std::{io::Read, path::Path};

use end_to_end::Workplace;
use flate2::read::GzDecoder;

/// A folder with `model-1.pt`, the checkpoint of lucidrains' trainer.
fn workplace() -> Workplace {
    let workplace = Workplace::new();
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/interchange/tests/golden/lucidrains/trainer.pt.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(golden).expect("a golden file")).read_to_end(&mut bytes).expect("gzip");
    workplace.write("model-1.pt", bytes);
    workplace
}

const IMPORT: [&str; 6] = ["import", "model-1.pt", "--image-size", "28", "--out", "model.safetensors"];

#[test]
fn an_imported_model_is_used_by_every_command() {
    let workplace = workplace();
    let finished = workplace.run(&IMPORT).succeeded();
    for part in [
        "used      averaged weights",
        "not used  the state of the optimizer",
        "assumed   images in [-1, 1]",
        "model     model.safetensors",
    ] {
        assert!(finished.output.contains(part), "{part}: {finished}");
    }
    let data = ["--data", "mnist-5k"];
    workplace.run(&["sample", "model.safetensors", "--count", "4", "--sampler", "ddim", "--steps", "4"]).succeeded();
    let nll = [&["nll", "model.safetensors", "--train-split", "--count", "2"][..], &data].concat();
    workplace.run(&nll).succeeded();
    workplace
        .run(&["edit", "vary", "model.safetensors", "mnist-5k#3", "--count", "1", "--out", "varied.png"])
        .succeeded();
    let evaluate = ["evaluate", "model.safetensors", "--references", "60", "--count", "10", "--classifier-epochs", "1"];
    workplace.run(&[&evaluate[..], &data].concat()).succeeded();

    let finished =
        workplace.run(&["export", "model.safetensors", "--to", "lucidrains", "--out", "back.pt"]).succeeded();
    assert!(finished.output.contains("GaussianDiffusion(unet, image_size = (28, 28), timesteps = 40"), "{finished}");
    workplace.run(&["import", "back.pt", "--image-size", "28", "--out", "again.safetensors"]).succeeded();
    assert_eq!(workplace.read("again.safetensors"), workplace.read("model.safetensors"));
    let raw = [&IMPORT[..5], &["raw.safetensors", "--raw", "--json"]].concat();
    let json = workplace.run(&raw).succeeded().json();
    assert_eq!((&json["model"], json["account"]["used"].is_array()), (&"raw.safetensors".into(), true));
    assert_ne!(workplace.read("raw.safetensors"), workplace.read("model.safetensors"));
}

#[test]
fn an_imported_training_goes_on() {
    let workplace = workplace();
    let import = ["import", "model-1.pt", "--optimizer", "--data", "mnist-5k", "--image-size", "28", "--out", "run"];
    let finished = workplace.run(&import).succeeded();
    assert!(finished.output.contains("go on with: diffuse train --resume --run run"), "{finished}");
    workplace.run(&import).refused(&["run", "not empty"]);
    let finished = workplace.run(&["train", "--resume", "--run", "run", "--steps", "132"]).succeeded();
    assert!(finished.error.contains("going on after step 130"), "{finished}");
    workplace.run(&["export", "run", "--to", "lucidrains", "--out", "model-2.pt"]).succeeded();
    let again = ["import", "model-2.pt", "--optimizer", "--data", "mnist-5k", "--image-size", "28", "--out", "other"];
    let finished = workplace.run(&again).succeeded();
    assert!(finished.output.contains("the training after step 132"), "{finished}");
}

#[test]
fn what_cannot_be_exchanged_is_refused_and_leaves_no_file() {
    let workplace = workplace();
    let whole = workplace.read("model-1.pt");
    workplace.write("cut.pt", &whole[..whole.len() / 2]);
    workplace.write("code.pt", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.");
    workplace.write("other.txt", "no model");
    std::fs::create_dir(workplace.path("folder")).expect("a folder");
    for (path, words) in [
        ("cut.pt", &["cut.pt", "cut off"][..]),
        ("code.pt", &["code.pt", "`os.system`", "state_dict()"]),
        ("other.txt", &["other.txt", "torch.save"]),
        ("missing.pt", &["missing.pt"]),
        ("folder", &["folder", "not one of diffusers"]),
    ] {
        workplace.run(&["import", path, "--out", "new.safetensors"]).refused(words);
    }
    workplace.run(&["import", "model-1.pt", "--out", "folder"]).refused(&["folder", "model.safetensors"]);
    workplace.run(&["import", "model-1.pt", "--out", "new.safetensors", "--image-size", "0"]).refused(&["64x48"]);
    workplace.run(&["import", "model-1.pt", "--out", "new.safetensors", "--steps", "41"]).refused(&["41", "40"]);
    workplace.run(&["import", "model-1.pt", "--out", "new", "--optimizer"]).refused(&["--data"]);
    assert!(!workplace.path("new.safetensors").exists() && !workplace.path("new").exists());

    workplace.train_tiny(&["--run", "run", "--steps", "1", "--set", "training.class_labels=true"]).succeeded();
    workplace
        .run(&["export", "run", "--to", "lucidrains", "--out", "new.pt"])
        .refused(&["patches", "unet.patch_size = 1"]);
    let whole = ["--run", "whole", "--steps", "1", "--set", "training.class_labels=true", "--set", "unet.patch_size=1"];
    workplace.train_tiny(&whole).succeeded();
    workplace.run(&["export", "whole", "--to", "lucidrains", "--out", "new.pt"]).refused(&["labels of 10 classes"]);
    workplace.run(&["export", "run", "--to", "lucidrain", "--out", "new.pt"]).refused(&["lucidrains"]);
    assert!(!workplace.path("new.pt").exists());
}

/// The arguments of a training of diffusers' network, small, for one step.
const UNET2D: [&str; 19] = [
    "train",
    "--run",
    "run",
    "--steps",
    "1",
    "--set",
    "unet.architecture=unet2d",
    "--set",
    "unet.block_out_channels=[8, 8]",
    "--set",
    "unet.down_block_types=[\"DownBlock2D\", \"AttnDownBlock2D\"]",
    "--set",
    "unet.up_block_types=[\"AttnUpBlock2D\", \"UpBlock2D\"]",
    "--set",
    "unet.layers_per_block=1",
    "--set",
    "unet.norm_num_groups=4",
    "--set",
    "training.class_labels=false",
];

#[test]
fn a_folder_of_diffusers_takes_the_place_of_a_model() {
    let workplace = Workplace::new();
    let settings = ["data.limit=20", "training.batch_size=2", "sampling.count=2", "sampling.steps=2"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let train: Vec<&str> = UNET2D.iter().copied().chain(settings).collect();
    workplace.run(&train).succeeded();
    let finished = workplace.run(&["export", "run", "--to", "diffusers", "--out", "folder"]).succeeded();
    assert!(finished.output.contains("UNet2DModel") && finished.output.contains("written   folder"), "{finished}");
    assert!(workplace.path("folder/unet/config.json").exists());
    workplace.run(&["export", "run", "--to", "diffusers", "--out", "folder"]).refused(&["folder", "empty"]);

    workplace.run(&["import", "folder", "--out", "model.safetensors"]).succeeded();
    let draw = |model: &str, out: &str| {
        // a spacing that both have
        let options =
            ["--count", "1", "--sampler", "ddim", "--steps", "3", "--spacing", "leading", "--save", "png", "--out"];
        workplace.run(&[&["sample", model][..], &options, &[out]].concat()).succeeded();
    };
    draw("folder", "from-folder");
    draw("model.safetensors", "from-model");
    draw("run", "from-run");
    let picture = |out: &str| workplace.read(format!("{out}/00000.png"));
    assert_eq!(picture("from-folder"), picture("from-model"));
    assert_eq!(picture("from-folder"), picture("from-run"));

    let raw = ["import", "folder", "--out", "raw.safetensors", "--raw"];
    workplace.run(&raw).refused(&["--raw", "denoising-diffusion-pytorch"]);
    workplace.run(&["export", "run", "--to", "lucidrains", "--out", "new.pt"]).refused(&["--to diffusers"]);
    workplace
        .run(&["sample", "hf://google/ddpm-cifar10-32"])
        .refused(&["hf://google/ddpm-cifar10-32", "--features hf"]);
}

#[test]
fn networks_leave_as_onnx_and_as_a_page() {
    let workplace = workplace();
    workplace.run(&IMPORT).succeeded();
    let export = |rest: &[&str]| workplace.run(&[&["export", "model.safetensors", "--to"][..], rest].concat());
    let finished = export(&["onnx", "--out", "network.onnx"]).succeeded();
    assert!(finished.output.contains("written   network.onnx"), "{finished}");
    export(&["onnx", "--out", "chain.onnx", "--chain", "3"]).succeeded();
    assert!(workplace.read("chain.onnx").len() > workplace.read("network.onnx").len());
    export(&["onnx", "--out", "other.onnx", "--chain", "41"]).refused(&["41", "40"]);
    export(&["page", "--out", "page"]).refused(&["onnxruntime-web", "npm pack"]);
    export(&["page", "--out", "page", "--chain", "3"]).refused(&["--chain"]);
    assert!(!workplace.path("other.onnx").exists() && !workplace.path("page").exists());
}
