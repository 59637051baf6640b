//! Line charts as SVG and PNG, alone or several in one picture.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::data::float::pretty_print_float;
use plotters::element::{DashedPathElement, DynElement, IntoDynElement};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::text::{self, printable};
use crate::{PictureError, Pixels, save_png};

/// Pixels of a PNG per pixel of a chart's size, in each direction: text stays sharp on dense screens.
pub const PNG_DENSITY: u32 = 2;

/// The smallest size of a chart, in pixels.
pub(crate) const MIN_SIZE: (u32, u32) = (240, 180);
/// The largest area of a picture of charts, in pixels (before [`PNG_DENSITY`]).
const MAX_AREA: usize = 1 << 22;
/// Charts are drawn this many times larger than they are shown, because plotters rounds coordinates to whole pixels.
const FINE: u32 = 4;

/// The colors of Okabe and Ito, which color-blind people can tell apart; those of good contrast on white come first.
const COLORS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2), // blue
    RGBColor(0xD5, 0x5E, 0x00), // vermillion
    RGBColor(0x00, 0x9E, 0x73), // bluish green
    RGBColor(0xCC, 0x79, 0xA7), // reddish purple
    RGBColor(0xE6, 0x9F, 0x00), // orange
    RGBColor(0x56, 0xB4, 0xE9), // sky blue
    RGBColor(0x00, 0x00, 0x00), // black
];
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);
const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);
const MINOR_GRID: RGBColor = RGBColor(0xF1, 0xF1, 0xF1);

// sizes on the fine grid
const MARGIN: u32 = 14 * FINE;
const TITLE_EM: u32 = 17 * FINE;
const TEXT_EM: u32 = 13 * FINE;
const TICK_EM: u32 = 12 * FINE;
const TICK: u32 = 4 * FINE;
const SWATCH: u32 = 24 * FINE;
const SPACE: u32 = 7 * FINE;
const LEGEND_LINE: u32 = 21 * FINE;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The name in the legend; an empty one is left out.
    pub name: String,
    /// The points `(x, y)` in the order in which the line connects them. A point that is not finite (or beyond 1e300, or
    /// at or below 0 on a logarithmic axis) leaves a gap.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines, with a title, a legend and a thin grid.
///
/// ```
/// use picture::LineChart;
///
/// let chart = LineChart::new("Loss", "step", "mean squared error")
///     .with_series("training", (1..=500).map(|step| (step as f64, 1.0 / step as f64)))
///     .with_log_y();
/// let svg = chart.to_svg()?;
/// assert!(svg.starts_with("<svg") && svg.contains("training"));
/// # Ok::<(), picture::PictureError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// The title; may be empty.
    pub title: String,
    /// The quantity on the horizontal axis, with its unit; may be empty.
    pub x_label: String,
    /// The quantity on the vertical axis, with its unit; may be empty.
    pub y_label: String,
    /// The lines, at least one, each with at least one point that can be drawn.
    pub series: Vec<Series>,
    /// Whether the vertical axis is logarithmic.
    pub log_y: bool,
    /// Width and height in pixels of the SVG; a PNG has [`PNG_DENSITY`] times as many. At least 240 x 180.
    pub size: (u32, u32),
}

impl LineChart {
    /// A chart of 720 x 440 pixels without lines.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        let (title, x_label, y_label) = (title.into(), x_label.into(), y_label.into());
        Self { title, x_label, y_label, series: vec![], log_y: false, size: (720, 440) }
    }

    /// Adds a line; see [`Series`].
    pub fn with_series(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.series.push(Series { name: name.into(), points: points.into_iter().collect() });
        self
    }

    /// Makes the vertical axis logarithmic.
    pub fn with_log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Sets the size, in pixels; see [`LineChart::size`].
    pub fn with_size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// Draws the chart as an SVG document; equal charts give equal text.
    ///
    /// # Errors
    /// No series, a series without a point that can be drawn, or a size that is too small or too large.
    pub fn to_svg(&self) -> Result<String, PictureError> {
        self.alone().to_svg()
    }

    /// Draws the chart as an RGB picture, [`PNG_DENSITY`] times its size in each direction.
    ///
    /// # Errors
    /// As [`LineChart::to_svg`].
    pub fn to_pixels(&self) -> Result<Pixels, PictureError> {
        self.alone().to_pixels()
    }

    /// Writes the chart to `path` as an SVG file, whole or not at all.
    ///
    /// # Errors
    /// As [`LineChart::to_svg`]; and [`PictureError::File`] where the file cannot be written.
    pub fn save_svg(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        self.alone().save_svg(path)
    }

    /// Writes the chart to `path` as a PNG file, whole or not at all.
    ///
    /// # Errors
    /// As [`LineChart::save_svg`].
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        self.alone().save_png(path)
    }

    fn alone(&self) -> Panels {
        Panels { charts: vec![self.clone()], columns: 1 }
    }
}

