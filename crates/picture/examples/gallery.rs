//! Draws every kind of picture into a folder: `cargo run -p picture --example gallery -- FOLDER`.

use std::path::PathBuf;

use picture::{LineChart, Panels, Pixels, grid, labeled_grid, save_gif, save_png, strip};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: gallery FOLDER")?);

    // discs of growing size
    let disc = |radius: f64| {
        let values: Vec<f32> = (0..28 * 28)
            .map(|index| {
                let (row, column) = (f64::from(index / 28) - 13.5, f64::from(index % 28) - 13.5);
                ((radius - row.hypot(column)) as f32).clamp(-1.0, 1.0)
            })
            .collect();
        Pixels::from_chw(28, 28, 1, &values)
    };
    let discs: Vec<Pixels> = (0..30).map(|index| disc(f64::from(index) * 0.45)).collect::<Result<_, _>>()?;
    save_png(&grid(&discs, 8, 2, 2)?, folder.join("grid.png"))?;
    save_png(&strip(&discs[..10], 4, 2)?, folder.join("strip.png"))?;
    let names = ["zero", "T-shirt/top", "ankle boot"];
    save_png(&labeled_grid(&discs, 10, 2, 2, &names)?, folder.join("labeled.png"))?;
    save_gif(&discs, folder.join("chain.gif"), 5, 100)?;

    // a linear congruential generator, for lines that turn sharply
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let mut loss = |floor: f64, spread: f64| -> Vec<(f64, f64)> {
        let steps = (0..3000).map(f64::from);
        steps.map(|step| (step, (floor + 0.9 * (-step / 150.0).exp()) * (1.0 + spread * noise()))).collect()
    };
    let losses = LineChart::new("Loss while training", "step", "mean squared error")
        .with_series("each batch", loss(0.03, 0.6))
        .with_series("moving average", loss(0.03, 0.02))
        .with_series("held-out", loss(0.034, 0.1).into_iter().step_by(100))
        .with_log_y();
    losses.save_png(folder.join("loss.png"))?;
    losses.save_svg(folder.join("loss.svg"))?;

    let mut signal = LineChart::new("Signal left, ᾱ", "t", "alpha bar").with_size(560, 380);
    let mut beta = LineChart::new("Noise added per step, β", "t", "beta").with_size(560, 380).with_log_y();
    for power in [0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0] {
        let at = move |step: i32| (1.0 - (f64::from(step) / 999.0).powf(power)).max(0.0);
        let name = format!("1 - t^{power}");
        signal = signal.with_series(&name, (0..1000).map(|step| (f64::from(step), at(step))));
        beta = beta.with_series(&name, (1..1000).map(|step| (f64::from(step), 1.0 - at(step) / at(step - 1))));
    }
    let short = LineChart::new("One short line", "", "").with_size(560, 380).with_series("", [(0.0, -2e7), (3.0, 5e6)]);
    let panels = Panels { charts: vec![signal, beta, short], columns: 2 };
    panels.save_png(folder.join("panels.png"))?;
    panels.save_svg(folder.join("panels.svg"))?;
    Ok(())
}
