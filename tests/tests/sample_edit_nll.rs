//! Sampling, guidance, editing, likelihood, evaluation and plans from the command line, with a network of six training steps.

use end_to_end::{Workplace, png_size};

fn trained() -> Workplace {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--set", "sampling.count=1"]).succeeded();
    workplace
}

const RUN: &str = "runs/digits-1";

#[test]
fn every_sampler_draws() {
    let workplace = trained();
    for sampler in [
        "ddpm",
        "ddim",
        "euler",
        "euler_ancestral",
        "heun",
        "edm",
        "dpmpp_2m",
        "dpmpp_3m",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
        "unipc",
        "deis",
        "pndm",
    ] {
        for spacing in ["uniform", "karras"] {
            let arguments = [
                "sample",
                RUN,
                "--count",
                "1",
                "--sampler",
                sampler,
                "--spacing",
                spacing,
                "--steps",
                "4",
                "--out",
                "out",
            ];
            workplace.run(&arguments).succeeded();
            assert_eq!(png_size(&workplace.read("out/grid.png")).1, 56, "{sampler}");
        }
    }
    let refused =
        workplace.run(&["sample", RUN, "--sampler", "dmp"]).refused(&["`dmp` is not a sampler: use one of ddpm, ddim"]);
    assert_eq!(refused.code, Some(2));
}

#[test]
fn options_of_guidance_change_the_images() {
    let workplace = trained();
    let draw = |more: &[&str]| {
        let mut arguments = vec!["sample", RUN, "--class", "7", "--count", "1", "--save", "npz", "--out", "out"];
        arguments.extend(more);
        workplace.run(&arguments).succeeded();
        workplace.read("out/samples.npz")
    };
    let plain = draw(&["--guidance", "4"]);
    assert_eq!(plain, draw(&["--guidance", "4", "--guidance-interval", "0", "1e9", "--guidance-rescale", "0"]));
    for other in [
        &["--guidance", "1"][..],
        &["--guidance", "4", "--guidance-interval", "0", "1"],
        &["--guidance", "4", "--guidance-rescale", "1"],
        &["--guidance", "0.5", "--cfg-plus-plus"],
        &["--guidance", "4", "--weaker", RUN],
    ] {
        assert_ne!(plain, draw(other), "{other:?}");
    }
    // a model that is its own weaker model does not guide
    assert_eq!(draw(&["--guidance", "1"]), draw(&["--guidance", "1", "--weaker", RUN]));
    for (more, word) in [
        (&["--guidance-rescale", "2"][..], "guidance_rescale = 2"),
        (&["--guidance-interval", "3", "1"], "guidance_interval"),
        (&["--cfg-plus-plus", "--sampler", "unipc"], "needs the sampler ddim"),
    ] {
        let mut arguments = vec!["sample", RUN, "--class", "1", "--guidance", "2"];
        arguments.extend(more);
        let refused = workplace.run(&arguments).refused(&[word]);
        assert_eq!(refused.code, Some(1));
    }
}

#[test]
fn images_are_edited() {
    let workplace = trained();
    let size = |file: &str| png_size(&workplace.read(file));
    workplace
        .run(&["edit", "interpolate", RUN, "mnist-5k#3", "mnist-5k#8", "--count", "3", "--out", "a.png"])
        .succeeded();
    assert_eq!(size("a.png"), (5 * 56 + 4 * 2, 56));
    let mixed =
        ["edit", "interpolate", RUN, "mnist-5k#3", "mnist-5k#8", "--count", "3", "--at", "0.5", "--out", "b.png"];
    workplace.run(&mixed).succeeded();
    assert_ne!(workplace.read("a.png"), workplace.read("b.png"));
    let finished =
        workplace.run(&["edit", "vary", RUN, "a.png", "--count", "2", "--json", "--out", "c.png"]).succeeded();
    assert_eq!((finished.json()["images"].as_u64(), finished.json()["grid"].as_str()), (Some(3), Some("c.png")));
    let filled =
        ["edit", "inpaint", RUN, "mnist-5k#3", "--box", "0", "0", "14", "28", "--count", "2", "--out", "d.png"];
    workplace.run(&filled).succeeded();
    assert_eq!(size("d.png").1, 56);
    // a mask that does not exist
    let mask = ["edit", "inpaint", RUN, "mnist-5k#3", "--mask", "black.png", "--count", "1", "--out", "e.png"];
    let refused = workplace.run(&mask).refused(&["black.png"]);
    assert_eq!(refused.code, Some(1));

    for (arguments, code, word) in [
        (&["edit", "vary", RUN, "nothing"][..], 1, "`nothing` is neither"),
        (&["edit", "vary", RUN, "mnist-5k#5000"], 1, "the images 0 to 4999"),
        (&["edit", "vary", RUN, "mnist-5k#x"], 2, "number of an image"),
        (&["edit", "vary", RUN, "mnist-5k#1", "--strength", "2"], 1, "strength = 2"),
        (&["edit", "vary", RUN, "mnist-5k#1", "--class", "10"], 1, "0 to 9"),
        (&["edit", "vary", RUN, "mnist-5k#1", "--count", "0"], 2, "0 is not in 1..=4096"),
        (&["edit", "inpaint", RUN, "mnist-5k#1"], 2, "--box"),
        (&["edit", "inpaint", RUN, "mnist-5k#1", "--box", "20", "0", "9", "9"], 2, "28x28"),
        (&["edit", "inpaint", RUN, "mnist-5k#1", "--box", "0", "0", "9", "9", "--jump-length", "0"], 1, "jump_length"),
    ] {
        let refused = workplace.run(arguments).refused(&[word]);
        assert_eq!(refused.code, Some(code));
    }
}

