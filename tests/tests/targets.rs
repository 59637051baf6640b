//! Objectives and losses beyond the article's, from training to a picture; averages made after the training; classifier guidance.

use end_to_end::{Workplace, png_size};

const RUN: &str = "runs/digits-1";

fn trained(settings: &[&str]) -> Workplace {
    let workplace = Workplace::new();
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    workplace.train_tiny(&set.collect::<Vec<_>>()).succeeded();
    workplace
}

#[test]
fn every_objective_trains_and_draws() {
    let targets: [(&[&str], &[&str]); 9] = [
        (&["diffusion.objective=edm:0.5", "diffusion.family=edm"], &["--sampler", "edm", "--spacing", "karras"]),
        (&["diffusion.objective=flow"], &["--spacing", "flow"]),
        (&["diffusion.objective=flow", "diffusion.level_distribution=logit_normal:0:1"], &["--spacing", "flow"]),
        (&["diffusion.objective=flow", "diffusion.zero_terminal_snr=true"], &["--spacing", "flow"]),
        (&["diffusion.objective=v", "diffusion.level_distribution=log_normal"], &[]),
        (
            &["unet.learned_variance=true", "sampling.variance=learned", "diffusion.loss_weight=uniform"],
            &["--sampler", "ddpm"],
        ),
        (&["diffusion.importance_sampling=true", "diffusion.timesteps=4"], &[]),
        (&["diffusion.immiscible_noise=true"], &[]),
        (&["unet.self_condition=true"], &[]),
    ];
    for (settings, sampling) in targets {
        let workplace = trained(settings);
        workplace
            .run(&[&["sample", RUN, "--count", "2", "--steps", "3", "--out", "out"], sampling].concat())
            .succeeded();
        assert_eq!(png_size(&workplace.read("out/grid.png")), (56, 114), "{settings:?}");
    }
}

#[test]
fn keys_that_exclude_each_other_are_refused() {
    let workplace = Workplace::new();
    let refused = |settings: &[&str], words: &[&str]| {
        let set = settings.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>();
        let refused = workplace.run(&[&["train", "--dry-run"], &set[..]].concat()).refused(words);
        assert_eq!(refused.code, Some(2), "{refused}");
    };
    refused(
        &["diffusion.objective=flow", "diffusion.importance_sampling=true"],
        &["diffusion.importance_sampling = true with diffusion.level_distribution = flow"],
    );
    refused(&["diffusion.objective=edm", "unet.learned_variance=true"], &["unet.learned_variance = true with"]);
    refused(&["diffusion.objective=edm", "diffusion.zero_terminal_snr=true"], &["needs a finite sigma"]);
    refused(&["diffusion.objective=edm:0"], &["objective `edm:0`", "edm:SIGMA_DATA"]);
    refused(&["diffusion.level_distribution=normal"], &["distribution of noise levels `normal`", "log_normal"]);
    refused(&["diffusion.variational_weight=-1"], &["diffusion.variational_weight = -1"]);
    refused(&["training.post_hoc_ema.relative_widths=[0.5]"], &["relative_widths = 0.5", "0.005 to 0.28"]);
    refused(
        &["training.post_hoc_ema.relative_widths=[]", "training.post_hoc_ema.snapshot_every=1"],
        &["snapshot_every = 1"],
    );
    refused(&["diffusion.family=edm", "diffusion.sigma_max=0.001"], &["sigma_max"]);
}

#[test]
fn an_average_is_made_after_the_training() {
    let workplace = trained(&["training.post_hoc_ema.snapshot_every=2"]);
    let mut snapshots: Vec<String> = std::fs::read_dir(workplace.path(format!("{RUN}/averages")))
        .expect("snapshots")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    snapshots.sort();
    let expected = [2, 4, 6]
        .iter()
        .flat_map(|step| ["0.05", "0.1"].map(|width| format!("step-{step:07}-width-{width}.safetensors")));
    assert_eq!(snapshots, expected.collect::<Vec<_>>());

    // the average of a width that has snapshots is the snapshot
    let made = workplace.run(&["average", RUN, "--relative-width", "0.1", "--json"]).succeeded().json();
    assert_eq!(made["model"], format!("{RUN}/average-0.1.safetensors"));
    let close = |a: &str, b: &str| {
        let (a, b) = (workplace.read(format!("{RUN}/{a}")), workplace.read(format!("{RUN}/{b}")));
        assert_eq!(a.len(), b.len());
        let floats = |bytes: &[u8]| -> Vec<f32> {
            let tail = &bytes[bytes.len() - 400..];
            tail.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        floats(&a).iter().zip(floats(&b)).all(|(a, b)| (a - b).abs() < 1e-5)
    };
    assert!(close("average-0.1.safetensors", "averages/step-0000006-width-0.1.safetensors"));
    let wide = ["average", RUN, "--relative-width", "0.25", "--step", "4", "--out", "wide.safetensors"];
    workplace.run(&wide).succeeded();
    workplace.run(&["sample", "wide.safetensors", "--count", "1"]).succeeded();
    assert!(!close("../../wide.safetensors", "averages/step-0000006-width-0.1.safetensors"));

    workplace.run(&["average", RUN, "--relative-width", "0.5"]).refused(&["--relative-width = 0.5"]);
    workplace.run(&["average", RUN, "--relative-width", "0.1", "--step", "1"]).refused(&["none is from step 1"]);
    workplace.run(&["average", "nothing", "--relative-width", "0.1"]).refused(&["nothing/averages"]);
}

#[test]
fn a_classifier_is_trained_and_guides() {
    let workplace = trained(&["training.class_labels=false"]);
    let train = ["classifier", RUN, "--data", "mnist-5k", "--steps", "3", "--batch-size", "8", "--json"];
    let json = workplace.run(&train).succeeded().json();
    assert_eq!((json["classifier"].as_str(), json["classes"].as_u64()), (Some("classifier.safetensors"), Some(10)));
    let draw = |more: &[&str]| {
        let base = ["sample", RUN, "--count", "2", "--save", "npz", "--out", "out"];
        workplace.run(&[&base, more].concat()).succeeded();
        workplace.read("out/samples.npz")
    };
    // a model without classes is guided to one
    let (seven, three) = (
        draw(&["--classifier", "classifier.safetensors", "--class", "7", "--guidance", "50"]),
        draw(&["--classifier", "classifier.safetensors", "--class", "3", "--guidance", "50"]),
    );
    assert_ne!(seven, three);
    let none = draw(&["--classifier", "classifier.safetensors", "--class", "7", "--guidance", "0"]);
    assert_ne!(none, seven);

    let sample = |more: &[&str], words: &[&str]| {
        workplace.run(&[&["sample", RUN, "--count", "1"], more].concat()).refused(words);
    };
    sample(&["--classifier", "classifier.safetensors", "--class", "10"], &["0 to 9"]);
    sample(&["--classifier", &format!("{RUN}/model.safetensors")], &["diffuse-classifier"]);
    sample(&["--classifier", "classifier.safetensors", "--weaker", RUN], &["--weaker"]);
    workplace.train_tiny(&["--run", "other", "--set", "diffusion.family=linear"]).succeeded();
    let other = ["sample", "other", "--count", "1", "--classifier", "classifier.safetensors"];
    workplace.run(&other).refused(&["another schedule"]);
    workplace.run(&["classifier", RUN, "--data", "mnist-5k", "--steps", "0"]).refused(&["steps = 0"]);
}
