//! Line charts as SVG and PNG, alone or several in one picture.

use std::path::Path;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::text::{self, printable};
use crate::ticks::{Axis, Tick};
use crate::{PictureError, Pixels, to_png};

/// Pixels of a PNG per pixel of a chart's size, in each direction: text stays sharp on dense screens.
pub const PNG_DENSITY: u32 = 2;

/// The smallest size of one chart, in pixels.
const LEAST: (u32, u32) = (240, 180);
/// The largest area of a picture of charts, in pixels (before [`PNG_DENSITY`]).
const LARGEST_AREA: u32 = 1 << 22;
/// The drawing grid is this much finer than a pixel: the library has whole coordinates only.
const FINE: u32 = 4;

/// Okabe and Ito's colors, which color-blind people tell apart too, those of good contrast on white first.
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
const FAINT_INK: RGBColor = RGBColor(0x55, 0x55, 0x55);
const AXIS_LINE: RGBColor = RGBColor(0x88, 0x88, 0x88);
const GRID_LINE: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);
const MINOR_LINE: RGBColor = RGBColor(0xF1, 0xF1, 0xF1);

// Sizes in pixels.
const MARGIN: f64 = 14.0;
const TITLE_EM: f64 = 17.0;
const TEXT_EM: f64 = 13.0;
const TICK_EM: f64 = 12.0;
const LEGEND_LINE: f64 = 21.0;
const SWATCH: f64 = 24.0;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// What the legend calls it; an empty name is left out of the legend.
    pub name: String,
    /// The points `(x, y)` in the order in which the line connects them. A point that is not finite (or beyond 1e300, or
    /// at or below 0 on a logarithmic axis) is left out and leaves a gap.
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines: title, legend, thin grid, one line per series in colors that color-blind people tell apart.
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
    /// What the chart shows; may be empty.
    pub title: String,
    /// What the horizontal axis counts, with its unit; may be empty.
    pub x_label: String,
    /// What the vertical axis measures, with its unit; may be empty.
    pub y_label: String,
    /// The lines, at least one, each with at least one point to draw.
    pub series: Vec<Series>,
    /// Whether the vertical axis is logarithmic.
    pub log_y: bool,
    /// Width and height in pixels of the SVG; a PNG has [`PNG_DENSITY`] times as many. At least 240 x 180.
    pub size: (u32, u32),
}

impl Default for LineChart {
    /// A chart of 720 x 440 pixels without text or lines.
    fn default() -> Self {
        Self {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            series: vec![],
            log_y: false,
            size: (720, 440),
        }
    }
}