#[test]
fn likelihoods_are_printed() {
    let workplace = trained();
    let base = ["nll", RUN, "--data", "mnist-5k", "--train-split", "--count", "2"];
    let bound = workplace.run(&base).succeeded();
    for word in ["bits/dim", "prior", "decoder", "t    1..", "..999"] {
        assert!(bound.output.contains(word), "`{word}`: {bound}");
    }
    let json = workplace.run(&[&base[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((json["count"].as_u64(), json["terms"].as_array().map(Vec::len)), (Some(2), Some(1000)));
    let sum: f64 = json["terms"].as_array().into_iter().flatten().filter_map(|term| term.as_f64()).sum();
    let total = json["prior"].as_f64().map(|prior| prior + sum);
    assert!((total.expect("a prior") - json["bits_per_dimension"].as_f64().expect("bits")).abs() < 1e-9);
    // one image has no standard error
    let one = workplace.run(&["nll", RUN, "--data", "mnist-5k", "--train-split", "--count", "1"]).succeeded();
    assert!(one.output.contains("(bound, 1 image of mnist-5k)") && !one.output.contains("NaN"), "{one}");
    let flow =
        workplace.run(&[&base[..], &["--json", "--method", "flow", "--tolerance", "0.1"]].concat()).succeeded().json();
    assert!(flow["nfe"].as_u64().is_some_and(|count| count > 6), "{flow}");

    let refused = workplace.run(&["nll", RUN, "--data", "mnist-5k"]).refused(&["--train-split"]);
    assert_eq!(refused.code, Some(1));
    workplace
        .run(&["nll", RUN, "--data", "mnist-5k", "--count", "0"])
        .refused(&["'--count <COUNT>'", "0 is not in 1.."]);
}

#[test]
fn samples_are_evaluated() {
    let workplace = trained();
    let base =
        ["evaluate", RUN, "--data", "mnist-5k", "--references", "120", "--count", "20", "--classifier-epochs", "1"];
    let json = workplace.run(&[&base[..], &["--json"]].concat()).succeeded().json();
    assert_eq!(
        (json["count"].as_u64(), json["references"].as_u64(), json["classes"].as_u64()),
        (Some(20), Some(120), Some(10))
    );
    // noise of an untrained network is no copy
    assert_eq!(json["near_copies"].as_f64(), Some(0.0));
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {json}"));
    assert!(number("frechet_distance") > number("frechet_distance_of_references"), "{json}");
    assert!(number("nearest_distance") > number("nearest_distance_of_references"), "{json}");
    for share in ["precision", "recall", "coverage", "called_as_asked"] {
        assert!((0.0..=1.0).contains(&number(share)), "{share}: {json}");
    }
    let text = workplace.run(&base).succeeded().output;
    // what few reference images cannot tell
    let few = [
        "evaluate",
        RUN,
        "--data",
        "mnist-5k",
        "--references",
        "20",
        "--count",
        "20",
        "--classifier-epochs",
        "1",
        "--json",
    ];
    let few = workplace.run(&few).succeeded().json();
    assert!(few["near_copies"].is_null() && few["frechet_distance_of_references"].is_null(), "{few}");
    for word in ["extractor", "20, against 120 images of mnist-5k", "kernel", "near-copies"] {
        assert!(text.contains(word), "`{word}`: {text}");
    }
    workplace
        .run(&["evaluate", RUN, "--data", "mnist-5k", "--count", "1"])
        .refused(&["'--count <COUNT>'", "1 is not in 4.."]);

    // the classifier of the reference is cached: the same figures without training it again
    let again = workplace.run(&[&base[..], &["--json"]].concat()).succeeded();
    assert_eq!(again.json(), json);
    assert!(!again.error.contains("training the classifier"), "{again}");
    let anew = workplace.run(&[&base[..], &["--json", "--no-cache"]].concat()).succeeded();
    assert!(anew.error.contains("training the classifier") && anew.json() == json, "{anew}");
    let kept = std::fs::read_dir(workplace.path(".cache/diffuse/evaluation")).expect("a cache");
    for file in kept.map(|entry| entry.expect("an entry").path()) {
        workplace.write(&file, b"broken");
    }
    let mended = workplace.run(&[&base[..], &["--json"]].concat()).succeeded();
    assert!(mended.error.contains("it is made anew") && mended.json() == json, "{mended}");

    workplace.write("weights.safetensors", b"none");
    let inception = ["--inception", "weights.safetensors"];
    workplace.run(&[&base[..], &inception].concat()).refused(&["weights.safetensors", "pytorch-fid"]);
    workplace.run(&["sample", RUN, "--count", "12", "--save", "png", "--out", "unlabeled"]).succeeded();
    // images without labels are compared in features of their rotations
    let unlabeled = ["evaluate", RUN, "--data", "unlabeled", "--count", "5", "--json"];
    let finished = workplace.run(&unlabeled).succeeded();
    let json = finished.json();
    assert!(json["extractor"].as_str().is_some_and(|text| text.contains("classifier of rotations (RotNet)")), "{json}");
    assert!(json["frechet_distance"].is_f64() && json.get("class_entropy").is_none(), "{json}");
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(2), "{json}");
    assert!(finished.error.contains("warning: 5 samples are not more than the 128 features"), "{finished}");
}

#[test]
fn a_plan_is_made_and_stored() {
    let workplace = trained();
    let before = workplace.read(format!("{RUN}/model.safetensors"));
    let hasty = ["plan", RUN, "--budget", "1ms", "--count", "9"];
    workplace.run(&hasty).refused(&["nothing draws 9 images within 0.001 s"]);
    workplace.run(&["plan", RUN, "--budget", "soon"]).refused(&["write 2s or 500ms"]);
    assert_eq!(before, workplace.read(format!("{RUN}/model.safetensors")));

    let plan = ["plan", RUN, "--budget", "60s", "--count", "1", "--reference-steps", "60", "--json"];
    let stored = workplace.run(&plan).succeeded().json();
    let front = stored["front"].as_array().expect("a front").clone();
    let errors: Vec<f64> = front.iter().filter_map(|trial| trial["error"].as_f64()).collect();
    assert!(errors.len() == front.len() && errors.len() > 2, "{stored}");
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
    assert_eq!(stored["chosen"], front[front.len() - 1]);

    assert_ne!(before, workplace.read(format!("{RUN}/model.safetensors")));
    assert!(workplace.text(format!("{RUN}/plan.svg")).starts_with("<svg"));
    let header = String::from_utf8_lossy(&workplace.read(format!("{RUN}/model.safetensors"))[..4000]).into_owned();
    let name = stored["chosen"]["sampler"].as_str().expect("a sampler");
    assert!(header.contains(name), "{name}: {header}");
    workplace.run(&["sample", RUN, "--count", "1"]).succeeded();
}

/// Digits of the model in the program, judged by the class of the nearest of 5,000 real ones: no training was needed.
#[test]
fn the_model_in_the_program_draws_digits() {
    let place = Workplace::new();
    place.run(&["sample", "digits", "--count", "50", "--save", "grid,npz"]).succeeded();
    let open = |path: &str| data::open(path, &data::LoadOptions::default()).expect("images").images;
    let drawn = open(&place.path("samples/samples.npz").display().to_string());
    let real = open("mnist-5k");
    let distance =
        |a: &[u8], b: &[u8]| -> i64 { a.iter().zip(b).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum() };
    let labels = real.labels().expect("classes");
    let nearest = |image: usize| {
        (0..real.len()).min_by_key(|other| distance(drawn.image(image), real.image(*other))).map(|at| labels[at])
    };
    let asked = drawn.labels().expect("the classes asked for");
    let right = (0..50).filter(|image| nearest(*image) == Some(asked[*image])).count();
    assert!(right >= 45, "{right} of 50 digits look like the class that was asked for");
    // a folder of that name goes first
    std::fs::create_dir(place.path("digits")).expect("a folder");
    place.run(&["sample", "digits"]).refused(&["digits has no model.safetensors"]);
    std::fs::remove_dir(place.path("digits")).expect("removed");
    // nothing can be stored in the program
    place.run(&["plan", "digits", "--budget", "9s", "--count", "1"]).refused(&["in the program"]);
}
