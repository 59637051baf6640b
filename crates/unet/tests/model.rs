//! Sizes, names and options of the network.

use burn::{
    module::Module,
    tensor::{Device, Distribution, Tensor},
};
use unet::{AttentionKind, Condition, StateError, Unet, UnetConfig, UnetError};

fn small() -> UnetConfig {
    UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }
}

fn run(config: &UnetConfig, image: [usize; 2], condition: Condition) -> Tensor<4> {
    let device = Device::flex();
    let unet = config.init(&device).expect("a possible configuration");
    let x = Tensor::<4>::random([2, config.channels, image[0], image[1]], Distribution::Default, &device);
    unet.forward(x, Tensor::<1>::from_floats([0.0, 999.0], &device), condition)
}

#[test]
fn the_article_s_network_has_its_parameters() {
    let unet = UnetConfig::default().init(&Device::flex()).expect("the default");
    assert_eq!(unet.num_params(), 35_711_491);
}

#[test]
fn every_option_runs_and_keeps_the_shape() {
    let full = AttentionKind::Full;
    for config in [
        UnetConfig { learned_sinusoidal_cond: true, ..small() },
        UnetConfig { random_fourier_features: true, ..small() },
        UnetConfig { attention: vec![AttentionKind::Off, AttentionKind::Off], ..small() },
        UnetConfig { attention: vec![full, full], ..small() },
        UnetConfig { init_dim: Some(12), channels: 5, ..small() },
        UnetConfig { patch_size: 2, self_condition: true, ..small() },
        UnetConfig { classes: 10, dim_mults: vec![1], ..small() },
    ] {
        assert_eq!(run(&config, [8, 12], Condition::default()).dims(), [2, config.channels, 8, 12], "{config:?}");
    }
    let config = UnetConfig { learned_variance: true, channels: 3, ..small() };
    assert_eq!(run(&config, [8, 8], Condition::default()).dims(), [2, 6, 8, 8]);
}

#[test]
fn random_fourier_frequencies_do_not_train_and_learned_ones_do() {
    let device = Device::flex().autodiff();
    for (random, expected) in [(true, false), (false, true)] {
        let config = UnetConfig { random_fourier_features: random, learned_sinusoidal_cond: !random, ..small() };
        let unet = config
            .init(&device)
            .expect("a possible configuration")
            .initialize(|i, out| out.fill(0.01 * i as f32 + 0.1), |_, out| out.fill(0.7));
        let names = unet.parameter_names();
        assert!(names.contains(&"time_mlp.0.weights".to_owned()));
        let t = Tensor::<1>::from_floats([10.0], &device);
        let x = Tensor::<4>::ones([1, 1, 8, 8], &device);
        let loss = unet.forward(x, t, Condition::default()).powi_scalar(2).mean();
        assert_eq!(has_gradient(&unet, "time_mlp.0.weights", loss), expected);
    }
}

fn has_gradient(unet: &Unet, wanted: &str, loss: Tensor<1>) -> bool {
    struct Find<'a> {
        path: Vec<String>,
        wanted: &'a str,
        gradients: burn::tensor::Gradients,
        found: bool,
    }
    impl burn::module::ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if unet::state_dict_name(&self.path) == self.wanted {
                self.found = param.val().grad(&self.gradients).is_some();
            }
        }
    }
    let mut find = Find { path: Vec::new(), wanted, gradients: loss.backward(), found: false };
    unet.visit(&mut find);
    find.found
}

#[test]
fn an_impossible_configuration_is_refused_with_its_key() {
    let device = Device::flex();
    let fails = |config: UnetConfig| config.init(&device).expect_err("impossible").to_string();
    assert!(fails(UnetConfig { dim: 7, ..small() }).contains("unet.dim = 7"));
    assert!(fails(UnetConfig { dim_mults: vec![], ..small() }).contains("unet.dim_mults = 0"));
    assert!(fails(UnetConfig { dropout: 1.0, ..small() }).contains("unet.dropout = 1"));
    assert!(fails(UnetConfig { channels: usize::MAX, ..small() }).contains("unet.channels"));
    assert!(fails(UnetConfig { attention: vec![AttentionKind::Off], ..small() }).contains("1 entries"));
    let error = UnetConfig::default().check_image_size(28, 28).expect_err("28 is not divisible by 8");
    assert!(matches!(error, UnetError::NotDivisible { factor: 8, next_height: 32, .. }));
    assert!(error.to_string().contains("32x32"));
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let device = Device::flex();
    let unet = small().init(&device).expect("a possible configuration");
    let state = unet.state_dict();
    let find = |name: &str| state.iter().find(|(other, _)| other == name).map(|(_, data)| data.clone());
    let missing = unet.clone().load_state_dict(|name| find(name).filter(|_| name != "final_conv.bias"));
    assert!(matches!(missing, Err(StateError::Missing { name, .. }) if name == "final_conv.bias"));
    let wider = UnetConfig { dim: 10, ..small() }.init(&device).expect("a possible configuration");
    let error = wider.load_state_dict(find).expect_err("other shapes").to_string();
    assert!(error.contains("init_conv.weight") && error.contains("[8, 1, 7, 7]"), "{error}");
}

#[test]
fn initial_weights_depend_on_the_random_numbers_alone() {
    let device = Device::flex();
    let make = || {
        small().init(&device).expect("a possible configuration").initialize(
            |i, out| out.iter_mut().enumerate().for_each(|(j, v)| *v = (i as f32 + j as f32).sin()),
            |i, out| out.iter_mut().enumerate().for_each(|(j, v)| *v = ((i * 31 + j as u64 * 7) % 100) as f32 / 100.0),
        )
    };
    let (one, two) = (make().state_dict(), make().state_dict());
    assert_eq!(one, two);
    for (name, data) in one {
        let values: Vec<f32> = data.try_to_vec().expect("f32");
        if name.ends_with(".g") {
            assert!(values.iter().all(|v| *v == 1.0));
        }
        if name == "init_conv.weight" || name == "init_conv.bias" {
            assert!(values.iter().all(|v| v.abs() <= 1.0 / 7.0), "{name} is within 1 / sqrt(49)");
        }
    }
}

#[test]
fn parameters_are_counted_without_building_the_network() {
    use burn::module::Module;
    let base = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 3, ..UnetConfig::default() };
    for config in [
        UnetConfig::default(),
        base.clone(),
        UnetConfig { dim_mults: vec![1], classes: 10, patch_size: 2, ..base.clone() },
        UnetConfig { self_condition: true, learned_variance: true, init_dim: Some(12), ..base.clone() },
        UnetConfig { learned_sinusoidal_cond: true, attention_heads: 2, attention_head_dim: 6, ..base.clone() },
        UnetConfig {
            random_fourier_features: true,
            attention: vec![AttentionKind::Off, AttentionKind::Linear],
            ..base
        },
    ] {
        let unet = config.init(&Device::flex()).expect("a possible network");
        assert_eq!(config.parameters(), unet.num_params() as u128, "{config:?}");
    }
    // lucidrains' Unet(64), 3 channels
    assert_eq!(UnetConfig::default().parameters(), 35_711_491);
    // no memory is allocated
    let absurd = UnetConfig { dim: 65_536, dim_mults: vec![1; 16], ..UnetConfig::default() };
    assert!(absurd.parameters() > 1 << 40);
}