impl LineChart {
    /// A chart with these texts, no series yet, of 720 x 440 pixels.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), ..Self::default() }
    }

    /// The chart with one more line; see [`Series`].
    pub fn with_series(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.series.push(Series { name: name.into(), points: points.into_iter().collect() });
        self
    }

    /// The chart with a logarithmic vertical axis.
    pub fn with_log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// The chart in another size, in pixels; see [`LineChart::size`].
    pub fn with_size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// The chart as an SVG document; equal charts give equal text.
    ///
    /// # Errors
    /// No series, a series without a point to draw, or a size that is too small or too large.
    pub fn to_svg(&self) -> Result<String, PictureError> {
        panels_to_svg(std::slice::from_ref(self), 1)
    }

    /// The chart as an RGB picture, [`PNG_DENSITY`] times its size in each direction.
    ///
    /// # Errors
    /// As [`LineChart::to_svg`].
    pub fn to_pixels(&self) -> Result<Pixels, PictureError> {
        panels_to_pixels(std::slice::from_ref(self), 1)
    }

    /// Writes the chart to `path` as an SVG file, whole or not at all.
    ///
    /// # Errors
    /// As [`LineChart::to_svg`]; and where the file cannot be written ([`PictureError::File`], which names it).
    pub fn save_svg(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        Ok(files::write_atomically(path.as_ref(), self.to_svg()?.as_bytes())?)
    }

    /// Writes the chart to `path` as a PNG file, whole or not at all.
    ///
    /// # Errors
    /// As [`LineChart::save_svg`].
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        Ok(files::write_atomically(path.as_ref(), &to_png(&self.to_pixels()?)?)?)
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
    /// The charts as one SVG document; equal charts give equal text.
    ///
    /// # Errors
    /// No charts, `columns` of 0, or as [`LineChart::to_svg`] for any of the charts.
    pub fn to_svg(&self) -> Result<String, PictureError> {
        panels_to_svg(&self.charts, self.columns)
    }

    /// The charts as one RGB picture, [`PNG_DENSITY`] times their size in each direction.
    ///
    /// # Errors
    /// As [`Panels::to_svg`].
    pub fn to_pixels(&self) -> Result<Pixels, PictureError> {
        panels_to_pixels(&self.charts, self.columns)
    }

    /// Writes the charts to `path` as one SVG file, whole or not at all.
    ///
    /// # Errors
    /// As [`Panels::to_svg`]; and where the file cannot be written ([`PictureError::File`], which names it).
    pub fn save_svg(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        Ok(files::write_atomically(path.as_ref(), self.to_svg()?.as_bytes())?)
    }

    /// Writes the charts to `path` as one PNG file, whole or not at all.
    ///
    /// # Errors
    /// As [`Panels::save_svg`].
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        Ok(files::write_atomically(path.as_ref(), &to_png(&self.to_pixels()?)?)?)
    }
}

/// Points that a line connects without a gap.
type Run = Vec<(f64, f64)>;

/// The cells of a picture of charts.
struct Cells {
    columns: u32,
    /// Size of one cell, in pixels.
    cell: (u32, u32),
    /// Size of the picture, in pixels.
    size: (u32, u32),
}

impl Cells {
    fn of(charts: &[LineChart], columns: usize) -> Result<Self, PictureError> {
        let what = "charts";
        if charts.is_empty() {
            return Err(PictureError::Empty { what });
        }
        if columns == 0 {
            return Err(PictureError::Zero { what: "the number of columns" });
        }
        let mut cell = (0, 0);
        for chart in charts {
            let (width, height) = chart.size;
            if width < LEAST.0 || height < LEAST.1 {
                let (least_width, least_height) = LEAST;
                return Err(PictureError::TooSmall {
                    title: chart.title.clone(),
                    width,
                    height,
                    least_width,
                    least_height,
                });
            }
            cell = (cell.0.max(width), cell.1.max(height));
        }
        let columns = columns.min(charts.len());
        let rows = charts.len().div_ceil(columns);
        let side = |count: usize, pixels: u32| (pixels as usize).saturating_mul(count);
        let (width, height) = (side(columns, cell.0), side(rows, cell.1));
        if width.saturating_mul(height) > LARGEST_AREA as usize {
            return Err(PictureError::TooLarge { what: "the chart", width, height, limit: "2^22 in all" });
        }
        Ok(Self { columns: columns as u32, cell, size: (width as u32, height as u32) })
    }

    /// The top left corner of the cell of the chart `index`, in pixels.
    fn corner(&self, index: usize) -> (f64, f64) {
        let (row, column) = (index as u32 / self.columns, index as u32 % self.columns);
        (f64::from(column * self.cell.0), f64::from(row * self.cell.1))
    }
}

fn panels_to_svg(charts: &[LineChart], columns: usize) -> Result<String, PictureError> {
    let cells = Cells::of(charts, columns)?;
    let (width, height) = cells.size;
    let fine = (width * FINE, height * FINE);
    let mut drawn = String::new();
    draw(SVGBackend::with_string(&mut drawn, fine), Target::Svg, charts, &cells)?;
    // The library's first line opens the document in the fine grid's size; ours says the size in pixels.
    let Some((_, body)) = drawn.split_once('\n').filter(|(first, _)| first.starts_with("<svg ")) else {
        let reason = "the SVG does not start with its <svg> line".to_owned();
        return Err(PictureError::Draw { title: charts[0].title.clone(), reason });
    };
    Ok(format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" stroke-linejoin=\"round\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n{body}",
        fine.0, fine.1
    ))
}