/// Several charts in one picture, in rows from left to right, each in a cell of the largest chart's size.
///
/// ```
/// use picture::{LineChart, Panels};
///
/// let betas = LineChart::new("betas", "t", "").with_series("linear", [(0.0, 1e-4), (999.0, 0.02)]);
/// let signal = LineChart::new("alpha bar", "t", "").with_series("linear", [(0.0, 1.0), (999.0, 4e-5)]);
/// let panels = Panels { charts: vec![betas, signal], columns: 2 };
/// assert_eq!(panels.to_pixels()?.width(), 2 * 2 * 720);
/// # Ok::<(), picture::PictureError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Panels {
    /// The charts, at least one.
    pub charts: Vec<LineChart>,
    /// Charts per row, at least 1.
    pub columns: usize,
}

impl Panels {
    /// Draws the charts as one SVG document; equal charts give equal text.
    ///
    /// # Errors
    /// No charts, `columns` of 0, or as [`LineChart::to_svg`] for any of the charts.
    pub fn to_svg(&self) -> Result<String, PictureError> {
        let (width, height) = self.size()?;
        let fine = (width * FINE, height * FINE);
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, fine), false)?;
        let drawn = format!("width=\"{}\" height=\"{}\"", fine.0, fine.1);
        let shown = format!("width=\"{width}\" height=\"{height}\" stroke-linejoin=\"round\"");
        Ok(svg.replacen(&drawn, &shown, 1))
    }

    /// Draws the charts as one RGB picture, [`PNG_DENSITY`] times their size in each direction.
    ///
    /// # Errors
    /// As [`Panels::to_svg`].
    pub fn to_pixels(&self) -> Result<Pixels, PictureError> {
        let (width, height) = self.size()?;
        let fine = (width * FINE, height * FINE);
        let mut buffer = vec![255; fine.0 as usize * fine.1 as usize * 3];
        self.draw(BitMapBackend::with_buffer(&mut buffer, fine), true)?;
        let averaged = text::average(&buffer, fine.0 as usize, fine.1 as usize, (FINE / PNG_DENSITY) as usize);
        Pixels::new((height * PNG_DENSITY) as usize, (width * PNG_DENSITY) as usize, 3, averaged)
    }

    /// Writes the charts to `path` as one SVG file, whole or not at all.
    ///
    /// # Errors
    /// As [`Panels::to_svg`]; and [`PictureError::File`] where the file cannot be written.
    pub fn save_svg(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        Ok(files::write_atomically(path.as_ref(), self.to_svg()?.as_bytes())?)
    }

    /// Writes the charts to `path` as one PNG file, whole or not at all.
    ///
    /// # Errors
    /// As [`Panels::save_svg`].
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        save_png(&self.to_pixels()?, path)
    }

    /// The numbers of rows and columns.
    fn cells(&self) -> Result<(usize, usize), PictureError> {
        if self.charts.is_empty() {
            return Err(PictureError::Empty { what: "charts" });
        }
        if self.columns == 0 {
            return Err(PictureError::Zero { what: "the number of columns" });
        }
        let columns = self.columns.min(self.charts.len());
        Ok((self.charts.len().div_ceil(columns), columns))
    }

    /// Width and height of the picture, in pixels.
    fn size(&self) -> Result<(u32, u32), PictureError> {
        let (rows, columns) = self.cells()?;
        self.charts.iter().try_for_each(LineChart::check)?;
        let side = |count: usize, pixels: fn(&LineChart) -> u32| {
            self.charts.iter().map(pixels).max().map_or(0, |largest| (largest as usize).saturating_mul(count))
        };
        let (width, height) = (side(columns, |chart| chart.size.0), side(rows, |chart| chart.size.1));
        if width.saturating_mul(height) > MAX_AREA {
            return Err(PictureError::TooLarge { what: "the chart", width, height, limit: "2^22 in all" });
        }
        Ok((width as u32, height as u32))
    }

    fn draw<DB: DrawingBackend>(&self, backend: DB, bitmap: bool) -> Result<(), PictureError> {
        let cells = self.cells()?;
        let area = backend.into_drawing_area();
        let draw = || {
            area.fill(&WHITE)?;
            for (chart, cell) in self.charts.iter().zip(area.split_evenly(cells)) {
                chart.draw(&cell, bitmap)?;
            }
            area.present()
        };
        draw().map_err(|error| PictureError::Draw { reason: error.to_string() })
    }
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl LineChart {
    fn check(&self) -> Result<(), PictureError> {
        let (title, (width, height)) = (self.title.clone(), self.size);
        if width < MIN_SIZE.0 || height < MIN_SIZE.1 {
            return Err(PictureError::TooSmall { title, width, height });
        }
        if self.series.is_empty() {
            return Err(PictureError::Empty { what: "series" });
        }
        if let Some(series) = self.series.iter().find(|series| series.runs(self.log_y).next().is_none()) {
            let (series, points) = (series.name.clone(), series.points.len());
            return Err(PictureError::NoPoints { title, series, points, log_y: self.log_y });
        }
        Ok(())
    }

    fn draw<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, bitmap: bool) -> Drawn<DB> {
        let extent = |pick: fn(&(f64, f64)) -> f64| {
            let values = self.series.iter().flat_map(|series| series.runs(self.log_y)).flatten().map(pick);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (x, y) = (widened(extent(|point| point.0)), extent(|point| point.1));
        if self.log_y {
            self.draw_on(area, bitmap, x.0..x.1, decades(y).log_scale())
        } else {
            self.draw_on(area, bitmap, x.0..x.1, padded(y))
        }
    }

    /// Draws title, axes, lines and legend; `bitmap` tells which backend it is.
    fn draw_on<DB: DrawingBackend, Y: AsRangedCoord<Value = f64>>(
        &self,
        area: &DrawingArea<DB, Shift>,
        bitmap: bool,
        x: Range<f64>,
        y: Y,
    ) -> Drawn<DB>
    where
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let (width, height) = area.dim_in_pixel();
        let legend = self.legend_width().min(width / 2);
        let mut builder = ChartBuilder::on(area);
        if !self.title.is_empty() {
            builder.caption(printable(&self.title), ink(TITLE_EM));
        }
        let label_area = |label: &str, size: u32| size + if label.is_empty() { 0 } else { TEXT_EM + SPACE };
        let mut chart = builder
            .margin(MARGIN)
            .margin_right(MARGIN + legend)
            .x_label_area_size(label_area(&self.x_label, 2 * TICK + TICK_EM))
            .y_label_area_size(label_area(&self.y_label, 2 * TICK + 4 * TICK_EM))
            .build_cartesian_2d(x.clone(), y)?;
        chart
            .configure_mesh()
            .x_desc(printable(&self.x_label))
            .y_desc(printable(&self.y_label))
            .axis_desc_style(ink(TEXT_EM))
            .label_style(ink(TICK_EM))
            .x_labels((width / FINE / 90).clamp(3, 10) as usize)
            .y_labels((height / FINE / 50).clamp(3, 8) as usize)
            .x_label_formatter(&|value| tick_label(*value))
            .y_label_formatter(&|value| tick_label(*value))
            .y_label_offset(lowered(bitmap))
            .x_max_light_lines(1)
            .y_max_light_lines(if self.log_y { 10 } else { 1 })
            .axis_style(AXIS.stroke_width(FINE))
            .bold_line_style(GRID.stroke_width(FINE))
            .light_line_style(MINOR_GRID.stroke_width(FINE))
            .set_all_tick_mark_size(TICK)
            .draw()?;
        for (index, series) in self.series.iter().enumerate() {
            let column = |place: f64| ((place - x.start) / (x.end - x.start) * f64::from(width)) as i64;
            chart.draw_series(series.runs(self.log_y).flat_map(|run| line(thinned(run, column), index, bitmap)))?;
        }
        let top = chart.plotting_area().get_base_pixel().1 - area.get_base_pixel().1;
        self.draw_legend(area, bitmap, ((width - MARGIN - legend + SPACE) as i32, top))
    }

    fn legend_width(&self) -> u32 {
        let widths = self.series.iter().map(|series| text::width(&series.name, f64::from(TEXT_EM)));
        let widest = widths.fold(0.0, f64::max).ceil() as u32;
        if widest == 0 { 0 } else { SPACE + SWATCH + SPACE + widest }
    }

    /// Draws the legend to the right of the plot; that of plotters would cover curves.
    fn draw_legend<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        bitmap: bool,
        (left, mut middle): (i32, i32),
    ) -> Drawn<DB> {
        let style = ink(TEXT_EM).pos(Pos::new(HPos::Left, VPos::Center));
        let right = left + SWATCH as i32;
        for (index, series) in self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
            middle += LEGEND_LINE as i32;
            for element in line(vec![(left, middle), (right, middle)], index, bitmap) {
                area.draw(&element)?;
            }
            area.draw_text(&printable(&series.name), &style, (right + SPACE as i32, middle + lowered(bitmap)))?;
        }
        Ok(())
    }
}