fn panels_to_pixels(charts: &[LineChart], columns: usize) -> Result<Pixels, PictureError> {
    let cells = Cells::of(charts, columns)?;
    let fine = (cells.size.0 * FINE, cells.size.1 * FINE);
    let mut buffer = vec![255; fine.0 as usize * fine.1 as usize * 3];
    draw(BitMapBackend::with_buffer(&mut buffer, fine), Target::Bitmap, charts, &cells)?;
    let factor = (FINE / PNG_DENSITY) as usize;
    let averaged = text::average(&buffer, fine.0 as usize, fine.1 as usize, factor);
    let [height, width] = [cells.size.1, cells.size.0].map(|side| (side * PNG_DENSITY) as usize);
    Pixels::new(height, width, 3, averaged)
}

fn draw<Backend: DrawingBackend>(
    backend: Backend,
    target: Target,
    charts: &[LineChart],
    cells: &Cells,
) -> Result<(), PictureError> {
    let area = backend.into_drawing_area();
    let title = |index: usize| charts.get(index).map(|chart: &LineChart| chart.title.clone()).unwrap_or_default();
    area.fill(&WHITE).map_err(|error| PictureError::Draw { title: title(0), reason: error.to_string() })?;
    for (index, chart) in charts.iter().enumerate() {
        let canvas = Canvas { area: &area, target, origin: cells.corner(index) };
        let lines = chart.lines()?;
        chart
            .draw(&canvas, cells.cell, &lines)
            .map_err(|error| PictureError::Draw { title: title(index), reason: error.to_string() })?;
    }
    area.present().map_err(|error| PictureError::Draw { title: title(0), reason: error.to_string() })
}

impl LineChart {
    /// Per series the connected runs of points that can be drawn.
    fn lines(&self) -> Result<Vec<Vec<Run>>, PictureError> {
        if self.series.is_empty() {
            return Err(PictureError::Empty { what: "series" });
        }
        let drawable = |&(x, y): &(f64, f64)| x.abs() <= 1e300 && y.abs() <= 1e300 && (!self.log_y || y > 1e-300);
        self.series
            .iter()
            .map(|series| {
                let runs: Vec<Run> = series
                    .points
                    .split(|point| !drawable(point))
                    .filter(|run| !run.is_empty())
                    .map(<[(f64, f64)]>::to_vec)
                    .collect();
                if runs.is_empty() {
                    return Err(PictureError::NoPoints {
                        title: self.title.clone(),
                        series: series.name.clone(),
                        points: series.points.len(),
                        log_y: self.log_y,
                    });
                }
                Ok(runs)
            })
            .collect()
    }