fn ink(em: u32) -> TextStyle<'static> {
    text::font(f64::from(em)).color(&INK)
}

/// The distance by which text moves down to be centered: plotters' bitmap backend puts it too high.
fn lowered(bitmap: bool) -> i32 {
    if bitmap { (TEXT_EM / 5) as i32 } else { 0 }
}

impl Series {
    /// The points that can be drawn, as runs without a gap.
    fn runs(&self, log_y: bool) -> impl Iterator<Item = &[(f64, f64)]> {
        let drawable = move |&(x, y): &(f64, f64)| x.abs() <= 1e300 && y.abs() <= 1e300 && (!log_y || y > 1e-300);
        self.points.split(move |point| !drawable(point)).filter(|run| !run.is_empty())
    }
}

/// The range, or a wider one around it if its ends (nearly) coincide.
fn widened((low, high): (f64, f64)) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if high - low > 1e-9 * size && high - low > 1e-250 {
        return (low, high);
    }
    let air = if size < 1e-250 { 1.0 } else { size * 0.1 };
    (low - air, high + air)
}

/// The range of a linear axis: the values with a margin of 4 %, from zero where that wastes less than a third.
fn padded((low, high): (f64, f64)) -> Range<f64> {
    let (low, high) = widened((if low >= 0.0 && low <= 0.3 * high { 0.0 } else { low }, high));
    let air = 0.04 * (high - low);
    (if low == 0.0 { 0.0 } else { low - air })..high + air
}