    fn draw<Backend: DrawingBackend>(
        &self,
        canvas: &Canvas<'_, Backend>,
        (width, height): (u32, u32),
        lines: &[Vec<Run>],
    ) -> Drawn<Backend> {
        let (width, height) = (f64::from(width), f64::from(height));
        let range = |pick: fn(&(f64, f64)) -> f64| {
            lines
                .iter()
                .flatten()
                .flatten()
                .map(pick)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let ((x_low, x_high), (y_low, y_high)) = (range(|point| point.0), range(|point| point.1));
        let (x_axis, y_axis) =
            (Axis::around(x_low, x_high, false, false), Axis::around(y_low, y_high, self.log_y, true));

        // From the top: title, legend, plot, marks, label of the x axis.
        let mut top = MARGIN;
        if !self.title.is_empty() {
            top += TITLE_EM + 6.0;
        }
        let legend = self.legend(width - 2.0 * MARGIN);
        let legend_top = top;
        top += legend.iter().map(|entry| entry.line + 1).max().unwrap_or(0) as f64 * LEGEND_LINE + 6.0;
        let bottom = height - MARGIN - TICK_EM - 8.0 - if self.x_label.is_empty() { 0.0 } else { TEXT_EM + 7.0 };
        let y_ticks = y_axis.ticks(((bottom - top) / 55.0).clamp(2.0, 8.0) as usize);
        let y_text = y_ticks.iter().map(|tick| text::width(&tick.label, TICK_EM)).fold(0.0, f64::max);
        let left = MARGIN + if self.y_label.is_empty() { 0.0 } else { TEXT_EM + 10.0 } + y_text + 8.0;
        let x_ticks = x_axis.ticks(((width - left) / 90.0).clamp(2.0, 10.0) as usize);
        let overhang = x_ticks.last().map_or(0.0, |tick| text::width(&tick.label, TICK_EM) / 2.0);
        let right = width - MARGIN.max(overhang + 4.0);
        let frame = Frame { left, right, top, bottom, x_axis, y_axis };

        canvas.text(&self.title, (MARGIN, MARGIN + TITLE_EM * 0.8), TITLE_EM, INK, HPos::Left)?;
        for entry in &legend {
            let middle = legend_top + (entry.line as f64 + 0.5) * LEGEND_LINE;
            let style = Stroke::of_series(entry.series);
            let from = MARGIN + entry.left;
            canvas.line(&[(from, middle), (from + SWATCH, middle)], &style)?;
            let baseline = middle + TEXT_EM * text::CAPITAL / 2.0;
            canvas.text(&entry.name, (from + SWATCH + 7.0, baseline), TEXT_EM, INK, HPos::Left)?;
        }
        frame.draw(canvas, &x_ticks, &y_ticks)?;
        let x_middle = (left + right) / 2.0;
        canvas.text(&self.x_label, (x_middle, height - MARGIN), TEXT_EM, INK, HPos::Center)?;
        canvas.vertical_text(&self.y_label, (MARGIN + TEXT_EM * 0.8, (top + bottom) / 2.0), TEXT_EM, INK)?;
        for (index, runs) in lines.iter().enumerate() {
            for run in runs {
                let places: Vec<(f64, f64)> = run.iter().map(|&point| frame.place(point)).collect();
                canvas.line(&thinned(places), &Stroke::of_series(index))?;
            }
        }
        Ok(())
    }

    /// The named series, set in lines of at most `width` pixels.
    fn legend(&self, width: f64) -> Vec<LegendEntry> {
        let (mut line, mut left) = (0, 0.0);
        let mut entries = vec![];
        for (series, Series { name, .. }) in self.series.iter().enumerate().filter(|(_, one)| !one.name.is_empty()) {
            let name = printable(name);
            let needed = SWATCH + 7.0 + text::width(&name, TEXT_EM);
            if left > 0.0 && left + needed > width {
                (line, left) = (line + 1, 0.0);
            }
            entries.push(LegendEntry { series, name, line, left });
            left += needed + 22.0;
        }
        entries
    }
}

struct LegendEntry {
    series: usize,
    name: String,
    line: usize,
    /// Pixels from the left end of the line.
    left: f64,
}

/// The plot itself: where it stands (in pixels of the chart) and what its axes mean.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_axis: Axis,
    y_axis: Axis,
}