/// The range of a logarithmic axis: it starts at a power of ten and holds the next one.
fn decades((low, high): (f64, f64)) -> Range<f64> {
    let start = 10f64.powf(low.log10().floor());
    start * (1.0 - 1e-9)..(1.1 * high).max(10.0 * start) * (1.0 + 1e-9)
}

/// The shortest form of a value, such as `0.001`, `2500` or `1e-5`; large and small ones have an exponent.
fn tick_label(value: f64) -> String {
    pretty_print_float(value, !(9.99e-5..9.99e5).contains(&value.abs()))
}

/// The run with at most four points per `column`: the first, the last and the two extremes, which look the same. A run of
/// a million steps draws as fast as one of a thousand.
fn thinned(run: &[(f64, f64)], column: impl Fn(f64) -> i64) -> Vec<(f64, f64)> {
    let groups = run.chunk_by(|one, next| column(one.0) == column(next.0));
    let kept = groups.flat_map(|group| {
        let by_height = |one: &usize, other: &usize| group[*one].1.total_cmp(&group[*other].1);
        let lowest = (0..group.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..group.len()).max_by(by_height).unwrap_or(0);
        let mut kept = vec![0, lowest.min(highest), lowest.max(highest), group.len() - 1];
        kept.dedup();
        kept.into_iter().map(|index| group[index])
    });
    kept.collect()
}

/// The color of the series `index`, and its lengths of dashes and gaps: every color is solid first, then dashed, then dotted.
fn look(index: usize) -> (RGBColor, Option<(u32, u32)>) {
    let dashes = match index / COLORS.len() {
        0 => None,
        1 => Some((8 * FINE, 4 * FINE)),
        _ => Some((2 * FINE, 3 * FINE)),
    };
    (COLORS[index % COLORS.len()], dashes)
}

/// The elements of a line through the points, as the series `index` looks; a single point is a dot.
///
/// Plotters' bitmap backend draws spikes where a thick line turns sharply. For it the line is cut into its pieces, with a
/// disc at each joint.
fn line<DB: DrawingBackend, Point: Clone + 'static>(
    points: Vec<Point>,
    index: usize,
    bitmap: bool,
) -> Vec<DynElement<'static, DB, Point>> {
    let (color, dashes) = look(index);
    let style = ShapeStyle { color: color.into(), filled: true, stroke_width: 2 * FINE };
    let path = |points: &[Point]| PathElement::new(points, style).into_dyn();
    let disc = |point: &Point, radius: u32| Circle::new(point.clone(), radius, style).into_dyn();
    match (&points[..], dashes) {
        ([point], _) => vec![disc(point, 2 * FINE)],
        (_, Some((dash, gap))) => vec![DashedPathElement::new(points, dash, gap, style).into_dyn()],
        (_, None) if bitmap => {
            points.windows(2).map(path).chain(points.iter().map(|point| disc(point, FINE))).collect()
        }
        (_, None) => vec![path(&points)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chart() -> LineChart {
        LineChart::new("Title & more", "step", "loss <mean>")
            .with_series("training", (0..200).map(|step| (f64::from(step), 1.0 / f64::from(step + 1))))
            .with_series("held-out", (0..200).map(|step| (f64::from(step), 1.1 / f64::from(step + 1))))
    }

    #[test]
    fn an_svg_names_everything_and_is_deterministic() {
        let svg = chart().to_svg().unwrap();
        for text in ["Title &amp; more", "step", "loss &lt;mean&gt;", "training", "held-out", "width=\"720\"", "150"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(svg.contains("#0072B2") && svg.contains("#D55E00"));
        assert!(svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg, chart().to_svg().unwrap());
        assert_ne!(svg, chart().with_log_y().to_svg().unwrap());
    }

    #[test]
    fn the_picture_has_the_lines_colors_and_the_promised_size() {
        let picture = chart().with_size(400, 300).to_pixels().unwrap();
        assert_eq!((picture.height(), picture.width(), picture.channels()), (600, 800, 3));
        for color in &COLORS[..2] {
            let count = picture.data().chunks(3).filter(|pixel| *pixel == [color.0, color.1, color.2]).count();
            assert!(count > 200, "{count} pixels of {color:?}");
        }
        let third = [COLORS[2].0, COLORS[2].1, COLORS[2].2];
        assert!(!picture.data().chunks(3).any(|pixel| pixel == third));
        assert_eq!(picture.pixel(0, 0), Some(&[255, 255, 255][..]));
        assert_eq!(picture, chart().with_size(400, 300).to_pixels().unwrap());
    }

    /// The lines in the color of series 0, the legend's last.
    fn polylines(svg: &str) -> Vec<Vec<(i32, i32)>> {
        svg.lines()
            .filter(|line| line.starts_with("<polyline") && line.contains("#0072B2"))
            .map(|line| {
                let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
                let number = |text: &str| text.parse().unwrap();
                points
                    .split_whitespace()
                    .map(|pair| pair.split_once(',').map(|(x, y)| (number(x), number(y))).unwrap())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let line = |log_y: bool| {
            let mut chart =
                LineChart::new("", "", "").with_series("", [(0.0, 0.01), (1.0, 0.1), (3.0, 1.0), (4.0, 10.0)]);
            chart.log_y = log_y;
            polylines(&chart.to_svg().unwrap()).remove(0)
        };
        let straight = line(false);
        let near = |one: i32, other: i32| (one - other).abs() <= 4;
        assert!(near((straight[3].0 - straight[0].0) / 4, straight[1].0 - straight[0].0));
        assert!(near(straight[0].1 - straight[2].1, (straight[0].1 - straight[3].1) / 10));
        assert!(straight[3].1 < straight[0].1, "larger values are higher");
        let logarithmic = line(true);
        assert!(near(logarithmic[0].1 - logarithmic[1].1, logarithmic[2].1 - logarithmic[3].1));
    }

    #[test]
    fn points_that_are_not_finite_leave_a_gap() {
        let points =
            [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, f64::INFINITY), (5.0, 1.0), (6.0, 2.0)];
        let svg = LineChart::new("", "", "").with_series("", points).to_svg().unwrap();
        let lines = polylines(&svg);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(svg.matches("<circle").count(), 1, "a point between gaps is a dot");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn long_runs_are_thinned_but_keep_their_extremes() {
        let places: Vec<(f64, f64)> =
            (0..100_000).map(|index| (f64::from(index) / 200.0, if index == 77_777 { 9.0 } else { 1.0 })).collect();
        let kept = thinned(&places, |x| (4.0 * x).round() as i64);
        assert!(kept.len() < 10_000, "{}", kept.len());
        assert!(kept.contains(&places[77_777]));
        assert_eq!((kept.first(), kept.last()), (places.first(), places.last()));
        assert!(kept.iter().zip(kept.iter().skip(1)).all(|(one, next)| one.0 <= next.0));
    }

    #[test]
    fn many_series_differ_and_the_legend_names_them_all() {
        let mut chart = LineChart::new("", "", "");
        for index in 0..16 {
            chart = chart.with_series(format!("series number {index}"), [(0.0, f64::from(index)), (1.0, 3.0)]);
        }
        let looks: std::collections::BTreeSet<String> = (0..16).map(|index| format!("{:?}", look(index))).collect();
        assert_eq!(looks.len(), 16);
        let svg = chart.to_svg().unwrap();
        assert!((0..16).all(|index| svg.contains(&format!("series number {index}\n"))));
        chart.to_pixels().unwrap();
    }

    #[test]
    fn the_legend_stands_beside_the_plot() {
        let chart = chart().with_size(240, 180);
        let named = polylines(&chart.to_svg().unwrap());
        let (line, swatch) = (&named[0], &named[1]);
        assert!(line.iter().all(|place| place.0 < swatch[0].0), "{line:?} {swatch:?}");
        let long = LineChart::new("", "", "")
            .with_size(240, 180)
            .with_series("long name ".repeat(99), [(0.0, 1.0), (1.0, 2.0)]);
        assert!(polylines(&long.to_svg().unwrap())[0].iter().all(|place| place.0 < 4 * 120));
    }

    #[test]
    fn panels_hold_every_chart() {
        let panels = Panels { charts: vec![chart(), chart().with_size(300, 200), chart()], columns: 2 };
        let picture = panels.to_pixels().unwrap();
        assert_eq!((picture.height(), picture.width()), (4 * 440, 4 * 720));
        let svg = panels.to_svg().unwrap();
        assert_eq!(svg.matches("held-out").count(), 3);
        assert!(svg.contains("width=\"1440\" height=\"880\""));
    }

    #[test]
    fn files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let (svg, png) = (folder.path().join("chart.svg"), folder.path().join("chart.png"));
        chart().save_svg(&svg).unwrap();
        chart().save_png(&png).unwrap();
        assert_eq!(std::fs::read_to_string(&svg).unwrap(), chart().to_svg().unwrap());
        assert_eq!(image::open(&png).unwrap().into_rgb8().into_raw(), chart().to_pixels().unwrap().into_data());
        let message = chart().save_svg(folder.path().join("no/chart.svg")).unwrap_err().to_string();
        assert!(message.contains("no/chart.svg"), "{message}");
    }

    #[test]
    fn charts_that_cannot_be_drawn_are_errors() {
        let empty = LineChart::new("Empty", "", "");
        assert!(empty.to_svg().unwrap_err().to_string().contains("no series"));
        let message = empty.clone().with_series("loss", [(0.0, f64::NAN)]).to_svg().unwrap_err().to_string();
        assert!(
            message.contains("\"loss\"") && message.contains("\"Empty\"") && message.contains("1 given"),
            "{message}"
        );
        assert!(!message.contains("logarithmic"), "{message}");
        let message = empty.clone().with_series("loss", [(0.0, 0.0)]).with_log_y().to_svg().unwrap_err().to_string();
        assert!(message.contains("at or below 0"), "{message}");
        assert!(chart().with_size(100, 100).to_svg().unwrap_err().to_string().contains("at least 240 x 180"));
        assert!(matches!(chart().with_size(u32::MAX, u32::MAX).to_svg(), Err(PictureError::TooLarge { .. })));
        assert!(matches!(Panels { charts: vec![], columns: 1 }.to_svg(), Err(PictureError::Empty { .. })));
        assert!(matches!(Panels { charts: vec![chart()], columns: 0 }.to_pixels(), Err(PictureError::Zero { .. })));
    }

    #[test]
    fn axes_start_at_zero_or_a_power_of_ten_or_have_air() {
        assert_eq!(padded((0.1, 10.0)), 0.0..10.4);
        let far = padded((90.0, 100.0));
        assert!((far.start - 89.6).abs() < 1e-9 && (far.end - 100.4).abs() < 1e-9);
        let zero = padded((0.0, 0.0));
        assert!(zero.start < 0.0 && zero.end > 0.0);
        assert_eq!(widened((3.0, 7.0)), (3.0, 7.0));
        let one = widened((5.0, 5.0));
        assert!(one.0 < 5.0 && one.1 > 5.0);
        let near = |range: Range<f64>, low: f64, high: f64| {
            (range.start / low - 1.0).abs() < 1e-6 && (range.end / high - 1.0).abs() < 1e-6
        };
        assert!(near(decades((0.02, 1.0)), 0.01, 1.1));
        assert!(near(decades((0.02, 0.03)), 0.01, 0.1));
    }

    #[test]
    fn labels_of_ticks_are_short() {
        let cases = [
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (-2.5, "-2.5"),
            (12_000.0, "12000"),
            (500_000.0, "500000"),
            (1e6, "1e6"),
            (-1.5e7, "-1.5e7"),
            (1e-4, "0.0001"),
            (10f64.powf(-5.0), "1e-5"),
            (2e-30, "2e-30"),
        ];
        for (value, label) in cases {
            assert_eq!(tick_label(value), label);
        }
    }

    /// The texts of the SVG that are numbers, in the order in which they are drawn: those of y, then those of x.
    fn ticks(chart: &LineChart) -> Vec<f64> {
        chart.to_svg().unwrap().lines().filter_map(|line| line.parse().ok()).collect()
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        let chart =
            |low: f64, high: f64| LineChart::new("", "", "").with_series("", [(0.0, low), (0.1, high)]).with_log_y();
        assert_eq!(ticks(&chart(1e-5, 1.0))[..6], [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0]);
        assert_eq!(ticks(&chart(0.02, 0.03))[..2], [0.01, 0.1]);
    }

    #[test]
    fn extreme_values_are_drawn() {
        for points in [
            vec![(0.0, 0.0)],
            vec![(5.0, 1e300), (6.0, -1e300)],
            vec![(0.0, 1e-300), (1e-300, 3e-300)],
            vec![(1e18, 1.0), (1e18 + 256.0, 1.0 + 1e-15)],
        ] {
            LineChart::new("", "", "").with_series("", points.clone()).to_pixels().unwrap();
            LineChart::new("", "", "").with_series("", points).to_svg().unwrap();
        }
        let svg = LineChart::new("a\u{0}b\nc", "", "").with_series("x\u{1}", [(0.0, 1.0)]).to_svg().unwrap();
        assert!(svg.contains("a b c") && !svg.contains('\u{0}') && !svg.contains('\u{1}'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Axes hold their values, and have a sensible number of different ticks.
        #[test]
        fn any_range_is_drawn(
            start in prop_oneof![-1e300..1e300f64, -10.0..10.0f64, Just(0.0)],
            length in prop_oneof![0.0..1e300f64, 0.0..1e-12f64, Just(0.0)],
        ) {
            let end = (start + length).min(1e300);
            let range = padded((start, end));
            prop_assert!(range.start <= start && range.end >= end && range.start < range.end, "{range:?}");
            let chart = LineChart::new("", "", "").with_series("", [(start, start), (end, end)]);
            let count = ticks(&chart).len();
            prop_assert!((2..=20).contains(&count), "{count} ticks of {range:?}");
        }

        #[test]
        fn any_logarithmic_range_is_drawn(low in -290.0..290.0f64, length in prop_oneof![0.0..0.5f64, 0.0..8.0f64]) {
            let (low, high) = (10f64.powf(low), 10f64.powf(low + length));
            let range = decades((low, high));
            prop_assert!(range.start <= low && range.end >= high && range.start > 0.0, "{range:?}");
            LineChart::new("", "", "").with_series("", [(0.0, low), (1.0, high)]).with_log_y().to_svg().unwrap();
        }
    }
}