impl Frame {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = self.left + self.x_axis.place(x) * (self.right - self.left);
        (across, self.bottom - self.y_axis.place(y) * (self.bottom - self.top))
    }

    fn draw<Backend: DrawingBackend>(
        &self,
        canvas: &Canvas<'_, Backend>,
        x_ticks: &[Tick],
        y_ticks: &[Tick],
    ) -> Drawn<Backend> {
        let middle = TICK_EM * text::CAPITAL / 2.0;
        let color = |tick: &Tick| if tick.label.is_empty() { MINOR_LINE } else { GRID_LINE };
        for tick in y_ticks {
            let height = self.place((self.x_axis.low, tick.value)).1;
            canvas.line(&[(self.left, height), (self.right, height)], &Stroke::thin(color(tick)))?;
            canvas.text(&tick.label, (self.left - 7.0, height + middle), TICK_EM, FAINT_INK, HPos::Right)?;
        }
        for tick in x_ticks {
            let across = self.place((tick.value, self.y_axis.low)).0;
            canvas.line(&[(across, self.top), (across, self.bottom)], &Stroke::thin(color(tick)))?;
            canvas.line(&[(across, self.bottom), (across, self.bottom + 4.0)], &Stroke::thin(AXIS_LINE))?;
            let baseline = self.bottom + 8.0 + TICK_EM * text::CAPITAL;
            canvas.text(&tick.label, (across, baseline), TICK_EM, FAINT_INK, HPos::Center)?;
        }
        canvas.line(
            &[(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)],
            &Stroke::thin(AXIS_LINE),
        )
    }
}

/// The line without what cannot be seen: of neighbors in one column of the fine grid, the first, the last and the two
/// extremes are left. A run of a million steps draws as fast as one of a thousand.
fn thinned(places: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let column = |place: &(f64, f64)| (place.0 * f64::from(FINE)).round() as i64;
    let mut kept = Vec::with_capacity(places.len().min(16_384));
    for group in places.chunk_by(|one, next| column(one) == column(next)) {
        if group.len() <= 4 {
            kept.extend_from_slice(group);
            continue;
        }
        let by_height = |one: &usize, other: &usize| group[*one].1.total_cmp(&group[*other].1);
        let lowest = (0..group.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..group.len()).max_by(by_height).unwrap_or(0);
        let mut order = [0, lowest.min(highest), lowest.max(highest), group.len() - 1].to_vec();
        order.dedup();
        kept.extend(order.into_iter().map(|index| group[index]));
    }
    kept
}

/// How a line is drawn; lengths in pixels.
struct Stroke {
    color: RGBColor,
    width: f64,
    /// Length of dashes and of the gaps between them.
    dashes: Option<(f64, f64)>,
}

impl Stroke {
    fn thin(color: RGBColor) -> Self {
        Self { color, width: 1.0, dashes: None }
    }

    /// Each color once in full; then again dashed, then dotted.
    fn of_series(index: usize) -> Self {
        let dashes = match index / COLORS.len() {
            0 => None,
            1 => Some((8.0, 4.0)),
            _ => Some((2.0, 3.0)),
        };
        Self { color: COLORS[index % COLORS.len()], width: 2.0, dashes }
    }
}

/// Which back end is drawn to: they place text differently.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Svg,
    Bitmap,
}

type Drawn<Backend> = Result<(), DrawingAreaErrorKind<<Backend as DrawingBackend>::ErrorType>>;

/// A part of a picture, in pixels from its corner.
struct Canvas<'area, Backend: DrawingBackend> {
    area: &'area DrawingArea<Backend, Shift>,
    target: Target,
    /// The part's top left corner, in pixels.
    origin: (f64, f64),
}

impl<Backend: DrawingBackend> Canvas<'_, Backend> {
    /// A place in the fine grid.
    fn fine(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let fine = |value: f64| (value * f64::from(FINE)).round() as i32;
        (fine(self.origin.0 + x), fine(self.origin.1 + y))
    }

    /// A line through `places`, or a dot where they are a single place.
    fn line(&self, places: &[(f64, f64)], stroke: &Stroke) -> Drawn<Backend> {
        let width = (stroke.width * f64::from(FINE)).round() as u32;
        let style = ShapeStyle { color: stroke.color.to_rgba(), filled: true, stroke_width: width };
        let mut points: Vec<(i32, i32)> = places.iter().map(|&place| self.fine(place)).collect();
        points.dedup();
        if let [point] = points[..] {
            return self.area.draw(&Circle::new(point, width, style));
        }
        if let Some((dash, gap)) = stroke.dashes {
            let [dash, gap] = [dash, gap].map(|length| (length * f64::from(FINE)) as u32);
            return self.area.draw(&DashedPathElement::new(points, dash, gap, style));
        }
        if self.target == Target::Svg || stroke.width <= 1.0 {
            return self.area.draw(&PathElement::new(points, style));
        }
        // The library's joins of thick lines grow spikes at sharp turns: separate pieces with round joins do not.
        for pair in points.windows(2) {
            self.area.draw(&PathElement::new(pair.to_vec(), style))?;
        }
        for &point in &points[1..points.len() - 1] {
            self.area.draw(&Circle::new(point, width / 2, style))?;
        }
        Ok(())
    }

    /// Text whose baseline passes through `place`, at `em` pixels per em.
    fn text(&self, text: &str, place: (f64, f64), em: f64, color: RGBColor, side: HPos) -> Drawn<Backend> {
        let (size_per_em, baseline) = self.font_measures();
        let font = text::font(em * f64::from(FINE), size_per_em);
        let style = font.color(&color).pos(Pos::new(side, VPos::Top));
        self.area.draw_text(&printable(text), &style, self.fine((place.0, place.1 - baseline * em)))
    }

    /// Text that reads upwards, centered at `place`.
    fn vertical_text(&self, text: &str, place: (f64, f64), em: f64, color: RGBColor) -> Drawn<Backend> {
        let (size_per_em, baseline) = self.font_measures();
        let font = text::font(em * f64::from(FINE), size_per_em).transform(FontTransform::Rotate270);
        let style = font.color(&color).pos(Pos::new(HPos::Center, VPos::Top));
        self.area.draw_text(&printable(text), &style, self.fine((place.0 - baseline * em, place.1)))
    }

    /// The back end's font size per em, and how far below the anchor (in em) it puts the baseline.
    fn font_measures(&self) -> (f64, f64) {
        match self.target {
            Target::Svg => (text::SVG_SIZE_PER_EM, text::SVG_BASELINE),
            Target::Bitmap => (text::BITMAP_SIZE_PER_EM, text::BITMAP_BASELINE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The points of the first line in the color of series 0 which is not the legend's.
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
    fn values_stand_where_the_axes_say() {
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
        assert_eq!(svg.matches("<circle").count(), 1, "the lonely point is a dot");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn long_runs_are_thinned_but_keep_their_extremes() {
        let places: Vec<(f64, f64)> =
            (0..100_000).map(|index| (f64::from(index) / 200.0, if index == 77_777 { 9.0 } else { 1.0 })).collect();
        let kept = thinned(places.clone());
        assert!(kept.len() < 10_000, "{}", kept.len());
        assert!(kept.contains(&places[77_777]));
        assert_eq!((kept.first(), kept.last()), (places.first(), places.last()));
        assert!(kept.iter().zip(kept.iter().skip(1)).all(|(one, next)| one.0 <= next.0));
    }

    #[test]
    fn a_legend_wraps_and_many_series_differ() {
        let mut chart = LineChart::new("", "", "");
        for index in 0..16 {
            chart = chart.with_series(format!("series number {index}"), [(0.0, f64::from(index)), (1.0, 3.0)]);
        }
        let entries = chart.legend(600.0);
        assert_eq!(entries.len(), 16);
        assert!(entries.last().unwrap().line >= 3);
        assert!(entries.iter().all(|entry| entry.left + text::width(&entry.name, TEXT_EM) + SWATCH + 7.0 <= 600.0));
        let looks: Vec<String> =
            (0..16).map(Stroke::of_series).map(|stroke| format!("{:?} {:?}", stroke.color, stroke.dashes)).collect();
        let distinct: std::collections::BTreeSet<&String> = looks.iter().collect();
        assert_eq!(distinct.len(), 16);
        chart.to_pixels().unwrap();
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
    fn what_cannot_be_drawn_is_an_error() {
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
}
